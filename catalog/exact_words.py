"""What an exact word is worth: the share of a query's rarity that a product's title and names have, beside its vector.

A product's score is its cosine similarity plus, for each word of the query that it has,

    `WORD` x the word's share of the query's inverse document frequencies,
    `NAME` x the same share, for a name: what a brand's or a model's attribute holds, or a word that the encoder's
        vocabulary lacks, of which its vector says little,
    `FIRST`, more than any cosine, for a part number and the like, of which few products have the same, and for a name
        of a brand or a model that is all that the query says.

Weighting by the idf of all engines' BM25 lets a rare word count for more than a common one, and a sum of scores keeps
how sure the vectors are, which a sum of reciprocal ranks forgets (Bruch, Gai and Ingber 2023, "An Analysis of Fusion
Functions for Hybrid Retrieval", https://doi.org/10.1145/3596512). docs/catalog.md has what the weights were measured
by.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from acebert.catalog.filters import Filter, OneOf
from acebert.catalog.words import NAME_MARK, WORDS_ATTRIBUTE, find_runs, has_digit, spellings, split_words

WORD = 0.2
NAME = 0.5
FIRST = 2.0
LONGEST_NAME = 4  # words of a brand
LEAST_PART = 3  # letters of each word that another is made of
CODE_LENGTH = 4
FEW_PRODUCTS = 20  # that may share a code, or
FEW_SHARE = 0.01  # of all products
COMMON = 0.05  # of all products: what a word alone needn't be looked up for


@dataclass(frozen=True)
class QueryWord:
    """A word of a query, or several that are one name or one code.

    Args:
        spellings: in any of which a product may have it.
        count: products that have it.
        share: of the rarity of all the query's words, those that no product has among them.
        worth: what it adds to the score of a product that has it.
        seek: whether to look for products by this word alone, however far their vectors are.
    """

    spellings: tuple[str, ...]
    count: int
    share: float
    worth: float
    seek: bool


def read_query_words(
    text: str, count_words: Callable[[Collection[str]], Mapping[str, int]], size: int, known: Callable[[str], bool]
) -> list[QueryWord]:
    """The words of a query and what they are worth in this catalogue.

    Args:
        text: of the query.
        count_words: of exact words those that any product has, and how many products have each.
        size: how many products there are.
        known: whether the encoder's vocabulary has a word whole.

    Returns:
        Those that a product has.
    """
    chunks = split_words(text)
    words = [word for chunk in chunks for word in chunk]
    candidates = _candidates(chunks, words)
    single = {form for word in words for form in spellings(word)}
    rare = {form for joined in candidates for form in (joined, NAME_MARK + joined)} - single
    # Asked apart: most of the first are there, and hardly any of the others, which is one answer.
    counts = {**count_words(sorted(single)), **count_words(sorted(rare))}
    counted: dict[tuple[str, ...], tuple[int, int]] = {}  # spellings, to products and those of this name
    used: set[int] = set()
    absent = {word for word in words if not any(form in counts for form in spellings(word))}
    parts = _split(absent, count_words)

    def count(forms: tuple[str, ...]) -> int:
        return max(counts.get(form, 0) for form in forms)

    for joined, (first, last) in candidates.items():
        if not used.isdisjoint(range(first, last)):
            continue
        forms = spellings(joined) if last - first == 1 else (joined,)
        if words[first + 1 : last] == ["s"]:  # "men's" is of men, too
            forms += spellings(words[first])
        forms += (NAME_MARK + joined,)
        if count(forms):
            counted[forms] = count(forms), counts.get(forms[-1], 0)
            used.update(range(first, last))
        elif last - first == 1:
            for part in parts.get(joined, {joined: 0}).items():
                counted[spellings(part[0])] = part[1], 0
    rarities = [math.log(1 + (size - found + 0.5) / (found + 0.5)) for found, _ in counted.values()]
    read = []
    for (forms, (found, named)), rarity in zip(counted.items(), rarities, strict=True):
        if found:
            share = rarity / sum(rarities)
            code = is_code(forms[0]) and found <= max(FEW_PRODUCTS, FEW_SHARE * size)
            first = code or (named > 0 and len(counted) == 1)
            name = named > 0 or not known(forms[0])
            worth = WORD * share + NAME * share * name + FIRST * first
            seek = code or name or found <= COMMON * size
            read.append(QueryWord(forms, found, share, worth, seek))
    return read


def _split(words: Collection[str], count_words: Callable[[Collection[str]], Mapping[str, int]]) -> dict[str, dict]:
    """Of words that no product has those that are two which products have: "trackpants" is "track" and "pants".

    Returns:
        The word to its two parts and how many products have each, those that both are most frequent.
    """
    pairs = {
        word: [(word[:at], word[at:]) for at in range(LEAST_PART, len(word) - LEAST_PART + 1)]
        for word in words
        if not has_digit(word)
    }
    wanted = {form for several in pairs.values() for pair in several for part in pair for form in spellings(part)}
    counts = count_words(sorted(wanted)) if wanted else {}
    found = {}
    for word, several in pairs.items():
        counted = [{part: max(counts.get(form, 0) for form in spellings(part)) for part in pair} for pair in several]
        best = max(counted, key=lambda pair: min(pair.values()), default={"": 0})
        if min(best.values()):
            found[word] = best
    return found


def _candidates(chunks: Sequence[Sequence[str]], words: Sequence[str]) -> dict[str, tuple[int, int]]:
    """What may be one word, longest first: runs, names of several words, and each word by itself."""
    runs = find_runs(chunks)
    for length in range(min(LONGEST_NAME, len(words)), 0, -1):
        for first in range(len(words) - length + 1):
            runs.setdefault("".join(words[first : first + length]), (first, first + length))
    return dict(sorted(runs.items(), key=lambda run: run[1][0] - run[1][1]))


def is_code(word: str) -> bool:
    """Whether a word looks like a part number: it has a digit, and enough characters not to be a size or a count."""
    return len(word) >= CODE_LENGTH and has_digit(word)


def sought(words: Sequence[QueryWord]) -> Filter | None:
    """A filter for products that have a word worth looking for; None where there is no such word."""
    forms = [form for word in words if word.seek for form in word.spellings]
    return OneOf(WORDS_ATTRIBUTE, tuple(sorted(set(forms)))) if forms else None


def weigher(words: Sequence[QueryWord]) -> Callable[[Collection[str]], float]:
    """From a product's exact words to what they add to its score."""
    asked: dict[str, list[int]] = {}
    for number, word in enumerate(words):
        for form in word.spellings:
            asked.setdefault(form, []).append(number)

    def weigh(product_words: Collection[str]) -> float:
        found = {number for form in product_words if form in asked for number in asked[form]}
        return sum(words[number].worth for number in sorted(found))

    return weigh
