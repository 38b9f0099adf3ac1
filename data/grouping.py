"""Deduplication groups of rows, and hashes of texts."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np


def hash_text(text: str) -> int:
    """A 63-bit integer that is the same for equal texts, letter case and spacing aside, in every process."""
    normal = " ".join(text.lower().split()).encode()
    return int.from_bytes(hashlib.blake2b(normal, digest_size=8).digest(), "big") >> 1


def group_products(ids: Sequence[Any], titles: Sequence[str | None]) -> np.ndarray:
    """Numbers the products, (rows,) int64: rows with one id or one title (letter case aside) share a number."""
    parent = list(range(len(ids)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, Any], int] = {}
    for row, (product_id, title) in enumerate(zip(ids, titles, strict=True)):
        keys = [("id", product_id)] + ([("title", hash_text(title))] if title else [])
        for key in keys:
            parent[find(row)] = find(first.setdefault(key, row))
    return np.array([find(row) for row in range(len(ids))], dtype=np.int64)
