"""What a catalogue says for what a query says otherwise."""

import gzip
from pathlib import Path

import pytest

from acebert.catalog.thesaurus import Thesaurus, convert, expand, load_wordnet

# Each is a kind of the one after it; "pump" has two senses.
GROUPS = [
    (["brolly", "gamp"], [1]),
    (["umbrella"], [2]),
    (["canopy"], []),
    (["pump"], [4]),
    (["shoe"], [2]),
    (["pump"], [5]),
    (["machine"], []),
]
COUNTS = {"umbrella": 30, "canopy": 900, "shoe": 500, "machine": 10, "red": 400, "tshirt": 40, "shirt": 70}


@pytest.fixture(scope="module")
def thesaurus() -> Thesaurus:
    return Thesaurus(GROUPS)


@pytest.mark.parametrize(
    "text, found",
    [
        ("a red brolly", {"brolly": "umbrella"}),
        ("Brollies, please", {"brollies": "umbrella"}),
        ("pumps", {"pumps": "shoe"}),  # of both senses the one that more products say
        ("umbrella", {}),  # which it says
        ("brolly umbrella", {}),  # or the query does
        ("brolly for a very rainy day out", {}),  # a sentence
        ("red", {}),
        ("", {}),
    ],
)
def test_expand(thesaurus: Thesaurus, text: str, found: dict[str, str]) -> None:
    assert expand(text, thesaurus, COUNTS, 10_000) == found


def test_a_word_that_few_products_have_is_hardly_said(thesaurus: Thesaurus) -> None:
    counts = {**COUNTS, "brolly": 3}
    assert expand("brolly", thesaurus, counts, 10_000) == {"brolly": "umbrella"}
    assert expand("brolly", thesaurus, counts, 5_000) == {}
    assert expand("brolly", thesaurus, {**COUNTS, "umbrella": 4}, 10_000) == {}  # nor is that; a canopy is too far


def test_wordnet() -> None:
    wordnet = load_wordnet()
    counts = {"umbrella": 5, "wallet": 5, "sweater": 5, "backpack": 5, "robe": 5, "tshirt": 9}
    for typed, said in {
        "brolly": "umbrella",
        "billfolds": "wallet",
        "pullover": "sweater",
        "dressing gown": "robe",
        "rucksack": "backpack",
    }.items():
        assert expand(f"{typed} blue", wordnet, counts, 100) == {typed: said}
    assert expand("t-shirt", wordnet, {**counts, "jersey": 50}, 100) == {}  # said as one word


def test_convert(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(
        "  1 WordNet's licence\n"
        "00000010 06 n 02 brolly 0 Gamp 0 002 @ 00000020 n 0000 ;u 00000030 n 0000 | an umbrella\n"
        "00000020 06 n 01 bumber-shoot_umbrella 0 001 @ 00000030 n 0000 | a canopy\n"
        "00000030 03 n 01 thing 0 000 | of another kind\n"
    )
    convert(tmp_path, tmp_path / "made.gz")
    text = gzip.decompress((tmp_path / "made.gz").read_bytes()).decode()
    assert text == "# WordNet's licence\nbrolly|gamp\t1\nbumber shoot umbrella\t"
    assert Thesaurus.read(text.splitlines()).senses == {"brolly": [0], "gamp": [0], "bumber shoot umbrella": [1]}
