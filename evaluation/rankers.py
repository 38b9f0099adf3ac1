"""The systems that an evaluation compares: what each scores for a task, how it is ranked, and by which metrics."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from acebert.data.corpus import Corpus
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.evaluation.baselines import (
    Bm25Baseline,
    TextAdapters,
    TextEncoder,
    TextEncoderBaseline,
    fuse_rankings,
    raw_patch_vectors,
)
from acebert.evaluation.tasks import TITLE_AND_PHOTO, Task
from acebert.utils import ranking

METRIC = Path(__file__).parent.parent / "metrics" / "retrieval" / "retrieval.py"
# What Marqo's leaderboard calls AvgP and AvgRecall.
AVERAGES = {"AvgP": ("precision@1", "precision@10"), "AvgRecall": ("recall@1", "recall@10")}
MODEL = "ACE-BERT"
TITLE_ONLY, PHOTO_ONLY = f"{MODEL} (title only)", f"{MODEL} (photo only)"
LATE_FUSION = f"Late fusion of {MODEL}'s two"
RAW_PATCHES = "Raw patches"


@dataclass(frozen=True)
class System:
    """Something that ranks a task's products.

    Args:
        name: as in the report.
        note: how it works, or why it doesn't apply.
        score: from a slice of the queries to scores (queries, ranked products); None where it doesn't apply.
    """

    name: str
    note: str
    score: Callable[[slice], torch.Tensor] | None


@dataclass
class Vectors:
    """All vectors that the tasks need, on the main process.

    Args:
        queries: by text, each (projection_dim,).
        products: by catalogue's hash of ids and titles, and sides: (products, projection_dim).
    """

    queries: dict[str, torch.Tensor]
    products: dict[tuple[str, tuple[str, ...]], torch.Tensor]

    @classmethod
    def encode(cls, encoder: CorpusEncoder, tasks: Sequence[Task], fusion: bool) -> "Vectors":
        """Encodes each text and each view of a catalogue once; `fusion` is for either side alone too."""
        texts = [text for task in tasks if task.photo_queries is None for text in task.queries]
        views: dict[tuple[str, tuple[str, ...]], Corpus] = {}
        for task in tasks:
            sides = [task.sides]
            if task.photo_queries is not None:
                sides.append(("image",))
            if fusion and task.sides == TITLE_AND_PHOTO:
                sides += [("title",), ("image",)]
            views |= {(task.catalog.sha256, view): task.catalog for view in sides if task.catalog.shows(view).any()}
        queries = encoder.encode_queries(list(dict.fromkeys(texts))) if texts else {}
        return cls(
            queries, {(key, view): encoder.encode_products(catalog, view) for (key, view), catalog in views.items()}
        )

    def of_queries(self, task: Task) -> torch.Tensor:
        """(queries, projection_dim): of the texts, or of the photos alone."""
        if task.photo_queries is not None:
            return self.products[task.catalog.sha256, ("image",)][task.photo_queries]
        return torch.stack([self.queries[text] for text in task.queries])

    def of_products(self, task: Task, sides: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """(ranked products, projection_dim), and booleans (ranked products,): which have one of the sides."""
        shown = torch.from_numpy(task.catalog.shows(sides)[task.rows])
        if not shown.any():
            raise ValueError(f"No product of {task.catalog.name} has any of: {', '.join(sides)}.")
        return self.products[task.catalog.sha256, sides][task.rows], shown


def dot_products(queries: torch.Tensor, products: torch.Tensor, shown: torch.Tensor) -> Callable[[slice], torch.Tensor]:
    """A `System.score` by the vectors' dot products, -inf for products that are not shown."""

    def score(part: slice) -> torch.Tensor:
        return (queries[part] @ products.T).masked_fill(~shown, -torch.inf)

    return score


class Baselines:
    """The systems beside the model, each made once for the titles or photos that it is asked to rank.

    Args:
        bm25: measure BM25.
        text: measure text embeddings; None for none.
        adapters: measure them also under these adapters; None for none.
        image_processor: the checkpoint's, for raw patches.
        fusion: measure either side alone, late fusion of the two, and fused rankings.

    `photo_weights` maps a task's `hidden_columns` to the weight of a late fusion, as [`choose_photo_weight`] finds it;
    without one, there is no weighted late fusion.
    """

    def __init__(
        self,
        bm25: bool,
        text: TextEncoder | None,
        adapters: TextAdapters | None,
        image_processor: Any,
        fusion: bool,
    ):
        self.bm25, self.text, self.adapters, self.image_processor = bm25, text, adapters, image_processor
        self.fusion = fusion
        self.photo_weights: dict[tuple[str, ...], float] = {}
        self.made: dict[Any, Any] = {}

    def on_titles(self, task: Task) -> list[Any]:
        """BM25, text embeddings and adapted text embeddings, as far as they are wanted, over the ranked titles."""
        key = (task.catalog.sha256, task.rows.tobytes())
        if key not in self.made:
            titles = [task.catalog.titles[row] for row in task.rows]
            self.made[key] = []
            if self.bm25:
                self.made[key].append(Bm25Baseline(titles))
            if self.text is not None:
                self.made[key].append(TextEncoderBaseline(self.text, titles))
                if self.adapters is not None:
                    self.made[key].append(TextEncoderBaseline(self.text, titles, self.adapters))
        return self.made[key]

    def raw_patches(self, catalog: Corpus) -> torch.Tensor:
        """(products, pixels): what the processor makes of all photos, less their mean, at unit length."""
        if catalog.photos_sha256 not in self.made:
            parts = np.array_split(np.arange(len(catalog)), 1 + len(catalog) // 1000)
            pixels = torch.cat(
                [
                    raw_patch_vectors(catalog.read_photos(rows), self.image_processor)
                    for rows in tqdm(parts, desc="raw patches")
                ]
            )
            centred = pixels - pixels[torch.from_numpy(catalog.has_photo)].mean(0)
            self.made[catalog.photos_sha256] = F.normalize(centred, dim=1)
        return self.made[catalog.photos_sha256]


def make_systems(task: Task, vectors: Vectors, baselines: Baselines) -> list[System]:
    """All systems for a task, the model first."""
    queries = vectors.of_queries(task)
    products, shown = vectors.of_products(task, task.sides)
    ours = dot_products(queries, products, shown)
    note = "cosine similarity of the query's vector and the product's; a photo as a query is a product without a title"
    systems = [System(MODEL, note, ours)]

    fusion = baselines.fusion
    if fusion and task.sides == TITLE_AND_PHOTO:
        alone = {}
        for name, side in ((TITLE_ONLY, "title"), (PHOTO_ONLY, "image")):
            if not task.catalog.shows([side])[task.rows].any():
                systems.append(System(name, f"not applicable: no product has the {side}", None))
                continue
            alone[side] = vectors.of_products(task, (side,))
            note = f"the same model, with {'photos' if side == 'title' else 'titles'} missing"
            systems.append(System(name, note, dot_products(queries, *alone[side])))
        if len(alone) == 2:
            (title, has_title), (photo, has_photo) = alone["title"], alone["image"]
            note = "the vectors of title alone and photo alone put end to end; where one is missing, the other"
            weights = [(LATE_FUSION, 0.5, note)]
            tuned = baselines.photo_weights.get(task.hidden_columns)
            if tuned is not None and task.photo_queries is None:
                note = (
                    f"the same with weight {tuned:g} on the photo, which had the highest nDCG@10 of 21 weights on "
                    "template queries over a sample of the training products"
                )
                if task.hidden_columns:
                    note += ", with words hidden in their titles too"
                weights.append((f"{LATE_FUSION}, weighted", tuned, note))
            for name, weight, note in weights:
                fused = ranking.late_fusion(title, photo, has_title, has_photo, weight)
                systems.append(System(name, note, dot_products(queries, fused, has_title | has_photo)))

    if task.photo_queries is not None:
        pixels = baselines.raw_patches(task.catalog)
        has_photo = torch.from_numpy(task.catalog.has_photo[task.rows])
        note = (
            "cosine similarity of the pixels that the processor hands to the model, on a grid of 16 by 16, less their "
            "mean"
        )
        systems.append(
            System(RAW_PATCHES, note, dot_products(pixels[task.photo_queries], pixels[task.rows], has_photo))
        )
    if task.no_titles:
        names = [Bm25Baseline.name] if baselines.bm25 else []
        names += [TextEncoderBaseline.name] if baselines.text else []
        return systems + [System(name, task.no_titles, None) for name in names]

    def score_titles(baseline: Any) -> Callable[[slice], torch.Tensor]:
        return lambda part: baseline.score(task.queries[part])

    def fuse(first: Callable[[slice], torch.Tensor], second: Callable[[slice], torch.Tensor]) -> Any:
        return lambda part: fuse_rankings(first(part), second(part))

    on_titles = {baseline.name: baseline for baseline in baselines.on_titles(task)}
    systems += [System(name, b.description, score_titles(b)) for name, b in on_titles.items()]
    bm25, text = on_titles.get(Bm25Baseline.name), on_titles.get(TextEncoderBaseline.name)
    if fusion and bm25:
        lexical = score_titles(bm25)
        others = {"text embeddings": score_titles(text)} if text else {}
        for name, other in {**others, MODEL: ours}.items():
            systems.append(
                System(
                    f"Fused ranks of BM25 and {name}",
                    "reciprocal rank fusion, k = 60",
                    fuse(lexical, other),
                )
            )
    return systems


def choose_photo_weight(task: Task, vectors: Vectors) -> float:
    """The photo's weight in late fusion that has the highest nDCG@10 on a task; of equals the nearest to 1/2."""
    queries = vectors.of_queries(task)
    (title, has_title), (photo, has_photo) = (vectors.of_products(task, (side,)) for side in TITLE_AND_PHOTO)
    best = {}
    for weight in sorted(np.linspace(0, 1, 21).round(2).tolist(), key=lambda weight: abs(weight - 0.5)):
        fused = ranking.late_fusion(title, photo, has_title, has_photo, weight)
        per_query, _ = measure(task, dot_products(queries, fused, has_title | has_photo))
        best[weight] = per_query["ndcg@10"].mean()
    return max(best, key=best.__getitem__)


# ----------------------------------------------------------------------------------------------------------------------
# Scores
# ----------------------------------------------------------------------------------------------------------------------


@cache
def retrieval_metric() -> ModuleType:
    """The repository's own metric, for its pure function: as an `evaluate` module it would copy all judgements."""
    spec = importlib.util.spec_from_file_location("retrieval", METRIC)
    assert spec is not None and spec.loader is not None  # as for every path that ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def top_k(scores: torch.Tensor, k: int) -> list[list[int]]:
    """The k best columns of each row, best first; equal scores in the order of the columns, -inf left out.

    Args:
        scores: (rows, columns).
        k: how many; rows may come out shorter.

    Raises:
        ValueError: if a score is NaN.
    """
    if scores.isnan().any():
        raise ValueError("A query-product score is NaN: the model's vectors are not finite. Try without --bf16.")
    return [best.tolist() for best in ranking.top_k(scores.numpy(), k)]


def rank(task: Task, score: Callable[[slice], torch.Tensor], depth: int) -> list[list[str]]:
    """The ids of the best products for every query, a chunk of queries at a time.

    Args:
        task: its queries, products and what each query must not find.
        score: of a [`System`].
        depth: how many products to keep per query.
    """
    ids = [task.catalog.ids[row] for row in task.rows]
    place = {row: column for column, row in enumerate(task.rows.tolist())}
    step = ranking.queries_per_chunk(len(ids))
    rankings = []
    for start in range(0, len(task.queries), step):
        part = slice(start, min(start + step, len(task.queries)))
        scores = score(part)
        if task.excluded is not None:
            for row, excluded in enumerate(task.excluded[part]):
                scores[row, [place[other] for other in excluded]] = -torch.inf
        rankings += [[ids[column] for column in best] for best in top_k(scores, depth)]
    return rankings


def score_rankings(task: Task, rankings: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """The task's metrics of given rankings: metric to (queries,)."""
    wanted = [name for metric in task.metrics for name in AVERAGES.get(metric, (metric,))]
    cutoffs = sorted({int(metric.split("@")[1]) for metric in wanted})
    scores = retrieval_metric().retrieval_scores(rankings, task.relevance, cutoffs, queries=task.queries)
    for name in set(AVERAGES) & set(task.metrics):
        scores[name] = np.mean([scores[part] for part in AVERAGES[name]], axis=0)
    return {metric: scores[metric] for metric in task.metrics}


def measure(task: Task, score: Callable[[slice], torch.Tensor]) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    """Scores of one system on a task, metric to (queries,); and its first ten products for each query."""
    rankings = rank(task, score, depth=10)
    return score_rankings(task, rankings), rankings
