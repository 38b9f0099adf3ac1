"""What an export costs in recall: its encoders beside the checkpoint's, on the same queries and products."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from acebert.data.batching import PREFETCH_BATCHES, split_by_length
from acebert.data.columns import Columns
from acebert.data.corpus import Corpus
from acebert.data.query_templates import QueryTemplates
from acebert.encoding.corpus_encoder import collate_products, collate_queries
from acebert.encoding.encoder import encode_batches
from acebert.encoding.onnx_model import OnnxAceBertModel
from acebert.evaluation.rankers import dot_products
from acebert.evaluation.scoring import measure
from acebert.evaluation.tasks import TITLE_AND_PHOTO, Task, template_queries
from acebert.utils.markdown import table

CHECKPOINT = "checkpoint"
METRIC = "recall_cap@10"


def load_tasks(
    source: str,
    splits: Sequence[str],
    columns: tuple[str, str, str],
    templates: Sequence[str],
    num_queries: int,
    seed: int = 0,
) -> list[Task]:
    """Two tasks of synthetic queries against title and photo of a catalogue: its own titles, and short templates.

    Args:
        source: Hub id, folder or file.
        splits: which are read as one.
        columns: of the ids, the titles and the photos.
        templates: of the short queries, in attributes. The products that have what is asked are relevant.
        num_queries: of templates, at most.
        seed: of their draws.
    """
    makers = QueryTemplates(templates)
    corpus = Corpus.load([source], splits, Columns(*columns, attributes=makers.attributes))
    rows = np.flatnonzero(corpus.shows(TITLE_AND_PHOTO))
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows).tolist()
    short = template_queries(corpus, order, makers, num_queries, rng)
    titles: dict[str, dict[str, float]] = {}
    for row in order:
        if corpus.titles[row]:
            titles.setdefault(corpus.titles[row], {})[corpus.ids[row]] = 1.0
    if not titles and not short:
        raise ValueError(f"{source} has neither titles in {columns[1]!r} nor attributes in {makers.attributes}.")
    return [
        Task(
            name=name,
            description="",
            queries=list(relevance),
            relevance=list(relevance.values()),
            corpus=corpus,
            rows=rows,
            metrics=(METRIC,),
            main_metric=METRIC,
        )
        for name, relevance in (("titles", titles), ("short queries", short))
        if relevance
    ]


def encode(
    encoders: Mapping[str, Callable[..., Any]],
    collate: Callable[[list[int]], dict[str, torch.Tensor]],
    lengths: Sequence[int],
    batch_size: int,
) -> dict[str, torch.Tensor]:
    """The same items by several encoders, each (items, projection_dim)."""

    def encode_all(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([features(**inputs).pooler_output for features in encoders.values()], dim=1)

    order = np.argsort(lengths, kind="stable")[::-1]
    step = PREFETCH_BATCHES * batch_size
    encoded = [
        encode_batches(encode_all, split_by_length(collate(items.tolist()), batch_size))
        for items in tqdm(np.split(order, range(step, len(order), step)), unit="batch")
    ]
    vectors = torch.cat(encoded)[torch.from_numpy(order.argsort())]
    return dict(zip(encoders, vectors.unbind(1), strict=True))


@torch.inference_mode()
def measure_recall(
    tasks: Sequence[Task],
    model: PreTrainedModel,
    exported: Mapping[str, OnnxAceBertModel],
    processor: ProcessorMixin,
    batch_size: int,
) -> list[dict[str, Any]]:
    """Recall of all pairs of a query encoder and a product encoder, the checkpoint's own two first.

    Args:
        tasks: of [`load_tasks`].
        model: the checkpoint.
        exported: of it, by precision; they may have one part alone.
        processor: of all.
        batch_size: queries or products in a forward pass.

    Returns:
        For each task and pair the recall, its share of the checkpoint's own, and how much of the checkpoint's first ten
        products is among the first ten.
    """
    corpus, rows = tasks[0].corpus, tasks[0].rows
    of_queries = {CHECKPOINT: model.get_text_features}
    of_products = {CHECKPOINT: model.get_product_features}
    for precision, one in exported.items():
        of_queries |= {precision: one.get_text_features} if "query" in one.sessions else {}
        of_products |= {precision: one.get_product_features} if "product" in one.sessions else {}

    def collate_rows(items: list[int]) -> dict[str, torch.Tensor]:
        inputs = collate_products(rows[items].tolist(), corpus, processor, TITLE_AND_PHOTO)
        return processor.image_processor.normalize_patches(inputs)

    lengths = [len(corpus.titles[row] or "") for row in rows]
    products = encode(of_products, collate_rows, lengths, batch_size)
    pairs = [
        (by_query, by_product)
        for by_product in of_products
        for by_query in of_queries
        if by_query == by_product or CHECKPOINT in (by_query, by_product)
    ]

    results = []
    shown = torch.ones(len(rows), dtype=torch.bool)
    for task in tasks:
        collate = partial(collate_queries, queries=task.queries, processor=processor)
        queries = encode(of_queries, collate, [len(query) for query in task.queries], batch_size)
        for by_query, by_product in pairs:
            scores, best = measure(task, dot_products(queries[by_query], products[by_product], shown))
            recall = float(scores[METRIC].mean())
            if by_query == by_product == CHECKPOINT:
                full, reference = recall, [set(found) for found in best]
            same = np.mean([len(wanted.intersection(found)) for wanted, found in zip(reference, best, strict=True)])
            results.append(
                {
                    "task": task.name,
                    "num_queries": len(task.queries),
                    "num_products": len(rows),
                    "queries_by": by_query,
                    "products_by": by_product,
                    METRIC: recall,
                    "share_of_checkpoint": recall / full if full else float("nan"),
                    "same_top10": float(same / min(10, len(rows))),
                }
            )
    return results


def recall_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The results of [`measure_recall`] as a table."""
    header = ["queries by", "products by", "task", METRIC, "of the checkpoint's", "same top 10"]
    rows = [
        [
            row["queries_by"],
            row["products_by"],
            f"{row['num_queries']} {row['task']}, {row['num_products']} products",
            *(f"{row[name]:.4f}" for name in (METRIC, "share_of_checkpoint", "same_top10")),
        ]
        for row in results
    ]
    return "\n".join(table(header, rows))
