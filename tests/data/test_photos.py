"""Cells that name photos: several of them, other machines' paths, base64, addresses; and downloads."""

import base64
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from acebert.data.cleaning import as_photos, have_photos, keep_good_rows, prepare_columns, read_photos
from acebert.data.columns import Columns
from acebert.data.corpus import Corpus
from acebert.data.downloads import PhotoDownloads
from acebert.data.pairs import PairDataset
from acebert.data.photo_cells import PhotoFolder, decode_photo_text, split_photos
from acebert.data.photo_columns import PHOTOS, concatenate_products
from acebert.data.sources import ReadOptions, load_products
from acebert.utils.fingerprints import products_sha256


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


def read(shop: Path, cells: list[str], on_bad_row: str = "raise", **options: object) -> Dataset:
    rows = "".join(f'{row},Mug {row},"{cell}"\n' for row, cell in enumerate(cells))
    (shop / "shop.csv").write_text("id,title,image\n" + rows)
    read = ReadOptions(**options)  # type: ignore[arg-type]
    return load_products([str(shop / "shop.csv")], "train", Columns(), on_bad_row=on_bad_row, options=read)  # type: ignore[arg-type]


def name_of(photo: dict[str, Any]) -> str:
    return Path(photo["path"]).name if photo["path"] else "bytes"


def load(shop: Path, cells: list[str], on_bad_row: str = "raise", **options: object) -> list[str | None]:
    return [cell and name_of(cell) for cell in read(shop, cells, on_bad_row, **options)["image"][:]]


def names(products: Dataset) -> list[list[str]]:
    return [
        [name_of(each) for each in as_photos(cell)] for cell in read_photos(products, "image", range(len(products)))
    ]


def test_those_that_are_there_are_used_and_the_others_are_told(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    products = read(shop, ["lost.jpg, photos/b.jpg, photos/a.jpg", "", "photos/a.jpg"])
    assert names(products) == [["b.JPG", "a.jpg"], [], ["a.jpg"]]
    assert "1 photos in 'image' can't be had and are left out" in caplog.text
    assert "image of row 0 is 'lost.jpg', and there is no such file" in caplog.text
    assert products.features["image"] == PHOTOS


def test_more_photos_than_are_read_are_told(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = ["lost.jpg|photos/a.jpg|photos/b.jpg", "photos/a.jpg"]
    assert names(read(shop, cells, max_images=2)) == [["a.jpg", "b.JPG"], ["a.jpg"]]
    assert "have more than" not in caplog.text
    products = read(shop, cells, max_images=1)
    assert names(products) == [["a.jpg"], ["a.jpg"]] and products.features["image"] == Image(decode=False)
    assert "1 products have more than 1 photos in 'image': the first 1 that are there are used" in caplog.text
    with pytest.raises(ValueError, match="max_images must be at least 1, got 0"):
        read(shop, cells, max_images=0)


def test_catalogues_with_one_and_with_several_photos_are_one(shop: Path) -> None:
    parts = [read(shop, cells) for cells in (["photos/a.jpg", ""], ["photos/a.jpg, photos/b.jpg"])]
    assert names(concatenate_products(parts, "image")) == [["a.jpg"], [], ["a.jpg", "b.JPG"]]
    assert concatenate_products(parts[:1], "image").features["image"] == Image(decode=False)


def test_broken_photos_are_left_out_beside_others(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    (shop / "broken.png").write_bytes(b"no photo")
    products = read(shop, ["photos/a.jpg, broken.png, photos/b.jpg", "broken.png", "photos/a.jpg", "photos/b.jpg"])
    kept, rows = keep_good_rows(products, Columns(), shop / "bad.jsonl")
    assert rows == [0, 2, 3] and names(kept) == [["a.jpg", "b.JPG"], ["a.jpg"], ["b.JPG"]]
    assert "1 products lose photos that can't be read" in caplog.text and "image: 2 of 3 can't be read" in caplog.text
    assert len((shop / "bad.jsonl").read_text().splitlines()) == 1


def test_training_draws_one_of_several_photos(shop: Path) -> None:
    products = read(shop, ["photos/a.jpg, photos/b.jpg"] * 30 + ["photos/a.jpg", ""])
    pairs = PairDataset(products, Columns(), seed=3)
    drawn = [pairs.photo(row, pairs.rng(row)) for row in range(32)]
    assert {name_of(each) for each in drawn[:30]} == {"a.jpg", "b.JPG"}
    assert drawn == [pairs.photo(row, pairs.rng(row)) for row in range(32)]
    assert name_of(drawn[30]) == "a.jpg" and drawn[31] is None


def test_fingerprints_know_which_photos_are_whose(shop: Path) -> None:
    cells = [["photos/a.jpg, photos/b.jpg", "photos/a.jpg"], ["photos/a.jpg", "photos/a.jpg, photos/b.jpg"]]
    products = [read(shop, some) for some in (*cells, cells[0])]
    corpora = [Corpus.from_products(each, [""] * 2, Columns(), "shop") for each in products]
    for first, second, again in (map(products_sha256, products), (corpus.photos_sha256 for corpus in corpora)):
        assert first == again != second


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
    one, other = ({"bytes": data, "path": None} for data in (photo(), b""))
    for feature, cells in ((PHOTOS, [[one, None, other], []]), (List(Value("binary")), [[photo(), b""], None])):
        features = Features({"id": Value("int64"), "title": Value("string"), "image": feature})
        products = Dataset.from_dict({"id": [1, 2], "title": ["a", "b"], "image": cells}, features)
        assert have_photos(products, "image").tolist() == [True, False]
        prepared = prepare_columns(products, Columns())
        assert prepared["image"][:] == [[one, other], []] and have_photos(prepared, "image").tolist() == [True, False]
        again = prepare_columns(prepared, Columns(), max_images=1)
        assert again["image"][:] == [one, None] and again.features["image"] == Image(decode=False)


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
