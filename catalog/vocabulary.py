"""A catalogue's words and values as its searches know them: read from the index when needed, and read again in time."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from acebert.catalog.indexes.base import CatalogIndex
from acebert.catalog.query_parsing import QueryParser
from acebert.catalog.spelling import spelling_words
from acebert.catalog.thesaurus import expand, load_wordnet
from acebert.catalog.words import WORDS_ATTRIBUTE

MOST_WORDS = 200_000  # that a typing error may be corrected to, the most frequent ones
MOST_VALUES = 2_000  # of each attribute that queries are read by
SECONDS_KEPT = 60.0
TIMES_KEPT = 100  # or so many times what reading them took, if that is longer,
TIMES_KEPT_AFTER_CHANGES = 20  # or so many times after a change by this process, if that is shorter


Read = TypeVar("Read")


class Kept(Generic[Read]):
    """Something that is read from an index, kept for a while.

    Args:
        read: how.
    """

    def __init__(self, read: Callable[[CatalogIndex], Read]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._kept: tuple[CatalogIndex, Read, float, float] | None = None  # of which index, when, in how many seconds
        self._changed = False

    def get(self, index: CatalogIndex) -> Read:
        with self._lock:
            begun = time.monotonic()
            if self._kept is None or self._kept[0] is not index or begun - self._kept[2] > self._keep(self._kept[3]):
                self._changed = False
                value, now = self._read(index), time.monotonic()
                self._kept = index, value, now, now - begun
            return self._kept[1]

    def _keep(self, took: float) -> float:
        if self._changed:
            return TIMES_KEPT_AFTER_CHANGES * took
        return max(SECONDS_KEPT, TIMES_KEPT * took)

    def forget(self) -> None:
        self._changed = True


class Vocabulary:
    """What the queries of a catalogue may say. Threads may share one.

    New products are found by their words at once; that a typing error may mean one of them, or that a value is a new
    one, is known within a minute.

    Args:
        attributes: of the catalogue, name to kind.
    """

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self.attributes = attributes
        self._words, self._parser = Kept(self._read_words), Kept(self._read_parser)
        self._size = Kept(lambda index: index.count())

    def forget(self) -> None:
        """Reads all anew soon: after a change by this process."""
        for kept in (self._words, self._parser, self._size):
            kept.forget()

    def size(self, index: CatalogIndex) -> int:
        """How many products there are, or were within a minute."""
        return self._size.get(index)

    def words(self, index: CatalogIndex) -> dict[str, int]:
        """Those that a typing error can be corrected to, and how many products have each."""
        return self._words.get(index)

    def expand(self, index: CatalogIndex, text: str) -> dict[str, str]:
        """Terms that the catalogue hardly says, to what it says in their place (`acebert.catalog.thesaurus`)."""
        return expand(text, load_wordnet(), self.words(index), self.size(index))

    def parser(self, index: CatalogIndex) -> QueryParser:
        """Reads queries by the values that there are."""
        return self._parser.get(index)

    def _read_words(self, index: CatalogIndex) -> dict[str, int]:
        return spelling_words(index.facets(WORDS_ATTRIBUTE, limit=MOST_WORDS))

    def _read_parser(self, index: CatalogIndex) -> QueryParser:
        texts = [name for name, kind in self.attributes.items() if kind in ("string", "strings")]
        values = {name: index.facets(name, limit=MOST_VALUES) for name in texts}
        return QueryParser(self.attributes, values, lambda words: index.count_values(WORDS_ATTRIBUTE, words))
