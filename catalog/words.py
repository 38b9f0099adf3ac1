"""The exact words of products and queries: letter case, accents, hyphens, dots and spaces make no difference.

A catalogue's index keeps the words of each product's title and of some attributes as one more attribute, so that every
engine finds and counts them by the filters that it has.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from acebert.utils.tokenization import strip_plural

WORDS_ATTRIBUTE = "$words"  # "$": no attribute of a shop may be called so
NAME_MARK = "="  # before a whole brand or model, "=louisvuitton", which makes it another word
LONGEST_RUN = 5  # neighbouring words that may be one code: "AB 12-34.5 X"
PART_LETTERS = 4  # of a word without digits that is part of a longer run: "AB", "Mark", hardly "bluetooth"

# Attributes whose values shoppers type as they are, by the names that shops and product feeds have for them.
NAMING = frozenset(
    """
    articleno articlenumber artno asin barcode brand code ean gtin id isbn itemnumber label maker manufacturer model
    modelname modelno modelnumber mpn partno partnumber productcode productid reference sku supplier upc vendor
    """.split()  # noqa: SIM905 (one a line would take a page)
)


def split_words(text: str) -> list[list[str]]:
    """The words of a text, in lower case and without Latin accents; a list for each part between spaces.

    Returns:
        `[["ab", "1234", "x"], ["mug"]]` of "AB-1234-X Mug".
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = unicodedata.normalize("NFC", "".join(char for char in plain if not "\u0300" <= char <= "\u036f"))
    chunks = [
        "".join(char if char.isalnum() or unicodedata.category(char)[0] == "M" else " " for char in chunk).split()
        for chunk in plain.split()
    ]
    return [words for words in chunks if words]


def has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))


def spellings(word: str) -> tuple[str, ...]:
    """A word as it is, and without an English plural's ending."""
    singular = word if has_digit(word) else strip_plural(word)
    return (word,) if singular == word else (word, singular)


def find_runs(chunks: Sequence[Sequence[str]]) -> dict[str, tuple[int, int]]:
    """Neighbouring words that are also one word: codes however they are divided, and hyphenated words.

    Args:
        chunks: of [`split_words`].

    Returns:
        The joined word to the positions of its first word and of the one after its last, longest first:
        `{"ab1234x": (0, 3), "ab1234": (0, 2), "1234x": (1, 3)}`.
    """
    words = [word for chunk in chunks for word in chunk]
    runs = {}
    start = 0
    for chunk in chunks:
        if 1 < len(chunk) <= LONGEST_RUN:
            runs["".join(chunk)] = (start, start + len(chunk))
        start += len(chunk)
    numbers = [position for position, word in enumerate(words) if has_digit(word)]
    for first in {start for at in numbers for start in range(max(0, at - LONGEST_RUN + 1), at + 1)}:
        for last in range(first + 2, min(first + LONGEST_RUN, len(words)) + 1):
            run = words[first:last]
            short = all(has_digit(word) or len(word) <= PART_LETTERS for word in run)
            if any(map(has_digit, run)) and (short or len(run) == 2):
                runs.setdefault("".join(run), (first, last))
    return dict(sorted(runs.items(), key=lambda run: run[1][0] - run[1][1]))


def product_words(texts: Iterable[str], names: Iterable[str] = ()) -> list[str]:
    """All that a product may be called by in a query, each once.

    Args:
        texts: its title, and what else is read word by word.
        names: its brand, model and the like, which also count as a whole.
    """
    found: dict[str, None] = {}
    for text, is_name in [*((text, False) for text in texts), *((name, True) for name in names)]:
        chunks = split_words(text)
        words = [word for chunk in chunks for word in chunk]
        found |= dict.fromkeys(spelling for word in words for spelling in spellings(word))
        found |= dict.fromkeys(find_runs(chunks))
        if is_name and words:
            found[NAME_MARK + "".join(words)] = None
    return list(found)


def naming_attributes(attributes: Mapping[str, str]) -> list[str]:
    """The texts among a catalogue's attributes that name products, as brands and part numbers do.

    Args:
        attributes: name to kind.
    """
    return [
        name
        for name, kind in attributes.items()
        if kind in ("string", "strings") and "".join(filter(str.isalnum, name)).casefold() in NAMING
    ]
