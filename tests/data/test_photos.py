"""Cells that name photos: several of them, other machines' paths, base64, addresses; and downloads."""

import base64
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from acebert.data.cleaning import prepare_columns
from acebert.data.columns import Columns
from acebert.data.downloads import PhotoDownloads
from acebert.data.photo_cells import PhotoFolder, decode_photo_text, split_photos
from acebert.data.sources import ReadOptions, load_products


def photo(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "Photos").mkdir()
    for name in ("a.jpg", "b.JPG", "c, d.png"):
        (tmp_path / "Photos" / name).write_bytes(photo())
    return tmp_path


@pytest.mark.parametrize(
    ("cell", "photos"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg, b.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg;b.webp;", ["a.jpg", "b.webp"]),
        ("a.jpg|b", ["a.jpg", "b"]),
        ('["a.jpg", "b.jpg"]', ["a.jpg", "b.jpg"]),
        ("https://x/1,https://x/2", ["https://x/1", "https://x/2"]),
        ("https://x/a,b.jpg", ["https://x/a,b.jpg"]),
        ("https://x/a.jpg?size=1,2", ["https://x/a.jpg?size=1,2"]),
        ("mug, red.jpg", ["mug, red.jpg"]),
        ("data:image/png;base64,iVBORw0KGgo=", ["data:image/png;base64,iVBORw0KGgo="]),
        (" , ", []),
    ],
)
def test_what_a_cell_names(cell: str, photos: list[str]) -> None:
    assert split_photos(cell) == photos


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Photos/a.jpg", "a.jpg"),
        ("photos\\A.JPG", "a.jpg"),
        ("photos/b.jpg", "b.JPG"),
        ("C:\\shop\\photos\\a.jpg", "a.jpg"),
        ("/home/seller/photos/a.jpg", "a.jpg"),
        ("./Photos/c, d.png", "c, d.png"),
        ("a.jpg", None),
        ("Photos", None),
        ("Photos/e.jpg", None),
    ],
)
def test_files_by_other_machines_names(name: str, found: str | None, shop: Path) -> None:
    path = PhotoFolder(shop).find(name)
    assert path is None if found is None else path is not None and Path(path).samefile(shop / "Photos" / found)


def load(shop: Path, cells: list[str], on_bad_row: str = "raise", **options: object) -> list[str | None]:
    rows = "".join(f'{row},Mug {row},"{cell}"\n' for row, cell in enumerate(cells))
    (shop / "shop.csv").write_text("id,title,image\n" + rows)
    read = ReadOptions(**options)  # type: ignore[arg-type]
    products = load_products([str(shop / "shop.csv")], "train", Columns(), on_bad_row=on_bad_row, options=read)  # type: ignore[arg-type]
    return [cell and (Path(cell["path"]).name if cell["path"] else "bytes") for cell in products["image"][:]]


def test_the_first_that_is_there_is_used_and_that_is_told(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(shop, ["lost.jpg, photos/b.jpg, photos/a.jpg", "", "photos/a.jpg"]) == ["b.JPG", None, "a.jpg"]
    assert "1 products have several photos in 'image': the first that is there is used" in caplog.text


def test_a_placeholder_is_told(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(shop, ["photos/a.jpg"] * 2 + ["photos/b.jpg"] * 3)
    assert "placeholder" not in caplog.text
    load(shop, ["photos/a.jpg"] * 2 + ["photos/b.jpg"] * 6)
    assert "6 of 8 photos in 'image' are the same" in caplog.text and "placeholder" in caplog.text


def test_photos_in_base64(shop: Path) -> None:
    text = base64.b64encode(photo()).decode()
    assert decode_photo_text(text) == decode_photo_text(f"data:image/png;base64,{text}") == photo()
    assert load(shop, [f"data:image/png;base64,{text}", text]) == ["bytes", "bytes"]
    with pytest.raises(ValueError, match="image of row 0 is a photo in base64 that is broken") as caught:
        load(shop, ["data:image/png;base64,iVBORw0KGgo=" + "A" * 100_000])
    assert len(str(caught.value)) < 400


def test_one_photo_that_cant_be_had_is_one_bad_row(shop: Path) -> None:
    good = ["photos/a.jpg"] * 3
    for bad, reason in (
        ("https://shop.example/a.jpg", "is the URL https://shop"),
        ("gone.jpg", "there is no such file"),
    ):
        with pytest.raises(ValueError, match=f"image of row 3 .*{reason}.*--on_bad_row skip"):
            load(shop, [*good, bad])
        assert load(shop, [*good, bad], "skip")[3] == Path(bad).name


@pytest.mark.parametrize("on_bad_row", ["raise", "skip"])
def test_where_most_are_lost_it_is_an_error_with_its_cause(on_bad_row: str, shop: Path) -> None:
    with pytest.raises(ValueError, match=r"3 of 4 photos can't be had.*no such file in .*relative to the table"):
        load(shop, ["photos/a.jpg", "1.jpg", "2.jpg", "3.jpg"], on_bad_row)
    with pytest.raises(ValueError, match=r"2 of 2 photos can't be had.*--download_photos"):
        load(shop, ["https://shop.example/1.jpg", "https://shop.example/2.jpg"], on_bad_row)


def test_lists_of_photos_in_typed_columns() -> None:
    photos = [[{"bytes": photo(), "path": None}, {"bytes": b"", "path": None}], []]
    features = Features({"id": Value("int64"), "title": Value("string"), "image": List(Image(decode=False))})
    products = Dataset.from_dict({"id": [1, 2], "title": ["a", "b"], "image": photos}, features)
    assert prepare_columns(products, Columns())["image"][:] == [{"bytes": photo(), "path": None}, None]


# ----------------------------------------------------------------------------------------------------------------------
# Downloads
# ----------------------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        body = photo() if self.path == "/a.png" else b"x" * 5000 if self.path == "/large" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_downloads_go_on_and_list_what_fails(shop: Path, server: ThreadingHTTPServer) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    folder = shop / "cache"
    downloads = PhotoDownloads(folder, hosts=["127.0.0.1"], max_bytes=1000)
    cells = [f"{base}/a.png", f"{base}/to?/a.png", f"{base}/a.png?again", "photos/a.jpg", f"{base}/large"]
    found = load(shop, cells[:2] + cells[3:], "skip", downloads=downloads)
    assert [name in {path.name for path in folder.iterdir()} for name in found] == [True, True, False, False]
    failed = (folder / "failed.txt").read_text()
    assert "/large\tit is larger than" in failed and len(failed.splitlines()) == 1
    asked = len(server.asked)  # type: ignore[attr-defined]
    assert load(shop, cells[:1], downloads=downloads) == found[:1]
    assert len(server.asked) == asked  # type: ignore[attr-defined]


def test_private_addresses_are_refused_also_behind_redirects(shop: Path, server: ThreadingHTTPServer) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    refused = PhotoDownloads(shop / "cache").fetch([f"{base}/a.png", "ftp://shop.example/a.png"])
    assert "private address" in str(refused[f"{base}/a.png"]) and "no address of the web" in str(
        list(refused.values())[1]
    )
    named = PhotoDownloads(shop / "cache", hosts=["127.0.0.1"])
    assert "isn't among those" in str(named.fetch([f"{base}/to?http://localhost/a.png"]).popitem()[1])
    assert not [path for path in server.asked if path == "/a.png"]  # type: ignore[attr-defined]


def test_downloads_are_bounded(shop: Path) -> None:
    with pytest.raises(ValueError, match="2 photos would be downloaded, and at most 1 are"):
        PhotoDownloads(shop / "cache", max_count=1).fetch(["https://x/1", "https://x/2"])
    places = PhotoDownloads(shop / "cache", max_seconds=-1).fetch(["https://x/1"])
    assert "seconds for all photos are over" in str(places["https://x/1"])
