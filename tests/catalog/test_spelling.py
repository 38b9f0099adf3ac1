"""Typing errors, and what is none."""

import pytest

from acebert.catalog.spelling import apply, correct, spelling_words

COUNTS = {"sunglasses": 9, "sunglass": 9, "sweater": 3, "backpack": 4, "backpacks": 2, "boots": 3, "basics": 2}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sunglases", "sunglasses"),
        ("sweter", "sweater"),
        ("backpak", "backpack"),
        ("backapck", "backpack"),  # two letters changed places
        ("botos", "boots"),
        ("Sweatrr", "sweater"),
    ],
)
def test_words_with_errors(typed: str, meant: str) -> None:
    corrections = correct(f"red {typed}, cheap", lambda: COUNTS, {"cheap", "red"}.intersection)
    assert corrections == {typed: meant}
    assert apply(f"red {typed}, cheap", corrections) == f"red {meant}, cheap"


@pytest.mark.parametrize(
    "typed",
    ["asics", "boot", "sweter-b12", "sweter12", "xyzabcxyz", "sw", "靴子", "known"],
)
def test_what_is_left_alone(typed: str) -> None:
    """Another first letter, a word that is known, codes, and what is near to nothing."""
    assert correct(typed, lambda: COUNTS, {"boot", "known"}.intersection) == {}


def test_of_words_as_near_the_one_that_most_products_have() -> None:
    counts = {"perfume": 40, "parfum": 2, "perfect": 90}
    assert correct("perfum", lambda: counts, lambda words: ()) == {"perfum": "perfume"}
    assert correct("perfum", lambda: {**counts, "parfum": 20}, lambda words: ()) == {"perfum": "parfum"}  # ends alike


def test_the_catalogue_is_read_where_a_word_is_unknown_alone() -> None:
    def fail() -> dict[str, int]:
        raise AssertionError

    assert correct("red dress", fail, lambda words: words) == {}


def test_codes_and_names_are_no_corrections() -> None:
    assert spelling_words({"=nike": 3, "ab1234": 1, "x": 1, "mug": 2}) == {"mug": 2}
