"""The Space against strangers: what it turns away, what it keeps to itself, and what it removes."""

import base64
import html
import io
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import gradio
import httpx
import numpy as np
import pytest
from helpers import WORDS, draw, product_rows
from PIL import Image as PILImage
from space_shop import NASTY, make_shop
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from transformers import BertTokenizer

from acebert.configuration_acebert import AceBertConfig
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.processing_acebert import AceBertProcessor
from acebert.space.filter_slots import CHOICE_SLOTS, DATE_SLOTS, RANGE_SLOTS
from acebert.space.guard import UNUSED, WAITING, Guard, measure, remove_upload, sweep
from acebert.space.page import build_page, launch
from acebert.space.search_panel import read_photo

ROOT = Path(__file__).parents[2]
JSON = {"content-type": "application/json"}
OF_A_FILE = {"meta": {"_type": "gradio.FileData"}}
numbers = itertools.count()


@pytest.fixture(scope="module")
def space(tiny_config: Callable[..., AceBertConfig], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The whole page, served, with its uploads in a folder of their own."""
    folder = tmp_path_factory.mktemp("space")
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    processor = AceBertProcessor(AceBertImageProcessor(patch_size=8, max_num_patches=12), tokenizer)
    rows = product_rows(12)
    rows[0]["title"] = NASTY
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        shop = make_shop(tiny_config(), processor, folder, rows)
        page = build_page(shop, ("red shirt",))
        _, url, _ = launch(page, shop, prevent_thread_lock=True, quiet=True)
        with httpx.Client(base_url=url, timeout=60) as http:
            yield SimpleNamespace(http=http, page=page, shop=shop, folder=folder, uploads=folder / "uploads")
        page.close()


def call(space: Any, name: str, data: list[Any], session: str = "", **event: Any) -> Any:
    """What an endpoint, or a function of the page by its name, answers: its output, or its error's text."""
    session = session or f"stranger{next(numbers)}"
    function = next(fn for fn in space.page.fns.values() if fn.api_name == name)
    body = {"fn_index": function._id, "session_hash": session, "data": data, **event}
    joined = space.http.post("gradio_api/queue/join", content=json.dumps(body), headers=JSON)
    assert joined.status_code == 200, joined.text
    with space.http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line else {}
            if message.get("msg") == "process_completed":
                tell_nothing(space, json.dumps(message))
                output = message["output"]
                return output["data"] if message["success"] else output["error"]
    raise AssertionError("the stream ended without an answer")


def inputs_of(space: Any, name: str) -> int:
    return len(next(fn for fn in space.page.fns.values() if fn.api_name == name).inputs)


def tell_nothing(space: Any, text: str) -> None:
    """Nothing in an answer may tell where things lie on the server, or what its code is."""
    text = text.replace(str(space.uploads), "")  # by this name Gradio's own browser code asks for an upload
    for secret in (str(space.folder), str(ROOT), str(Path.home()) + "/", tempfile.gettempdir(), "site-packages"):
        assert secret not in text
    assert "Traceback" not in text


def upload(space: Any, content: bytes, name: str = "photo.png") -> dict[str, Any]:
    """An uploaded file, as requests name it."""
    (path,) = space.http.post("gradio_api/upload", files={"files": (name, content)}).json()
    return {"path": path, "orig_name": name, **OF_A_FILE}


def encoded(photo: PILImage.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, form, **options)
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------------------------------------
# How much comes in
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Behind a guard with small limits, what says how many bytes came through."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    async def size(request: Any) -> JSONResponse:
        return JSONResponse(len(await request.body()))

    app = Starlette(routes=[Route("/{path:path}", size, methods=["GET", "POST"])])
    app.add_middleware(Guard, upload_bytes=3000, folder_bytes=5000, folder_files=3)
    return TestClient(app)


def test_uploads_are_limited_each_and_all_together(echo: TestClient, tmp_path: Path) -> None:
    assert echo.post("/gradio_api/upload", content=b"x" * 3000).json() == 3000
    assert echo.post("/gradio_api/upload", content=b"x" * 3001).status_code == 413
    assert echo.post("/gradio_api/upload", content=iter([b"x" * 2000] * 2)).status_code == 413  # of no declared length
    (tmp_path / "held").write_bytes(b"x" * 2500)
    assert echo.post("/gradio_api/upload", content=b"x" * 2500).json() == 2500
    full = echo.post("/gradio_api/upload", content=b"x" * 2501)
    assert full.status_code == 503 and int(full.headers["retry-after"]) > 0
    assert echo.post("/gradio_api/upload", content=iter([b"x"])).status_code == 503  # it might be as long as any
    for number in range(2):
        (tmp_path / f"{number}").touch()
    assert echo.post("/gradio_api/upload", content=b"x").status_code == 503
    assert echo.get("/gradio_api/upload_progress").status_code == 200


def test_an_upload_counts_while_it_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    answers = []

    async def upload_another(request: Any) -> JSONResponse:
        if not answers:
            answers.append(client.post("/gradio_api/upload", content=b"x" * 2500).status_code)
        return JSONResponse(True)

    app = Starlette(routes=[Route("/{path:path}", upload_another, methods=["POST"])])
    client = TestClient(Guard(app, upload_bytes=3000, folder_bytes=5000))
    assert client.post("/gradio_api/upload", content=b"x" * 2501).status_code == 200
    assert answers == [503]
    assert client.post("/gradio_api/upload", content=b"x" * 2501).status_code == 200  # it is over


def test_other_requests_are_small(space: Any) -> None:
    for content in (b"x" * (2**20 + 1), iter([b"x" * 2**19] * 3)):
        assert space.http.post("gradio_api/queue/join", content=content).status_code == 413


def test_a_file_may_be_as_large_as_the_largest_that_is_read(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert space.page.max_file_size == 256 * 2**20
    monkeypatch.setattr(space.page, "max_file_size", 1000)
    assert space.http.post("gradio_api/upload", files={"files": ("a.csv", b"x" * 1001)}).status_code == 413


def test_the_queue_and_each_function_have_a_limit(space: Any) -> None:
    assert space.page._queue.max_size == WAITING
    limits = {fn.name: fn.concurrency_limit for fn in space.page.fns.values()}
    assert None not in limits.values()
    assert all(limit == "default" or limit <= 4 for limit in limits.values())
    # Nothing gets around the queue.
    assert space.http.post("gradio_api/run/search", json={"data": ["red", None, 1, {}]}).status_code == 404


# ----------------------------------------------------------------------------------------------------------------------
# What is not opened
# ----------------------------------------------------------------------------------------------------------------------


CLOSED = (
    *("file=http://example.org/a", "file=HTTPS:/a", "proxy=http://a.b", "deep_link", "process_recording"),
    *("component_server", "stream/a", "vibe-code", "run-history/connect"),
)


@pytest.mark.parametrize("route", CLOSED)
def test_routes_that_the_page_does_not_use_are_closed(space: Any, route: str) -> None:
    for answer in (space.http.get(f"gradio_api/{route}"), space.http.post(f"gradio_api/{route}", json={})):
        assert answer.status_code == 404 and answer.text == "There is no such page."


def test_the_closed_routes_are_gradio_s() -> None:
    routes = Path(gradio.__file__).with_name("routes.py").read_text()
    assert "secure_url_stream_response(path_or_url" in routes
    assert all(f'"/{name}' in routes for name in ("proxy=", "process_recording", "component_server", "vibe-edit"))
    assert not any(UNUSED.match(f"/gradio_api/{name}") for name in ("file=/tmp/a", "file=C:/a", "upload", "queue/join"))


def test_no_file_of_the_server_is_served(space: Any) -> None:
    files = [ROOT / "space" / "app.py", ROOT / "README.md", Path("/etc/passwd"), Path(space.shop.catalog.path)]
    files += [path for path in Path(space.shop.catalog.path).rglob("*") if path.is_file()][:3]
    files += [space.uploads / ".." / "catalog" / "catalog.json"]
    for file in files:
        for route in ("gradio_api/file=", "gradio_api/file/", "file=", "static/../", "assets/../"):
            answer = space.http.get(f"{route}{file}")
            assert answer.status_code in (403, 404), file
            tell_nothing(space, answer.text.replace(os.path.normpath(file), ""))


@pytest.mark.parametrize("path", ["http://example.org/photo.png", "/etc/passwd"])
def test_files_are_uploads_and_nothing_else(space: Any, path: str) -> None:
    """Whatever the argument: Gradio looks for files in all of them."""
    before = measure(space.uploads)
    for name in ("open_catalog", "search", "start_over"):
        for place in range(min(4, inputs_of(space, name))):
            data: list[Any] = [None] * inputs_of(space, name)
            data[place] = {"path": path, "url": path, **OF_A_FILE}
            answer = call(space, name, data)
            assert "web address" in answer if path.startswith("http") else answer is None
    assert measure(space.uploads) == before


def test_names_of_uploads_are_not_trusted(space: Any) -> None:
    for name in ("../../../evil.html", "..\\evil.html", "/etc/evil.html", "evil.html\0.png", "." * 300 + "/x.html"):
        answer = space.http.post("gradio_api/upload", files={"files": (name, b"<script>alert(1)</script>")})
        if answer.status_code != 200:
            assert answer.status_code == 400
            continue
        (path,) = answer.json()
        assert Path(path).resolve().is_relative_to(space.uploads)
        served = space.http.get(f"gradio_api/file={quote(path)}")
        # Never as a page of this origin.
        attached = served.headers["content-disposition"].startswith("attachment")
        assert served.headers["content-type"] == ("application/octet-stream" if attached else "image/png")
    assert not list(space.folder.parent.rglob("evil*/../../evil.html")) and not Path("/etc/evil.html").exists()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n"


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (EPS, "photo.png", "it is no photo that can be read"),  # by Ghostscript, another program
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "photo.svg", "it is no photo that can be read"),
        (encoded(PILImage.new("1", (7000, 7000))), "photo.png", "more than 40 million pixels"),
        (encoded(PILImage.new("RGB", (9, 9)), "JPEG")[:300], "photo.jpg", "the photo is damaged"),
        (b"", "photo.jpg", "it is no photo that can be read"),
    ],
)
def test_a_shopper_s_photo_is_decoded_in_bounds(space: Any, content: bytes, name: str, message: str) -> None:
    photo = upload(space, content, name)
    assert message in call(space, "search", ["", photo, 1, {}])
    assert message in call(space, "why", ["100", "", photo])


def test_a_shopper_s_photo_comes_as_a_file(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inline = "data:image/png;base64," + base64.b64encode(encoded(draw("shirt", "red", 0))).decode()
    assert "it was not uploaded" in call(space, "search", ["", {"url": inline, **OF_A_FILE}, 1, {}])
    photo = upload(space, encoded(draw("shirt", "red", 0)))
    assert len(call(space, "search", ["", photo, 1, {}])[0]) == 1
    Path(photo["path"]).unlink()
    assert "it is no longer there" in call(space, "search", ["", photo, 1, {}])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_shopper_s_photo_of_every_format_is_encoded(space: Any, tmp_path: Path, form: str) -> None:
    frames = {"save_all": True, "append_images": [draw("shoe", "blue", 1)]} if form in ("GIF", "WEBP", "TIFF") else {}
    (tmp_path / "photo").write_bytes(encoded(draw("shirt", "red", 0), form, **frames))
    photo = read_photo(SimpleNamespace(path=str(tmp_path / "photo")))
    with PILImage.open(tmp_path / "photo") as plain:
        np.testing.assert_array_equal(space.shop.encode("", photo), space.shop.encode("", plain))


# ----------------------------------------------------------------------------------------------------------------------
# Hostile arguments
# ----------------------------------------------------------------------------------------------------------------------

DEEP: Any = {}
for _ in range(300):
    DEEP = {"$not": DEEP}
LONG = "red " * 1000
UNFILTERED = [[]] * CHOICE_SLOTS + [None] * 2 * RANGE_SLOTS + [""] * 2 * DATE_SLOTS
HALF = "red \ud800"
ODD = ([], {"a": [1]}, True, 1e308, -1, "\0", "9" * 5000, "<script>")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("search", [LONG, None, 1, {}], "up to 1,000 characters"),
        ("search", ["red", None, 10**9, {}], "1 to 100 products"),
        ("search", ["red", None, None, {}], "1 to 100 products"),
        ("search", ["red", None, 1, DEEP], "nested more than 20 levels"),
        ("search", ["red", None, 1, {"price": {"$gte": "1"}}], "Unknown attribute 'price'"),
        ("search", ["red", None, 1, {"kind": {"$where": "sleep(9)"}}], "Unknown operator '$where'"),
        ("search", ["red", None, 1, {"kind": [["a"]]}], "is a string"),
        ("search", ["red", None, 1, ["kind"]], "must be a dict"),
        ("why", [LONG, "red", None], "no product"),
        ("why", [None, "red", None], "no product"),
        ("why", ["100", LONG, None], "up to 1,000 characters"),
        ("compare", [LONG, 1], "up to 1,000 characters"),
        ("compare", ["red", 10**9], "count must be 1 to 100"),
        ("compare", ["red", None], "count must be 1 to 100"),
        ("place", [LONG], "up to 1,000 characters"),
        ("map", ["__class__"], "There is no attribute"),
        ("open_catalog", [None, None, "../../etc"], "no name of a dataset"),
        ("open_catalog", [None, None, "http://localhost/x"], "no name of a dataset"),
        ("build_catalog", ["__class__", "", "", []], "Drop a catalogue first"),
        ("download_catalog", [], "Make a catalogue searchable first"),
    ],
)
def test_what_cannot_be_is_named(space: Any, name: str, data: list[Any], message: str) -> None:
    assert message in call(space, name, data)


def test_no_argument_breaks_the_server(space: Any) -> None:
    for name, odd in itertools.product(("search", "why", "compare", "place", "map", "open_catalog"), ODD):
        call(space, name, [odd] * inputs_of(space, name))
    assert len(call(space, "search", ["red", None, 2, {}])[0]) == 2


def test_no_event_breaks_the_page(space: Any) -> None:
    view = [
        "",
        None,
        [],
        24,
        "",
        *[[]] * CHOICE_SLOTS,
        *[None] * 2 * RANGE_SLOTS,
        *[""] * 2 * DATE_SLOTS,
    ]  # the query first
    for odd in ODD:
        page = call(space, "follow", view, event_data={"product": odd})
        assert "That didn't work" in html.unescape(json.dumps(page)) and "<script>" not in json.dumps(page)
        assert call(space, "follow", [*view[:5], odd, *view[6:]], event_data={"product": "100"})
        assert call(space, "follow", view, event_data={"words": odd})
        assert "That search is gone" in json.dumps(
            call(space, "show_why", [None], event_data={"product": odd, "ticket": odd})
        )
    for odd in (-1, 12, "0", 1.0, None):
        assert "no such point" in call(space, "show_point", [], event_data={"row": odd})
    empty = b'{"fn_index": -1, "session_hash": "a", "data": []}'
    for broken in (b"{", b"[]", b"null", empty, b'{"data": ' + b"[" * 9999):
        try:
            answer = space.http.post("gradio_api/queue/join", content=broken, headers=JSON)
        except httpx.TransportError:
            continue  # the stranger's own connection
        assert 400 <= answer.status_code < 500 or answer.text == "Internal Server Error"
        tell_nothing(space, answer.text)
    assert len(call(space, "search", ["red", None, 2, {}])[0]) == 2


def test_an_event_without_a_session_holds_up_nobody(space: Any) -> None:
    function = next(fn for fn in space.page.fns.values() if fn.api_name == "search")
    for session in ("", None):
        body = {"fn_index": function._id, "session_hash": session, "data": ["red", None, 1, {}]}
        assert space.http.post("gradio_api/queue/join", json=body).status_code == (400 if session is None else 200)
    assert len(call(space, "search", ["red", None, 2, {}])[0]) == 2
    assert len(space.page._queue) == 0


def test_half_a_character_is_searched_as_a_question_mark(space: Any) -> None:
    found = call(space, "search", [HALF, None, 3, {}])[0]
    assert [hit["id"] for hit in found] == [hit.id for hit in space.shop.catalog.search("red ?", top_k=3)]
    page = call(
        space,
        "start_over",
        [HALF, None, 24, "", *UNFILTERED],
    )
    assert "“red ?”" in json.dumps(page, ensure_ascii=False)


# ----------------------------------------------------------------------------------------------------------------------
# What is kept, and for whom
# ----------------------------------------------------------------------------------------------------------------------


def test_the_page_tells_nothing_of_the_server(space: Any) -> None:
    for route in ("", "config", "gradio_api/info", "gradio_api/startup-events", "theme.css", "nowhere", "photo"):
        tell_nothing(space, space.http.get(route).text)


def test_one_user_s_catalogue_is_another_s_nothing(space: Any) -> None:
    table = upload(space, b'sku,name,kind,"a""b"\n1,secret shirt,a,a\n2,secret shoe,b,b\n', "products.csv")
    found = call(space, "open_catalog", [table, None, ""], "anna")[0]
    assert found["rows"] == 2 and found["attribute_columns"] == ["kind"]  # a name with quotation marks can't be one
    assert call(space, "build_catalog", ["sku", "name", "", ["kind"]], "anna")[0]["products"] == 2
    searches = [fn for fn in space.page.fns.values() if fn.name == "start_over"]
    own = searches[1]  # the first is the shop's
    query = ["shirt", None, 24, "", *UNFILTERED]

    def search(session: str) -> str:
        body = {"fn_index": own._id, "session_hash": session, "data": query}
        assert space.http.post("gradio_api/queue/join", json=body).status_code == 200
        with space.http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as lines:
            return next(line for line in lines.iter_lines() if "process_completed" in line)

    assert "secret shirt" in search("anna")
    for session in ("bert", "ann", "anna ", "ANNA"):
        assert "secret" not in search(session)
    assert "secret" not in json.dumps(call(space, "search", ["secret shirt", None, 100, {}], "anna"))
    (archive,) = call(space, "download_catalog", [], "anna")
    file = Path(archive["path"])
    assert file.is_relative_to(space.uploads) and len(file.parent.name) >= 20
    assert space.http.get(f"gradio_api/file={file}").content[:2] == b"PK"
    # When everything is taken away again, the session ends, and what was uploaded goes.
    call(space, "show_upload", [None, None, ""], "anna")
    assert not file.exists() and not Path(table["path"]).exists()
    assert space.http.get(f"gradio_api/file={file}").status_code == 403
    assert "secret" not in search("anna")


def test_old_uploads_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = tmp_path / "uploads"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    (uploads / "hash").mkdir(parents=True)
    files = [uploads / "hash" / "photo.png", uploads / "broken-off", uploads / "hash" / "new.png", tmp_path / "other"]
    for file in files:
        file.write_bytes(b"x" * 10)
    (uploads / "link").symlink_to(tmp_path / "other")
    for file in (files[0], files[1], files[3]):
        os.utime(file, (time.time() - 100,) * 2)
    os.utime(uploads / "link", (time.time() - 100,) * 2, follow_symlinks=False)
    sweep(uploads, 50)
    assert [file.exists() for file in files] == [False, False, True, True] and not (uploads / "link").exists()
    remove_upload(files[2])
    assert not files[2].parent.exists() and uploads.exists()
    remove_upload(files[3])
    remove_upload(uploads / "hash" / ".." / ".." / "other")
    assert files[3].exists()  # it is no upload


@pytest.mark.parametrize("linked", ["the folder", "the file"])
def test_an_upload_is_removed_by_either_of_its_addresses(
    linked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where /tmp is a link."""
    (tmp_path / "real" / "hash").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    file = tmp_path / "real" / "hash" / "photo.png"
    file.write_bytes(b"x")
    folder, other = ("link", "real") if linked == "the folder" else ("real", "link")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / folder))
    remove_upload(tmp_path / other / "hash" / "photo.png")
    assert not file.parent.exists() and (tmp_path / "real").is_dir()
