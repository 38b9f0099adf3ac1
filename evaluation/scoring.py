"""Rankings and their scores: each ranker's best products for every query of a task, and the metrics of these."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from acebert.evaluation.rankers import Baselines, dot_products, late_fusion_scores, make_rankers
from acebert.evaluation.tasks import Task
from acebert.evaluation.vectors import Vectors
from acebert.metrics.retrieval.retrieval import retrieval_scores
from acebert.utils.ranking import queries_per_chunk, top_k

# What Marqo's leaderboard calls AvgP and AvgRecall.
AVERAGES = {"AvgP": ("precision@1", "precision@10"), "AvgRecall": ("recall@1", "recall@10")}


@dataclass
class RankerResult:
    """Scores of one ranker on one task.

    Args:
        ranker: its name.
        note: how it works, or why it doesn't apply.
        per_query: metric to scores (queries,); empty where the ranker doesn't apply.
        top10: for each query the ids of the first ten products.
        seconds: time for ranking, with encoding of queries for baselines.
    """

    ranker: str
    note: str
    per_query: dict[str, np.ndarray] = field(default_factory=dict)
    top10: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class TaskResult:
    """Scores of all rankers on one task.

    Args:
        task: the task.
        rankers: the first one is ACE-BERT.
        ceiling: metric to the mean over queries that the best ranking would have.
        widths: width of ACE-BERT's vectors to scores (queries,) in the main metric, the full width last.
        unseen: ids of products that were not trained on; empty where that isn't known, or all of the ranked are.
    """

    task: Task
    rankers: list[RankerResult]
    ceiling: dict[str, float]
    widths: dict[int, np.ndarray]
    unseen: set[str]

    @property
    def applied(self) -> list[RankerResult]:
        """Those that apply to the task."""
        return [result for result in self.rankers if result.per_query]

    def scores(self, ranker: str) -> np.ndarray:
        """The main metric's scores (queries,) of a ranker."""
        (found,) = [result for result in self.rankers if result.ranker == ranker]
        return found.per_query[self.task.main_metric]


def score_task(
    task: Task, vectors: Vectors, baselines: Baselines, widths: Sequence[int], unseen: set[str]
) -> TaskResult:
    """Scores the model, also at smaller widths, and all that it is compared with on one task.

    Args:
        task: the task.
        vectors: all that it needs.
        baselines: what the model is compared with.
        widths: smaller widths of the model's vectors to score as well.
        unseen: ids of products that the model wasn't trained on.
    """
    results = []
    for ranker in make_rankers(task, vectors, baselines):
        start = time.perf_counter()
        per_query, top10 = measure(task, ranker.score) if ranker.score else ({}, [])
        results.append(RankerResult(ranker.name, ranker.note, per_query, top10, time.perf_counter() - start))
    queries, (products, shown) = vectors.of_queries(task), vectors.of_products(task, task.modalities)
    by_width = {}
    for width in widths:
        cut = dot_products(F.normalize(queries[:, :width], dim=1), F.normalize(products[:, :width], dim=1), shown)
        by_width[width] = measure(task, cut)[0][task.main_metric]
    by_width[queries.shape[1]] = results[0].per_query[task.main_metric]
    best = [sorted(grades, key=grades.__getitem__, reverse=True)[:10] for grades in task.relevance]
    ceiling = {metric: float(scores.mean()) for metric, scores in score_rankings(task, best).items()}
    ranked = {task.corpus.ids[row] for row in task.rows}
    return TaskResult(task, results, ceiling, by_width, unseen & ranked if ranked - unseen else set())


def choose_photo_weight(task: Task, vectors: Vectors) -> float:
    """The photo's weight in late fusion that has the highest nDCG@10 on a task; of equals the nearest to 1/2."""
    best = {}
    for weight in sorted(np.linspace(0, 1, 21).round(2).tolist(), key=lambda weight: abs(weight - 0.5)):
        per_query, _ = measure(task, late_fusion_scores(task, vectors, weight))
        best[weight] = per_query["ndcg@10"].mean()
    return max(best, key=best.__getitem__)


def measure(task: Task, score: Callable[[slice], torch.Tensor]) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    """Scores of one ranker on a task, metric to (queries,); and its first ten products for each query."""
    rankings = rank(task, score, depth=10)
    return score_rankings(task, rankings), rankings


def rank(task: Task, score: Callable[[slice], torch.Tensor], depth: int) -> list[list[str]]:
    """The ids of the best products for every query, a chunk of queries at a time.

    Args:
        task: its queries, products and what each query must not find.
        score: of a [`Ranker`].
        depth: how many products to keep per query.

    Raises:
        ValueError: if a score is NaN.
    """
    ids = [task.corpus.ids[row] for row in task.rows]
    place = {row: column for column, row in enumerate(task.rows.tolist())}
    step = queries_per_chunk(len(ids))
    rankings = []
    for start in range(0, len(task.queries), step):
        part = slice(start, min(start + step, len(task.queries)))
        scores = score(part)
        if scores.isnan().any():
            raise ValueError("A query-product score is NaN: the vectors are not finite. Try without --mixed_precision.")
        if task.excluded is not None:
            for row, excluded in enumerate(task.excluded[part]):
                scores[row, [place[other] for other in excluded]] = -torch.inf
        rankings += [[ids[column] for column in best] for best in top_k(scores.numpy(), depth)]
    return rankings


def score_rankings(task: Task, rankings: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """The task's metrics of given rankings: metric to (queries,)."""
    wanted = [name for metric in task.metrics for name in AVERAGES.get(metric, (metric,))]
    cutoffs = sorted({int(metric.split("@")[1]) for metric in wanted})
    scores = retrieval_scores(rankings, task.relevance, cutoffs, queries=task.queries)
    for name in set(AVERAGES) & set(task.metrics):
        scores[name] = np.mean([scores[part] for part in AVERAGES[name]], axis=0)
    return {metric: scores[metric] for metric in task.metrics}
