"""Ranking: the best of each row with ties, fused rankings and fused vectors, by hand and by a second way."""

import math

import numpy as np
import pytest
import torch

from acebert.utils import ranking
from acebert.utils.ranking import late_fusion, queries_per_chunk, reciprocal_rank_fusion, top_k


def test_top_k_is_a_stable_sort_without_minus_infinity() -> None:
    scores = np.random.default_rng(0).integers(0, 4, size=(50, 40)).astype(np.float32)
    scores[scores == 0] = -np.inf
    scores[7] = -np.inf
    scores[8, 3:] = -np.inf
    for k in (1, 10, 40, 100):
        for row, best in zip(scores.tolist(), top_k(scores, k), strict=True):
            expected = [c for c in sorted(range(40), key=lambda c, row=row: -row[c]) if row[c] > -math.inf][:k]
            assert best.tolist() == expected


def test_top_k_of_no_column() -> None:
    assert [best.tolist() for best in top_k(np.empty((2, 0)), 3)] == [[], []]


@pytest.mark.parametrize(("products", "expected"), [(0, 60), (7, 8), (60, 1), (1000, 1)])
def test_queries_per_chunk(products: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SCORES_PER_CHUNK", 60)
    assert queries_per_chunk(products) == expected


def test_reciprocal_rank_fusion_by_hand() -> None:
    ranks = np.array([[1.0, 2.0, math.inf, math.inf], [math.inf, 1.0, 3.0, math.inf]])
    expected = [1 / 61, 1 / 62 + 1 / 61, 1 / 63, 0]
    assert reciprocal_rank_fusion(ranks).tolist() == pytest.approx(expected)
    assert reciprocal_rank_fusion(torch.from_numpy(ranks)).tolist() == pytest.approx(expected)
    assert reciprocal_rank_fusion(ranks[:1], k=1)[0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("kind", [torch.from_numpy, lambda array: array], ids=["torch", "numpy"])
def test_late_fusion_ranks_as_concatenation_and_falls_back_to_what_is_there(kind) -> None:
    rng = np.random.default_rng(0)
    query, titles, photos = (kind(rng.normal(size=(rows, 8))) for rows in (3, 5, 5))
    every = kind(np.ones(5, dtype=bool))
    fused = query @ late_fusion(titles, photos, every, every).T
    np.testing.assert_allclose(fused, (query @ titles.T + query @ photos.T) / 2)
    weighted = late_fusion(titles, photos, every, every, image_weight=0.2)
    np.testing.assert_allclose(weighted, 0.8 * titles + 0.2 * photos, rtol=1e-6)

    has_title, has_photo = kind(np.array([1, 1, 0, 1, 1], dtype=bool)), kind(np.array([1, 0, 1, 1, 1], dtype=bool))
    partial = late_fusion(titles, photos, has_title, has_photo, image_weight=0.2)
    np.testing.assert_array_equal(partial[1], titles[1])
    np.testing.assert_array_equal(partial[2], photos[2])
    np.testing.assert_array_equal(partial[0], weighted[0])
