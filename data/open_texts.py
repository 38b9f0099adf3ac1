"""Open texts: words of a catalogue and of a language, by which a model is held to what its text backbone knows.

A text need not be a query that a shopper would type. It has to lie where shoppers' words may lie and the queries of
training don't: there, nothing else keeps a fine-tuned encoder from forgetting (docs/training.md).
"""

from collections.abc import Iterable, Sequence

import numpy as np

MAX_WORDS = 3  # neighbouring words of a title


def whole_words(vocabulary: Iterable[str]) -> list[str]:
    """The words of a WordPiece or SentencePiece vocabulary that stand for themselves, of three letters or more."""
    words = {token.removeprefix("\u2581") for token in vocabulary if not token.startswith(("##", "[", "<"))}
    return sorted(word for word in words if len(word) > 2 and word.isalpha())


class OpenTexts:
    """Draws texts: neighbouring words of titles, attribute values, words of the vocabulary, and mixtures of them.

    Half of the texts are one to three neighbouring words of a title; a fifth each has an attribute value or a word of
    the vocabulary put before or behind it; a tenth is a word of the vocabulary alone. The shares are ours, and so is
    the method.

    Args:
        titles: of the products to train on; None where one has none.
        values: attribute values of the same products.
        vocabulary: the tokenizer's, as `get_vocab()` gives it.

    Raises:
        ValueError: if there are neither titles nor values nor whole words.
    """

    def __init__(self, titles: Sequence[str | None], values: Iterable[str | None], vocabulary: Iterable[str]):
        self.titles = [words for title in titles if title and (words := title.split())]
        self.values = sorted({value for value in values if value})
        self.words = whole_words(vocabulary)
        if not (self.titles or self.values or self.words):
            raise ValueError(
                "There are no titles, attribute values or whole words of the vocabulary to draw texts from."
            )

    def draw(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draws `count` texts."""
        return [self._draw(rng) for _ in range(count)]

    def _draw(self, rng: np.random.Generator) -> str:
        kind = rng.random()
        sources = [self._words_of_title] if self.titles else []
        if kind >= 0.9 or not sources:
            sources = [self._word]
        elif kind >= 0.7:
            sources.append(self._word)
        elif kind >= 0.5 and self.values:
            sources.append(self._value)
        parts = [source(rng) for source in sources]
        if rng.random() < 0.5:
            parts.reverse()
        text = " ".join(parts)
        return text.lower() if rng.random() < 0.5 else text

    def _words_of_title(self, rng: np.random.Generator) -> str:
        words = self.titles[rng.integers(len(self.titles))]
        count = min(len(words), int(rng.integers(1, MAX_WORDS + 1)))
        start = int(rng.integers(len(words) - count + 1))
        return " ".join(words[start : start + count])

    def _value(self, rng: np.random.Generator) -> str:
        return self.values[rng.integers(len(self.values))]

    def _word(self, rng: np.random.Generator) -> str:
        source = self.words or self.values or [" ".join(words) for words in self.titles]
        return source[rng.integers(len(source))]
