"""Indexes of products: vectors, words and attributes, in memory, in a folder, or on a Qdrant server.

All three engines answer alike (one suite of tests runs on all of them):

- `MemoryIndex` computes exactly with numpy and keeps nothing on disk: for notebooks, tests and read-only catalogues.
- `EdgeIndex` is a folder: Qdrant Edge (https://qdrant.tech/documentation/edge/), which needs no server. What is written
  is found at once and survives the process. It searches exactly; large catalogues can have a graph (HNSW) built.
- `ServerIndex` is a collection on a Qdrant server or cluster, for a catalogue that outgrows one machine.

A product has a key (a UUID), up to three unit vectors (`VECTORS`), a title for the search by words, and a payload:
`{"attributes": {name: value}, ...}`, whose attributes filters ask about (`filters_acebert`).
"""

import copy
import json
import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import qdrant_edge

from .filters_acebert import And, Filter, Not, OneOf, Or, Range, check_attributes

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

VECTORS = ("product", "title", "image")  # title and image: the product encoder on one side alone
WORDS = "words"  # name of the sparse vectors for BM25
FIELD_INDEXES = {"string": "Keyword", "strings": "Keyword", "integer": "Integer", "number": "Float", "boolean": "Bool"}
SCORES_PER_CHUNK = 2**24  # scores held at a time: 64 MB in float32

# Candidates that a search of the graph keeps. Recall@10 among a million products: 0.88 with 64, 0.94 with 100 (the
# engine's own choice), 0.986 with 256, 0.997 with 512, for 10 ms a search (docs/catalog.md).
HNSW_EF = 512
FULL_SCAN_KB = 10_000  # kilobytes of vectors (6,500 of 384 numbers) up to which a scan is as fast as a graph
EDGE_BATCH = 16  # queries per call: a third of the time of 16 calls; more would hold up other threads for longer
SERVER_BATCH = 256  # writes per request: about 3 MB with three vectors of 384 numbers, where a server takes 32 MB

# Words, stems and term weights of BM25 (Robertson & Zaragoza 2009); engines multiply by the inverse document frequency.
# avg_len: titles of the fashion catalogue have 5.6 words on average. Stored weights depend on it, so it never adapts.
BM25 = qdrant_edge.Bm25(qdrant_edge.Bm25Config(language="english", avg_len=6))


@dataclass(frozen=True)
class Match:
    """A product that was found.

    Args:
        key: UUID.
        score: cosine similarity to the query, or BM25 score; 0 where nothing was asked (`get`).
        payload: as stored.
        vectors: those that were asked for and are there, each (dim,) float32.
    """

    key: str
    score: float
    payload: dict[str, Any]
    vectors: dict[str, np.ndarray]


class CatalogIndex(Protocol):
    """What every engine does. All methods may be called from several threads at once."""

    def upsert(
        self,
        keys: Sequence[str],
        vectors: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        """Adds products, or replaces those whose keys are there. Of rows that share a key, the last counts.

        Args:
            keys: n UUIDs.
            vectors: by name, each (n, dim) float of any length but 0; a row of NaN is a vector that the product lacks.
                No product may lack "product".
            titles: n, for the search by words.
            payloads: n dicts that JSON can hold; an attribute that is None counts as lacking.

        Raises:
            ValueError: a key, a vector or an attribute isn't what it must be. Nothing is written then.
        """
        ...

    def set_attributes(self, keys: Sequence[str], attributes: Sequence[Mapping[str, Any]]) -> None:
        """Merges attributes into those of products that are there; None removes one.

        Raises:
            KeyError: no such product. Nothing is written then.
            ValueError: as `upsert`.
        """
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Removes products. Keys that aren't there are passed over."""
        ...

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        where: Filter | None = None,
        using: str = "product",
        with_vectors: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Match]]:
        """The products nearest to each query.

        Args:
            queries: (n, dim) float, of any length but 0.
            top_k: products per query; fewer only where no more have the vector and meet the filter.
            where: from `parse_filters`.
            using: name of the vectors to compare with.
            with_vectors: names of the vectors to return.
            exact: pass over a graph (HNSW) where there is one.

        Returns:
            For each query its matches, best first.
        """
        ...

    def search_words(
        self, texts: Sequence[str], top_k: int, where: Filter | None = None, with_vectors: Sequence[str] = ()
    ) -> list[list[Match]]:
        """The products whose titles share words with each text, best BM25 score first, at most `top_k`."""
        ...

    def get(self, keys: Sequence[str], with_vectors: Sequence[str] = ()) -> list[Match | None]:
        """Products by key, in the order of the keys; None where there is none."""
        ...

    def facets(self, name: str, where: Filter | None = None, limit: int = 100) -> dict[Any, int]:
        """The values of an attribute among the products that meet the filter, with counts, most frequent first.

        Raises:
            ValueError: the attribute doesn't exist, or is a "number", whose values aren't counted.
        """
        ...

    def count(self, where: Filter | None = None) -> int:
        """Products that meet the filter."""
        ...

    def flush(self) -> None:
        """Puts on disk what was written, so that the next start is quick. A process that dies loses nothing anyway."""
        ...

    def close(self) -> None:
        """Lets go of files and connections. The index can't be used after."""
        ...


def _unit_rows(rows: np.ndarray, what: str, dim: int | None) -> np.ndarray:
    """(n, dim) float32 rows of unit length; rows of NaN stay."""
    rows = np.asarray(rows, dtype=np.float32)
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim):
        raise ValueError(f"{what} must have the shape (n, {dim or 'dim'}), got {rows.shape}.")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))[:, 0] & ~np.isnan(rows).all(axis=1))
    if len(bad):
        raise ValueError(f"{what}: row {bad[0]} is zero or holds NaN or infinity, so it has no direction.")
    return rows / lengths


def _check_keys(keys: Sequence[str]) -> list[str]:
    for key in keys:
        try:
            canonical = str(uuid.UUID(key))
        except (ValueError, AttributeError, TypeError):
            canonical = None
        if key != canonical:
            raise ValueError(f"The key {key!r} is no UUID as str(uuid.UUID(...)) writes it.")
    return list(keys)


def _check_products(
    keys: Sequence[str],
    vectors: Mapping[str, np.ndarray],
    titles: Sequence[str | None],
    payloads: Sequence[dict[str, Any]],
    schema: Mapping[str, str],
    dims: Mapping[str, int | None],
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Unit vectors and cleaned payloads of products, for `upsert`."""
    lengths = {"keys": len(keys), "titles": len(titles), "payloads": len(payloads)}
    lengths |= {f"vectors[{name!r}]": len(rows) for name, rows in vectors.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"All must have the same length, got {lengths}.")
    _check_keys(keys)
    if unknown := [name for name in vectors if name not in dims]:
        raise ValueError(f"The index has no {unknown[0]!r} vectors, only: {', '.join(dims)}.")
    if "product" not in vectors:
        raise ValueError("The 'product' vectors are missing: every product must have one.")
    units = {name: _unit_rows(rows, f"vectors[{name!r}]", dims[name]) for name, rows in vectors.items()}
    if (lacking := np.flatnonzero(np.isnan(units["product"][:, 0]))).size:
        raise ValueError(f"The product {keys[lacking[0]]} has no 'product' vector: every product must have one.")
    cleaned = []
    for payload in payloads:
        attributes = check_attributes(payload.get("attributes", {}), schema)
        cleaned.append(payload | {"attributes": {name: v for name, v in attributes.items() if v is not None}})
    return units, cleaned


def _check_search(queries: np.ndarray, top_k: int, using: str, dims: Mapping[str, int | None]) -> np.ndarray:
    if using not in dims:
        raise ValueError(f"using={using!r}: the index has only the vectors {', '.join(dims)}.")
    _check_top_k(top_k)
    queries = _unit_rows(queries, "queries", dims[using])
    if np.isnan(queries).any():
        raise ValueError("queries: a row is NaN, so it has no direction.")
    return queries


def _check_changes(
    keys: Sequence[str], attributes: Sequence[Mapping[str, Any]], schema: Mapping[str, str]
) -> list[dict[str, Any]]:
    _check_keys(keys)
    if len(keys) != len(attributes):
        raise ValueError(f"{len(keys)} keys but {len(attributes)} dicts of attributes: there must be one for each.")
    return [check_attributes(change, schema) for change in attributes]


def _check_known(keys: Sequence[str], known: Collection[str]) -> None:
    if unknown := [key for key in keys if key not in known]:
        raise KeyError(
            f"{len(unknown)} of {len(keys)} products aren't in the index, the first with the key {unknown[0]}."
        )


def _check_names(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in VECTORS]:
        raise ValueError(f"Unknown vectors {unknown[0]!r}: they must be of {', '.join(VECTORS)}.")


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")


def _check_facet(name: str, schema: Mapping[str, str]) -> None:
    if schema.get(name, "number") == "number":
        fit = ", ".join(sorted(other for other, kind in schema.items() if kind != "number"))
        what = "a number, whose values aren't counted" if name in schema else "unknown"
        raise ValueError(f"The attribute {name!r} is {what}: ask for one of {fit or '(there are none)'}.")


def _most_frequent(counts: Iterable[tuple[Any, int]], limit: int) -> dict[Any, int]:
    return dict(sorted(counts, key=lambda item: (-item[1], item[0]))[:limit])


@dataclass
class _Product:
    key: str
    payload: dict[str, Any]
    tokens: list[int]  # of the title, each once


class MemoryIndex:
    """Exact search with numpy, nothing on disk. One thread at a time: the others wait.

    Args:
        schema: attribute -> kind, as for `parse_filters`.
    """

    def __init__(self, schema: Mapping[str, str]):
        self._schema = dict(schema)
        self._lock = threading.RLock()
        self._rows: dict[str, int] = {}  # by key
        self._free: list[int] = []  # rows of deleted products
        self._products: list[_Product | None] = []  # by row, None where deleted
        self._vectors: dict[str, np.ndarray] = {}  # (capacity, dim), NaN where a product lacks one
        # A column per attribute, (capacity,), NaN where lacking: numbers as they are, and for strings the number of
        # their tuple in the vocabulary. A filter looks at whole columns, never at products one by one.
        self._columns = {name: np.empty(0) for name in self._schema}
        self._vocabulary: dict[str, dict[tuple[str, ...], int]] = {name: {} for name in self._schema}
        self._postings: dict[int, dict[int, float]] = {}  # token -> row -> weight of the token in the title
        self._titled = 0  # products whose title has words

    def upsert(
        self,
        keys: Sequence[str],
        vectors: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        with self._lock:
            dims = {name: self._vectors[name].shape[1] if name in self._vectors else None for name in VECTORS}
            units, payloads = _check_products(keys, vectors, titles, payloads, self._schema, dims)
            for name, unit in units.items():
                if name not in self._vectors:
                    self._vectors[name] = np.full((self._capacity(), unit.shape[1]), np.nan, np.float32)
            for i, key in enumerate(keys):
                self._remove(key)
                row = self._rows[key] = self._new_row()
                document = BM25.embed_document(titles[i] or "")
                self._products[row] = _Product(key, copy.deepcopy(payloads[i]), document.indices)
                self._titled += bool(document.indices)
                for token, weight in zip(document.indices, document.values, strict=True):
                    self._postings.setdefault(token, {})[row] = weight
                for name, unit in units.items():
                    self._vectors[name][row] = unit[i]
                self._fill_columns(row)

    def set_attributes(self, keys: Sequence[str], attributes: Sequence[Mapping[str, Any]]) -> None:
        with self._lock:
            changes = _check_changes(keys, attributes, self._schema)
            _check_known(keys, self._rows)
            for key, change in zip(keys, changes, strict=True):
                row = self._rows[key]
                product = self._product(row)
                merged = product.payload["attributes"] | change
                product.payload["attributes"] = {name: value for name, value in merged.items() if value is not None}
                self._fill_columns(row)

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in _check_keys(keys):
                self._remove(key)

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        where: Filter | None = None,
        using: str = "product",
        with_vectors: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Match]]:
        _check_names(with_vectors)
        with self._lock:
            vectors = self._vectors.get(using)
            dims = dict.fromkeys(VECTORS) | ({} if vectors is None else {using: vectors.shape[1]})
            queries = _check_search(queries, top_k, using, dims)
            if vectors is None:
                return [[] for _ in queries]
            vectors = vectors[: len(self._products)]
            fits = self._fits(where) & ~np.isnan(vectors[:, 0])
            step = max(1, SCORES_PER_CHUNK // max(1, len(vectors)))
            return [
                self._best(scores, fits, top_k, with_vectors)
                for start in range(0, len(queries), step)
                for scores in queries[start : start + step] @ vectors.T
            ]

    def search_words(
        self, texts: Sequence[str], top_k: int, where: Filter | None = None, with_vectors: Sequence[str] = ()
    ) -> list[list[Match]]:
        _check_names(with_vectors)
        _check_top_k(top_k)
        with self._lock:
            fits = self._fits(where)
            found = []
            for text in texts:
                scores = np.zeros(len(self._products), np.float32)
                for token in BM25.embed_query(text).indices:
                    postings = self._postings.get(token, {})
                    rows = np.fromiter(postings.keys(), np.int64, len(postings))
                    weights = np.fromiter(postings.values(), np.float32, len(postings))
                    # The inverse document frequency of Qdrant's "idf" modifier, which is Lucene's.
                    scores[rows] += weights * np.log((self._titled - len(rows) + 0.5) / (len(rows) + 0.5) + 1)
                found.append(self._best(scores, fits & (scores > 0), top_k, with_vectors))
            return found

    def get(self, keys: Sequence[str], with_vectors: Sequence[str] = ()) -> list[Match | None]:
        _check_names(with_vectors)
        with self._lock:
            rows = [self._rows.get(key) for key in _check_keys(keys)]
            return [None if row is None else self._match(row, 0.0, with_vectors) for row in rows]

    def facets(self, name: str, where: Filter | None = None, limit: int = 100) -> dict[Any, int]:
        _check_facet(name, self._schema)
        with self._lock:
            column = self._columns[name][: len(self._products)][self._fits(where)]
            values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            if self._schema[name] in ("string", "strings"):
                several = list(self._vocabulary[name])
                total: Counter[str] = Counter()
                for value, count in zip(values.astype(int), counts.tolist(), strict=True):
                    total.update(dict.fromkeys(several[value], count))
                return _most_frequent(total.items(), limit)
            plain = values.astype(bool if self._schema[name] == "boolean" else int).tolist()
            return _most_frequent(zip(plain, counts.tolist(), strict=True), limit)

    def count(self, where: Filter | None = None) -> int:
        with self._lock:
            return int(self._fits(where).sum())

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _remove(self, key: str) -> None:
        row = self._rows.pop(key, None)
        if row is None:
            return
        tokens = self._product(row).tokens
        for token in tokens:
            del self._postings[token][row]
            if not self._postings[token]:
                del self._postings[token]
        self._titled -= bool(tokens)
        self._products[row] = None
        for array in [*self._vectors.values(), *self._columns.values()]:
            array[row] = np.nan
        self._free.append(row)

    def _product(self, row: int) -> _Product:
        product = self._products[row]
        assert product is not None, f"row {row} holds no product"
        return product

    def _capacity(self) -> int:
        return next((len(array) for array in [*self._vectors.values(), *self._columns.values()]), 0)

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        self._products.append(None)
        if len(self._products) > self._capacity():
            for arrays in (self._vectors, self._columns):
                for name, array in arrays.items():
                    more = np.full((max(64, len(array)), *array.shape[1:]), np.nan, array.dtype)
                    arrays[name] = np.concatenate([array, more])
        return len(self._products) - 1

    def _fill_columns(self, row: int) -> None:
        attributes = self._product(row).payload["attributes"]
        for name, column in self._columns.items():
            value = attributes.get(name, np.nan)
            if isinstance(value, str | list):
                several = (value,) if isinstance(value, str) else tuple(value)
                value = self._vocabulary[name].setdefault(several, len(self._vocabulary[name]))
            column[row] = value

    def _fits(self, where: Filter | None) -> np.ndarray:
        """(rows,) booleans: which products meet the filter."""
        if not self._products:
            return np.zeros(0, dtype=bool)
        there = ~np.isnan(self._vectors["product"][: len(self._products), 0])
        return there if where is None else there & self._meets(where)

    def _meets(self, where: Filter) -> np.ndarray:
        if isinstance(where, And):
            return np.logical_and.reduce([self._meets(part) for part in where.parts])
        if isinstance(where, Or):
            return np.logical_or.reduce([self._meets(part) for part in where.parts])
        if isinstance(where, Not):
            return ~self._meets(where.part)
        column = self._columns[where.name][: len(self._products)]
        if isinstance(where, OneOf):
            if self._schema[where.name] not in ("string", "strings"):
                return np.isin(column, where.values)
            wanted = set(where.values)
            codes = [code for several, code in self._vocabulary[where.name].items() if not wanted.isdisjoint(several)]
            return np.isin(column, codes)
        meets = ~np.isnan(column)
        bounds = {np.greater_equal: where.gte, np.greater: where.gt, np.less_equal: where.lte, np.less: where.lt}
        for compare, bound in bounds.items():
            if bound is not None:
                meets &= compare(column, bound)
        return meets

    def _best(self, scores: np.ndarray, fits: np.ndarray, top_k: int, with_vectors: Sequence[str]) -> list[Match]:
        rows = np.flatnonzero(fits)
        if len(rows) > top_k:
            rows = rows[np.argpartition(-scores[rows], top_k - 1)[:top_k]]
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        return [self._match(int(row), float(scores[row]), with_vectors) for row in rows]

    def _match(self, row: int, score: float, with_vectors: Sequence[str]) -> Match:
        product = self._product(row)
        vectors = {name: self._vectors[name][row].copy() for name in with_vectors if name in self._vectors}
        vectors = {name: vector for name, vector in vectors.items() if not np.isnan(vector[0])}
        return Match(product.key, score, copy.deepcopy(product.payload), vectors)


class _EdgeBoolean:
    """A boolean that Edge 0.9 reads as one.

    It tries integers first, so that Python's True is 1 to it, and numpy's, too, before numpy 2.3. What is no integer
    and goes by the name of numpy's boolean is one to PyO3, by which Edge takes values from Python.
    """

    def __init__(self, value: bool):
        self._value = value

    def __bool__(self) -> bool:
        return self._value


_EdgeBoolean.__module__, _EdgeBoolean.__name__ = "numpy", "bool_"


def _conditions(where: Filter, models: Any) -> Any:
    """A filter in the classes of `qdrant_edge` or `qdrant_client.models`, which share their names."""
    if isinstance(where, And):
        return models.Filter(must=[_conditions(part, models) for part in where.parts])
    if isinstance(where, Or):
        return models.Filter(should=[_conditions(part, models) for part in where.parts])
    if isinstance(where, Not):
        return models.Filter(must_not=[_conditions(where.part, models)])
    key = _path(where.name)
    between = models.RangeFloat if models is qdrant_edge else models.Range
    if isinstance(where, Range):
        bounds = between(gte=where.gte, gt=where.gt, lte=where.lte, lt=where.lt)
        return models.FieldCondition(key=key, range=bounds)
    if isinstance(where.values[0], float):  # Qdrant matches no floats
        ranges = [between(gte=value, lte=value) for value in where.values]
        return models.Filter(should=[models.FieldCondition(key=key, range=bounds) for bounds in ranges])
    if isinstance(where.values[0], bool):  # "any of" takes no booleans
        values = [_EdgeBoolean(bool(value)) if models is qdrant_edge else value for value in where.values]
        matches = [models.MatchValue(value=value) for value in values]
        return models.Filter(should=[models.FieldCondition(key=key, match=match) for match in matches])
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(where.values)))


def _path(name: str) -> str:
    """Of an attribute in the payload; quotes let the name hold dots and spaces."""
    return f'attributes."{name}"'


class _QdrantIndex(ABC):
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
    def _write(self, points: list[Any]) -> None: ...

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
        units, payloads = _check_products(keys, vectors, titles, payloads, self._schema, self._dims)
        points = []
        for i, key in enumerate(keys):
            named: dict[str, Any] = {name: rows[i].tolist() for name, rows in units.items() if not np.isnan(rows[i, 0])}
            document = BM25.embed_document(titles[i] or "")
            if document.indices:
                named[WORDS] = self._sparse(document)
            points.append(self._point(key, named, payloads[i]))
        if points:
            self._write(points)

    def set_attributes(self, keys: Sequence[str], attributes: Sequence[Mapping[str, Any]]) -> None:
        changes = _check_changes(keys, attributes, self._schema)
        _check_known(keys, {str(record.id) for record in self._retrieve(keys, (), payload=False)})
        parts = []
        for key, change in zip(keys, changes, strict=True):
            values = {name: value for name, value in change.items() if value is not None}
            parts.append((key, values, [_path(name) for name, value in change.items() if value is None]))
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
        queries = _check_search(queries, top_k, using, self._dims)
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
        _check_top_k(top_k)
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

    def facets(self, name: str, where: Filter | None = None, limit: int = 100) -> dict[Any, int]:
        _check_facet(name, self._schema)
        hits = self._facet(_path(name), self._filter(where), limit)
        # A value that no product has any more stays in Edge's index, with a count of 0.
        return _most_frequent(((hit.value, hit.count) for hit in hits if hit.count), limit)

    def count(self, where: Filter | None = None) -> int:
        return self._count(self._filter(where))

    def _filter(self, where: Filter | None) -> Any:
        return None if where is None else self._models.Filter(must=[_conditions(where, self._models)])

    def _sparse(self, words: qdrant_edge.SparseVector) -> Any:
        return self._models.SparseVector(indices=words.indices, values=words.values)

    def _held(self, names: Sequence[str]) -> list[str]:
        _check_names(names)
        return [name for name in names if name in self._dims]


def _match(point: Any, score: float) -> Match:
    vectors = {name: np.asarray(vector, np.float32) for name, vector in (point.vector or {}).items()}
    return Match(str(point.id), score, point.payload, vectors)


class EdgeIndex(_QdrantIndex):
    """A folder that one process at a time has open: `EdgeIndex.create` or `EdgeIndex.open`.

    Edge holds Python's global lock during each call, so threads take turns. How rare a word is counts products deleted
    since the folder was opened too.
    """

    def __init__(self, shard: qdrant_edge.EdgeShard, schema: Mapping[str, str], dims: Mapping[str, int]):
        super().__init__(qdrant_edge, schema, dims)
        self._shard = shard
        # Facets need an index per attribute, and at 50,000 products a filter takes 0.5 ms with one, 110 ms without.
        indexed = {path.replace('"', "") for path in shard.info().payload_schema}
        for name in schema:
            if f"attributes.{name}" not in indexed:
                kind = getattr(qdrant_edge.PayloadSchemaType, FIELD_INDEXES[schema[name]])
                shard.update(qdrant_edge.UpdateOperation.create_field_index(_path(name), kind))

    @classmethod
    def create(
        cls, path: str | Path, dim: int, schema: Mapping[str, str], hnsw: bool = False, sides: bool = True
    ) -> "EdgeIndex":
        """A new, empty index.

        Args:
            path: folder; made where there's none.
            dim: of all vectors.
            schema: attribute -> kind, as for `parse_filters`.
            hnsw: let `optimize` build a graph over the "product" vectors. Without, search is exact for good.
            sides: hold "title" and "image" vectors too: in float16, read from disk, always searched exactly.

        Raises:
            FileExistsError: the folder holds an index.
        """
        path = Path(path)
        if (path / "edge_config.json").exists():
            raise FileExistsError(f"{path} holds an index already: open it, or choose another folder.")
        path.mkdir(parents=True, exist_ok=True)
        cosine, plain = qdrant_edge.Distance.Cosine, qdrant_edge.HnswIndexConfig(0, 100, FULL_SCAN_KB)
        graph = qdrant_edge.HnswIndexConfig(16, 100, FULL_SCAN_KB) if hnsw else plain
        # Float32: at 50,000 x 384 float16 searches no faster (11 ms) and swaps neighbours in 3 of 100 top tens.
        vectors = {"product": qdrant_edge.EdgeVectorParams(dim, cosine, hnsw_config=graph)}
        if sides:
            half, cold = qdrant_edge.VectorStorageDatatype.Float16, qdrant_edge.Memory.Cold
            vectors |= {
                name: qdrant_edge.EdgeVectorParams(dim, cosine, datatype=half, memory=cold, hnsw_config=plain)
                for name in ("title", "image")
            }
        words = qdrant_edge.EdgeSparseVectorParams(modifier=qdrant_edge.Modifier.Idf)
        optimizers = qdrant_edge.EdgeOptimizersConfig(indexing_threshold=FULL_SCAN_KB)
        config = qdrant_edge.EdgeConfig(vectors, {WORDS: words}, optimizers=optimizers)
        shard = qdrant_edge.EdgeShard.create(str(path), config)
        return cls(shard, schema, dict.fromkeys(vectors, dim))

    @classmethod
    def open(cls, path: str | Path, schema: Mapping[str, str]) -> "EdgeIndex":
        """An index that is there.

        Raises:
            FileNotFoundError: it isn't.
            RuntimeError: another process, or another object of this one, has it open.
        """
        path = Path(path)
        if not (path / "edge_config.json").exists():
            raise FileNotFoundError(f"{path} holds no index: make one with EdgeIndex.create.")
        try:
            shard = qdrant_edge.EdgeShard.load(str(path))
        except Exception as error:  # Edge raises no narrower class
            if "WouldBlock" not in str(error):
                raise
            raise RuntimeError(
                f"{path} is open already, in another process or by another object of this one: close it there first."
            ) from error
        vectors = json.loads((path / "edge_config.json").read_text(encoding="utf-8"))["vectors"]
        return cls(shard, schema, {name: vectors[name]["size"] for name in VECTORS if name in vectors})

    def delete(self, keys: Sequence[str]) -> None:
        self._shard.update(qdrant_edge.UpdateOperation.delete_points([*_check_keys(keys)]))

    def optimize(self) -> None:
        """Drops what was deleted and, with `hnsw`, builds the graph in place: minutes for 200,000 products.

        Edge holds Python's global lock all the while, so no thread of the process runs. Call it in a process of its
        own, which alone has the index open.
        """
        self._shard.optimize()

    def flush(self) -> None:
        self._shard.flush()

    def close(self) -> None:
        self._shard.close()

    def _point(self, key: str, vectors: dict[str, Any], payload: dict[str, Any]) -> qdrant_edge.Point:
        return qdrant_edge.Point(key, vectors, payload)

    def _has_vector(self, name: str) -> qdrant_edge.HasVectorCondition:
        return qdrant_edge.HasVectorCondition(name)

    def _write(self, points: list[qdrant_edge.Point]) -> None:
        self._shard.update(qdrant_edge.UpdateOperation.upsert_points(points))

    def _change(self, parts: list[tuple[str, dict[str, Any], list[str]]]) -> None:
        for key, values, gone in parts:
            if values:
                self._shard.update(qdrant_edge.UpdateOperation.set_payload([key], values, key="attributes"))
            if gone:
                self._shard.update(qdrant_edge.UpdateOperation.delete_payload([key], gone))

    def _query(
        self, queries: list[Any], using: str, top_k: int, condition: Any, with_vectors: list[str], exact: bool
    ) -> list[list[qdrant_edge.ScoredPoint]]:
        params = qdrant_edge.SearchParams(hnsw_ef=HNSW_EF, exact=exact)
        requests = [
            qdrant_edge.QueryRequest(
                limit=top_k,
                query=qdrant_edge.Query.Nearest(query, using=using),
                with_vector=with_vectors,
                with_payload=True,
                filter=condition,
                params=params,
            )
            for query in queries
        ]
        found = []
        for start in range(0, len(requests), EDGE_BATCH):
            batch = qdrant_edge.QueryBatchRequest(requests[start : start + EDGE_BATCH])
            found += self._shard.query_batch(batch)
        return found

    def _retrieve(self, keys: Sequence[str], with_vectors: Sequence[str], payload: bool) -> list[qdrant_edge.Record]:
        return self._shard.retrieve([*_check_keys(keys)], payload, list(with_vectors))

    def _count(self, condition: Any) -> int:
        return self._shard.count(qdrant_edge.CountRequest(exact=True, filter=condition))

    def _facet(self, path: str, condition: Any, limit: int) -> list[qdrant_edge.FacetHit]:
        return self._shard.facet(qdrant_edge.FacetRequest(path, limit=limit, exact=True, filter=condition)).hits


class ServerIndex(_QdrantIndex):
    """A collection on a Qdrant server or cluster: `ServerIndex.create` or `ServerIndex.open`.

    It was tested on the local mode of qdrant-client, which speaks the same interface, and not on a real cluster. Needs
    `pip install "acebert[server]"`.

    Args of both:
        url: `http(s)://host:port/collection`.
        schema: attribute -> kind, as for `parse_filters`.
        api_key: of the server; without, the environment variable QDRANT_API_KEY.
        client: a connection to use instead of one to the url, which then only names the collection.
    """

    def __init__(self, client: "QdrantClient", collection: str, schema: Mapping[str, str], dims: Mapping[str, int]):
        from qdrant_client import models

        super().__init__(models, schema, dims)
        self._client, self._collection = client, collection

    @classmethod
    def create(
        cls,
        url: str,
        dim: int,
        schema: Mapping[str, str],
        sides: bool = True,
        api_key: str | None = None,
        client: "QdrantClient | None" = None,
        **options: Any,
    ) -> "ServerIndex":
        """A new, empty collection.

        Args:
            dim: of all vectors.
            sides: hold "title" and "image" vectors too: in float16, read from disk.
            options: of Qdrant's create_collection, as `shard_number` and `replication_factor`.

        Raises:
            FileExistsError: the server has a collection of this name.
        """
        client, collection = _connect(url, api_key, client)
        from qdrant_client import models

        if client.collection_exists(collection):
            raise FileExistsError(f"The collection {collection!r} is there already: open it, or choose another name.")
        cosine, half = models.Distance.COSINE, models.Datatype.FLOAT16
        vectors = {"product": models.VectorParams(size=dim, distance=cosine)}
        if sides:
            side = models.VectorParams(size=dim, distance=cosine, datatype=half, on_disk=True)
            vectors |= {"title": side, "image": side}
        words = models.SparseVectorParams(modifier=models.Modifier.IDF)
        client.create_collection(collection, vectors, {WORDS: words}, **options)
        for name, kind in schema.items():
            client.create_payload_index(collection, _path(name), models.PayloadSchemaType[FIELD_INDEXES[kind].upper()])
        return cls(client, collection, schema, dict.fromkeys(vectors, dim))

    @classmethod
    def open(
        cls, url: str, schema: Mapping[str, str], api_key: str | None = None, client: "QdrantClient | None" = None
    ) -> "ServerIndex":
        """A collection that `create` made.

        Raises:
            FileNotFoundError: the server has no collection of this name.
        """
        client, collection = _connect(url, api_key, client)
        if not client.collection_exists(collection):
            raise FileNotFoundError(f"There's no collection {collection!r}: make one with ServerIndex.create.")
        vectors = client.get_collection(collection).config.params.vectors
        return cls(client, collection, schema, {name: vectors[name].size for name in VECTORS if name in vectors})

    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            self._client.delete(self._collection, _check_keys(keys))

    def flush(self) -> None:
        pass  # the server has stored what it acknowledged

    def close(self) -> None:
        self._client.close()

    def _point(self, key: str, vectors: dict[str, Any], payload: dict[str, Any]) -> Any:
        return self._models.PointStruct(id=key, vector=vectors, payload=payload)

    def _has_vector(self, name: str) -> Any:
        return self._models.HasVectorCondition(has_vector=name)

    def _write(self, points: list[Any]) -> None:
        for start in range(0, len(points), SERVER_BATCH):
            self._client.upsert(self._collection, points[start : start + SERVER_BATCH])

    def _change(self, parts: list[tuple[str, dict[str, Any], list[str]]]) -> None:
        operations: list[Any] = []
        for key, values, gone in parts:
            if values:
                payload = self._models.SetPayload(payload=values, points=[key], key="attributes")
                operations.append(self._models.SetPayloadOperation(set_payload=payload))
            if gone:
                paths = self._models.DeletePayload(keys=gone, points=[key])
                operations.append(self._models.DeletePayloadOperation(delete_payload=paths))
        for start in range(0, len(operations), SERVER_BATCH):
            self._client.batch_update_points(self._collection, operations[start : start + SERVER_BATCH])

    def _query(
        self, queries: list[Any], using: str, top_k: int, condition: Any, with_vectors: list[str], exact: bool
    ) -> list[list[Any]]:
        requests = [
            self._models.QueryRequest(
                limit=top_k,
                query=query,
                using=using,
                with_vector=with_vectors,
                with_payload=True,
                filter=condition,
                params=self._models.SearchParams(hnsw_ef=HNSW_EF, exact=exact),
            )
            for query in queries
        ]
        return [found.points for found in self._client.query_batch_points(self._collection, requests)]

    def _retrieve(self, keys: Sequence[str], with_vectors: Sequence[str], payload: bool) -> list[Any]:
        return self._client.retrieve(self._collection, _check_keys(keys), payload, list(with_vectors))

    def _count(self, condition: Any) -> int:
        return self._client.count(self._collection, condition, exact=True).count

    def _facet(self, path: str, condition: Any, limit: int) -> list[Any]:
        return self._client.facet(self._collection, path, condition, limit, exact=True).hits


def _connect(url: str, api_key: str | None, client: "QdrantClient | None") -> "tuple[QdrantClient, str]":
    """The client of a url and the name of its collection."""
    parts = urlsplit(url)
    collection = parts.path.strip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or not collection or "/" in collection:
        raise ValueError(f"The url of a server's collection is http(s)://host:port/collection, got {url!r}.")
    if client is None:
        try:
            from qdrant_client import QdrantClient
        except ImportError as error:
            raise ImportError('A Qdrant server needs qdrant-client: pip install "acebert[server]"') from error
        api_key = api_key or os.environ.get("QDRANT_API_KEY")
        client = QdrantClient(url=f"{parts.scheme}://{parts.netloc}", api_key=api_key)
    return client, collection
