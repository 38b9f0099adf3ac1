"""The best of each row of scores, fused rankings, fused vectors. By NumPy alone, so that it is imported quickly."""

from collections.abc import Iterable
from typing import Any

import numpy as np

SCORES_PER_CHUNK = 2**24  # scores held at a time: 64 MB in float32
RRF_K = 60  # Cormack, Clarke and Buettcher 2009 chose it, and others have kept it


def queries_per_chunk(num_products: int) -> int:
    """How many queries to score against all products at a time, so that the scores fit in memory."""
    return max(1, SCORES_PER_CHUNK // max(1, num_products))


def top_k(scores: np.ndarray, k: int) -> list[np.ndarray]:
    """The k best columns of each row, best first; equal scores in the order of the columns, -inf left out.

    `np.argpartition` and `torch.topk` alone promise no order among equal scores.

    Args:
        scores: (rows, columns), no NaN.
        k: columns per row, at least 1; a row may have fewer.

    Returns:
        For each row an array of column numbers.
    """
    k = min(k, scores.shape[1])
    if k == 0:
        return [np.empty(0, dtype=np.int64) for _ in scores]
    thresholds = np.partition(scores, -k, axis=1)[:, -k]
    best = []
    for row, threshold in zip(scores, thresholds, strict=True):
        columns = np.flatnonzero((row >= threshold) & (row > -np.inf))
        best.append(columns[np.argsort(-row[columns], kind="stable")][:k])
    return best


def reciprocal_rank_fusion(ranks: Iterable[Any], k: int = RRF_K) -> Any:
    """Sum of 1 / (k + rank) over several rankings.

    Source: Cormack, Clarke and Buettcher 2009, "Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank
    Learning Methods", https://doi.org/10.1145/1571941.1572114

    Args:
        ranks: for each ranking an array or a tensor, all of one shape, of ranks that count from 1; infinity for what a
            ranking doesn't hold.
        k: the larger, the less the first ranks count.

    Returns:
        The fused scores in that shape; 0 for what no ranking holds.
    """
    return sum(1 / (k + rank) for rank in ranks)


def late_fusion(title: Any, image: Any, has_title: Any, has_image: Any, image_weight: float = 0.5) -> Any:
    """The weighted mean of what titles and photos give, of each alone where a product lacks the other.

    The dot product of a query and a fused vector is the weighted mean of the two scores; with equal weights it ranks as
    the two vectors put end to end do.

    Args:
        title, image: arrays or tensors of (products, width) vectors or of (products, 1) scores, finite everywhere.
        has_title, has_image: (products,) booleans.
        image_weight: in [0, 1].
    """
    both = has_title & has_image
    weight = (both * image_weight + (has_image & ~both) * 1.0)[:, None]
    return (1 - weight) * title + weight * image
