"""Validation on real queries: those of a log that were held out, asked among products of both splits."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from acebert.data.grouping import hash_text
from acebert.data.pairs import PairDataset
from acebert.data.query_log import QueryLog
from acebert.metrics.retrieval.retrieval import retrieval_scores
from acebert.utils.ranking import queries_per_chunk, top_k

NDCG, RECALL = "held_out_query_ndcg@10", "held_out_query_recall@10"


class HeldOutQueries:
    """Queries that were held out of a log, and the products that are ranked for them.

    Products are all that the queries led to, and others, evenly sampled, up to the number that is asked for. Of queries
    that led to more than that together, as many are asked as fit, in an order that a hash of their texts gives.

    Args:
        log: of the queries held out.
        splits: the products to train on and those to validate on. Rows that share an id are one product.
        size: products to rank; 0 for all.

    Raises:
        ValueError: if the splits have none of the log's products.
    """

    def __init__(self, log: QueryLog, splits: Sequence[PairDataset], size: int):
        self.splits = list(splits)
        first: dict[str, tuple[int, int]] = {}  # by id, the split and the row
        for split, data in enumerate(self.splits):
            for row, product_id in enumerate(data.ids):
                first.setdefault(str(product_id), (split, row))
        pairs: dict[int, dict[str, float]] = {}
        for query, product, grade in zip(log.query_numbers, log.product_numbers, log.grades, strict=True):
            if (product_id := log.ids[product]) in first:
                pairs.setdefault(int(query), {})[product_id] = float(grade)
        if not pairs:
            raise ValueError("None of the queries held out led to a product of the splits: change --validation_share.")
        size = size or len(first)
        ranked: dict[str, None] = {}
        asked: list[int] = []
        for query in sorted(pairs, key=lambda number: hash_text(f"order {log.keys[number]}")):
            if asked and len(ranked.keys() | pairs[query].keys()) > size:
                continue
            asked.append(query)
            ranked.update(dict.fromkeys(pairs[query]))
        others = [product_id for product_id in first if product_id not in ranked]
        missing = min(len(others), max(0, size - len(ranked)))
        ranked.update(dict.fromkeys(others[int(i * len(others) / missing)] for i in range(missing)))
        # By split, so that each is encoded at once.
        places = sorted((first[product_id], product_id) for product_id in ranked)
        self.ids = [product_id for _, product_id in places]
        self.rows = [[row for (split, row), _ in places if split == number] for number in range(len(self.splits))]
        self.titles = [self.splits[split].titles[row] for (split, row), _ in places]
        self.queries = [log.queries[query] for query in asked]
        self.grades = [pairs[query] for query in asked]

    def encode_products(self, encode: Callable[[PairDataset, list[int]], torch.Tensor]) -> torch.Tensor:
        """(products, dim) vectors in the order of `ids`, by a function of a split and some of its rows."""
        parts = zip(self.splits, self.rows, strict=True)
        return torch.cat([encode(data, rows) for data, rows in parts if rows])

    def score(self, score: Callable[[slice], torch.Tensor]) -> dict[str, float]:
        """Graded nDCG@10 (linear gains) and capped recall@10, means over the queries.

        Args:
            score: from some of the queries to their scores of all products (queries, products), on the CPU.
        """
        step = queries_per_chunk(len(self.ids))
        best: list[np.ndarray] = []
        for start in range(0, len(self.queries), step):
            best += top_k(score(slice(start, start + step)).numpy(), 10)
        rankings = [[self.ids[column] for column in columns] for columns in best]
        least = min(grade for grades in self.grades for grade in grades.values())
        found = retrieval_scores(rankings, self.grades, 10, relevance_level=least)
        return {NDCG: float(found["ndcg@10"].mean()), RECALL: float(found["recall_cap@10"].mean())}
