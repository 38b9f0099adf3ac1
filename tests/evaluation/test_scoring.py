"""How products are ranked and rankings scored, against sorting and formulas."""

import math
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch

from acebert.data.corpus import Corpus
from acebert.evaluation.scoring import rank, score_rankings
from acebert.evaluation.tasks import Task
from acebert.metrics.retrieval import retrieval
from acebert.utils.ranking import top_k


def make_task(ids: list[str], num_queries: int, **fields: Any) -> Task:
    corpus = Corpus("drawn", ids, [None] * len(ids), None, {}, ["train"] * len(ids))
    defaults = {
        "name": "task", "description": "", "queries": [f"query {i}" for i in range(num_queries)],
        "relevance": [{ids[i]: 1.0} for i in range(num_queries)], "corpus": corpus, "rows": np.arange(len(ids)),
        "metrics": ("precision@10",), "main_metric": "precision@10",
    }  # fmt: skip
    return Task(**{**defaults, **fields})


def test_top_k_keeps_the_order_of_ties_and_drops_minus_infinity() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).integers(0, 4, size=(50, 40)).astype(np.float32))
    scores[scores == 0] = -torch.inf
    scores[7] = -torch.inf
    scores[8, 3:] = -torch.inf
    for k in (1, 10, 100):
        expected = [
            [c for c in sorted(range(40), key=lambda c, row=row: -row[c]) if row[c] > -math.inf][:k]
            for row in scores.tolist()
        ]
        assert [best.tolist() for best in top_k(scores.numpy(), k)] == expected
    with pytest.raises(ValueError, match=r"NaN.*--mixed_precision"):
        rank(make_task(["2", "1"], 1), lambda _: torch.tensor([[0.0, math.nan]]), depth=1)


def test_ranking_in_chunks_breaks_ties_as_the_metric_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = sorted(map(str, range(30)), reverse=True)
    scores = torch.from_numpy(np.random.default_rng(1).integers(0, 3, size=(11, 30)).astype(np.float32))
    monkeypatch.setattr("acebert.utils.ranking.SCORES_PER_CHUNK", 60)  # two queries at a time
    seen = []

    def score(part: slice) -> torch.Tensor:
        seen.append(part)
        return scores[part]

    rankings = rank(make_task(ids, num_queries=11), score, depth=5)
    assert len(seen) == 6
    expected = [sorted(zip(row, ids, strict=True), reverse=True)[:5] for row in scores.tolist()]
    assert rankings == [[product for _, product in best] for best in expected]


def test_a_query_does_not_find_what_is_excluded() -> None:
    ids = ["5", "4", "3", "2", "1"]
    task = make_task(ids, 2, rows=np.array([0, 2, 3]), excluded=[{0}, {2, 3}])
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])  # of products 5, 3 and 2
    assert rank(task, lambda part: scores[part].clone(), depth=3) == [["3", "2"], ["5"]]


def test_scores_are_those_of_the_metric_and_their_averages() -> None:
    ids = sorted(map(str, range(30)), reverse=True)
    rng = np.random.default_rng(0)
    relevance = [{product: 1.0 for product in rng.choice(ids, size=4, replace=False)} for _ in range(6)]
    rankings = [list(rng.permutation(ids)[:10]) for _ in range(6)]
    task = make_task(ids, 6, relevance=relevance, metrics=("AvgP", "precision@1", "precision@10", "mrr@10"))
    found = score_rankings(task, rankings)
    expected = evaluate.load(str(Path(retrieval.__file__).parent)).compute(
        predictions=rankings,
        references=[{"ids": list(grades), "grades": list(grades.values())} for grades in relevance],
        k=[1, 10],
        per_query=True,
    )["per_query"]
    assert list(found) == list(task.metrics)
    for metric in task.metrics[1:]:
        np.testing.assert_allclose(found[metric], expected[metric])
    np.testing.assert_allclose(found["AvgP"], np.add(expected["precision@1"], expected["precision@10"]) / 2)
    assert 0 < found["AvgP"].mean() < 1
