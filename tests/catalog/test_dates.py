"""Days and moments: what is read as one, which ranges they make, and which columns of a catalogue hold them."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from catalog_products import ids
from datasets import Dataset

from acebert.catalog import ProductCatalog
from acebert.catalog.dates import read_date, to_moment
from acebert.catalog.filters import Range, parse_filters

SCHEMA = {"added": "date", "name": "string"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-31", "2026-01-31"),
        (" 2026-01-31 ", "2026-01-31"),
        ("2026-01-31 08:00", "2026-01-31T08:00:00"),
        ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00+00:00"),
        ("2026-01-31T08:00:00+0200", "2026-01-31T08:00:00+02:00"),
        ("2026-01-31 08:00:00.123456789", "2026-01-31T08:00:00.123456"),
        (dt.date(2026, 1, 31), "2026-01-31"),
        (dt.datetime(2026, 1, 31, 8), "2026-01-31T08:00:00"),
        *((text, None) for text in ("2026-02-31", "2026-13-01", "31.01.2026", "soon", "2026", "", "２０２６-01-31")),
        (20260131, None),
    ],
)
def test_dates_have_one_form(written: Any, read: str | None) -> None:
    assert read_date(written) == read
    assert read is None or read_date(read) == read


def test_a_day_is_in_a_range_whole() -> None:
    begin, end = to_moment("2026-01-31"), to_moment("2026-02-01")
    assert parse_filters({"added": "2026-01-31"}, SCHEMA) == Range("added", gte=begin, lt=end)
    assert parse_filters({"added": {"$gt": "2026-01-31"}}, SCHEMA) == Range("added", gte=end)
    assert parse_filters({"added": {"$lte": "2026-01-31"}}, SCHEMA) == Range("added", lt=end)
    assert parse_filters({"added": ("2026-01-31", None)}, SCHEMA) == Range("added", gte=begin)
    assert parse_filters({"added": {"$lte": "2026-01-31T00:00:00Z"}}, SCHEMA) == Range("added", lte=begin)
    assert parse_filters({"added": (None, "9999-12-31")}, SCHEMA) is not None


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"added": {"$gte": "soon"}}, "'added' is a day or a moment of ISO 8601, .*'soon'"),
        ({"added": {"$gte": 2024}}, "got '2024'"),
        ({"added": ("2026-02-01", "2026-01-30")}, "lowest value 2026-02-01.* is above its highest 2026-01-31"),
        ({"name": {"$gte": "2026-01-31"}}, "ranges need numbers or dates"),
    ],
)
def test_what_is_no_range_of_dates(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_filters(filters, SCHEMA)


def test_a_catalogue_s_dates(build: Callable[..., ProductCatalog]) -> None:
    rows = [
        {"id": i, "title": "a mug", "added": f"2026-01-{1 + i:02d}", "at": dt.datetime(2026, 1, 1 + i, 8), "batch": "x"}
        for i in range(20)
    ]
    rows[3] |= {"added": None, "batch": "2026-01-01"}
    catalog = build(Dataset.from_list(rows), image_column=None, index="memory")
    assert catalog.attributes == {"added": "date", "at": "date", "batch": "string"}
    assert catalog.get(2).attributes["at"] == "2026-01-03T08:00:00"
    late = {"added": {"$gte": "2026-01-15"}}
    assert set(ids(catalog.search("mug", filters=late, top_k=20))) == set(range(14, 20))
    assert catalog.count({"at": ("2026-01-02", "2026-01-03")}) == 2
    assert ids(catalog.search("mug", sort_by="-added", top_k=20))[:2] == [19, 18]
    assert ids(catalog.search("mug", sort_by="added", top_k=20))[-1] == 3  # that lacks it
    catalog.upsert([{"id": 30, "title": "mug", "added": dt.date(2026, 3, 1)}])
    assert catalog.get(30).attributes["added"] == "2026-03-01" and catalog.count({"added": "2026-03-01"}) == 1
    with pytest.raises(ValueError, match=r"product 0 \(id 31\).*'added' is a day .*'1.3.2026'"):
        catalog.upsert([{"id": 31, "title": "mug", "added": "1.3.2026"}])
