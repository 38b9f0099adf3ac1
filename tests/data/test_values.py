"""Numbers, prices, dates and booleans as shops write them, read by one parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acebert.data.values import parse_numbers, read_values


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("-3.5", -3.5),
        ("−3,5", -3.5),
        (".5", 0.5),
        ("1e3", 1000),
        ("1,299.00", 1299),
        ("1.299,00", 1299),
        ("1 299,00", 1299),
        ("1\u202f299,00 €", 1299),
        ("1'299.00", 1299),
        ("CHF 1’299.–", 1299),
        ("12,-", 12),
        ("1.299.000", 1_299_000),
        ("1,23,456.00", 123_456),
        ("$12.50", 12.5),
        ("-$5", -5),
        ("12.50 EUR", 12.5),
        ("EUR 12,50", 12.5),
        ("€ 5,00", 5),
        ("R$ 1.299,90", 1299.9),
        ("US$3", 3),
        ("19 kr", 19),
        ("49,90 zł", 49.9),
        ("Rs. 1,299", 1299),
        ("¥1,299", 1299),
        ("1.299 €", 1299),  # money has no third decimal
    ],
)
def test_numbers_in_any_locale(text: str, number: float) -> None:
    assert parse_numbers([text]) == [number]


@pytest.mark.parametrize(
    "text", ["007", "10-20", "12 cm", "12 PCS", "ask us", "nan", "1e999", "1_000", "٣", "12%", "1,2,3"]
)
def test_what_is_no_number(text: str) -> None:
    assert parse_numbers([text]) == [None]


def test_the_column_tells_what_a_lone_mark_means() -> None:
    assert parse_numbers(["1.299", "19,99"]) == [1299, 19.99]
    assert parse_numbers(["1,299", "19.99"]) == [1299, 19.99]
    assert parse_numbers(["1.299", "1,299", None]) == [1.299, 1299, None]  # none tells: the point is a decimal one
    assert parse_numbers(["1.299", "19,99", "12.50"]) == [None, 19.99, 12.5]  # both: it can't be told


@given(
    st.floats(-1e9, 1e9).map(lambda number: round(number, 2)), st.sampled_from(["{:,.2f}", "{:,.2f} €", "$ {:,.2f}"])
)
def test_what_is_written_is_read_back(number: float, form: str) -> None:
    written = form.format(number)
    german = written.translate(str.maketrans(",.", ".,"))
    assert parse_numbers([written]) == parse_numbers([german]) == [number]


def test_columns_by_what_they_mean() -> None:
    assert read_values("size", ["38", "40.0", None]).values == [38, 40, None]
    assert read_values("new", ["yes", "No", None]).values == [True, False, None]
    assert read_values("tags", ['["a", "b"]', "[]"]).values == [["a", "b"], []]
    assert read_values("day", ["31.01.2026", "01.02.2026 12:30"]).values == ["2026-01-31", "2026-02-01T12:30:00"]
    assert read_values("day", ["01/31/2026", "02/01/2026"]).values == ["2026-01-31", "2026-02-01"]
    assert read_values("day", ["01/02/2026"]).kind == "text"  # it doesn't tell the day from the month
    assert read_values("colour", ["red", None]).kind == "text"


def test_what_is_not_read_is_counted_and_told_with_an_example() -> None:
    prices = read_values("Variant Price", ["9.50", "12", "ask us", "x" * 200])
    assert prices.kind == "text" and not prices.note  # half of them are no prices: it is another column
    prices = read_values("Variant Price", ["9.50", "12", "ask us"])
    assert prices.values == [9.5, 12.0, None] and prices.unread == [2]
    assert "1 of the 3 values of 'Variant Price' can't be read as numbers" in prices.note and "'ask us'" in prices.note
    sizes = read_values("size", ["38", "40", "42", "M"])
    assert sizes.kind == "text" and "'size' stays text: 1 of the 4 values" in sizes.note
    assert len(read_values("price", ["1", "2", "x" * 200]).note) < 250
    assert "'1.299' in 'weight' is read as 1.299" in read_values("weight", ["1.299", "2"]).note
