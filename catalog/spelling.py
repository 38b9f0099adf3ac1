"""Typing errors in queries: words that nobody knows, by the nearest words of the catalogue."""

import re
from collections.abc import Callable, Collection, Mapping

from rapidfuzz import process
from rapidfuzz.distance import OSA

from acebert.catalog.words import NAME_MARK, has_digit, split_words

# Whole words of letters: a part of a hyphenated word or of a code is left alone.
TYPED_WORD = re.compile(r"(?<![\w-])[^\W\d_]{4,}(?![\w-])")
LONG = 6  # letters from which two errors are allowed


def spelling_words(counts: Mapping[str, int]) -> dict[str, int]:
    """Of a catalogue's exact words and their products those that a typing error can be corrected to."""
    return {
        word: count
        for word, count in counts.items()
        if not word.startswith(NAME_MARK) and not has_digit(word) and len(word) >= 3
    }


def correct(
    text: str, read_counts: Callable[[], Mapping[str, int]], find_known: Callable[[Collection[str]], Collection[str]]
) -> dict[str, str]:
    """The words of a query that have typing errors.

    An error is a letter too many, too few, another, or two that changed places (optimal string alignment distance).
    Words of four and five letters may have one, longer ones two; the first letter is taken to be right, for it nearly
    always is, and "basics" is no brand's name mistyped.

    Args:
        text: the query.
        read_counts: called where a word is unknown: the catalogue's words, of [`spelling_words`], and how many products
            have each.
        find_known: of words in lower case those that the catalogue or the encoder knows.

    Returns:
        Each word as typed, to the nearest word; of several the one that most products have, rather one that ends alike.
    """
    corrections = {}
    words = {
        typed: "".join(part for chunk in split_words(typed) for part in chunk) for typed in TYPED_WORD.findall(text)
    }
    known = find_known(list(words.values()))
    for typed, word in words.items():
        if not word or word in known:
            continue
        counts = read_counts()
        errors = 2 if len(word) >= LONG else 1
        alike = [other for other in counts if other[0] == word[0] and abs(len(other) - len(word)) <= errors]
        near = process.extract(word, alike, scorer=OSA.distance, score_cutoff=errors, limit=None)
        if near:
            closest = min(distance for _, distance, _ in near)
            # A word that ends alike is as likely as one that three times as many products have.
            weights = {
                other: counts[other] * (3 if other[-2:] == word[-2:] else 1)
                for other, distance, _ in near
                if distance == closest
            }
            corrections[typed] = min(weights, key=lambda other: (-weights[other], other))
    return corrections


def apply(text: str, corrections: Mapping[str, str]) -> str:
    """A query with its corrected words."""
    return TYPED_WORD.sub(lambda match: corrections.get(match[0], match[0]), text)
