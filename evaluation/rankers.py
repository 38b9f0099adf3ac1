"""What an evaluation compares: the model, what is made of it, and baselines, each as something that ranks products."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from acebert.data.corpus import Corpus
from acebert.evaluation.baselines import (
    TextAdapters,
    TextEncoder,
    TextEncoderBaseline,
    fuse_rankings,
    raw_patch_vectors,
)
from acebert.evaluation.tasks import TITLE_AND_PHOTO, Task
from acebert.evaluation.vectors import Vectors
from acebert.utils.bm25 import Bm25Baseline
from acebert.utils.ranking import late_fusion

MODEL = "ACE-BERT"
TITLE_ONLY, PHOTO_ONLY = f"{MODEL} (title only)", f"{MODEL} (photo only)"
LATE_FUSION = f"Late fusion of {MODEL}'s two"
RAW_PATCHES = "Raw patches"
FUSED_BASELINES, FUSED_MODEL = "Fused ranks of BM25 and text embeddings", f"Fused ranks of BM25 and {MODEL}"


Score = Callable[[slice], torch.Tensor]


@dataclass(frozen=True)
class Ranker:
    """Something that ranks a task's products.

    Args:
        name: as in the report.
        note: how it works, or why it doesn't apply.
        score: from a slice of the queries to scores (queries, ranked products); None where it doesn't apply.
    """

    name: str
    note: str
    score: Score | None


def dot_products(queries: torch.Tensor, products: torch.Tensor, shown: torch.Tensor) -> Score:
    """A `Ranker.score` by the vectors' dot products, -inf for products that are not shown."""

    def score(part: slice) -> torch.Tensor:
        return (queries[part] @ products.T).masked_fill(~shown, -torch.inf)

    return score


class Baselines:
    """The rankers beside the model, each made once for the titles or photos that it is asked to rank.

    Args:
        bm25: measure BM25.
        texts: text encoders to measure; the first one is taken for the model's backbone.
        adapters: measure the first one also under these adapters; None for none.
        image_processor: the checkpoint's, for raw patches.
        fusion: measure either modality alone and late fusion of the two.

    `photo_weights` maps a task's `hidden_columns` to the weight of a late fusion, as `choose_photo_weight` finds it;
    without one, there is no weighted late fusion.
    """

    def __init__(
        self,
        bm25: bool,
        texts: Sequence[TextEncoder],
        adapters: TextAdapters | None,
        image_processor: Any,
        fusion: bool,
    ):
        self.bm25, self.texts, self.adapters = bm25, texts, adapters
        self.image_processor, self.fusion = image_processor, fusion
        self.photo_weights: dict[tuple[str, ...], float] = {}
        self.made: dict[Any, Any] = {}

    @property
    def names(self) -> list[str]:
        """Of what ranks titles, adapters left out."""
        names = [Bm25Baseline.name] if self.bm25 else []
        return names + self.text_names

    @property
    def text_names(self) -> list[str]:
        """Of the text encoders; the first one's is the same in every report."""
        others = [f"{text.name_or_path} (titles)" for text in self.texts[1:]]
        return [TextEncoderBaseline.name, *others] if self.texts else []

    def on_titles(self, task: Task) -> list[Any]:
        """BM25, text embeddings and adapted text embeddings, as far as they are wanted, over the ranked titles."""
        key = (task.corpus.sha256, task.rows.tobytes())
        if key not in self.made:
            titles = [task.corpus.titles[row] for row in task.rows]
            made: list[Any] = [Bm25Baseline(titles)] if self.bm25 else []
            for name, text in zip(self.text_names, self.texts, strict=True):
                made.append(TextEncoderBaseline(text, titles, name=name))
            if self.adapters is not None:
                made.append(TextEncoderBaseline(self.texts[0], titles, self.adapters))
            self.made[key] = made
        return self.made[key]

    def raw_patches(self, corpus: Corpus) -> torch.Tensor:
        """(products, pixels): what the processor makes of all photos, less their mean, at unit length."""
        if corpus.photos_sha256 not in self.made:
            parts = np.array_split(np.arange(len(corpus)), 1 + len(corpus) // 1000)
            pixels = torch.cat(
                [
                    raw_patch_vectors(corpus.read_photos(rows), self.image_processor)
                    for rows in tqdm(parts, desc="raw patches")
                ]
            )
            centred = pixels - pixels[torch.from_numpy(corpus.has_photo)].mean(0)
            self.made[corpus.photos_sha256] = F.normalize(centred, dim=1)
        return self.made[corpus.photos_sha256]


def make_rankers(task: Task, vectors: Vectors, baselines: Baselines) -> list[Ranker]:
    """All rankers for a task, the model first."""
    products, shown = vectors.of_products(task, task.modalities)
    ours = dot_products(vectors.of_queries(task), products, shown)
    note = "cosine similarity of the query's vector and the product's; a photo as a query is a product without a title"
    rankers = [Ranker(MODEL, note, ours)]
    if baselines.fusion and task.modalities == TITLE_AND_PHOTO:
        rankers += _rankers_by_modality(task, vectors, baselines.photo_weights.get(task.hidden_columns))
    if task.photo_queries is not None:
        pixels = baselines.raw_patches(task.corpus)
        has_photo = torch.from_numpy(task.corpus.has_photo[task.rows])
        note = (
            "cosine similarity of the pixels that the processor hands to the model, on a grid of 16 by 16, less their "
            "mean"
        )
        scores = dot_products(pixels[task.photo_queries], pixels[task.rows], has_photo)
        rankers.append(Ranker(RAW_PATCHES, note, scores))
    if task.no_titles:
        return rankers + [Ranker(name, task.no_titles, None) for name in baselines.names]
    made = baselines.on_titles(task)
    scores = {baseline.name: partial(_score_queries, task, baseline) for baseline in made}
    rankers += [Ranker(baseline.name, baseline.description, scores[baseline.name]) for baseline in made]
    if bm25 := scores.get(Bm25Baseline.name):
        note = "reciprocal rank fusion, k = 60"
        if text := scores.get(TextEncoderBaseline.name):
            rankers.append(Ranker(FUSED_BASELINES, note, partial(_fuse, bm25, text)))
        rankers.append(Ranker(FUSED_MODEL, note, partial(_fuse, bm25, ours)))
    return rankers


def _rankers_by_modality(task: Task, vectors: Vectors, tuned_weight: float | None) -> list[Ranker]:
    """The model with titles alone and photos alone, and late fusion of the two, also with a tuned weight."""
    rankers = []
    for name, modality in ((TITLE_ONLY, "title"), (PHOTO_ONLY, "image")):
        if task.corpus.shows([modality])[task.rows].any():
            note = f"the same model, with {'photos' if modality == 'title' else 'titles'} missing"
            scores = dot_products(vectors.of_queries(task), *vectors.of_products(task, (modality,)))
            rankers.append(Ranker(name, note, scores))
        else:
            rankers.append(Ranker(name, f"not applicable: no product has the {modality}", None))
    if any(ranker.score is None for ranker in rankers):
        return rankers
    note = "the vectors of title alone and photo alone put end to end; where one is missing, the other"
    rankers.append(Ranker(LATE_FUSION, note, late_fusion_scores(task, vectors, 0.5)))
    if tuned_weight is not None and task.photo_queries is None:
        note = (
            f"the same with weight {tuned_weight:g} on the photo, which had the highest nDCG@10 of 21 weights on "
            "template queries over a sample of the training products"
        )
        if task.hidden_columns:
            note += ", with words hidden in their titles too"
        scores = late_fusion_scores(task, vectors, tuned_weight)
        rankers.append(Ranker(f"{LATE_FUSION}, weighted", note, scores))
    return rankers


def late_fusion_scores(task: Task, vectors: Vectors, photo_weight: float) -> Score:
    """Scores by the weighted mean of the cosines of title alone and photo alone."""
    (title, has_title), (photo, has_photo) = (vectors.of_products(task, (modality,)) for modality in TITLE_AND_PHOTO)
    fused = late_fusion(title, photo, has_title, has_photo, photo_weight)
    return dot_products(vectors.of_queries(task), fused, has_title | has_photo)


def _score_queries(task: Task, baseline: Any, part: slice) -> torch.Tensor:
    return baseline.score(task.queries[part])


def _fuse(first: Score, second: Score, part: slice) -> torch.Tensor:
    return fuse_rankings(first(part), second(part))
