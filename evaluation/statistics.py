"""How sure a mean over queries is, and whether two rankers differ: bootstrap, randomisation test, Holm's correction."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BATCH = 1000  # resamples drawn at a time, so that memory stays small


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
        scores: (queries,), of one ranker, or differences of two on the same queries.
        weights: (queries,), not negative; for a ratio of sums, sum(scores) / sum(weights). 1 by default.
        resamples: how many samples of as many queries, drawn with replacement.
        seed: of the draws.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    mean = float(scores.sum() / weights.sum())
    if len(scores) == 1:  # which scipy refuses: its only resample is itself
        return Estimate(mean, mean, mean)

    def ratio(scores: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
        return scores.sum(axis) / weights.sum(axis)

    # Resamples whose weights are all 0 have no ratio: they are left out below, whatever scipy says of its own interval.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            (scores, weights),
            ratio,
            n_resamples=resamples,
            batch=BATCH,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


def randomisation_test(differences: np.ndarray, *, permutations: int, seed: int) -> float:
    """Two-sided p-value of the paired randomisation test (Smucker, Allan and Carterette, CIKM 2007, section 3.1).

    Under the null hypothesis either ranker could have got either score, so each difference keeps or changes its sign by
    the toss of a coin. Where there are no more outcomes than `permutations`, all are counted and p is exact. Otherwise
    the observed signs count as one of those drawn, so that p is never 0 (Phipson and Smyth 2010, arXiv 1603.05766).

    Args:
        differences: (queries,) of two rankers' scores.
        permutations: random sign vectors.
        seed: of the signs.
    """
    differences = differences[differences != 0]
    if len(differences) < 2:  # either sign of a single difference is as extreme
        return 1.0
    test = stats.permutation_test(
        (differences,),
        lambda values, axis: np.abs(values.sum(axis)),
        permutation_type="samples",
        alternative="greater",  # of the absolute sum: two-sided
        n_resamples=permutations,
        batch=BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for their number (Holm 1979): below alpha, they hold together with an error of at most alpha."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted
