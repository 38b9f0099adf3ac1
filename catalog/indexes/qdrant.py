"""What the embedded index and the server's have in common: Qdrant's data model."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import qdrant_edge

from acebert.catalog.filters import BOUNDS, And, Filter, Not, OneOf, Or, Range, both
from acebert.catalog.indexes.base import (
    BM25,
    WORDS,
    Match,
    check_changes,
    check_facet,
    check_known,
    check_search,
    check_top_k,
    check_upsert,
    check_vector_names,
    most_frequent,
)

FIELD_INDEXES = {
    "string": "Keyword",
    "strings": "Keyword",
    "integer": "Integer",
    "number": "Float",
    "boolean": "Bool",
    "date": "Datetime",
}

MOST_GROUPS = 1_000_000  # that are counted

# Candidates that a search of the graph keeps. Recall@10 among a million products: 0.88 with 64, 0.94 with 100 (the
# engine's own choice), 0.986 with 256, 0.997 with 512, for 10 ms a search (docs/catalog.md).
HNSW_EF = 512
FULL_SCAN_KB = 10_000  # kilobytes of vectors (6,500 of 384 numbers) up to which a scan is as fast as a graph


class _EdgeBoolean:
    """A boolean that Edge 0.9 reads as one.

    Edge converts a payload's values by PyO3, which tries integers first: Python's True becomes 1, and so does numpy's
    before numpy 2.3 (it has `__index__` there). PyO3 takes a value for a boolean, though, that is no integer and whose
    type is called `numpy.bool_`: it recognises numpy's by that name alone (PyO3, `src/types/boolean.rs`). So this class
    takes the name. It can go when Edge tries booleans before integers.
    """

    def __init__(self, value: bool):
        self._value = value

    def __bool__(self) -> bool:
        return self._value


_EdgeBoolean.__module__, _EdgeBoolean.__name__ = "numpy", "bool_"


def to_conditions(where: Filter, models: Any) -> Any:
    """A filter in the classes of `qdrant_edge` or `qdrant_client.models`, which share their names."""
    if isinstance(where, And):
        return models.Filter(must=[to_conditions(part, models) for part in where.parts])
    if isinstance(where, Or):
        return models.Filter(should=[to_conditions(part, models) for part in where.parts])
    if isinstance(where, Not):
        return models.Filter(must_not=[to_conditions(where.part, models)])
    key = attribute_path(where.name)
    between = models.RangeFloat if models is qdrant_edge else models.Range
    if isinstance(where, Range):
        bounds = {bound: getattr(where, bound) for bound in BOUNDS}
        if any(isinstance(bound, datetime) for bound in bounds.values()):
            between = models.RangeDateTime if models is qdrant_edge else models.DatetimeRange
            bounds = {name: bound and bound.isoformat() for name, bound in bounds.items()}
        return models.FieldCondition(key=key, range=between(**bounds))
    if isinstance(where.values[0], float):  # Qdrant matches no floats
        ranges = [between(gte=value, lte=value) for value in where.values]
        return models.Filter(should=[models.FieldCondition(key=key, range=bounds) for bounds in ranges])
    if isinstance(where.values[0], bool):  # "any of" takes no booleans
        values = [_EdgeBoolean(bool(value)) if models is qdrant_edge else value for value in where.values]
        matches = [models.MatchValue(value=value) for value in values]
        return models.Filter(should=[models.FieldCondition(key=key, match=match) for match in matches])
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(where.values)))


def attribute_path(name: str) -> str:
    """Of an attribute in the payload; quotes let the name hold dots and spaces."""
    return f'attributes."{name}"'


class QdrantIndex(ABC):
    """What Edge and the server do alike. The subclasses make the calls.

    Args:
        models: the module with the classes of requests, `qdrant_edge` or `qdrant_client.models`.
        schema: attribute -> kind.
        dims: of the vectors that the index holds, by name.
    """

    def __init__(self, models: Any, schema: Mapping[str, str], dims: Mapping[str, int]):
        self._models, self._schema, self._dims = models, dict(schema), dict(dims)

    @abstractmethod
    def _point(self, key: str, vectors: dict[str, Any], payload: dict[str, Any]) -> Any: ...

    @abstractmethod
    def _has_vector(self, name: str) -> Any:
        """The condition that a product has this vector."""

    @abstractmethod
    def _write(
        self,
        keys: Sequence[str],
        units: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        """Writes checked products: unit vectors by name, and payloads without attributes that are None."""

    @abstractmethod
    def _change(self, parts: list[tuple[str, dict[str, Any], list[str]]]) -> None:
        """Sets attributes and removes others: key, new values, paths that go."""

    @abstractmethod
    def _query(
        self, queries: list[Any], using: str, top_k: int, condition: Any, with_vectors: list[str], exact: bool
    ) -> list[list[Any]]:
        """Scored points of each query, the best first."""

    @abstractmethod
    def _retrieve(self, keys: Sequence[str], with_vectors: Sequence[str], payload: bool) -> list[Any]:
        """The records that there are, in any order."""

    @abstractmethod
    def _count(self, condition: Any) -> int: ...

    @abstractmethod
    def _facet(self, path: str, condition: Any, limit: int) -> list[Any]: ...

    def upsert(
        self,
        keys: Sequence[str],
        vectors: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        units, payloads = check_upsert(keys, vectors, titles, payloads, self._schema, self._dims)
        if keys:
            self._write(keys, units, titles, payloads)

    def _points(
        self,
        rows: Iterable[int],
        keys: Sequence[str],
        units: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> list[Any]:
        """Some rows of checked products, as the engine takes them."""
        points = []
        for row in rows:
            named: dict[str, Any] = {n: unit[row].tolist() for n, unit in units.items() if not np.isnan(unit[row, 0])}
            document = BM25.embed_document(titles[row] or "")
            if document.indices:
                named[WORDS] = self._sparse(document)
            points.append(self._point(keys[row], named, payloads[row]))
        return points

    def set_attributes(self, keys: Sequence[str], attributes: Sequence[Mapping[str, Any]]) -> None:
        changes = check_changes(keys, attributes, self._schema)
        check_known(keys, {str(record.id) for record in self._retrieve(keys, (), payload=False)})
        parts = []
        for key, change in zip(keys, changes, strict=True):
            values = {name: value for name, value in change.items() if value is not None}
            parts.append((key, values, [attribute_path(name) for name, value in change.items() if value is None]))
        self._change(parts)

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        where: Filter | None = None,
        using: str = "product",
        with_vectors: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Match]]:
        queries = check_search(queries, top_k, using, self._dims)
        names = self._held(with_vectors)
        condition = self._filter(where)
        rows = queries.tolist()
        found = self._query(rows, using, top_k, condition, names, exact=exact)
        short = [i for i, points in enumerate(found) if len(points) < top_k]
        if short and not exact:
            # A graph may not lead to all of the few products that meet a filter.
            conditions = [self._has_vector(using)] if condition is None else [self._has_vector(using), condition]
            fitting = self._count(self._models.Filter(must=conditions))
            short = [i for i in short if len(found[i]) < min(top_k, fitting)]
            again = self._query([rows[i] for i in short], using, top_k, condition, names, exact=True)
            for i, points in zip(short, again, strict=True):
                found[i] = points
        return [[_match(point, point.score) for point in points] for points in found]

    def search_words(
        self, texts: Sequence[str], top_k: int, where: Filter | None = None, with_vectors: Sequence[str] = ()
    ) -> list[list[Match]]:
        check_top_k(top_k)
        names = self._held(with_vectors)
        words = [BM25.embed_query(text) for text in texts]
        asked = [i for i, query in enumerate(words) if query.indices]
        found: list[list[Match]] = [[] for _ in texts]
        queries = [self._sparse(words[i]) for i in asked]
        hits = self._query(queries, WORDS, top_k, self._filter(where), names, exact=False)
        for i, points in zip(asked, hits, strict=True):
            found[i] = [_match(point, point.score) for point in points]
        return found

    def get(self, keys: Sequence[str], with_vectors: Sequence[str] = ()) -> list[Match | None]:
        records = {str(record.id): record for record in self._retrieve(keys, self._held(with_vectors), payload=True)}
        return [_match(records[key], 0.0) if key in records else None for key in keys]

    def facets(self, name: str, where: Filter | None = None, limit: int = 100, by: str | None = None) -> dict[Any, int]:
        check_facet(name, self._schema)
        if by is not None:
            values = self.facets(name, where, limit)
            return most_frequent(
                ((value, self.count(both(where, OneOf(name, (value,))), by)) for value in values), limit
            )
        hits = self._facet(attribute_path(name), self._filter(where), limit)
        # A value that no product has any more stays in Edge's index, with a count of 0.
        return most_frequent(((hit.value, hit.count) for hit in hits if hit.count), limit)

    def count(self, where: Filter | None = None, by: str | None = None) -> int:
        products = self._count(self._filter(where))
        if by is None:
            return products
        groups = self.facets(by, where, MOST_GROUPS)
        return len(groups) + products - sum(groups.values())

    def count_values(self, name: str, values: Collection[str]) -> dict[str, int]:
        counts = {value: self.count(OneOf(name, (value,))) for value in values}
        return {value: count for value, count in counts.items() if count}

    def _filter(self, where: Filter | None) -> Any:
        return None if where is None else self._models.Filter(must=[to_conditions(where, self._models)])

    def _sparse(self, words: qdrant_edge.SparseVector) -> Any:
        return self._models.SparseVector(indices=words.indices, values=words.values)

    def _held(self, names: Sequence[str]) -> list[str]:
        check_vector_names(names)
        return [name for name in names if name in self._dims]


def _match(point: Any, score: float) -> Match:
    vectors = {name: np.asarray(vector, np.float32) for name, vector in (point.vector or {}).items()}
    return Match(str(point.id), score, point.payload, vectors)
