"""The vectors that an evaluation needs, each encoded once by all processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from acebert.data.corpus import Corpus
from acebert.encoding.corpus_encoder import CorpusEncoder, collate_products
from acebert.evaluation.arguments import EvaluationArguments
from acebert.evaluation.tasks import TITLE_AND_PHOTO, Task

GAP_VECTORS = 2000  # products, for the modality gap and its picture


@dataclass
class Vectors:
    """All vectors that the tasks need, on the main process.

    Args:
        queries: by text, each (projection_dim,).
        products: by catalogue's hash of ids and titles, and modalities: (products, projection_dim).
    """

    queries: dict[str, torch.Tensor]
    products: dict[tuple[str, tuple[str, ...]], torch.Tensor]

    @classmethod
    def encode(cls, encoder: CorpusEncoder, tasks: Sequence[Task], fusion: bool) -> "Vectors":
        """Encodes each text and each view of a catalogue once; `fusion` is for either modality alone too."""
        texts = [text for task in tasks if task.photo_queries is None for text in task.queries]
        views: dict[tuple[str, tuple[str, ...]], Corpus] = {}
        for task in tasks:
            seen = [task.modalities]
            if task.photo_queries is not None:
                seen.append(("image",))
            if fusion and task.modalities == TITLE_AND_PHOTO:
                seen += [("title",), ("image",)]
            views |= {(task.corpus.sha256, view): task.corpus for view in seen if task.corpus.shows(view).any()}
        queries = encoder.encode_queries(list(dict.fromkeys(texts))) if texts else {}
        return cls(
            queries, {(key, view): encoder.encode_products(corpus, view) for (key, view), corpus in views.items()}
        )

    def of_queries(self, task: Task) -> torch.Tensor:
        """(queries, projection_dim): of the texts, or of the photos alone."""
        if task.photo_queries is not None:
            return self.products[task.corpus.sha256, ("image",)][task.photo_queries]
        return torch.stack([self.queries[text] for text in task.queries])

    def of_products(self, task: Task, modalities: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """(ranked products, projection_dim), and booleans (ranked products,): which have one of the modalities."""
        shown = torch.from_numpy(task.corpus.shows(modalities)[task.rows])
        if not shown.any():
            raise ValueError(f"No product of {task.corpus.name} has any of: {', '.join(modalities)}.")
        return self.products[task.corpus.sha256, modalities][task.rows], shown


def encode_modality_gaps(
    args: EvaluationArguments, encoder: CorpusEncoder, corpus: Corpus, tasks: Sequence[Task]
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Vectors of the tasks' queries and of a sample of products, for the modality gap of every checkpoint.

    Returns:
        For this checkpoint and those of `--compare_with` the name, (queries, projection_dim) and
        (products, projection_dim); none without queries of text against title and photo.
    """
    asked = [task for task in tasks if task.photo_queries is None and task.modalities == TITLE_AND_PHOTO]
    texts = list(dict.fromkeys(text for task in asked for text in task.queries))
    if not texts:
        return []
    rows = np.flatnonzero(corpus.shows(TITLE_AND_PHOTO))
    rows = sorted(np.random.default_rng(args.seed).permutation(rows)[:GAP_VECTORS].tolist())
    gaps = []
    for name in (args.model_name_or_path, *args.compare_with):
        other = encoder
        if name != args.model_name_or_path:
            cache = Path(args.output_dir, "vectors")
            batch_size = args.per_device_batch_size
            other = CorpusEncoder.from_pretrained(name, encoder.accelerator, cache, batch_size=batch_size)
        collate = partial(collate_products, corpus=corpus, processor=other.processor, modalities=TITLE_AND_PHOTO)
        products = other.encode(other.model.get_product_features, collate, rows)
        gaps.append((name, torch.stack(list(other.encode_queries(texts).values())), products))
    return gaps
