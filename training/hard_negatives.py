"""Hard-negative mining: products that a query scores high without matching it, and an order that batches them together.

In a batch, all products of other rows are negatives, so an order in which a row is followed by its hard negatives makes
them negatives of each other at no extra cost: every product is still encoded once an epoch, and still brings a query of
its own.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Sampler

from acebert.data.batching import PREFETCH_BATCHES
from acebert.data.collators import process_with_vectors
from acebert.data.corpus import Corpus
from acebert.data.grouping import hash_text
from acebert.data.pairs import PairDataset
from acebert.encoding.corpus_encoder import CorpusEncoder, collate_products, collate_queries
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.utils.ranking import queries_per_chunk


@torch.no_grad()
def mine_hard_negatives(
    model: AceBertForRetrieval,
    data: PairDataset,
    processor: AceBertProcessor,
    accelerator: Accelerator,
    *,
    batch_size: int,
    count: int,
    margin: float,
) -> torch.Tensor:
    """Encodes the whole catalogue, each process a part of it, and finds hard negatives of every row.

    Args:
        model: not wrapped; is in training mode afterwards.
        data: the catalogue.
        processor: the model's.
        accelerator: shares the work.
        batch_size: rows that each process loads at a time.
        count, margin: of [`find_hard_negatives`].

    Returns:
        (rows, count) int64 on the CPU, as [`find_hard_negatives`] gives them.
    """
    rows, queries = list(range(len(data))), [data.words_of(row) for row in range(len(data))]
    size = max(1, batch_size // PREFETCH_BATCHES)
    encoder = CorpusEncoder(model.acebert, processor, accelerator, name="mining", batch_size=size, num_workers=1)
    collate_texts = partial(collate_queries, queries=queries, processor=processor)
    collate_pictures = whole_products(data, processor)
    model.eval()
    try:
        query_embeds = encoder.encode(model.acebert.get_text_features, collate_texts, rows)
        product_embeds = encoder.encode(model.acebert.get_product_features, collate_pictures, rows)
    finally:
        model.train()
    # Every process searches for all rows: one product of matrices, against the whole encoding above.
    return find_hard_negatives(
        query_embeds.to(accelerator.device),
        product_embeds.to(accelerator.device),
        torch.from_numpy(data.groups).to(accelerator.device),
        torch.tensor([hash_text(query) for query in queries], device=accelerator.device),
        count=count,
        margin=margin,
    ).cpu()


def as_corpus(data: PairDataset, name: str) -> Corpus:
    """Products to encode; unlike those of a corpus that is ranked, their ids may repeat."""
    return Corpus(name, list(map(str, data.ids)), data.titles, data.photos, {}, [name] * len(data))


def whole_products(data: PairDataset, processor: AceBertProcessor) -> Callable[[list[int]], dict[str, torch.Tensor]]:
    """From rows of a dataset to the model's inputs: titles, and photos or the vectors that stand for them."""
    if data.image_embeds is not None:
        return partial(collate_encoded, data=data, processor=processor)
    corpus = as_corpus(data, "the products")
    return partial(collate_products, corpus=corpus, processor=processor, modalities=("title", "image"))


def collate_encoded(rows: list[int], data: PairDataset, processor: AceBertProcessor) -> dict[str, torch.Tensor]:
    """Model inputs of products whose photos were encoded before."""
    assert data.image_embeds is not None
    names = [f"The product {data.ids[row]!r}" for row in rows]
    return process_with_vectors(processor, names, [data.titles[row] for row in rows], data.image_embeds[rows])


@torch.no_grad()
def find_hard_negatives(
    query_embeds: torch.Tensor,
    product_embeds: torch.Tensor,
    product_ids: torch.Tensor,
    query_ids: torch.Tensor,
    count: int,
    margin: float,
) -> torch.Tensor:
    """The products that score highest for each row's query without being known or likely to match it.

    A product that scores nearly as high as the row's own, or higher, is likely to match the query too: it is left out
    (the positive-aware rule TopK-MarginPos of NV-Retriever, Moreira et al. 2024, arXiv 2407.15831, section 4).

    Args:
        query_embeds: (n, width) unit vectors, row i that of row i's own query.
        product_embeds: (n, width) unit vectors of the whole products.
        product_ids: (n,) integers; rows that share one are the same product.
        query_ids: (n,) integers; rows that share one have the same query.
        count: hard negatives to take.
        margin: a hard negative scores at least this much, in cosine, below the row's own product.

    Returns:
        (n, count) int64, best first, -1 where there are no more.
    """
    found = []
    rows = torch.arange(len(query_embeds), device=query_embeds.device)
    for part in rows.split(queries_per_chunk(len(product_embeds))):
        scores = query_embeds[part] @ product_embeds.t()
        own = scores.gather(1, part[:, None])
        relevant = (product_ids[part, None] == product_ids) | (query_ids[part, None] == query_ids)
        scores = scores.masked_fill(relevant | (scores > own - margin), -torch.inf)
        best = scores.topk(min(count, scores.shape[1]), dim=1)
        near = best.indices.masked_fill(best.values == -torch.inf, -1)
        found.append(torch.nn.functional.pad(near, (0, count - near.shape[1]), value=-1))
    return torch.cat(found)


class HardNegativeSampler(Sampler[int]):
    """Every row once an epoch: shuffled, each followed by hard negatives of it that the epoch hasn't seen yet.

    Without hard negatives it is a plain shuffle. The order depends on seed, epoch and hard negatives alone. Its state
    goes into the checkpoints, so that a resumed epoch keeps its order.

    Args:
        num_rows: of the catalogue.
        seed: of the order.
        followers: hard negatives that follow a row, at most.
    """

    def __init__(self, num_rows: int, seed: int, followers: int = 0):
        self.num_rows, self.seed, self.followers, self.epoch = num_rows, seed, followers, 0
        self.hard_negatives: torch.Tensor | None = None  # (rows, candidates)
        self.mined_in: int | None = None  # epoch

    def start_epoch(self, epoch: int) -> None:
        """To be called before every epoch. Not named `set_epoch`, which accelerate would call with its own count."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.num_rows)
        if self.hard_negatives is None:
            yield from order.tolist()
            return
        hard_negatives, waiting = self.hard_negatives.numpy(), np.ones(self.num_rows, dtype=bool)
        for row in order.tolist():
            if not waiting[row]:
                continue
            waiting[row] = False
            yield row
            candidates = hard_negatives[row]
            candidates = rng.permutation(candidates[candidates >= 0])
            followers = candidates[waiting[candidates]][: self.followers]
            waiting[followers] = False
            yield from followers.tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"hard_negatives": self.hard_negatives, "mined_in": self.mined_in}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hard_negatives, self.mined_in = state["hard_negatives"], state["mined_in"]
