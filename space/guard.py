"""What the server turns away before the page's own code sees it, and how long it keeps what was uploaded.

Gradio 6 reads a request of any size, fetches any public web address that it is given in a file's place and passes on
what it finds there, without limits on either, and offers routes that this page has no use for.
"""

import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path

from gradio.utils import get_upload_folder
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acebert.space.uploads.limits import MB

REQUEST_BYTES = 1 * MB  # of a request that uploads nothing: a query, filters, the names of columns
FOLDER_BYTES = 4096 * MB  # of all that is uploaded and not yet removed, by everyone
FOLDER_FILES = 20_000
KEPT_SECONDS = 60 * 60
SWEEP_SECONDS = 10 * 60
WAITING = 64  # events in the queue: at 20 ms for a search, a second or two
UPLOAD = re.compile(r"/gradio_api/upload/?")
# A proxy for web addresses, links that write the page's state to the disk, recordings that start ffmpeg, methods of
# components: https://github.com/gradio-app/gradio/blob/gradio@6.31.0/gradio/routes.py
UNUSED = re.compile(
    r"/gradio_api/(file=https?:|proxy=|deep_link|process_recording|component_server|stream/|vibe-|run-history)",
    re.IGNORECASE,
)


class Guard:
    """ASGI middleware that refuses requests that are too large or for a route that the page doesn't use.

    Args:
        app: what answers the others.
        upload_bytes: of one request that uploads files.
        folder_bytes, folder_files: of everyone's uploads together, those that are still coming in included.
    """

    def __init__(
        self, app: ASGIApp, upload_bytes: int, folder_bytes: int = FOLDER_BYTES, folder_files: int = FOLDER_FILES
    ) -> None:
        self.app, self.upload_bytes = app, upload_bytes
        self.folder_bytes, self.folder_files = folder_bytes, folder_files
        self._coming = 0  # bytes of the uploads that are being received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if UNUSED.match(scope["path"]):
            await PlainTextResponse("There is no such page.", 404)(scope, receive, send)
            return
        uploads = bool(UPLOAD.fullmatch(scope["path"]))
        limit = self.upload_bytes if uploads else REQUEST_BYTES
        declared = Headers(scope=scope).get("content-length", "")
        size = int(declared) if declared.isdecimal() else limit
        if size > limit:
            await PlainTextResponse(f"A request may have up to {limit // MB} MB.", 413)(scope, receive, send)
            return
        if not uploads:
            await self.app(scope, _counted(receive, limit), send)
            return
        # Counted before the others get their turn: this one's own bytes are among what is coming.
        self._coming += size
        try:
            files, held = await run_in_threadpool(measure, Path(get_upload_folder()))
            if files >= self.folder_files or held + self._coming > self.folder_bytes:
                text = "More is uploaded now than fits: come back in an hour."
                await PlainTextResponse(text, 503, {"Retry-After": str(KEPT_SECONDS)})(scope, receive, send)
                return
            await self.app(scope, _counted(receive, limit), send)
        finally:
            self._coming -= size


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive` for a body whose length need not be declared, and might be declared wrongly."""
    received = 0

    async def receive_within() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"A request may have up to {limit // MB} MB.")
        return message

    return receive_within


def measure(folder: Path) -> tuple[int, int]:
    """Number of a folder's files, and their bytes."""
    sizes = [size for _, size, _ in _files(folder)]
    return len(sizes), sum(sizes)


def sweep(folder: Path, seconds: float = KEPT_SECONDS) -> None:
    """Removes files that are older, those of broken-off uploads too."""
    oldest = time.time() - seconds
    for path, _, modified in _files(folder):
        if modified < oldest:
            remove_upload(path)


def remove_upload(path: Path) -> None:
    """Removes a file that was uploaded, and its folder. Anything that lies elsewhere is left alone."""
    # Either may lead through a link, as /tmp does on macOS. The file itself may be one, which goes and not its target.
    folder, place = Path(get_upload_folder()).resolve(), path.parent.resolve()
    if place.is_relative_to(folder):
        (place / path.name).unlink(missing_ok=True)
        if place != folder:
            with suppress(OSError):  # it holds other files, or another thread was quicker
                place.rmdir()


def _files(folder: Path) -> list[tuple[Path, int, float]]:
    """Each file's path, size and time of change. Files come and go meanwhile."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            found.append((path, status.st_size, status.st_mtime))
    return found


def keep_sweeping(folder: Path) -> None:
    """Sweeps from now on, as long as the process lives.

    Gradio's own `Blocks(delete_cache=)` removes the files that it lists: those of finished uploads and those that
    components made. What a connection that broke off left in the folder is on no list of it
    (`delete_files_created_by_app` and `upload_fn` in
    https://github.com/gradio-app/gradio/blob/gradio@6.31.0/gradio/route_utils.py), and would fill the disk.
    """

    def run() -> None:
        while True:
            sweep(folder)
            time.sleep(SWEEP_SECONDS)

    threading.Thread(target=run, name="sweep", daemon=True).start()
