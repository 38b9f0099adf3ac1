"""Open texts: where their words come from, and that they are drawn the same way every time."""

import numpy as np
import pytest

from acebert.data.open_texts import OpenTexts, whole_words

TITLES = ["Nordal Women Red Striped Shirt", None, "Mug"]
VALUES = ["Red", None, "Navy Blue", "Red"]
VOCABULARY = ["[PAD]", "<s>", "##ing", "ab", "lamp", "sandal", "\u2581boots", "3d", "x-ray"]


def test_whole_words_are_no_pieces_and_no_special_tokens() -> None:
    assert whole_words(VOCABULARY) == ["boots", "lamp", "sandal"]


def test_texts_are_words_of_titles_values_and_the_vocabulary() -> None:
    texts = OpenTexts(TITLES, VALUES, VOCABULARY).draw(2000, np.random.default_rng(0))
    known = {word.lower() for part in (*TITLES, *VALUES) if part for word in part.split()} | {"boots", "lamp", "sandal"}
    assert {word for text in texts for word in text.lower().split()} == known
    assert max(len(text.split()) for text in texts) == 5  # three words of a title beside a value of two
    assert "Red Striped Shirt" in texts and "striped shirt" in texts  # neighbours, as they are and in lower case
    assert any(text.lower().startswith("navy blue ") for text in texts)
    assert any(text.lower().endswith(" lamp") for text in texts)
    assert sum(text.lower() in ("boots", "lamp", "sandal") for text in texts) / len(texts) == pytest.approx(
        0.1, abs=0.03
    )


def test_equal_seeds_draw_equal_texts() -> None:
    texts = OpenTexts(TITLES, VALUES, VOCABULARY)
    one, same, other = (texts.draw(50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("titles", "values", "vocabulary"), [([None], ["Red"], []), ([], [], ["lamp"]), (["Mug"], [], [])]
)
def test_any_one_source_is_enough(titles: list[str | None], values: list[str], vocabulary: list[str]) -> None:
    assert all(OpenTexts(titles, values, vocabulary).draw(50, np.random.default_rng(0)))


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no titles, attribute values or whole words"):
        OpenTexts([None, "  "], [None], ["##ing"])
