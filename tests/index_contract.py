"""Invented products, and what any index must answer about them: plain Python to check the engines against."""

import contextlib
import math
import operator
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import unit_vectors
from qdrant_server import qdrant_name

from acebert.catalog.dates import to_moment
from acebert.catalog.filters import And, Filter, Not, OneOf, Or, Range
from acebert.catalog.indexes.base import VECTORS, CatalogIndex
from acebert.catalog.indexes.edge import EdgeIndex
from acebert.catalog.indexes.memory import MemoryIndex
from acebert.catalog.indexes.server import ServerIndex

DIM = 8
SCHEMA = {
    "gender": "string",
    "base.colour of it": "string",
    "price": "number",
    "year": "integer",
    "on_sale": "boolean",
    "sizes": "strings",
    "added": "date",
}
COLOURS, KINDS = ("red", "blue", "green"), ("shirt", "bag", "mug")


def key_of(number: int) -> str:
    return str(uuid.UUID(int=number))


class Shop:
    """Invented products, and what an index must answer about them, product by product."""

    def __init__(self, count: int = 120) -> None:
        rng = np.random.default_rng(0)
        self.keys = [key_of(i + 1) for i in range(count)]
        self.vectors = {name: unit_vectors(count, DIM, seed=seed).numpy() for seed, name in enumerate(VECTORS)}
        self.vectors["title"][4::5] = np.nan
        self.vectors["image"][::3] = np.nan
        words = [[*rng.choice(COLOURS, rng.integers(1, 3)), *rng.choice(KINDS, rng.integers(1, 4))] for _ in self.keys]
        self.titles = [None if i % 11 == 3 else "" if i % 11 == 4 else " ".join(w) for i, w in enumerate(words)]
        self.payloads = []
        for i in range(count):
            attributes = {
                "gender": (None, "Men", "Women")[i % 3],
                "base.colour of it": (*COLOURS, None)[i % 4],
                "price": int(i // 2) if i % 4 == 0 else float(rng.integers(0, 100)) / 2,
                "year": None if i % 10 == 0 else 2000 + int(rng.integers(0, 9)),
                "on_sale": (True, False, None)[i % 7 % 3],
                "added": (None, f"2024-01-{1 + i % 28:02d}", f"2024-02-{1 + i % 28:02d}T12:30:00+02:00")[i % 3],
                "sizes": [str(size) for size in rng.choice(["S", "M", "L"], i % 4, replace=False)] if i % 6 else None,
            }
            self.payloads.append({"id": i, "attributes": attributes})

    def fill(self, index: CatalogIndex) -> None:
        for part in (slice(0, 50), slice(50, None)):
            vectors = {name: rows[part] for name, rows in self.vectors.items()}
            index.upsert(self.keys[part], vectors, self.titles[part], self.payloads[part])

    def fitting(self, where: Filter | None) -> list[int]:
        return [i for i, payload in enumerate(self.payloads) if where is None or meets(payload["attributes"], where)]

    def nearest(self, query: np.ndarray, where: Filter | None, using: str) -> list[tuple[str, float]]:
        scores = self.vectors[using] @ (query / np.linalg.norm(query))
        return ranked((self.keys[i], float(scores[i])) for i in self.fitting(where) if not math.isnan(scores[i]))

    def best_by_words(self, words: list[str], where: Filter | None) -> list[tuple[str, float]]:
        """BM25 with k1 = 1.2, b = 0.75 and an average length of 6 words."""
        titles = [(title or "").split() for title in self.titles]
        titled = sum(bool(title) for title in titles)
        scores = dict.fromkeys(range(len(titles)), 0.0)
        for word in words:
            having = [i for i, title in enumerate(titles) if word in title]
            idf = math.log(1 + (titled - len(having) + 0.5) / (len(having) + 0.5))
            for i in having:
                count = titles[i].count(word)
                scores[i] += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(titles[i]) / 6))
        return ranked((self.keys[i], scores[i]) for i in self.fitting(where) if scores[i] > 0)


def ranked(scored: Any) -> list[tuple[str, float]]:
    return sorted(scored, key=lambda pair: -pair[1])


def meets(attributes: dict[str, Any], where: Filter) -> bool:
    if isinstance(where, And):
        return all(meets(attributes, part) for part in where.parts)
    if isinstance(where, Or):
        return any(meets(attributes, part) for part in where.parts)
    if isinstance(where, Not):
        return not meets(attributes, where.part)
    value = attributes.get(where.name)
    if value is None:
        return False
    if isinstance(where, OneOf):
        return any(part in where.values for part in (value if isinstance(value, list) else [value]))
    assert isinstance(where, Range)
    value = to_moment(value) if isinstance(value, str) else value
    bounds = [(operator.ge, where.gte), (operator.gt, where.gt), (operator.le, where.lte), (operator.lt, where.lt)]
    return all(bound is None or compare(value, bound) for compare, bound in bounds)


FILTERS: list[dict[str, Any] | None] = [
    None,
    {"gender": "Men"},
    {"base.colour of it": ["red", "blue"]},
    {"gender": "Nobody"},
    {"price": 10},
    {"price": [10, 12.5, 13]},
    {"price": (10, 20.5)},
    {"price": {"$gt": 10, "$lt": 20.5}},
    {"year": 2003},
    {"year": [2001, 2004]},
    {"year": (2003, None)},
    {"year": {"$gt": 2003, "$lte": 2006}},
    {"on_sale": True},
    {"on_sale": False},
    {"on_sale": [True, False]},
    {"sizes": "M"},
    {"sizes": ["S", "L"]},
    {"added": {"$gte": "2024-01-20", "$lte": "2024-02-03"}},
    {"added": ("2024-01-20", "2024-02-03T10:30:00Z")},
    {"added": {"$gt": "2024-02-03"}},
    {"added": {"$lt": "2024-01-04"}},
    {"added": ["2024-01-05", "2024-02-06", "2024-02-09T10:30:00+00:00", "2024-02-09T12:30:00"]},
    {"$not": {"added": (None, "2024-02-10")}},
    {"$not": {"gender": "Men"}},
    {"$not": {"sizes": ["S", "M"]}},
    {"$not": {"price": (0, 30), "on_sale": True}},
    {"$or": [{"year": 2003}, {"base.colour of it": "red", "price": (None, 20)}]},
    {"gender": "Women", "$or": [{"$not": {"year": (2000, 2005)}}, {"$and": [{"sizes": "L"}, {"on_sale": False}]}]},
]


@contextlib.contextmanager
def make_index(engine: str, path: Path, sides: bool = True) -> Iterator[CatalogIndex]:
    """An empty index, closed at the end."""
    with contextlib.ExitStack() as stack:
        index: CatalogIndex
        if engine == "memory":
            index = MemoryIndex(SCHEMA)
        elif engine == "edge":
            index = EdgeIndex.create(path / "index", DIM, SCHEMA, sides=sides)
        else:
            index = ServerIndex.create(stack.enter_context(qdrant_name("index")), DIM, SCHEMA, sides=sides)
        stack.callback(index.close)
        yield index


def pairs(matches: list[Any]) -> list[tuple[str, float]]:
    return [(match.key, match.score) for match in matches]


def assert_same(found: list[tuple[str, float]], expected: list[tuple[str, float]], tolerance: float = 1e-5) -> None:
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=tolerance)
