"""Where the Space reaches into Gradio beyond its documented interface, all in one place.

Each function says what Gradio 6.31 lacks and when it can go. Links are to that release's source or to the discussion.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils


async def _refuse_address(*_: Any, **__: Any) -> NoReturn:
    raise gr.Error("No web address is opened here: upload the file itself.", print_exception=False)


def open_no_address() -> None:
    """Makes a file that is given by its web address an error.

    Gradio downloads such a file from any public host (https://github.com/gradio-app/gradio/pull/13596 and, for
    components, `async_ssrf_protected_download` in
    https://github.com/gradio-app/gradio/blob/gradio@6.31.0/gradio/processing_utils.py), without a limit on its size,
    and has no setting against it. Can go once it has one.

    Raises:
        RuntimeError: for a release of Gradio in which that function is missing.
    """
    if not hasattr(processing_utils, "async_ssrf_protected_download"):
        raise RuntimeError("This release of Gradio fetches files by another function: install the pinned one.")
    processing_utils.async_ssrf_protected_download = _refuse_address


def name_sessions(page: gr.Blocks) -> None:
    """Gives an event with an empty session name a session of its own. To be called after `page.queue`.

    Gradio does so, too, but then looks for the event under the empty name (`Queue.push` in
    https://github.com/gradio-app/gradio/blob/gradio@6.31.0/gradio/queueing.py): the event stays in the queue for good,
    and once the queue is full everyone is refused. No report of it was found upstream.
    """
    push = page._queue.push

    async def push_named(body: Any, request: Any, username: str | None) -> Any:
        body.session_hash = body.session_hash or None
        return await push(body=body, request=request, username=username)

    page._queue.push = push_named


def on_unload(function: Callable[[gr.Request], None]) -> None:
    """`Blocks.unload` of the page that is being laid out, for a tab, which is not handed the page.

    `gr.on` takes no such trigger (https://github.com/gradio-app/gradio/pull/7829 made it a method of the page alone),
    and `gr.context` isn't documented.
    """
    gr.context.Context.root_block.unload(function)


def replace_preprocess(component: gr.components.Component, function: Callable[[Any], Any]) -> None:
    """Has `function` read what a browser sends to a component, in place of the component's own reading.

    The documented way is a subclass, for which Gradio writes a stub file beside the module
    (https://github.com/gradio-app/gradio/blob/gradio@6.31.0/gradio/component_meta.py), so the code's folder would have
    to be writable.
    """
    component.preprocess = function


def describe_as_object(component: gr.JSON, description: str) -> None:
    """Declares a JSON component's value to be an object in the API's schema.

    The schema that Gradio makes of any JSON has no type
    (https://github.com/gradio-app/gradio/blob/gradio@6.31.0/gradio/components/json_component.py), which MCP clients
    refuse.
    """
    component.api_info = lambda: {"type": "object", "description": description}
