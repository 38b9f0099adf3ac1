"""An index in memory, by numpy alone: exact, for tests and small catalogues."""

import copy
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from acebert.catalog.dates import to_moment
from acebert.catalog.filters import And, Filter, Not, OneOf, Or
from acebert.catalog.indexes.base import (
    BM25,
    VECTORS,
    Match,
    check_changes,
    check_facet,
    check_keys,
    check_known,
    check_search,
    check_top_k,
    check_upsert,
    check_vector_names,
    most_frequent,
)
from acebert.utils import ranking

TOGETHER = 16  # queries in one multiplication: of a million products their scores take 64 MB


@dataclass
class _Product:
    key: str
    payload: dict[str, Any]
    tokens: list[int]  # of the title, each once


@dataclass(eq=False)
class _Asked:
    """A query that a thread waits with for its turn."""

    query: np.ndarray  # (dim,)
    using: str
    scores: np.ndarray | None = None  # (rows,), once they are computed
    changes: int = -1  # that the index had then


class MemoryIndex:
    """Exact search with numpy, nothing on disk.

    One thread at a time: the others wait. Whose turn it is compares the queries of those that wait, too: the time goes
    to reading all vectors, which is then done once for all of them.

    Args:
        schema: attribute -> kind, as for `parse_filters`.
    """

    def __init__(self, schema: Mapping[str, str]):
        self._schema = dict(schema)
        self._lock = threading.RLock()
        self._asked: list[_Asked] = []  # of threads that wait
        self._changes = 0  # so far, by which old scores are known
        self._rows: dict[str, int] = {}  # by key
        self._free: list[int] = []  # rows of deleted products
        self._products: list[_Product | None] = []  # by row, None where deleted
        self._vectors: dict[str, np.ndarray] = {}  # (capacity, dim), NaN where a product lacks one
        self._has: dict[str, np.ndarray] = {}  # (capacity,) booleans: whether it has one, which is quicker to read
        # A column per attribute, (capacity,), NaN where lacking: numbers as they are, and for strings the number of
        # their tuple in the vocabulary. A filter looks at whole columns, never at products one by one.
        self._columns = {name: np.empty(0) for name in self._schema}
        self._vocabulary: dict[str, dict[tuple[str, ...], int]] = {name: {} for name in self._schema}
        self._several: dict[str, list[tuple[str, ...]]] = {name: [] for name in self._schema}  # by their numbers
        self._having: dict[str, dict[Any, list[int]]] = {name: {} for name in self._schema}  # value -> their numbers
        self._having_count: dict[str, Counter[str]] = {name: Counter() for name in self._schema}  # value -> products
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
            units, payloads = check_upsert(keys, vectors, titles, payloads, self._schema, dims)
            self._changes += 1
            for name, unit in units.items():
                if name not in self._vectors:
                    self._vectors[name] = np.full((self._capacity(), unit.shape[1]), np.nan, np.float32)
                    self._has[name] = np.zeros(self._capacity(), dtype=bool)
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
                    self._has[name][row] = not np.isnan(unit[i, 0])
                self._fill_columns(row)

    def set_attributes(self, keys: Sequence[str], attributes: Sequence[Mapping[str, Any]]) -> None:
        with self._lock:
            changes = check_changes(keys, attributes, self._schema)
            check_known(keys, self._rows)
            for key, change in zip(keys, changes, strict=True):
                row = self._rows[key]
                product = self._product(row)
                merged = product.payload["attributes"] | change
                merged = {name: value for name, value in merged.items() if value is not None}
                product.payload = product.payload | {"attributes": merged}  # those that were found keep theirs
                self._fill_columns(row)

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            self._changes += 1
            for key in check_keys(keys):
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
        check_vector_names(with_vectors)
        vectors = self._vectors.get(using)
        dims = dict.fromkeys(VECTORS) | ({} if vectors is None else {using: vectors.shape[1]})
        queries = check_search(queries, top_k, using, dims)
        if vectors is None:
            return [[] for _ in queries]
        asked = [_Asked(queries[0], using)] if len(queries) == 1 else []
        self._asked += asked
        with self._lock:
            for each in asked:
                self._asked.remove(each)
            vectors = self._vectors[using][: len(self._products)]
            fits = self._fits(where) & self._has[using][: len(self._products)]
            if asked:
                return [self._best(self._scores(asked[0]), fits, top_k, with_vectors)]
            step = ranking.queries_per_chunk(len(vectors))
            return [
                self._best(scores, fits, top_k, with_vectors)
                for start in range(0, len(queries), step)
                for scores in queries[start : start + step] @ vectors.T
            ]

    def _scores(self, asked: _Asked) -> np.ndarray:
        """(rows,) cosines of a query, computed together with those of queries that wait, or computed with another."""
        if asked.scores is None or asked.changes != self._changes:
            others = [other for other in self._asked if other.using == asked.using]
            together = [asked, *others][:TOGETHER]
            vectors = self._vectors[asked.using][: len(self._products)]
            for each, scores in zip(together, np.stack([each.query for each in together]) @ vectors.T, strict=True):
                each.scores, each.changes = scores, self._changes
        assert asked.scores is not None, "it is the first of those computed together"
        return asked.scores

    def search_words(
        self, texts: Sequence[str], top_k: int, where: Filter | None = None, with_vectors: Sequence[str] = ()
    ) -> list[list[Match]]:
        check_vector_names(with_vectors)
        check_top_k(top_k)
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
        check_vector_names(with_vectors)
        with self._lock:
            rows = [self._rows.get(key) for key in check_keys(keys)]
            return [None if row is None else self._match(row, 0.0, with_vectors) for row in rows]

    def facets(self, name: str, where: Filter | None = None, limit: int = 100, by: str | None = None) -> dict[Any, int]:
        check_facet(name, self._schema)
        texts = self._schema[name] in ("string", "strings")
        with self._lock:
            if texts and where is None and by is None:
                return most_frequent(self._having_count[name].items(), limit)
            fits = self._fits(where) & ~np.isnan(self._columns[name][: len(self._products)])
            column = self._columns[name][: len(self._products)][fits]
            if by is not None:
                pairs = np.unique(np.stack([column, self._groups(by, fits)]), axis=1)
                column = pairs[0]
            values, counts = np.unique(column, return_counts=True)
            if not texts:
                plain = values.astype(bool if self._schema[name] == "boolean" else int).tolist()
                return most_frequent(zip(plain, counts.tolist(), strict=True), limit)
            several = self._several[name]
            total: Counter[str] = Counter()
            if by is not None:  # of one group, several products may have a value among others
                numbers, groups = pairs.astype(np.int64).tolist()
                each = {(v, group) for number, group in zip(numbers, groups, strict=True) for v in several[number]}
                total.update(value for value, _ in each)
            else:
                for value, count in zip(values.astype(int), counts.tolist(), strict=True):
                    total.update(dict.fromkeys(several[value], count))
            return most_frequent(total.items(), limit)

    def count(self, where: Filter | None = None, by: str | None = None) -> int:
        with self._lock:
            fits = self._fits(where)
            return int(fits.sum()) if by is None else len(np.unique(self._groups(by, fits)))

    def count_values(self, name: str, values: Collection[str]) -> dict[str, int]:
        with self._lock:
            counts = self._having_count[name]
            return {value: counts[value] for value in values if value in counts}

    def _groups(self, by: str, fits: np.ndarray) -> np.ndarray:
        """(fitting,) numbers of groups; a product without a group has one of its own."""
        groups = self._columns[by][: len(self._products)][fits]
        lacking = np.isnan(groups)
        _, numbers = np.unique(groups[~lacking], return_inverse=True)
        groups[~lacking] = numbers
        groups[lacking] = len(numbers) + np.arange(lacking.sum())
        return groups

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
        for name, array in self._vectors.items():
            array[row] = np.nan
            self._has[name][row] = False
        for name in self._columns:
            self._fill_column(name, row, None)
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
            for arrays in (self._vectors, self._has, self._columns):
                for name, array in arrays.items():
                    lacking = False if array.dtype == bool else np.nan
                    more = np.full((max(64, len(array)), *array.shape[1:]), lacking, array.dtype)
                    arrays[name] = np.concatenate([array, more])
        return len(self._products) - 1

    def _fill_columns(self, row: int) -> None:
        attributes = self._product(row).payload["attributes"]
        for name in self._columns:
            self._fill_column(name, row, attributes.get(name))

    def _fill_column(self, name: str, row: int, value: Any) -> None:
        column = self._columns[name]
        if self._schema[name] in ("string", "strings"):
            counts, several = self._having_count[name], self._several[name]
            if not np.isnan(column[row]):
                for gone in set(several[int(column[row])]):
                    counts[gone] -= 1
                    if not counts[gone]:
                        del counts[gone]
            if value is not None:
                texts = (value,) if isinstance(value, str) else tuple(value)
                counts.update(set(texts))
                value = self._number(name, texts)
        elif self._schema[name] == "date" and value is not None:
            value = to_moment(value).timestamp()
        column[row] = np.nan if value is None else value

    def _number(self, name: str, several: tuple[str, ...]) -> int:
        numbers = self._vocabulary[name]
        if several not in numbers:
            numbers[several] = len(numbers)
            self._several[name].append(several)
            for value in set(several):
                self._having[name].setdefault(value, []).append(numbers[several])
        return numbers[several]

    def _fits(self, where: Filter | None) -> np.ndarray:
        """(rows,) booleans: which products meet the filter."""
        if not self._products:
            return np.zeros(0, dtype=bool)
        there = self._has["product"][: len(self._products)]
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
            having = self._having[where.name]
            asked = np.zeros(len(self._vocabulary[where.name]) + 1, dtype=bool)  # the last stands for lacking
            asked[[number for value in where.values for number in having.get(value, ())]] = True
            return asked[np.nan_to_num(column, nan=len(asked) - 1).astype(np.int64)]
        meets = ~np.isnan(column)
        bounds = {np.greater_equal: where.gte, np.greater: where.gt, np.less_equal: where.lte, np.less: where.lt}
        for compare, bound in bounds.items():
            if bound is not None:
                meets &= compare(column, bound.timestamp() if isinstance(bound, datetime) else bound)
        return meets

    def _best(self, scores: np.ndarray, fits: np.ndarray, top_k: int, with_vectors: Sequence[str]) -> list[Match]:
        rows = np.flatnonzero(fits)
        rows = rows[ranking.top_k(scores[rows][None], top_k)[0]]
        return [self._match(int(row), float(scores[row]), with_vectors) for row in rows]

    def _match(self, row: int, score: float, with_vectors: Sequence[str]) -> Match:
        product = self._product(row)
        held = [name for name in with_vectors if name in self._has and self._has[name][row]]
        vectors = {name: self._vectors[name][row].copy() for name in held}
        # No deep copy: of the hundreds of matches that a search ranks it takes as long as the search.
        payload = product.payload | {"attributes": dict(product.payload["attributes"])}
        return Match(product.key, score, payload, vectors)
