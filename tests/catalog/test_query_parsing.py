"""What queries say beside words."""

from typing import Any

import pytest

from acebert.catalog.query_parsing import QueryParser

ATTRIBUTES = {"baseColour": "string", "price": "number", "pattern": "string", "sizes": "strings", "brand": "string"}
VALUES = {
    "baseColour": ["Red", "Navy Blue", "Blue", "Green"],
    "pattern": ["Striped", "Plain"],
    "sizes": ["S", "M", "42"],
    "brand": ["Louis Vuitton", "Orange", "Red Tape"],
}
PARSER = QueryParser(ATTRIBUTES, VALUES, {"sleeve", "sleeves"}.intersection)


def filters(text: str, **options: Any) -> tuple[str, list[dict[str, Any]]]:
    understood = PARSER.parse(text, **options)
    return understood.text, [chip.filters for chip in understood.chips if chip.effect == "filter"]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("bag under 50", {"$lt": 50}),
        ("bag below $50", {"$lt": 50}),
        ("bag for less than 1.299,50 €", {"$lt": 1299.5}),
        ("bag up to 1,000", {"$lte": 1000}),
        ("bag max 30 euros", {"$lte": 30}),
        ("bag no more than 30", {"$lte": 30}),
        ("bag 50 or less", {"$lte": 50}),
        ("bag < 40", {"$lt": 40}),
        ("over 100 bag", {"$gt": 100}),
        ("bag from 50", {"$gte": 50}),
        ("bag at least £20", {"$gte": 20}),
        ("20-30 € bag", {"$gte": 20, "$lte": 30}),
        ("bag between 20 and 30", {"$gte": 20, "$lte": 30}),
        ("bag $20 to $30", {"$gte": 20, "$lte": 30}),
        ("bag price 20-30", {"$gte": 20, "$lte": 30}),
    ],
)
def test_prices(text: str, price: dict[str, float]) -> None:
    assert filters(text) == ("bag", [{"price": price}])


@pytest.mark.parametrize(
    "text",
    [
        "toy under 5 years",
        "card up to 32gb",
        "puzzle over 1000 pieces",
        "usb 10-12 years",
        "no show socks",
        "ring size",
        "cut 20-30",
        "jacket no hood",
    ],
)
def test_numbers_and_words_that_say_nothing_else(text: str) -> None:
    assert filters(text) == (text, [])


@pytest.mark.parametrize(
    ("text", "words", "excluded"),
    [
        ("dress not red", "dress", {"baseColour": ["Red"]}),
        ("dresses but not in red", "dresses", {"baseColour": ["Red"]}),
        ("not blue dress", "dress", {"baseColour": ["Blue", "Navy Blue"]}),
        ("shirt -striped", "shirt", {"pattern": ["Striped"]}),
        ("non-red shirt", "shirt", {"baseColour": ["Red"]}),
        ("shirt without stripes", "shirt without stripes", None),
        ("dress without sleeves", "dress", {"$words": ["sleeve", "sleeves"]}),
        ("dress except louis vuitton", "dress", {"brand": ["Louis Vuitton"]}),
        ("not red or green dress", "dress", {"$or": [{"baseColour": ["Red"]}, {"baseColour": ["Green"]}]}),
    ],
)
def test_exclusions(text: str, words: str, excluded: dict[str, Any] | None) -> None:
    assert filters(text) == (words, [] if excluded is None else [{"$not": excluded}])


@pytest.mark.parametrize(
    ("text", "words", "named"),
    [
        ("dress size M", "dress", {"sizes": ["M"]}),
        ("shirts in size 42", "shirts", {"sizes": ["42"]}),
        ("colour: red shirt", "shirt", {"baseColour": ["Red"]}),
        ("brand louis vuitton bag", "bag", {"brand": ["Louis Vuitton"]}),
    ],
)
def test_named_values(text: str, words: str, named: dict[str, Any]) -> None:
    assert filters(text) == (words, [named])


def test_values_without_a_name_are_boosts_and_stay_words() -> None:
    understood = PARSER.parse("Navy blue louis vuitton bag")
    assert understood.text == "Navy blue louis vuitton bag"
    assert [(chip.words, chip.effect, chip.label) for chip in understood.chips] == [
        ("Navy blue", "boost", "base colour Navy Blue"),
        ("louis vuitton", "boost", "brand Louis Vuitton"),
    ]
    blue, _ = understood.chips
    assert blue.met_by({"baseColour": "Navy Blue"}) and not blue.met_by({"baseColour": "Blue"}) and not blue.met_by({})


def test_what_was_taken_away_is_words() -> None:
    assert filters("red bag under 50", as_words=["under 50"]) == ("red bag under 50", [])
    assert PARSER.parse("red bag under 50", ["Under 50 ", "red"]).chips == ()


def test_nothing_but_a_price_is_searched_for_as_typed() -> None:
    assert filters("under 50") == ("under 50", [{"price": {"$lt": 50}}])


def test_a_shop_without_prices() -> None:
    assert QueryParser({}, {}).parse("red bag under 50 not red").chips == ()
