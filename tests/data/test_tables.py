"""Tables as shops export them: every kind of file, read by what it holds and as texts."""

import datetime
import gzip
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from datasets import Dataset

from acebert.data.columns import Columns
from acebert.data.opening import open_source
from acebert.data.sources import ReadOptions, load_products
from acebert.data.tables import TableLimits, read_table

COLUMNS = Columns("sku", "name", None)
ROWS = [["00123", "NA", "1.299,00 €"], ["123", "Größe M", "19,99 €"]]
HEADER = ["sku", "name", "price"]


def separated(separator: str, first: str = "") -> str:
    quoted = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in [HEADER, *ROWS]]
    return first + "".join(separator.join(row) + "\r\n" for row in quoted)


def as_objects() -> list[dict[str, str]]:
    return [dict(zip(HEADER, row, strict=True)) for row in ROWS]


def workbook(rows: list[list[Any]]) -> bytes:
    """A workbook of one sheet, of texts and numbers, as small as Excel opens it."""

    def cell(value: Any) -> str:
        return f"<c><v>{value}</v></c>" if isinstance(value, float) else f'<c t="str"><v>{value}</v></c>'

    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    namespace = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" Type="{office}/'
        'officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {namespace} xmlns:r="{office}"><sheets><sheet name="Shop" sheetId="1" r:id="r"/>'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" Type='
        f'"{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f"<worksheet {namespace}><sheetData>{sheet}</sheetData></worksheet>",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


FILES = {
    "shop.csv": separated(",").encode(),
    "SHOP.CSV": separated(",").encode(),
    "semicolons.csv": separated(";").encode(),
    "told.csv": separated(";", "sep=;\r\n").encode(),
    "mark.csv": separated(",").encode("utf-8-sig"),
    "ansi.csv": separated(";").encode("cp1252"),
    "unicode.csv": separated("\t").encode("utf-16"),
    "unmarked.csv": separated("\t").encode("utf-16-le"),
    "shop.tsv": separated("\t").encode(),
    "feed.txt": separated("|").encode(),
    "shop.csv.gz": gzip.compress(separated(",").encode()),
    "list.json": json.dumps(as_objects()).encode(),
    "wrapped.json": json.dumps({"count": 2, "products": as_objects()}).encode(),
    "lines.jsonl": "\n".join(map(json.dumps, as_objects())).encode(),
    "lines.json": "\n".join(map(json.dumps, as_objects())).encode(),
    "book.xlsx": workbook([HEADER, *ROWS]),
    "cat[12].csv": separated(",").encode(),
    "products (1) [new]*.csv": separated(",").encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_reads_alike(name: str, tmp_path: Path) -> None:
    for other in ("cat1.csv", "products (1) n.csv"):
        (tmp_path / other).write_text("sku,name,price\nanother,file,1\n")
    (tmp_path / name).write_bytes(FILES[name])
    products = load_products([str(tmp_path / name)], "train", COLUMNS, keep_others=True)
    assert products.to_dict() == {"sku": ["00123", "123"], "name": ["NA", "Größe M"], "price": [1299.0, 19.99]}


def test_a_workbook_s_numbers_are_texts_as_they_are_shown(tmp_path: Path) -> None:
    (tmp_path / "book.xlsx").write_bytes(workbook([["sku", "name", "price"], [123.0, "Mug", 9.5]]))
    assert read_table(tmp_path / "book.xlsx").texts == {"sku": ["123"], "name": ["Mug"], "price": ["9.5"]}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("feed.xml", b"<?xml version='1.0'?><rss/>", "is a web page or XML. This kind isn't read: what is read is CSV"),
        ("photos.zip", b"PK\3\4" + bytes(50), "is a zip or an Excel workbook"),
        ("shop.csv.gz", gzip.compress(b"id,title\n1,a\n" * 500)[:-20], "is damaged or cut off"),
        ("shop.json", b'{"id": [1, 2], "title": ["a", "b"]}', "holds an object of .*'id', 'title'.*: give a list of"),
        ("shop.json", b'{"shop": {"products": []}}', "holds an object of .*'shop'"),
    ],
    # Not the bytes: a gzip file holds the time it was made, and each process would collect another test.
    ids=["xml", "zip", "cut gzip", "columns of json", "other json"],
)
def test_what_is_not_read_is_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        load_products([str(tmp_path / name)], "train", Columns())


def test_a_file_that_is_not_there_is_no_other_one(tmp_path: Path) -> None:
    (tmp_path / "cat1.csv").write_text("id,title\n1,a\n")
    with pytest.raises(ValueError, match=r"isn't there"):
        load_products([str(tmp_path / "cat[12].csv")], "train", Columns(image=None))


def test_what_gzip_unpacks_to_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"id\n" + b"1\n" * 10**6))
    with pytest.raises(ValueError, match=r"larger than 0.5 MB"):
        read_table(tmp_path / "bomb.csv.gz", TableLimits(file_bytes=2**19))


def test_a_folder_with_tables_beside_its_photos(tmp_path: Path) -> None:
    for name, rows in {"train.csv": "1,a", "val.csv": "02,b", "train-2.csv": "3,c"}.items():
        (tmp_path / name).write_text(f"id,title\n{rows}\n")
    (tmp_path / "notes.txt").write_text("Photos are ours.")
    (tmp_path / "a.jpg").write_bytes(b"")
    opened = open_source(str(tmp_path))
    assert opened.is_text and opened.folder == str(tmp_path)
    columns = Columns(image=None)
    assert load_products([str(tmp_path)], "train", columns)["id"][:] == ["3", "1"]  # train-2.csv, train.csv
    assert load_products([str(tmp_path)], "validation", columns)["id"][:] == ["02"]


def test_a_database_is_asked_with_its_types(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table products (id text, title text, price numeric, stock integer)"))
        connection.execute(
            sqlalchemy.text("insert into products values ('007', 'Mug', 9.5, 3), ('8', 'None', 12, null)")
        )
    engine.dispose()
    options = ReadOptions(sql_query="select * from products")
    products = load_products([url], "train", Columns(image=None), keep_others=True, options=options)
    assert products["id"][:] == ["007", "8"] and products["title"][:] == ["Mug", "None"]
    assert products["price"][:] == [9.5, 12.0] and products["stock"][:] == [3, None]
    with pytest.raises(ValueError, match="--sql_query"):
        load_products([url], "train", Columns(image=None))
    with pytest.raises(ValueError, match="can't be asked 'select nothing'"):
        load_products([url], "train", Columns(), options=ReadOptions(sql_query="select nothing"))


def test_several_queries_in_a_cell_are_rows_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,title,query\n1,Mug,"[""red mug"", ""mug""]"\n2,Cup,cup\n3,Jug,\n')
    products = load_products([str(tmp_path / "a.csv")], "train", Columns(image=None, query="query"))
    assert products["query"][:] == ["red mug", "mug", "cup", None] and products["id"][:] == ["1", "1", "2", "3"]


def test_tags_and_paths_are_split_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'id,title,tags,category\n1,Mug,"new, sale",Home > Kitchen\n2,Cup,,"Home > Bar, Sale"\n'
    )
    options = ReadOptions(tag_columns=["tags"], path_columns=["category"])
    products = load_products([str(tmp_path / "a.csv")], "train", Columns(image=None), keep_others=True, options=options)
    assert products["tags"][:] == [["new", "sale"], None]
    assert products["category"][:] == [["Home", "Home > Kitchen"], ["Home", "Home > Bar", "Sale"]]


def test_the_header_of_amazons_template_is_below_what_is_for_people(tmp_path: Path) -> None:
    lines = ["TemplateType=fptcustom\tVersion=2026", "SKU\tTitle", "item_sku\titem_name", "A-1\tMug"]
    (tmp_path / "flat.txt").write_text("\n".join(lines))
    assert read_table(tmp_path / "flat.txt").texts == {"item_sku": ["A-1"], "item_name": ["Mug"]}


def test_codes_stay_texts_as_attributes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,title,EAN,Style Number,pages\n1,Book,4006381333931,12,300\n2,Pen,40,13,\n")
    products = load_products([str(tmp_path / "a.csv")], "train", Columns(image=None), keep_others=True)
    assert products["EAN"][:] == ["4006381333931", "40"] and products["pages"][:] == [300, None]


def test_values_of_typed_sources_are_brought_to_plain_types(tmp_path: Path) -> None:

    rows = {
        "id": [1, 2],
        "title": ["a", "b"],
        "price": [Decimal("9.50"), None],
        "day": [datetime.date(2026, 1, 31)] * 2,
    }
    Dataset.from_dict(rows).to_parquet(tmp_path / "shop.parquet")
    products = load_products([str(tmp_path / "shop.parquet")], "train", Columns(image=None), keep_others=True)
    assert products["price"][:] == [9.5, None] and products["day"][:] == ["2026-01-31"] * 2


def test_values_are_cleaned_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    titles = ["<b>Mug</b> &amp; cup", "Caf\u0065\u0301", "I <3 tea", "Mug  \u00a0", "AT&T <M>"]
    colours = ["Red", "Red ", "red", "RED", "Café"]
    Dataset.from_dict({"id": list("abcde"), "title": titles, "colour": colours}).to_parquet(tmp_path / "shop.parquet")
    products = load_products([str(tmp_path / "shop.parquet")], "train", Columns(image=None, attributes=["colour"]))
    assert products["title"][:] == ["Mug & cup", "Café", "I <3 tea", "Mug", "AT&T <M>"]
    assert products["colour"][:] == ["Red", "Red", "Red", "Red", "Café"]
    assert "3 of 'title', 3 of 'colour'" in caplog.text
