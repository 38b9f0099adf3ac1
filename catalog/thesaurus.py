"""Words for what a shop sells that the shop itself doesn't use: "brolly" where its titles say "umbrella".

The words are WordNet's (Miller 1995, https://doi.org/10.1145/219717.219748): its nouns for things made, food and
substances, in `wordnet.txt.gz`. Which of them a query means, the catalogue decides: the nearest that its titles say.
`python -m acebert.catalog.thesaurus /usr/share/wordnet wordnet.txt.gz` makes the file from WordNet's own.
"""

import gzip
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from acebert.catalog.words import spellings, split_words
from acebert.utils.tokenization import strip_plural

FILE = "wordnet.txt.gz"
KINDS = {
    "06": "noun.artifact",
    "13": "noun.food",
    "27": "noun.substance",
}  # https://wordnet.princeton.edu/documentation/lexnames5wn
LONGEST = 3  # words of a term
MOST_WORDS = 6  # of a query; a longer one, a sentence, says in other words, too, what it is about
LEVELS = 2  # from a term: its synonyms, then what it is a kind of
SAID = 2_000  # a catalogue says a word that one of so many products has, and two at least


class Thesaurus:
    """Groups of synonyms, each of which may be a kind of others.

    Args:
        groups: words of each, in lower case, and the places of those that it is a kind of.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[str], Sequence[int]]]) -> None:
        self.groups = groups
        self.senses: dict[str, list[int]] = {}
        for number, (words, _) in enumerate(groups):
            for word in words:
                self.senses.setdefault(word, []).append(number)

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Thesaurus":
        """Of lines such as `gamp|brolly<tab>17`; those that start with # are no groups."""
        groups = []
        for line in lines:
            if not line.startswith("#"):
                words, parents = line.rstrip("\n").split("\t")
                groups.append((words.split("|"), [int(number) for number in parents.split()]))
        return cls(groups)

    def find_term(self, words: Sequence[str]) -> str | None:
        """Neighbouring words of a query as a term that there is, in the singular if need be."""
        whole = " ".join(words)
        singular = " ".join([*words[:-1], strip_plural(words[-1])])
        return next((term for term in (whole, singular) if term in self.senses), None)

    def nearest(self, term: str, count: Callable[[str], int], least: int) -> str | None:
        """The synonym, or else the word for what it is a kind of, that most products say.

        Args:
            term: of [`Thesaurus.find_term`].
            count: how many products say a word.
            least: how many have to.
        """
        groups = self.senses[term]
        for _ in range(LEVELS):
            said = {word: count(word) for group in groups for word in self.groups[group][0] if word != term}
            best = max(said, key=lambda word: said[word], default=None)
            if best is not None and said[best] >= least:
                return best
            groups = [parent for group in groups for parent in self.groups[group][1]]
        return None


def expand(text: str, thesaurus: Thesaurus, counts: Mapping[str, int], products: int) -> dict[str, str]:
    """Finds the terms of a query that a catalogue doesn't say, and what it says in their place.

    Args:
        text: the query.
        thesaurus: where the words come from.
        counts: of [`spelling_words`][acebert.catalog.spelling.spelling_words]: the catalogue's words, and how many
            products have each.
        products: of the catalogue.

    Returns:
        Each such term, and the catalogue's word.
    """
    least = max(2, products // SAID)

    def count(term: str) -> int:
        words = term.split()
        longer = [max(counts.get(spelling, 0) for spelling in spellings(word)) for word in words if len(word) > 2]
        return max(min(longer, default=0), max(counts.get(spelling, 0) for spelling in spellings("".join(words))))

    words = [word for chunk in split_words(text) for word in chunk]
    if len(words) > MOST_WORDS:
        return {}
    found: dict[str, str] = {}
    start = 0
    while start < len(words):
        length = 1
        for longest in range(min(LONGEST, len(words) - start), 0, -1):
            term = thesaurus.find_term(words[start : start + longest])
            if term is not None:
                length = longest
                typed = " ".join(words[start : start + longest])
                if max(count(term), count(typed)) < least and (said := thesaurus.nearest(term, count, least)):
                    found[typed] = said
                break
        start += length
    return {typed: said for typed, said in found.items() if not set(said.split()) <= set(words)}


@cache
def load_wordnet() -> Thesaurus:
    """WordNet's nouns for what a shop may sell. English alone."""
    with files("acebert.catalog").joinpath(FILE).open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as lines:
        return Thesaurus.read(lines)


def convert(folder: Path, target: Path) -> None:
    """Writes the thesaurus file from WordNet 3.0's `data.noun` (https://wordnet.princeton.edu/documentation/wndb5wn).

    Args:
        folder: with the database's files, as Debian's package wordnet-base installs them in /usr/share/wordnet.
        target: file to write.
    """
    license_text, groups = [], {}
    for line in (folder / "data.noun").read_text(encoding="ascii").splitlines():
        if line.startswith("  "):
            license_text.append(f"#{line[3:]}".rstrip())
            continue
        offset, kind, _, count, *fields = line.split("|")[0].split()
        words = [fields[2 * i].replace("_", " ").casefold() for i in range(int(count, 16))]
        pointers = fields[2 * int(count, 16) + 1 :]
        if kind in KINDS:
            terms = [" ".join(word for chunk in split_words(term) for word in chunk) for term in words]
            parents = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@"]
            groups[offset] = (list(dict.fromkeys(filter(None, terms))), parents)
    places = {offset: place for place, offset in enumerate(groups)}
    lines = [
        f"{'|'.join(words)}\t{' '.join(str(places[parent]) for parent in parents if parent in places)}"
        for words, parents in groups.values()
    ]
    target.write_bytes(gzip.compress("\n".join([*license_text, *lines]).encode(), mtime=0))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m acebert.catalog.thesaurus FOLDER_OF_WORDNET FILE_TO_WRITE")
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
