"""Your own catalogue: from what a user drops to a catalogue that is theirs alone, and is gone when they are."""

import io
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from datasets import Dataset
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from helpers import draw
from space_shop import NASTY, make_shop, served

from acebert.catalog.product_catalog import ProductCatalog
from acebert.data.tables import RowProblem
from acebert.processing_acebert import AceBertProcessor
from acebert.space.sessions import Sessions
from acebert.space.tabs import own_catalog
from acebert.space.tabs.own_catalog import OwnCatalogTab, choose_columns, possible_attributes, preview, report
from acebert.space.uploads import open_upload
from acebert.space.uploads.columns import UploadColumns, guess_columns
from acebert.space.uploads.limits import Limits

CSV = """sku,name,file,colour,price
a1,red shirt,a1.png,red,10
a2,blue shoe,a2.png,blue,12.5
a2,green bag,a3.png,green,9
a4,,missing.png,green,9
a5,black mug,broken.png,black,ask
"""
COLUMNS = UploadColumns("sku", "name", "file", {"colour": "text"})


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A table and a zip of photos."""
    table, photos = tmp_path / "products.csv", tmp_path / "photos.zip"
    table.write_text(CSV)
    with zipfile.ZipFile(photos, "w") as archive:
        for name, colour in (("a1", "red"), ("a2", "blue"), ("a3", "green")):
            buffer = io.BytesIO()
            draw("shirt", colour, 0).save(buffer, "PNG")
            archive.writestr(f"{name}.png", buffer.getvalue())
        archive.writestr("broken.png", b"no photo")
    return str(table), str(photos)


@pytest.fixture
def shop(tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path) -> Any:
    return make_shop(tiny_config(), tiny_processor, tmp_path / "shop")


@pytest.fixture
def sessions(shop: Any) -> Iterator[Sessions]:
    sessions = Sessions(shop.encoder.model, shop.encoder.processor)
    yield sessions
    for key in list(sessions._sessions):
        sessions.end(key)


def folders(sessions: Sessions) -> list[Path]:
    return list(sessions._root.iterdir())


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestSessions:
    def test_variants_are_grouped_and_dates_are_dates(self, sessions: Sessions, tmp_path: Path) -> None:
        rows = [f"{i},mug {i},{i // 3},{1 + i}.3.2026" for i in range(9)]
        (tmp_path / "t.csv").write_text("\n".join(["id,title,item_group_id,added", *rows]))
        upload = sessions.open("anna", str(tmp_path / "t.csv"), None, None)
        columns = guess_columns(upload)
        assert columns.attributes == {"item_group_id": "text", "added": "date"}
        assert sessions.build("anna", columns) == []
        catalog = sessions.catalog("anna")
        assert catalog.settings.group == "item_group_id" and catalog.attributes["added"] == "date"
        assert catalog.search("mug", filters={"added": {"$lte": "2026-03-04"}}).total == 2

    def test_a_catalogue_is_its_users_alone(self, sessions: Sessions, files: tuple[str, str]) -> None:
        sessions.open("anna", *files, None)
        bad_rows = sessions.build("anna", COLUMNS)
        catalog = sessions.catalog("anna")
        assert [catalog.get(key) is not None for key in ("a1", "a2", "a4", "a5")] == [True, True, False, True]
        assert catalog.get("a2").title == "blue shoe" and catalog.get("a2").attributes == {"colour": "blue"}
        assert [(bad.row, bad.field, bad.skipped) for bad in bad_rows] == [
            (4, "sku", True),
            (5, "file", False),
            (5, "", True),
            (6, "file", False),
        ]
        assert sessions.catalog("bert") is None and sessions.upload("bert") is None
        with pytest.raises(ValueError, match="Drop a catalogue first"):
            sessions.build("bert", COLUMNS)
        with pytest.raises(ValueError, match="Make a catalogue searchable first"):
            sessions.archive("bert")

    def test_nothing_is_left_of_what_was_replaced(self, sessions: Sessions, files: tuple[str, str]) -> None:
        sessions.open("anna", *files, None)
        sessions.build("anna", COLUMNS)
        first = sessions.catalog("anna")
        sessions.build("anna", UploadColumns("sku", "name", None, {"price": "text"}))
        second = sessions.catalog("anna")
        assert not first.path.exists() and list(second.attributes) == ["price"]
        old = sessions.upload("anna").folder
        sessions.open("anna", files[0], None, None)
        assert not old.exists()
        assert sessions.catalog("anna") is second  # until the new upload is made searchable
        assert not list(sessions._root.rglob("*.arrow"))

    def test_what_cannot_be_read_takes_no_place(self, sessions: Sessions, tmp_path: Path) -> None:
        (tmp_path / "page.csv").write_text("<html>")
        with pytest.raises(ValueError, match="web page"):
            sessions.open("anna", str(tmp_path / "page.csv"), None, None)
        assert len(sessions) == 0 and folders(sessions) == []

    def test_a_zip_is_closed_when_it_is_refused_replaced_or_left(
        self, sessions: Sessions, files: tuple[str, str], tmp_path: Path
    ) -> None:
        def is_open() -> bool:
            return os.path.realpath(files[1]) in [file.path for file in psutil.Process().open_files()]

        (tmp_path / "page.csv").write_text("<html>")
        with pytest.raises(ValueError, match="web page") as refused:
            sessions.open("anna", str(tmp_path / "page.csv"), files[1], None)
        assert not is_open(), refused  # which holds on to all that was read
        first = sessions.open("anna", *files, None)
        assert is_open()
        sessions.open("anna", files[0], None, None)
        assert not is_open(), first
        second = sessions.open("anna", *files, None)
        sessions.end("anna")
        assert not is_open(), second

    def test_what_has_no_good_row_keeps_the_catalogue_before(self, sessions: Sessions, files: tuple[str, str]) -> None:
        sessions.open("anna", *files, None)
        sessions.build("anna", COLUMNS)
        before = sessions.catalog("anna")
        Path(files[0]).write_text("sku,name,file\na1,,missing.png\n")
        sessions.open("anna", *files, None)
        with pytest.raises(ValueError, match=r"No row can be used. Row 2: .*"):
            sessions.build("anna", UploadColumns("sku", "name", "file"))
        assert sessions.catalog("anna") is before and len(before) == 3

    def test_photos_that_only_the_model_refuses_are_listed_by_the_users_rows(
        self, sessions: Sessions, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("acebert.space.uploads.products.check_photo", lambda data, limits: None)
        sessions.open("anna", *files, None)
        bad_rows = sessions.build("anna", COLUMNS)
        (broken,) = [bad for bad in bad_rows if bad.value == "a5"]
        assert (broken.row, broken.field, broken.skipped) == (6, "file", False)
        assert sessions.catalog("anna").photo(sessions.catalog("anna").get("a5")) is None

    def test_sessions_are_as_many_as_fit(self, shop: Any, files: tuple[str, str]) -> None:
        sessions = Sessions(shop.encoder.model, shop.encoder.processor, most=1)
        sessions.open("anna", *files, None)
        with pytest.raises(ValueError, match="as many as fit"):
            sessions.open("bert", *files, None)
        sessions.open("anna", *files, None)
        sessions.end("anna")
        assert folders(sessions) == []
        sessions.open("bert", *files, None)
        sessions.end("bert")

    def test_what_was_uploaded_goes_with_its_last_user(
        self, sessions: Sessions, files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uploads = tmp_path / "uploads"
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
        (uploads / "hash").mkdir(parents=True)
        mine = [shutil.copy(file, uploads / "hash") for file in files]
        sessions.open("anna", *mine, None)
        sessions.build("anna", COLUMNS)
        sessions.open("bert", *mine, None)  # the same files, of which there is one copy
        first, archive = sessions.archive("anna"), sessions.archive("anna")
        assert archive.exists() and not first.exists()  # a thousand clicks fill no disk
        sessions.end("anna")
        assert not archive.exists() and all(Path(file).exists() for file in mine)
        sessions.end("bert")
        assert list(uploads.iterdir()) == []
        with pytest.raises(ValueError, match="drop it again"):
            sessions.open("anna", *mine, None)
        assert len(sessions) == 0 and all(Path(file).exists() for file in files)

    def test_limits_are_told(self, shop: Any, files: tuple[str, str]) -> None:
        sessions = Sessions(shop.encoder.model, shop.encoder.processor, limits=Limits(rows=3))
        with pytest.raises(ValueError, match="more than 3 rows"):
            sessions.open("anna", *files, None)

    def test_a_session_that_is_not_used_ends(self, shop: Any, files: tuple[str, str]) -> None:
        sessions = Sessions(shop.encoder.model, shop.encoder.processor, idle_seconds=0.2)
        sessions.open("anna", *files, None)
        wait_until(lambda: len(sessions) == 0 and folders(sessions) == [])

    def test_a_closed_page_that_comes_back_in_time_finds_its_catalogue(self, shop: Any, files: tuple[str, str]) -> None:
        sessions = Sessions(shop.encoder.model, shop.encoder.processor, grace_seconds=0.3)
        sessions.open("anna", *files, None)
        sessions.leave("anna")
        assert sessions.upload("anna") is not None  # the phone woke up
        time.sleep(0.5)
        assert len(sessions) == 1
        sessions.leave("anna")
        sessions.leave("nobody")
        wait_until(lambda: len(sessions) == 0 and folders(sessions) == [])

    def test_leaving_while_it_is_built_leaves_nothing(
        self, sessions: Sessions, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build = ProductCatalog.build

        def leave_before(*args: Any, **kwargs: Any) -> ProductCatalog:
            sessions.end("anna")
            return build(*args, **kwargs)

        def leave_after(*args: Any, **kwargs: Any) -> ProductCatalog:
            catalog = build(*args, **kwargs)
            sessions.end("anna")
            return catalog

        for leave in (leave_before, leave_after):
            monkeypatch.setattr(ProductCatalog, "build", leave)
            sessions.open("anna", *files, None)
            with pytest.raises(ValueError, match="The page was closed"):
                sessions.build("anna", COLUMNS)
            assert not list(sessions._root.rglob("*.parquet"))

    def test_the_archive_is_a_catalogue_again(self, sessions: Sessions, files: tuple[str, str], tmp_path: Path) -> None:
        sessions.open("anna", *files, None)
        sessions.build("anna", COLUMNS)
        with zipfile.ZipFile(sessions.archive("anna")) as archive:
            names = archive.namelist()
            archive.extractall(tmp_path / "unpacked")
        assert "catalogue/catalog.json" in names and all(name.startswith("catalogue/") for name in names)
        assert not any("lock" in name or "/index/" in name for name in names)
        mine = sessions.catalog("anna")
        with ProductCatalog.load(tmp_path / "unpacked" / "catalogue", sessions.model, sessions.processor) as again:
            assert [hit.id for hit in again.search("red shirt")] == [hit.id for hit in mine.search("red shirt")]
            assert again.photo(again.get("a1")) == mine.photo(mine.get("a1")) is not None


class TestPage:
    def test_columns_are_the_users_choice(self, files: tuple[str, str], tmp_path: Path) -> None:
        upload = open_upload(*map(Path, files), None, tmp_path / "upload", Limits())
        chosen = choose_columns(upload, "", "name", "", ["name", "colour", "price"])
        assert chosen == UploadColumns(None, "name", None, {"colour": "text", "price": "number"})
        Path(files[0]).write_text('sku,name,price,change,a"b\n' + "".join(f"{i},t {i},{i % 3},1,1\n" for i in range(9)))
        upload = open_upload(Path(files[0]), None, None, tmp_path / "upload", Limits())
        assert choose_columns(upload, "sku", "name", "", ["price"]).attributes == {"price": "number"}
        assert possible_attributes(upload) == ["sku", "name", "price"]

    def test_the_preview_is_text(self, tmp_path: Path) -> None:
        (tmp_path / "nasty.csv").write_text(f"id;<b>\n1;{'x' * 100}\n2;{NASTY}\n")
        page = preview(open_upload(tmp_path / "nasty.csv", None, None, tmp_path, Limits()))
        assert "2 rows, 2 columns" in page and "as separators" in page
        assert "<svg src=x" not in page and "&lt;svg src=x" in page and "<b>" not in page and "&lt;b&gt;" in page
        assert f"<td>{'x' * 59}…</td>" in page

    def test_photos_in_a_table_are_previewed_as_such(self, tmp_path: Path) -> None:
        Dataset.from_dict({"name": ["a"], "photo": [b"bytes"]}).to_parquet(tmp_path / "t.parquet")
        page = preview(open_upload(tmp_path / "t.parquet", None, None, tmp_path, Limits()))
        assert "1 row, 2 columns" in page and "<td>photo</td>" in page

    def test_the_report_counts_rows_by_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert report(1, []) == '<h2 role="status">1 product is searchable.</h2>'
        bad = [RowProblem(row, "price", f"<{row}>", "it is not a number", False) for row in (2, 3, 4, 9)]
        bad += [RowProblem(9, "", "x", "it has neither a title nor a photo", True)]
        page = report(1200, bad)
        assert (
            "1,200 products are searchable. 1 row was left out. 3 products lack a value that can&#39;t be used." in page
        )
        unused = ["a.jpg", "<b>.jpg", "c.jpg", "d.jpg"]
        assert "4 photos are not used: a.jpg, &lt;b&gt;.jpg, c.jpg …." in report(1, [], unused)
        assert "1 photo is not used: a.jpg." in report(1, [], unused[:1])
        cells = "<td>4</td><td>price</td><td>it is not a number</td><td>kept without it</td>"
        assert f"{cells}<td>2 (&lt;2&gt;), 3 (&lt;3&gt;), 4 (&lt;4&gt;) …</td>" in page
        assert "<td>1</td><td>–</td><td>it has neither a title nor a photo</td><td>left out</td><td>9 (x)</td>" in page
        monkeypatch.setattr(own_catalog, "REPORTED_REASONS", 1)
        assert "And 1 more reasons." in report(1200, bad)


def test_the_endpoints(shop: Any, files: tuple[str, str], tmp_path: Path) -> None:
    with served(lambda shop: OwnCatalogTab(shop).lay_out(), shop) as url:
        client, other = Client(url, verbose=False), Client(url, verbose=False)
        table, photos = map(handle_file, files)
        with pytest.raises(AppError, match="Drop a catalogue first"):
            client.predict("sku", "name", "file", [], api_name="/build_catalog")
        found = client.predict(table=table, photos=photos, dataset="", api_name="/open_catalog")
        guess = guess_columns(open_upload(*map(Path, files), None, tmp_path, Limits()))
        assert found["rows"] == 5 and found["columns"] == ["sku", "name", "file", "colour", "price"]
        assert (found["title_column"], found["image_column"]) == ("name", "file") == (guess.title, guess.image)
        built = client.predict("sku", "name", "file", ["colour"], api_name="/build_catalog")
        assert built["products"] == 3 and built["unused_photos"] == ["a3.png"]  # of a row that is left out
        assert [(bad["row"], bad["value"]) for bad in built["bad_rows"] if bad["skipped"]] == [(4, "a2"), (5, "a4")]
        with zipfile.ZipFile(client.predict(api_name="/download_catalog")) as archive:
            assert "catalogue/catalog.json" in archive.namelist()
        with pytest.raises(AppError, match="Make a catalogue searchable first"):
            other.predict(api_name="/download_catalog")
        with pytest.raises(AppError, match="is not there"):
            client.predict("sku", "names", "file", [], api_name="/build_catalog")
        for wrong in (None, "/etc/passwd"):
            with pytest.raises(AppError):
                other.predict(table=wrong and {"path": wrong, "meta": {"_type": "gradio.FileData"}}, photos=None,
                              dataset="", api_name="/open_catalog")  # fmt: skip
