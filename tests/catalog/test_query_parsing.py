"""What queries say beside words."""

from typing import Any

import pytest

from acebert.catalog.query_parsing import QueryParser

ATTRIBUTES = {"baseColour": "string", "price": "number", "pattern": "string", "sizes": "strings", "brand": "string"}
VALUES = {
    "baseColour": ["Red", "Navy Blue", "Blue", "Green"],
    "pattern": ["Striped", "Plain"],
    "sizes": ["S", "M", "42", "UK 8", "UK 8.5", "UK 18"],
    "brand": ["Louis Vuitton", "Orange", "Red Tape", "Nike", "Air Max"],
}
TITLED = {"sleeve", "sleeves", "cotton", "nike", "air", "max", "max90", "ab1234"}
PARSER = QueryParser(ATTRIBUTES, VALUES, TITLED.intersection)


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
        ("bag <50", {"$lt": 50}),
        ("bag > $50", {"$gt": 50}),
        ("bag under20", {"$lt": 20}),
        ("bag under 1k", {"$lt": 1000}),
        ("bag under 1.5k", {"$lt": 1500}),
        ("bag unter 1.000,00 €", {"$lt": 1000}),
        ("bag bis 20,50 €", {"$lte": 20.5}),
        ("bag ab 50 euro", {"$gte": 50}),
        ("bag zwischen 20 und 30 €", {"$gte": 20, "$lte": 30}),
        ("bag, under ₹ 500", {"$lt": 500}),
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
        "nike air max 90",
        "AB 1234 mug",
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
        ("dress other than red", "dress", {"baseColour": ["Red"]}),
        ("dress that's not red", "dress", {"baseColour": ["Red"]}),
        ("dress which is not red", "dress", {"baseColour": ["Red"]}),
        ("dress (not red)", "dress", {"baseColour": ["Red"]}),
        ("dress, no red", "dress", {"baseColour": ["Red"]}),
        ("dress minus red", "dress", {"baseColour": ["Red"]}),
        ("dress !red", "dress", {"baseColour": ["Red"]}),
        ("dress not made of cotton", "dress", {"$words": ["cotton"]}),
        # Of a brand, or of a word that no value is alone, products are left out that have it in their titles.
        ("shoes not nike", "shoes", {"$or": [{"brand": ["Nike"]}, {"$words": ["nike"]}]}),
        ("bag not vuitton", "bag", {"brand": ["Louis Vuitton"]}),
        (
            "shoes not air max",
            "shoes",
            {"$or": [{"brand": ["Air Max"]}, {"$and": [{"$words": ["air"]}, {"$words": ["max"]}]}]},
        ),
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
        ("shoes size 8", "shoes", {"sizes": ["UK 8"]}),
        ("size 8 shoes", "shoes", {"sizes": ["UK 8"]}),
        ("shoes in size uk 8", "shoes", {"sizes": ["UK 8"]}),
        ("shoes size uk8", "shoes", {"sizes": ["UK 8"]}),
        ("shoes, size 8 uk", "shoes", {"sizes": ["UK 8"]}),
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


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("t shirt", {"kind": ["Tshirts"]}),
        ("tshirt", {"kind": ["Tshirts"]}),
        ("T-Shirts", {"kind": ["Tshirts"]}),
        ("flipflops", {"kind": ["Flip Flops"]}),
        ("flip-flop", {"kind": ["Flip Flops"]}),
        ("watch", {"kind": ["Watches"]}),
        ("men's", {"gender": ["Men"]}),
        ("men’s", {"gender": ["Men"]}),
        ("mens", {"gender": ["Men"]}),
        ("levis", {"brand": ["Levi's"]}),
        ("levi's", {"brand": ["Levi's"]}),
        ("8.5", {}),
    ],
)
def test_values_are_known_joined_apart_in_the_plural_and_by_possession(text: str, values: dict[str, Any]) -> None:
    kinds = {"kind": ["Tshirts", "Shirts", "Flip Flops", "Watches"], "gender": ["Men", "Women"], "brand": ["Levi's"]}
    parser = QueryParser(dict.fromkeys(kinds, "string"), kinds)
    assert [chip.filters for chip in parser.parse(text).chips] == ([values] if values else [])


def test_what_was_taken_away_is_words() -> None:
    assert filters("red bag under 50", as_words=["under 50"]) == ("red bag under 50", [])
    assert PARSER.parse("red bag under 50", ["Under 50 ", "red"]).chips == ()


def test_nothing_but_a_price_is_searched_for_as_typed() -> None:
    assert filters("under 50") == ("under 50", [{"price": {"$lt": 50}}])


def test_a_shop_without_prices() -> None:
    assert QueryParser({}, {}).parse("red bag under 50 not red").chips == ()
