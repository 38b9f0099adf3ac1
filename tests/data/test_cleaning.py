"""The one rule for cells, columns and rows: equal answers for every form of a column and every part that reads."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from acebert.catalog.source import Source
from acebert.data.cleaning import (
    BadRow,
    clean_photo,
    find_bad_rows,
    have_photos,
    keep_good_rows,
    prepare_columns,
    read_column,
    read_photos,
    read_texts,
    refuse_most,
)
from acebert.data.columns import Columns, column_kind
from acebert.data.corpus import Corpus
from acebert.data.pairs import PairDataset
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import load_products

STRUCTS = [{"bytes": b"x", "path": None}, None, {"bytes": None, "path": " "}, {"bytes": None, "path": "a.jpg"}]
EMBEDDED = [{"bytes": b"", "path": "a"}, {"bytes": b"x", "path": None}]  # an empty file is broken, not missing


@pytest.mark.parametrize(
    ("cells", "feature"),
    [
        (STRUCTS, Image(decode=False)),
        ([each and {"bytes": each["bytes"], "path": each["path"]} for each in STRUCTS], None),
        (EMBEDDED, Image(decode=False)),
        ([{"path": "a.jpg"}, {"path": None}, None], None),
        ([{"bytes": b"x"}, {"bytes": None}, None], None),
        (["a.jpg", "", None, " "], Value("string")),
        (["a.jpg", "", None], Value("large_string")),
        ([b"x", None, b""], Value("binary")),
    ],
)
def test_photos_are_missed_by_one_rule(cells: list[Any], feature: Any) -> None:
    features = None if feature is None else Features({"image": feature})
    products = Dataset.from_dict({"image": cells}, features=features)
    order = list(reversed(range(len(cells))))
    for some in (products, products.select(order), products.select([0])):
        expected = [clean_photo(cell) is not None for cell in some["image"]]
        assert have_photos(some, "image").tolist() == expected
        rows = list(range(len(some)))
        assert [photo is not None for photo in read_photos(some, "image", rows)] == expected
        assert have_photos(prepare_columns(some, Columns()), "image").tolist() == expected


def test_missing_columns_are_empty() -> None:
    products = Dataset.from_dict({"id": [1, 2, 3]})
    assert read_column(products, "title") == read_texts(products, None) == [None] * 3
    assert read_column(products, "title", [1]) == [None] and read_column(products, "title", slice(1, 3)) == [None] * 2
    assert not have_photos(products, "image").any()


def test_class_labels_are_read_by_their_names_everywhere(tmp_path: Path) -> None:
    kinds = ClassLabel(names=["shirt", "mug"])
    features = Features({"id": Value("int64"), "title": Value("string"), "kind": kinds, "tags": List(kinds)})
    rows = {"id": [1, 2, 3], "title": ["a", "b", "c"], "kind": [1, None, 0], "tags": [[0, 1], None, []]}
    products, columns = Dataset.from_dict(rows, features=features), Columns(image=None, attributes=["kind"])
    assert read_column(products, "kind") == ["mug", None, "shirt"]
    assert read_column(products, "tags") == [["shirt", "mug"], None, []]
    pairs = PairDataset(products, columns, QueryTemplates(["{kind}"]))
    corpus = Corpus.from_products(products, ["train"] * 3, columns, "the shop")
    source = Source.of(products, "id", "title", None, ["kind", "tags"])
    assert pairs.attributes["kind"] == corpus.attributes["kind"][::-1] == source.attribute("kind")
    assert source.kinds() == {"kind": "string", "tags": "strings"} and source.find_bad_rows() == []


@pytest.mark.parametrize(
    ("feature", "kind"),
    [
        (Value("string"), "string"),
        (Value("large_string"), "string"),
        (ClassLabel(names=["a"]), "string"),
        (Value("uint8"), "integer"),
        (Value("float16"), "number"),
        (Value("bool"), "boolean"),
        (List(Value("string")), "strings"),
        (List(Value("int64")), None),
        (List(Value("string"), length=2), None),
        (Value("timestamp[s]"), None),
        (Value("binary"), None),
        (Image(), None),
    ],
)
def test_kinds_of_columns(feature: Any, kind: str | None) -> None:
    assert column_kind(feature) == kind


WRONG = (
    ({"title": [501, 502]}, "title column 'title' holds .*int64.*, not texts: name another column as title_column"),
    ({"id": [[1], [2]]}, "id column 'id' holds .*, not texts or whole numbers: name another column as id_column"),
    ({"id": [1.5, 2.0]}, "id column 'id' holds fractions .* 1.5 in row 0"),
    ({"image": [1, 2]}, "image column 'image' holds .*: photos are images"),
)


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_a_column_of_another_type_is_refused_alike(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    """By what training, evaluation and catalogues read products with."""
    rows = {"id": [1, 2], "title": ["a", "b"], "image": ["a.jpg", "b.jpg"]} | given
    products, file = Dataset.from_dict(rows), tmp_path / "shop.parquet"
    products.to_parquet(file)
    for read in (
        lambda: load_products([str(file)], "train", Columns()),
        lambda: Corpus.from_products(products, ["train"] * 2, Columns(), "the shop"),
        lambda: Source.of(products, "id", "title", "image", None),
    ):
        with pytest.raises(ValueError, match=message):
            read()


def test_floats_that_are_whole_are_ids_everywhere(tmp_path: Path) -> None:
    products, file = Dataset.from_dict({"id": [7.0, 8.0], "title": ["a", "b"]}), tmp_path / "shop.parquet"
    products.to_parquet(file)
    columns = Columns(image=None)
    assert load_products([str(file)], "train", columns)["id"][:] == [7, 8]
    assert Corpus.from_products(products, ["train"] * 2, columns, "the shop").ids == ["8", "7"]
    assert Source.of(products, "id", "title", None, None).ids() == [7, 8]


def test_bad_rows_are_found_alike() -> None:
    rows = [
        {"id": "a", "title": "shirt", "image": None},
        {"id": None, "title": None, "image": None},  # the first of its faults counts
        {"id": "c", "title": "\u200b", "image": " "},
        {"id": "a", "title": "mug", "image": None},
    ]
    products, columns = Dataset.from_list(rows), Columns()
    expected = [(1, "id"), (2, "title and image"), (3, "id")]
    found = find_bad_rows(products, columns, unique_ids=True)
    assert [(bad.row, bad.field) for bad in found] == expected
    assert keep_good_rows(products, columns, None, unique_ids=True)[1] == [0]
    assert Source.of(products, "id", "title", "image", None).find_bad_rows() == found
    assert [bad.row for bad in find_bad_rows(products, columns, unique_ids=False)] == [1, 2]


@pytest.mark.parametrize(
    ("bad", "count", "refused"), [(1, 2, 0), (2, 3, 1), (1, 3, 0), (3, 4, 0), (4, 7, 1), (4, 8, 0)]
)
def test_a_table_most_of_which_is_bad_is_refused(bad: int, count: int, refused: bool) -> None:
    rows = [BadRow(row, str(row), "title", "is blank: give one") for row in range(bad)]
    with pytest.raises(ValueError, match=f"{bad} of {count} rows can't be used") if refused else nullcontext():
        refuse_most(rows, count)


def test_what_a_catalogue_keeps_of_numbers_is_stricter() -> None:
    """Training makes no query of infinity; a catalogue refuses it, since it can't be filtered by."""
    products = Dataset.from_dict({"id": [1, 2], "title": ["a", "b"], "price": [math.inf, math.nan]})
    source = Source.of(products, "id", "title", None, None)
    assert [(bad.row, bad.field) for bad in source.find_bad_rows()] == [(0, "price")]
    assert source.attribute("price", [1]) == [None]
    pairs = PairDataset(products, Columns(image=None), QueryTemplates(["{price}"]))
    assert pairs.attributes["price"] == [None, None] and (pairs.codes == -1).all()
    assert np.array_equal(pairs.groups, [0, 1])
