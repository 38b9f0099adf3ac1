"""How a score compares with those of queries that mean nothing to a catalogue: by which "nothing fits" can be said.

Cosine similarities of different models and catalogues don't compare: one gives nonsense 0.5, another a good hit 0.3. So
pairs of words drawn from the encoder's vocabulary are searched for, and the best score of each is kept. Where a score
lies among these tells how little chance has to do with it. It is kept beside the catalogue, and made again when many of
the products are others.
"""

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from acebert.catalog.indexes.base import CatalogIndex
from acebert.catalog.store import ProductStore
from acebert.encoding.encoder import Encoder
from acebert.utils.files import atomic_write

FILE = "calibration.json"
CHANGED_ENOUGH = 0.2  # of the products: the best score of a random query hardly moves before
SAME = 0.99  # cosine of a query by the encoder that calibrated and by this one: int8 makes no difference, training does

RANDOM_QUERIES = 128
LEAST_WORDS = 100  # that a vocabulary needs, so that pairs of them say anything
WORD_LENGTH = 4


@dataclass(frozen=True)
class Calibration:
    """The best scores of random queries, as a normal distribution.

    Args:
        mean: of the best scores.
        deviation: standard deviation of them.
        products: that there were.
        change: number of the last change that the products had.
        probe: vector of the first of the random queries, by which the encoder is known.
    """

    mean: float
    deviation: float
    products: int = 0
    change: int = 0
    probe: tuple[float, ...] = ()

    def confidence(self, score: float) -> float:
        """The share of random queries whose best hit scores lower, in [0, 1]."""
        return NormalDist(self.mean, max(self.deviation, 1e-6)).cdf(score)


class Calibrations:
    """Those of one catalogue, by the vectors' name, as its folder keeps them. Threads may share them.

    Args:
        store: gives the catalogue's files as they are now.
        keep: whether they may be written to the folder.
    """

    def __init__(self, store: Callable[[], ProductStore], keep: bool) -> None:
        self._store, self._keep, self._lock = store, keep, threading.Lock()
        self._made: dict[str, Calibration] = {}
        self._changed: dict[str, tuple[int, int]] = {}  # number of the last change looked at, products changed so far

    def get(self, index: CatalogIndex, encoder: Encoder, using: str) -> Calibration | None:
        """The calibration of a kind of vectors, made if it is missing or old; None where nothing can be said."""
        with self._lock:
            made = self._made.get(using) or self._read(encoder, using)
            if made is not None and self._is_old(made, using):
                made = None
            if made is None:
                made = calibrate(index, encoder, using, self._store().last_change)
                if made is None:
                    return None
                self._changed.pop(using, None)
                self._write(using, made)
            self._made[using] = made
            return made

    def _read(self, encoder: Encoder, using: str) -> Calibration | None:
        made = self._read_all().get(using)
        queries = random_queries(encoder.processor.tokenizer)[:1]
        if made is None or not queries:
            return None
        (probe,) = encoder.encode_queries(queries, None)
        same = len(made.probe) == len(probe) and float(probe @ np.array(made.probe)) >= SAME
        return made if same else None

    def _read_all(self) -> dict[str, Calibration]:
        # None yet, or one of another version: it is made again.
        with suppress(OSError, ValueError, TypeError, AttributeError):
            kept = json.loads((self._store().path / FILE).read_text(encoding="utf-8"))
            return {using: Calibration(**values) for using, values in kept.items()}
        return {}

    def _write(self, using: str, made: Calibration) -> None:
        if self._keep:
            kept = {name: asdict(each) for name, each in (self._read_all() | {using: made}).items()}
            with suppress(OSError):  # another process was quicker; or it is made again at the next start
                atomic_write(self._store().path / FILE, json.dumps(kept) + "\n")

    def _is_old(self, made: Calibration, using: str) -> bool:
        store = self._store()
        upto, products = self._changed.get(using, (made.change, 0))
        if store.settings.merged > upto:
            return True  # the changes since are merged: how many they were isn't known any more
        changes = store.changes(upto)
        products += store.count_rows(file for _, file in changes)
        self._changed[using] = (changes[-1][0] if changes else upto), products
        return products > CHANGED_ENOUGH * made.products


def calibrate(index: CatalogIndex, encoder: Encoder, using: str, change: int = 0) -> Calibration | None:
    """Searches for random pairs of words.

    Args:
        index: of the catalogue.
        encoder: of its queries.
        using: name of the vectors to compare with.
        change: number of the last change that the index has.

    Returns:
        None where nothing can be said: no products, or a vocabulary of few whole words.
    """
    queries = random_queries(encoder.processor.tokenizer)
    if not queries:
        return None
    vectors = encoder.encode_queries(queries, None)
    best = [matches[0].score for matches in index.search(vectors, 1, using=using) if matches]
    if len(best) < len(queries):
        return None
    probe = tuple(np.round(vectors[0], 5).tolist())
    return Calibration(float(np.mean(best)), float(np.std(best)), index.count(), change, probe)


def random_queries(tokenizer: Any, count: int = RANDOM_QUERIES, seed: int = 0) -> list[str]:
    """Pairs of words of a tokenizer's vocabulary; none where it has few."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) >= WORD_LENGTH)
    if len(words) < LEAST_WORDS:
        return []
    drawn: Sequence[str] = np.random.default_rng(seed).choice(words, 2 * count).tolist()
    return [" ".join(pair) for pair in zip(drawn[::2], drawn[1::2], strict=True)]
