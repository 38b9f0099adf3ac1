"""How a score compares with those of queries that mean nothing to a catalogue: by which "nothing fits" can be said.

Cosine similarities of different models and catalogues don't compare: one gives nonsense 0.5, another a good hit 0.3. So
pairs of words drawn from the encoder's vocabulary are searched for, and the best score of each is kept. Where a score
lies among these tells how little chance has to do with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from acebert.catalog.indexes.base import CatalogIndex
from acebert.encoding.encoder import Encoder

RANDOM_QUERIES = 128
LEAST_WORDS = 100  # that a vocabulary needs, so that pairs of them say anything
WORD_LENGTH = 4


@dataclass(frozen=True)
class Calibration:
    """The best scores of random queries, as a normal distribution.

    Args:
        mean: of the best scores.
        deviation: standard deviation of them.
    """

    mean: float
    deviation: float

    def confidence(self, score: float) -> float:
        """The share of random queries whose best hit scores lower, in [0, 1]."""
        return NormalDist(self.mean, max(self.deviation, 1e-6)).cdf(score)


def calibrate(index: CatalogIndex, encoder: Encoder, using: str) -> Calibration | None:
    """Searches for random pairs of words.

    Args:
        index: of the catalogue.
        encoder: of its queries.
        using: name of the vectors to compare with.

    Returns:
        None where nothing can be said: no products, or a vocabulary of few whole words.
    """
    queries = random_queries(encoder.processor.tokenizer)
    if not queries:
        return None
    found = index.search(encoder.encode_queries(queries, None), 1, using=using)
    best = [matches[0].score for matches in found if matches]
    if len(best) < len(queries):
        return None
    return Calibration(float(np.mean(best)), float(np.std(best)))


def random_queries(tokenizer: Any, count: int = RANDOM_QUERIES, seed: int = 0) -> list[str]:
    """Pairs of words of a tokenizer's vocabulary; none where it has few."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) >= WORD_LENGTH)
    if len(words) < LEAST_WORDS:
        return []
    drawn: Sequence[str] = np.random.default_rng(seed).choice(words, 2 * count).tolist()
    return [" ".join(pair) for pair in zip(drawn[::2], drawn[1::2], strict=True)]
