"""The Space's uploads: tables, zips and datasets as strangers drop them, broken ones above all."""

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from acebert.data.tables import Table
from acebert.space.uploads import Upload, open_upload
from acebert.space.uploads.columns import UploadColumns, guess_columns
from acebert.space.uploads.limits import Limits
from acebert.space.uploads.photo_zip import check_photo, decode_photo
from acebert.space.uploads.products import read_products

TITLED = UploadColumns("id", "title", None)
PICTURED = UploadColumns("id", "title", "image")


def photo(colour: str = "red", size: tuple[int, int] = (24, 32), form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


def make_zip(entries: dict[str, bytes] | list[tuple[Any, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def parquet(table: pa.Table | dict[str, list], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), buffer, **options)
    return buffer.getvalue()


Drop = Callable[..., Upload]


@pytest.fixture
def drop(tmp_path: Path) -> Drop:
    """Opens files of the given contents as an upload; no message may tell where they lie."""

    def open_files(
        table: str | bytes | None = None,
        photos: bytes | dict[str, bytes] | None = None,
        dataset: str | None = None,
        name: str = "products.csv",
        limits: Limits | None = None,
    ) -> Upload:
        paths: list[Path | None] = []
        for file_name, content in ((name, table), ("photos.zip", photos)):
            if isinstance(content, dict):
                content = make_zip(content)
            if content is not None:
                (tmp_path / file_name).write_bytes(content.encode() if isinstance(content, str) else content)
            paths.append(None if content is None else tmp_path / file_name)
        try:
            return open_upload(*paths, dataset, tmp_path / "kept", limits or Limits())
        except ValueError as error:
            assert str(tmp_path) not in str(error) and "/tmp" not in str(error)
            raise

    return open_files


def read(upload: Upload, columns: UploadColumns) -> tuple[list[dict[str, Any]], list[tuple]]:
    """Products as rows, bad rows as tuples; every row is accounted for."""
    products, bad = read_products(upload, columns)
    assert len(products) + sum(entry.skipped for entry in bad) == upload.num_rows
    assert [entry.row for entry in bad] == sorted(entry.row for entry in bad)
    assert all(len(entry.value) <= 80 and entry.reason for entry in bad)
    return products.to_list(), [(entry.row, entry.field, entry.value, entry.skipped) for entry in bad]


class TestTables:
    @pytest.mark.parametrize(
        ("content", "note"),
        [
            ("id,title\n007,Röck\n8,b", None),
            ("\ufeffid,title\n007,Röck\n8,b\n", None),
            ('id;title\r\n007;Röck\r\n"8";b;\r\n', "';'"),
            ("id\ttitle\n007\tRöck\n\n8\tb\n", "tabs"),
            ("id|title\n007|Röck\n8|b\n", "'|'"),
            ("id,title\n007,Röck\n8,b".encode("cp1252"), "Latin-1"),
            ("id\ttitle\n007\tRöck\n8\tb\n".encode("utf-16"), "tabs"),
            (json.dumps([{"id": "007", "title": "Röck"}, {"id": 8, "title": "b"}]), None),
            ('\n{"id": "007", "title": "Röck"}\n{"title": "b", "id": 8}\n', None),
            (parquet({"id": ["007", "8"], "title": ["Röck", "b"]}), None),
        ],
    )
    def test_every_format_reads_alike(self, drop: Drop, content: str | bytes, note: str | None) -> None:
        """The content counts, not the extension, which is .csv for all of them."""
        upload = drop(content)
        assert upload.texts == {"id": ["007", "8"], "title": ["Röck", "b"]} and not upload.unread
        assert (note is None and not upload.notes) or any(note in text for text in upload.notes)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "is empty"),
            ("  \n ", "is empty"),
            ("id,title\n", "no products"),
            ("id,title,id\n1,a,2", "Several columns are named 'id'"),
            ("id,title\n1", "no products in it. Row 2: it has 1 cells"),
            (b"\x89PNG\r\n\x1a\n\0\0\0", "not a table"),
            (b"PK\3\4rest", "Excel workbook"),
            ("<!doctype html>", "web page"),
            ("[1, 2", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ('[{"id": 1, "id": 2}]', "same name twice"),
            ("[]", "no products"),
            ('{"products": [\n', "Row 1: it is not valid JSON"),
            (b"PAR1", "damaged"),
            (parquet({"id": ["1"]})[:-20], "damaged"),
            (parquet({"id": ["1"]})[:4] + b"\0" * 200 + parquet({"id": ["1"]})[204:], "damaged"),
            (parquet(pa.table([["1"], ["2"]], names=["id", "id"])), "Several columns"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, drop: Drop, content: str | bytes, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            drop(content)

    def test_rows_are_numbered_as_a_spreadsheet_shows_them(self, drop: Drop) -> None:
        upload = drop('id,title\n1,"two\nlines, and ""quotes"""\n\n2,a,b,c\n3,"x"y\n4,last\n')
        assert upload.texts["title"] == ['two lines, and "quotes"', "last"]
        assert upload.rows == [2, 6]
        assert [(bad.row, bad.value) for bad in upload.unread] == [(4, "2,a,b,c"), (5, "")]
        assert "4 cells where the header has 2" in upload.unread[0].reason and "line 6" in upload.unread[1].reason
        assert [bad[0] for bad in read(upload, TITLED)[1]] == [4, 5]

    def test_an_open_quotation_mark_swallows_no_row_unsaid(self, drop: Drop) -> None:
        upload = drop('id,title\n1,a\n2,"never closed\n3,c\n4,d')
        assert upload.rows == [2] and "lines 3 to 5" in upload.unread[0].reason

    def test_latin_1_is_read_as_browsers_read_it(self, drop: Drop) -> None:
        assert drop("id,title\n1,“Röck” à 5 €".encode("cp1252")).texts["title"] == ["“Röck” à 5 €"]

    def test_a_column_without_a_name_gets_one(self, drop: Drop) -> None:
        """pandas saves its index so."""
        assert list(drop(",title,,\n0,a,,\n1,b,,\n").texts) == ["column 1", "title"]

    def test_json_values_become_text(self, drop: Drop) -> None:
        rows = [
            {
                "id": 1,
                "new": True,
                "price": 2.50,
                "tags": ["a"],
                "cost": {"amount": 1},
                "title": "half a \ud83d character",
            },
            "no object",
            {"id": 2, "price": None, "tags": "plain", "later": "x"},
            {"id": 3, "price": float("nan")},
        ]
        upload = drop(json.dumps(rows), name="products.json")
        assert upload.texts == {
            "id": ["1", "2", "3"],
            "new": ["true", None, None],
            "price": ["2.5", None, None],
            "tags": ['["a"]', "plain", None],
            "title": ["half a ? character", None, None],
            "later": [None, "x", None],
        }
        assert upload.rows == [1, 3, 4] and upload.unread[0].row == 2 and "'cost'" in upload.notes[0]

    def test_a_bad_json_line_is_one_bad_row(self, drop: Drop) -> None:
        upload = drop('{"id": 1, "title": "a\u2028b"}\n{"id": 2, oops}\n{"id": 3}\n')
        assert upload.rows == [1, 3] and upload.unread[0].row == 2 and upload.texts["title"] == ["a b", None]

    def test_parquet_values_become_text(self, drop: Drop) -> None:
        table = pa.table(
            {
                "year": pa.array([2012.0, float("nan"), None]),
                "count": pa.array([1, None, -3], pa.int16()),
                "day": pa.array([0, 1, None], pa.date32()),
                "kind": pa.array(["bag", "bag", None]).dictionary_encode(),
                "tags": [["a"], None, []],
                "cost": [{"amount": 1}, None, None],
                "nothing": pa.nulls(3),
            }
        )
        upload = drop(parquet(table))
        assert upload.texts == {
            "year": ["2012", None, None],
            "count": ["1", None, "-3"],
            "day": ["1970-01-01", "1970-01-02", None],
            "kind": ["bag", "bag", None],
            "tags": ['["a"]', None, None],
            "nothing": [None, None, None],
        }
        assert upload.rows == [1, 2, 3] and "'cost'" in upload.notes[0]

    @pytest.mark.parametrize(
        ("content", "limits", "message"),
        [
            ("id\n1\n2\n3", {"rows": 2}, "more than 2 rows"),
            ('{"id": 1}\n{"id": 2}\n{"id": 3}', {"rows": 2}, "more than 2 rows"),
            (parquet({"id": [1, 2, 3]}), {"rows": 2}, "more than 2 rows"),
            ("id\n" + "1,2\n" * 3, {"rows": 2}, "More than 2 rows can't be read"),
            ("a,b,c\n1,2,3", {"columns": 2}, "more than 2 columns"),
            ('[{"a": 1}, {"b": 1}, {"c": 1}]', {"columns": 2}, "more than 2 columns"),
            (parquet({"a": [1], "b": [1], "c": [1]}), {"columns": 2}, "more than 2 columns"),
            ("id\n1\n2\n3", {"table_bytes": 5}, "larger than"),
            (parquet({"id": ["x" * 2**20]}), {"unpacked_bytes": 2**19}, "or 0.5 MB"),
        ],
    )
    def test_tables_stay_within_the_limits(
        self, drop: Drop, content: str | bytes, limits: dict[str, int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            drop(content, limits=Limits(**limits))

    def test_a_parquet_bomb_is_never_held(self, drop: Drop, monkeypatch: pytest.MonkeyPatch) -> None:
        """One value of a megabyte, kept once, in each of 1,000 rows: a gigabyte from a file of some kilobytes."""
        bomb = parquet(
            {"title": pa.DictionaryArray.from_arrays(np.zeros(1000, np.int32), ["x" * 2**20])}, compression="zstd"
        )
        assert len(bomb) < 100_000
        held = []
        add_batch = Table.add_batch
        monkeypatch.setattr(
            Table,
            "add_batch",
            lambda self, columns, rows: (
                held.append(sum(c.nbytes for c in columns.values())) or add_batch(self, columns, rows)
            ),
        )
        with pytest.raises(ValueError, match="8 MB"):
            drop(bomb, limits=Limits(unpacked_bytes=2**23))
        assert max(held) <= 2**23 + 1000 and sum(held) <= 2**24

    def test_one_source_at_a_time(self, drop: Drop) -> None:
        with pytest.raises(ValueError, match="not both"):
            drop("id\n1", dataset="owner/name")
        with pytest.raises(ValueError, match="Drop a table"):
            drop()


class TestZips:
    def test_photos_are_found_by_path_base_name_and_letter_case(self, drop: Drop) -> None:
        names = ["a/1.jpg", "b/1.jpg", "a/Two.JPG", "3.png", "Größe.jpg", "__MACOSX/._3.png", "note.txt"]
        archive = drop(photos=dict.fromkeys(names, photo())).zip
        assert archive.names == ["3.png", "Größe.jpg", "a/1.jpg", "a/Two.JPG", "b/1.jpg"]
        for name, found in {
            "a/1.jpg": "a/1.jpg",
            "a\\1.jpg": "a/1.jpg",
            "./a/1.jpg": "a/1.jpg",
            "A/1.JPG": "a/1.jpg",
            "two.jpg": "a/Two.JPG",
            "elsewhere/3.png": "3.png",
            "https://shop.example/img/3.png?width=80": "3.png",
            "HTTPS://shop.example/Gr%C3%B6%C3%9Fe.jpg": "Größe.jpg",
            "Gro\u0308\u00dfe.jpg": "Größe.jpg",
            "4.png": None,
            "3": None,
            "": None,
            "/etc/passwd": None,
            "../../3.txt": None,
        }.items():
            assert archive.find(name) == found, name
        assert archive.find_stem("TWO") == "a/Two.JPG" and archive.find_stem("a/Two") is None
        for find in (archive.find, archive.find_stem):
            with pytest.raises(ValueError, match="several photos"):
                find("1.jpg" if find == archive.find else "1")

    def test_letter_case_tells_apart_where_it_must(self, drop: Drop) -> None:
        archive = drop(photos={"a.jpg": photo(), "A.jpg": photo("blue")}).zip
        assert archive.find("A.jpg") == "A.jpg" and archive.find_stem("a") == "a.jpg"
        with pytest.raises(ValueError, match="several"):
            archive.find("a.JPG")

    @pytest.mark.parametrize(
        "name", ["../1.jpg", "a/../../1.jpg", "/1.jpg", "..\\1.jpg", "C:\\1.jpg", "c:1.jpg", "\\\\host\\1.jpg"]
    )
    def test_names_that_lead_out_are_refused(self, drop: Drop, name: str) -> None:
        with pytest.raises(ValueError, match="path out of the zip"):
            drop(photos=make_zip([(zipfile.ZipInfo(name), photo())]))

    def test_links_and_nul_are_refused(self, drop: Drop) -> None:
        link = zipfile.ZipInfo("1.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        hidden = make_zip({"1.jpgX.exe": photo()}).replace(b"1.jpgX.exe", b"1.jpg\0.exe")
        for content in (make_zip([(link, b"/etc/passwd")]), hidden):
            with pytest.raises(ValueError, match="a link or a path"):
                drop(photos=content)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "cut off"),
            (b"no zip at all", "cut off"),
            (make_zip({"1.jpg": photo()})[:-30], "cut off"),
            (make_zip({"1.jpg": photo()}) + b"PK\5\6", "cut off"),
            (make_zip({}), "no products"),
            (make_zip({"readme.txt": b"hello"}), "no products"),
            (
                make_zip({"1.jpg": photo()}).replace(b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0"),
                "password",
            ),
        ],
    )
    def test_what_is_no_readable_zip_is_said(self, drop: Drop, content: bytes, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            drop(photos=content)

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"files": 2}, "more than 2 files"),
            ({"zip_bytes": 500}, "larger than"),
            ({"unpacked_bytes": 1000}, "unpacks to more than"),
        ],
    )
    def test_zips_stay_within_the_limits(self, drop: Drop, limits: dict[str, int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            drop(photos={f"{i}.jpg": photo() for i in range(3)}, limits=Limits(**limits))

    def test_a_directory_is_refused_before_it_is_read(self, drop: Drop, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both ways to say that it is large: in the last record, or in a zip64 record before it."""
        crowded = make_zip({f"{i:030}.jpg": b"" for i in range(100)})
        zip64 = make_zip({"1.jpg": photo()})
        zip64 = zip64[:-22] + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1) + zip64[-22:]
        monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the directory was read"))
        for content in (crowded, zip64):
            with pytest.raises(ValueError, match="more than 10 files"):
                drop(photos=content, limits=Limits(files=10))

    def test_bombs_by_real_size(self, drop: Drop) -> None:
        """A zip that declares 10 bytes and holds 50 MB; and methods that unpack without a bound."""
        bomb = bytearray(make_zip({"1.jpg": b"\0" * 50_000_000}))
        declared = struct.pack("<L", 50_000_000)
        while (place := bomb.find(declared)) >= 0:
            bomb[place : place + 4] = struct.pack("<L", 10)
        lzma = make_zip({"1.jpg": b"\0" * 1_000_000}, zipfile.ZIP_LZMA)
        for content, reason in ((bytes(bomb), "damaged"), (lzma, "method other than deflate")):
            archive = drop(photos=content).zip
            with pytest.raises(ValueError, match=reason):
                archive.read("1.jpg")

    def test_a_large_photo_is_not_unpacked(self, drop: Drop, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = drop(photos={"1.jpg": photo()}, limits=Limits(photo_bytes=100)).zip
        monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
        with pytest.raises(ValueError, match="file is larger"):
            archive.read("1.jpg")

    def test_a_damaged_entry_is_one_bad_photo(self, drop: Drop) -> None:
        content = make_zip({"1.jpg": photo(), "2.jpg": photo("blue")}, zipfile.ZIP_STORED)
        archive = drop(photos=content.replace(photo(), photo()[:-2] + b"\0\0")).zip
        assert archive.read("2.jpg") == photo("blue")
        with pytest.raises(ValueError, match="damaged in the zip"):
            archive.read("1.jpg")
        # Its beginning is missing; newer Pythons notice at once.
        with pytest.raises(ValueError, match="damaged"):
            drop(photos=content[200:]).zip.read("1.jpg")

    def test_a_zip_alone_is_a_catalogue(self, drop: Drop) -> None:
        upload = drop(photos={"b/2.png": photo("blue", form="PNG"), "1.jpg": photo(), "3.jpg": b"none"})
        columns = guess_columns(upload)
        assert columns == UploadColumns("id", None, "image", {})
        products, bad = read(upload, columns)
        assert [(row["id"], row["title"]) for row in products] == [("1.jpg", None), ("b/2.png", None)]
        assert products[1]["image"]["bytes"] == photo("blue", form="PNG")
        assert bad == [(2, "image", "3.jpg", False), (2, "", "3.jpg", True)]


def reasons(upload: Upload, columns: UploadColumns) -> dict[int, str]:
    return {entry.row: entry.reason for entry in read_products(upload, columns)[1]}


class TestProducts:
    def test_photos_by_name_and_what_is_wrong_with_them(self, drop: Drop) -> None:
        good, bomb = photo("green"), photo(size=(200, 200), form="PNG")
        noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        PILImage.fromarray(noise).save(buffer, "JPEG")
        zipped = {
            "good.jpg": good,
            "cut.jpg": buffer.getvalue()[:-1000],
            "text.jpg": b"<svg/>",
            "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "wide.png": bomb,
            "heavy.png": photo(form="PNG") + b"\0" * 30_000,
        }
        names = [*zipped, "gone.jpg", "", "https://shop.example/5.jpg"]
        table = "id,title,image\n" + "".join(f"{i},title {i},{name}\n" for i, name in enumerate(names))
        upload = drop(table, zipped, limits=Limits(pixels=39_999, photo_bytes=20_000))
        products, bad = read(upload, PICTURED)
        assert [row["image"] and row["image"]["bytes"] for row in products] == [good] + [None] * 8
        assert all(row["title"] for row in products)
        assert [(row, value) for row, _, value, _ in bad] == [(r, names[r - 2]) for r in (3, 4, 5, 6, 7, 8, 10)]
        assert not any(skipped for *_, skipped in bad)
        said = reasons(upload, PICTURED)
        for row, words in {
            3: "damaged",
            4: "no photo that can be read",
            5: "no photo that can be read",
            6: "million pixels",
            7: "file is larger",
            8: "no photo in the zip",
            10: "web address",
        }.items():
            assert words in said[row], row

    def test_a_pixel_bomb_is_not_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        header = photo(size=(30, 30), form="PNG")
        monkeypatch.setattr(PILImage.Image, "load", lambda _: pytest.fail("the photo was decoded"))
        monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(ValueError, match="40 million pixels"):
            check_photo(header, Limits())
        monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", None)
        with pytest.raises(ValueError, match="million pixels"):
            check_photo(header, Limits(pixels=899))

    @pytest.mark.parametrize("cell", ["1a.jpg, 1b.jpg", "1a.jpg;1b.jpg", "1a.jpg|1b.jpg", '[""1a.jpg"", ""1b.jpg""]'])
    def test_several_photos_that_are_there(self, drop: Drop, cell: str) -> None:
        red, blue = photo("red"), photo("blue")
        upload = drop(f'id,title,image\n1,one,"{cell}"\n2,two,1b.jpg\n3,three,', {"1a.jpg": red, "1b.jpg": blue})
        assert "1 products have several photos in 'image': up to 4 of each are used" in upload.notes[0]
        products, bad = read(upload, PICTURED)
        assert [[image["bytes"] for image in row["image"]] for row in products] == [[red, blue], [blue], []] and not bad
        products, bad = read(drop(f'id,title,image\n1,one,"{cell}"\n', {"1b.jpg": blue}), PICTURED)
        assert [image["bytes"] for image in products[0]["image"]] == [blue]
        assert bad == [(2, "image", "1a.jpg", False)]

    def test_no_more_photos_than_are_used(self, drop: Drop) -> None:
        names = [f"{i}.jpg" for i in range(6)]
        upload = drop(f"id,title,image\n1,one,{'|'.join(names)}\n", dict.fromkeys(names, photo()))
        assert len(read(upload, PICTURED)[0][0]["image"]) == 4 and upload.unused_photos == ["4.jpg", "5.jpg"]

    def test_numbered_photos_by_id(self, drop: Drop) -> None:
        names = ["A_10.jpg", "A_2.jpg", "B (1).jpg", "C-9.jpg", "C.jpg"]
        upload = drop("id,title\nA,one\nB,two\nC,three", {name: photo() + name.encode() for name in names})
        products, bad = read(upload, TITLED)
        assert not bad
        found = [[image["bytes"][len(photo()) :].decode() for image in row["image"]] for row in products]
        assert found == [["A_2.jpg", "A_10.jpg"], ["B (1).jpg"], ["C.jpg", "C-9.jpg"]] and upload.unused_photos == []

    def test_a_placeholder_is_told(self, drop: Drop) -> None:
        rows = "".join(f"{i},t{i},none.png\n" for i in range(4))
        assert "'none.png'. If it is a placeholder" in drop(f"id,title,image\n{rows}", {"none.png": photo()}).notes[0]

    def test_a_phone_s_photo_is_decoded_at_a_part_of_its_size(self) -> None:
        large = photo(size=(800, 600))
        check_photo(large, Limits(pixels=300_000))
        assert decode_photo(large, Limits(pixels=300_000)).size == (400, 300)

    def test_heic_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"HEIC, the format of iPhones.*convert it to JPEG"):
            check_photo(b"\0\0\0\x18ftypheic" + bytes(100), Limits())

    def test_photos_by_id(self, drop: Drop) -> None:
        upload = drop(
            "id,title\nA-1,one\nB/2,two\n3.5,three", {"p/a-1.JPG": photo(), "2.jpg": photo(), "3.jpg": photo()}
        )
        products, bad = read(upload, TITLED)
        assert [row["image"] is not None for row in products] == [True, False, False]
        assert [row for row, *_ in bad] == [3, 4]

    def test_names_without_a_zip(self, drop: Drop) -> None:
        upload = drop("id,title,image\n1,one,/etc/hostname\n2,two,file:///etc/hostname\n3,,http://127.0.0.1/x.jpg")
        products, bad = read(upload, PICTURED)
        assert [row["image"] for row in products] == [None, None] and len(bad) == 4
        assert "web address" in read_products(upload, PICTURED)[1][2].reason

    def test_photos_in_parquet(self, drop: Drop) -> None:
        """Of both kinds that are in use; a path next to the bytes is never opened."""
        rows = [(1, photo()), (2, photo("blue")), (3, None), (4, b"junk")]
        plain = pa.table({"id": [i for i, _ in rows], "image": [data for _, data in rows]})
        structs = [data and {"bytes": data, "path": "/etc/hostname"} for _, data in rows]
        hub = pa.table(
            {"id": [i for i, _ in rows] + [5], "image": [*structs, {"bytes": None, "path": "/etc/hostname"}]}
        )
        for table, bad_rows in ((plain, [3, 4, 4]), (hub, [3, 4, 4, 5, 5])):
            upload = drop(parquet(table))
            columns = guess_columns(upload)
            assert columns == UploadColumns("id", None, "image", {})
            products, bad = read(upload, columns)
            assert [row["image"] for row in products] == [{"bytes": data, "path": None} for _, data in rows[:2]]
            assert [row for row, *_ in bad] == bad_rows

    def test_a_large_photo_in_parquet(self, drop: Drop) -> None:
        upload = drop(parquet({"id": [1], "title": ["a"], "image": [photo()]}), limits=Limits(photo_bytes=100))
        assert "file is larger" in reasons(upload, PICTURED)[1]

    def test_ids_and_titles(self, drop: Drop) -> None:
        upload = drop("id,title\n1,one\n,two\n1,three\n 4 ,\n5, five \n")
        products, bad = read(upload, TITLED)
        assert [(row["id"], row["title"]) for row in products] == [("1", "one"), ("5", "five")]
        assert bad == [(3, "id", "", True), (4, "id", "1", True), (5, "", "4", True)]
        assert "row 2 has the same id" in reasons(upload, TITLED)[4]
        products, bad = read(upload, UploadColumns(None, "title", None))
        assert [row["id"] for row in products] == ["2", "3", "4", "6"] and bad == [(5, "", "5", True)]

    def test_attributes_have_clean_types(self, drop: Drop) -> None:
        upload = drop("id;title;size;price;colour\n1;a;38;12,50;red\n2;b;40.0;1e2;\n3;c;;-.5;blue")
        columns = UploadColumns("id", "title", None, {"size": "number", "price": "number", "colour": "text"})
        dataset, bad = read_products(upload, columns)
        assert not bad
        assert dataset.features == Features(
            {
                "id": Value("string"),
                "title": Value("string"),
                "image": Image(decode=False),
                "size": Value("int64"),
                "price": Value("float64"),
                "colour": Value("string"),
            }
        )
        assert dataset["size"][:] == [38, 40, None] and dataset["price"][:] == [12.5, 100.0, -0.5]
        assert dataset["colour"][:] == ["red", None, "blue"]

    @pytest.mark.parametrize("odd", ["n/a", "007", "nan", "1e999", "1_000", "٣", "12 PCS"])
    def test_a_few_texts_among_numbers(self, drop: Drop, odd: str) -> None:
        def table(count: int) -> str:
            return "id;title;size\n" + "".join(f"{i};t{i};{i}\n" for i in range(count - 1)) + f"x;tx;{odd}\n"

        assert guess_columns(drop(table(21))).attributes == {"size": "number"}
        products, bad = read(drop(table(21)), UploadColumns("id", "title", None, {"size": "number"}))
        assert [row["size"] for row in products] == [*range(20), None] and bad == [(22, "size", odd, False)]
        assert guess_columns(drop(table(20))).attributes.get("size", "text") == "text"
        with pytest.raises(ValueError, match="take the column as text"):
            read(drop(table(20)), UploadColumns("id", "title", None, {"size": "number"}))

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (UploadColumns("nr", "title", None), "'nr' is not there"),
            (UploadColumns("id", None, None), "A product needs one"),
            (UploadColumns("id", "title", "photo"), "'photo' is not there"),
            (UploadColumns("id", "name", None, {"title": "text"}), "can't be named 'title'"),
            (UploadColumns("id", "title", None, {"name": "colour"}), "take 'text', 'number' or 'date'"),
        ],
    )
    def test_roles_that_no_column_can_play(self, drop: Drop, columns: UploadColumns, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read(drop("id,title,name\n1,a,b"), columns)

    def test_a_photo_in_every_row_stays_within_the_limit(self, drop: Drop) -> None:
        table = "id,title,image\n" + "".join(f"{i},t,1.jpg\n" for i in range(100))
        upload = drop(table, {"1.jpg": photo()}, limits=Limits(unpacked_bytes=50 * len(photo())))
        with pytest.raises(ValueError, match="together"):
            read(upload, PICTURED)

    def test_a_second_reading_leaves_the_first_alone(self, drop: Drop) -> None:
        upload = drop("id,title,name\n1,a,b\n2,c,d")
        first, _ = read_products(upload, TITLED)
        second, _ = read_products(upload, UploadColumns("id", "name", None))
        assert first["title"][:] == ["a", "c"] and second["title"][:] == ["b", "d"]

    def test_no_product_at_all(self, drop: Drop) -> None:
        products, bad = read(drop("id,title\n1,\n2,"), TITLED)
        assert products == [] and len(bad) == 2


class TestGuess:
    @pytest.mark.parametrize(
        ("header", "guess"),
        [
            ("id,productDisplayName,image", ("id", "productDisplayName", "image")),
            ("Artikel-Nr.;Bezeichnung;Bilddatei", ("Artikel-Nr.", "Bezeichnung", "Bilddatei")),
            ("Référence;Libellé;Photo", ("Référence", "Libellé", "Photo")),
            ("Código,Título,Imagen", ("Código", "Título", "Imagen")),
            ("codice;nome;immagine", ("codice", "nome", "immagine")),
            ("артикул;Название;Фото", ("артикул", "Название", "Фото")),
            ("商品コード,商品名,画像", ("商品コード", "商品名", "画像")),
            ("상품번호,상품명,이미지", ("상품번호", "상품명", "이미지")),
            ("Handle,Title,Image Src", ("Handle", "Title", "Image Src")),
            ("foo,bar,baz", ("foo", "bar", "baz")),  # by what they hold
        ],
    )
    def test_names_in_several_languages(self, drop: Drop, header: str, guess: tuple[str, str, str]) -> None:
        separator = ";" if ";" in header else ","
        rows = [f"K{i}{separator}A shirt number {i}{separator}{i}.jpg\n" for i in range(5)]
        columns = guess_columns(drop(header + "\n" + "".join(rows)))
        assert columns == UploadColumns(*guess, {})

    def test_attributes_and_what_is_none(self, drop: Drop) -> None:
        rows = [
            {
                "id": i,
                "name": f"Shirt number {i}",
                "title": "Mr",
                "colour": ["red", "blue"][i % 2],
                "price": i + 0.5,
                "shop": "ours",
                "description": f"A long text about the shirt number {i}, " * 8,
                "ean": 4_000_000_000_000 + i,
                "empty": None,
                "batch": f"B {i}",
            }
            for i in range(40)
        ]
        columns = guess_columns(drop(json.dumps(rows)))
        # A name wins over what a column holds; the user sees it and corrects it.
        assert columns.title == "title"
        for row in rows:
            del row["title"]
        assert guess_columns(drop(json.dumps(rows))) == UploadColumns(
            "id", "name", None, {"colour": "text", "price": "number"}
        )

    def test_an_id_column_that_repeats_is_none(self, drop: Drop) -> None:
        rows = "".join(f"{i % 3},Shirt of the number {i}\n" for i in range(12))
        assert guess_columns(drop("code,what\n" + rows)) == UploadColumns(None, "what", None, {})

    def test_distinct_prices_are_no_ids(self, drop: Drop) -> None:
        rows = "".join(f"{i}.5,The shirt {i},N-{i}\n" for i in range(12))
        guess = guess_columns(drop("cost,what,which\n" + rows))
        assert guess == UploadColumns("which", "what", None, {"cost": "number"})

    def test_names_in_the_zip_without_extension_are_no_names(self, drop: Drop) -> None:
        zipped = {f"p/{i}.jpg": photo() for i in range(3)}
        table = "sku,label,where\n" + "".join(f"s{i},The label {i},p/{i}.jpg\n" for i in range(3))
        assert guess_columns(drop(table, zipped)) == UploadColumns("sku", "label", "where", {})


class TestHub:
    """The Hub's Parquet branch, stood in for by the same files in memory."""

    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
        memory, calls = fsspec.filesystem("memory"), []

        def serve(files: dict[str, bytes]) -> list:
            for path, data in files.items():
                memory.pipe(f"/datasets/owner/name@refs/convert/parquet/{path}", data)
            return calls

        monkeypatch.setattr("acebert.space.uploads.HfFileSystem", lambda **options: calls.append(options) or memory)
        yield serve
        memory.store.clear()

    @staticmethod
    def part(start: int, count: int) -> bytes:
        rows = [
            {"id": i, "title": f"The shirt {i}", "image": {"bytes": photo(), "path": "x.jpg"}}
            for i in range(start, start + count)
        ]
        features = Features({"id": Value("int64"), "title": Value("string"), "image": Image()})
        buffer = io.BytesIO()
        Dataset.from_list(rows, features=features).to_parquet(buffer)
        return buffer.getvalue()

    def test_reads_the_first_rows(self, drop: Drop, hub: Callable[..., list]) -> None:
        calls = hub(
            {
                "default/test/0000.parquet": self.part(90, 4),
                "default/train/0000.parquet": self.part(0, 4),
                "other/train/0000.parquet": self.part(50, 4),
            }
        )
        upload = drop(dataset="owner/name", limits=Limits(rows=6))
        assert upload.texts["id"] == ["0", "1", "2", "3", "90", "91"] and len(upload.photos["image"]) == 6
        assert upload.rows == [1, 2, 3, 4, 5, 6]
        assert len(upload.notes) == 2 and "first 6 rows" in upload.notes[1]
        assert calls[0]["token"] is False
        columns = guess_columns(upload)
        assert columns == PICTURED
        products, bad = read(upload, columns)
        assert len(products) == 6 and not bad and products[5]["image"]["bytes"] == photo()

    def test_stops_at_the_limit_of_bytes(self, drop: Drop, hub: Callable[..., list]) -> None:
        hub({f"default/train/{i:04}.parquet": self.part(4 * i, 4) for i in range(3)})
        upload = drop(dataset="owner/name", limits=Limits(unpacked_bytes=6 * len(photo())))
        assert 0 < upload.num_rows < 6 and "first" in upload.notes[0]

    @pytest.mark.parametrize(
        "name",
        [
            *("/etc", "../data", "./owner/name", "owner/../name", "owner/..", "owner/na..me", "~/data", "C:/data"),
            *("name", "owner/name/more", "owner/name@main", "owner\\name", "owner/*", "owner/na me", "owner/name\n."),
            *("https://huggingface.co/datasets/owner/name", "hf://datasets/owner/name"),
        ],
    )
    def test_only_names_on_the_hub(
        self, drop: Drop, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("acebert.space.uploads.HfFileSystem", lambda **_: pytest.fail("the name was looked up"))
        with pytest.raises(ValueError, match="no name of a dataset"):
            open_upload(None, None, name, tmp_path, Limits())

    def test_a_dataset_that_is_not_there_and_a_hub_that_is_not(
        self, drop: Drop, hub: Callable[..., list], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub({})
        with pytest.raises(ValueError, match="no public dataset 'owner/none'"):
            drop(dataset="owner/none")
        hub({"default/test/0000.parquet": parquet({"a": [1]}), "default/train/0000.parquet": parquet({"b": [1]})})
        with pytest.raises(ValueError, match="other columns"):
            drop(dataset="owner/name")
        hub({"default/train/0000.parquet": b"PAR1"})
        with pytest.raises(ValueError, match="damaged"):
            drop(dataset="owner/name")

        def unreachable(**_: Any) -> None:
            raise ConnectionError("[Errno -2] Name or service not known")

        monkeypatch.setattr("acebert.space.uploads.HfFileSystem", unreachable)
        with pytest.raises(ValueError, match="can't be reached"):
            drop(dataset="owner/name")
