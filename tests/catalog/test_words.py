"""Exact words: how texts are divided, and what a word of a query is worth."""

from collections import Counter
from collections.abc import Sequence

import pytest

from acebert.catalog.exact_words import FIRST, NAME, WORD, read_query_words, weigher
from acebert.catalog.words import find_runs, naming_attributes, product_words, split_words

CODES = ["AB-1234-X", "ab1234x", "AB 1234 X", "Ab.1234.x", "ab_1234/x", "AB–1234–X"]


@pytest.mark.parametrize("title", CODES)
@pytest.mark.parametrize("typed", CODES)
def test_a_code_is_one_word_however_it_is_divided(title: str, typed: str) -> None:
    asked = {*find_runs(split_words(typed)), *(word for chunk in split_words(typed) for word in chunk)}
    assert "ab1234x" in asked and "ab1234x" in product_words([f"Mug {title} blue"])


def test_case_accents_and_plurals_make_no_difference() -> None:
    assert split_words("Café T-Shirts, Größe 42") == [["cafe"], ["t", "shirts"], ["grosse"], ["42"]]
    assert split_words("e\u0301t\u00e9 靴子 สวัสดี 👟 ---") == [["ete"], ["靴子"], ["สวัสดี"]]
    assert {"mugs", "mug", "tshirt"} <= set(product_words(["Mugs", "t-shirt"]))
    assert "5s" in product_words(["iPhone 5s"]) and "5" not in product_words(["iPhone 5s"])  # no plural


def test_runs_are_codes_and_hyphenated_words_alone() -> None:
    assert find_runs(split_words("red mug cheap")) == {}
    assert find_runs(split_words("iphone 13 case")) == {"iphone13": (0, 2), "13case": (1, 3)}
    assert list(find_runs(split_words("a-1-b"))) == ["a1b", "a1", "1b"]


def test_names_count_as_a_whole_too() -> None:
    assert "=louisvuitton" in product_words(["bag"], ["Louis Vuitton"])
    assert naming_attributes({"Brand": "string", "part_number": "string", "colour": "string", "sku": "number"}) == [
        "Brand",
        "part_number",
    ]


def read(text: str, products: Sequence[Sequence[str]], known: Sequence[str] = ()) -> tuple[list, list[float]]:
    """The query's words, and what each product gains."""

    counts = Counter(word for words in products for word in set(words))
    words = read_query_words(text, lambda asked: counts, len(products), set(known).__contains__)
    return words, [weigher(words)(product) for product in products]


def test_what_words_are_worth() -> None:
    common = [product_words(["red mug"]) for _ in range(50)] + [product_words(["blue mug"]) for _ in range(50)]
    _, (whole, part) = read("red mug", [common[0], common[-1]], ["red", "mug"])
    assert whole == pytest.approx(WORD) and 0 < part < whole  # all of the rarity, and a part
    shop = [*common, product_words(["zorvex mug"]), product_words(["mug AB-1234"])]
    words, gains = read("zorvex mug", shop, ["red", "mug"])
    assert gains[-2] == max(gains) > NAME / 2 and [word.seek for word in words] == [True, False]
    assert pytest.approx(read("zorvex", shop)[1][-2]) == WORD + NAME
    assert read("ab1234", shop)[1][-1] > FIRST and sum(gain > 0 for gain in read("ab1234", shop)[1]) == 1
    assert read("nothing", shop)[0] == []


def test_words_that_are_typed_as_one_and_words_of_possession() -> None:
    shop = [product_words(["Track Pants"]), product_words(["pants"]), product_words(["Men shirt"]), *[["x"]] * 20]
    words, gains = read("trackpants", shop)
    assert [word.spellings[0] for word in words] == ["track", "pants"] and gains[0] > gains[1] > gains[2] == 0
    assert read("trackpant", shop)[1][0] == pytest.approx(gains[0])
    assert read("trackhats", shop)[0] == read("pantspants2", shop)[0] == []
    assert read("men's shirt", shop)[1][2] == max(read("men's shirt", shop)[1]) > 0
    assert len(read("men's shirt", shop)[0]) == 2


def test_a_brand_of_common_words_is_a_name() -> None:
    shop = [product_words(["old fossil"]), product_words(["watch"], ["Fossil"]), product_words(["watch"], ["Red Tape"])]
    words, gains = read("red tape watch", shop, ["red", "tape", "fossil", "watch"])
    assert [word.spellings[0] for word in words] == ["redtape", "watch"]
    assert gains[2] == max(gains) > WORD
    assert min(read("Fossil", shop, ["fossil"])[1][:2]) > FIRST
