"""How sure a mean over queries is, and whether two systems differ: bootstrap, randomisation test, Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(scores: np.ndarray, weights: np.ndarray | None = None, *, resamples: int, seed: int) -> Estimate:
    """Mean over queries and its 95 % percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Queries are what is resampled: the interval is about other queries of the same kind on the same catalogue.

    Args:
        scores: (queries,), of one system, or differences of two on the same queries.
        weights: (queries,), not negative; for a ratio of sums, sum(scores) / sum(weights). 1 by default.
        resamples: how many samples of as many queries, drawn with replacement.
        seed: of the draws.
    """
    n = len(scores)
    weights = np.ones(n) if weights is None else weights
    draws = _draws(n, resamples, seed)
    totals = draws @ weights
    ratios = (draws @ scores)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(float(scores.sum() / weights.sum()), float(low), float(high))


@lru_cache(maxsize=4)  # a task's systems and metrics share their resamples
def _draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n queries is in each resample: (resamples, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def randomisation_test(differences: np.ndarray, *, permutations: int, seed: int) -> float:
    """Two-sided p-value of the paired randomisation test (Smucker, Allan and Carterette, CIKM 2007, section 3.1).

    Under the null hypothesis either system could have got either score, so each difference keeps or changes its sign
    by the toss of a coin. The observed signs count as one of the outcomes, so that p is never 0 (Phipson and Smyth
    2010, arXiv 1603.05766).

    Args:
        differences: (queries,) of two systems' scores.
        permutations: random sign vectors.
        seed: of the signs.
    """
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(differences.sum()) * (1 - 1e-9)  # equal sums may differ in the last bits
    extreme, left = 0, permutations
    while left:
        rows = min(left, 1000)
        signs = rng.integers(2, size=(rows, len(differences)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences) >= observed).sum())
        left -= rows
    return (extreme + 1) / (permutations + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for their number (Holm 1979): below alpha, they hold together with an error of at most alpha."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted
