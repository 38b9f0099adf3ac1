"""The page: a tab for each thing to do, and how it is served."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import Route

from acebert.space.gradio_compat import name_sessions, open_no_address
from acebert.space.guard import WAITING, Guard
from acebert.space.rendering import STATIC, render
from acebert.space.sessions import LIMITS
from acebert.space.shop import Shop
from acebert.space.tabs.compare import CompareTab
from acebert.space.tabs.embedding_map import EmbeddingMapTab
from acebert.space.tabs.own_catalog import OwnCatalogTab
from acebert.space.tabs.search import SearchTab
from acebert.space.uploads.limits import MB


def build_page(shop: Shop, examples: Sequence[str]) -> gr.Blocks:
    """The page over a shop, with queries to start from."""
    # After every event Gradio sums up all events so far, for a page that `launch` leaves out: most of a search's time.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    with gr.Blocks(title="ACE-BERT product search", analytics_enabled=False) as page:
        masthead = render("masthead", count=f"{len(shop.catalog):,}")
        gr.HTML(masthead, elem_id="masthead", apply_default_css=False)
        with gr.Tab("Search", elem_id="shop"):
            SearchTab(shop, examples).lay_out()
        with gr.Tab("Your own catalogue"):
            OwnCatalogTab(shop).lay_out()
        with gr.Tab("Side by side"):
            CompareTab(shop).lay_out()
        with gr.Tab("The common space"):
            EmbeddingMapTab(shop).lay_out()
    return page


def launch(page: gr.Blocks, shop: Shop, **kwargs: Any) -> tuple:
    """Serves the page with its own fonts and styles, so that the browser asks no other host; returns `gr.launch`'s.

    With the `mcp` package installed, agents can call the endpoints too.
    """
    open_no_address()
    # Closed, for calls that go by the queue's side go by its limits' side, too.
    page.queue(max_size=WAITING, api_open=False)
    name_sessions(page)
    upload_bytes = max(LIMITS.table_bytes, LIMITS.zip_bytes)
    # The theme's own fonts are a service's; style.css asks for the system's instead.
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=("sans-serif",), font_mono=("monospace",))
    return page.launch(
        theme=theme,
        css_paths=sorted(STATIC.glob("*.css")),
        footer_links=[],
        enable_monitoring=False,
        show_error=False,  # an error that isn't written for the user stays in the log
        max_file_size=upload_bytes,
        ssr_mode=False,
        mcp_server=find_spec("mcp") is not None,
        app_kwargs={
            "routes": [Route("/photo", shop.serve_photo)],
            # The form around a file takes some bytes, too.
            "middleware": [Middleware(Guard, upload_bytes=upload_bytes + MB)],
        },
        **kwargs,
    )
