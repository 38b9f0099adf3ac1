"""Hard negatives: near misses on the model's own vectors of whole products, and an order that puts them in one batch.

A near miss is a product that scores high for a row's own words and yet does not answer them. In a batch, all products
of other rows are negatives, so an order in which a row is followed by its near misses makes them negatives of each
other at no extra cost: every product is still encoded once an epoch, and still brings a query of its own.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from acebert.utils.ranking import queries_per_chunk


@torch.no_grad()
def find_near_misses(
    query_embeds: torch.Tensor,
    product_embeds: torch.Tensor,
    product_ids: torch.Tensor,
    query_ids: torch.Tensor,
    count: int,
    margin: float,
) -> torch.Tensor:
    """The products that score highest for each row's query without being known or likely to answer it.

    A product that scores nearly as high as the row's own, or higher, is likely to answer the query too: it is left out
    (the positive-aware rule TopK-MarginPos of NV-Retriever, Moreira et al. 2024, arXiv 2407.15831, section 4).

    Args:
        query_embeds: (n, width) unit vectors, row i that of row i's own query.
        product_embeds: (n, width) unit vectors of the whole products.
        product_ids: (n,) integers; rows that share one are the same product.
        query_ids: (n,) integers; rows that share one have the same query.
        count: near misses to take.
        margin: a near miss scores at least this much, in cosine, below the row's own product.

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


class NearMissSampler(Sampler[int]):
    """Every row once an epoch: shuffled, each followed by near misses of it that the epoch hasn't seen yet.

    Without near misses it is a plain shuffle. The order depends on seed, epoch and near misses alone. Its state goes
    into the checkpoints, so that a resumed epoch keeps its order.

    Args:
        num_rows: of the catalogue.
        seed: of the order.
        followers: near misses that follow a row, at most.
    """

    def __init__(self, num_rows: int, seed: int, followers: int):
        self.num_rows, self.seed, self.followers, self.epoch = num_rows, seed, followers, 0
        self.near_misses: torch.Tensor | None = None  # (rows, candidates)
        self.mined_in: int | None = None  # epoch

    def start_epoch(self, epoch: int) -> None:
        """To be called before every epoch. Not named `set_epoch`, which accelerate would call with its own count."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.num_rows)
        if self.near_misses is None:
            yield from order.tolist()
            return
        near_misses, waiting = self.near_misses.numpy(), np.ones(self.num_rows, dtype=bool)
        for row in order.tolist():
            if not waiting[row]:
                continue
            waiting[row] = False
            yield row
            candidates = near_misses[row]
            candidates = rng.permutation(candidates[candidates >= 0])
            followers = candidates[waiting[candidates]][: self.followers]
            waiting[followers] = False
            yield from followers.tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"near_misses": self.near_misses, "mined_in": self.mined_in}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.near_misses, self.mined_in = state["near_misses"], state["mined_in"]
