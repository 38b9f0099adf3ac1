"""Indexes of products: vectors, words and attributes, in memory, in a folder, or on a Qdrant server.

All three engines answer alike (one suite of tests runs on all of them):

- `MemoryIndex` computes exactly with numpy and keeps nothing on disk: for notebooks, tests and read-only catalogues.
- `EdgeIndex` is a folder: Qdrant Edge (https://qdrant.tech/documentation/edge/), which needs no server. What is written
  is found at once and survives the process. It searches exactly; large catalogues can have a graph (HNSW) built.
- `ServerIndex` is a collection on a Qdrant server or cluster, for a catalogue that outgrows one machine.

A product has a key (a UUID), up to three unit vectors (`VECTORS`), a title for the search by words, and a payload:
`{"attributes": {name: value}, ...}`, whose attributes filters ask about (`acebert.catalog.filters`).
"""

import heapq
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import qdrant_edge

from acebert.catalog.filters import Filter, check_attributes

VECTORS = ("product", "title", "image")  # title and image: the product encoder on one side alone
UNCOUNTED = ("number", "date")  # kinds of attributes without facets
WORDS = "words"  # name of the sparse vectors for BM25

# Words, stems and term weights of BM25 (Robertson & Zaragoza 2009); engines multiply by the inverse document frequency.
# avg_len: titles of the fashion catalogue have 5.6 words on average. Stored weights depend on it, so it never adapts.
BM25 = qdrant_edge.Bm25(qdrant_edge.Bm25Config(language="english", avg_len=6))


@dataclass(frozen=True)
class Match:
    """A product that was found.

    Args:
        key: UUID.
        score: cosine similarity to the query, or BM25 score; 0 where nothing was asked (`get`).
        payload: as stored. Lists in it may be the index's own: they aren't to be changed.
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

    def facets(self, name: str, where: Filter | None = None, limit: int = 100, by: str | None = None) -> dict[Any, int]:
        """The values of an attribute among the products that meet the filter, with counts, most frequent first.

        Args:
            name: of the attribute.
            where: from `parse_filters`.
            limit: values wanted.
            by: count the values of this attribute, groups of products, in place of products; a product that lacks it is
                a group of its own.

        Raises:
            ValueError: the attribute doesn't exist, or is a "number" or a "date", whose values aren't counted.
        """
        ...

    def count(self, where: Filter | None = None, by: str | None = None) -> int:
        """Products that meet the filter, or groups as [`CatalogIndex.facets`] counts them."""
        ...

    def count_values(self, name: str, values: Collection[str]) -> dict[str, int]:
        """Of some values of an attribute of texts those that any product has, and how many products have each.

        Whether there is such a product is told of this moment; how many there are may be told of the last minute.
        """
        ...

    def flush(self) -> None:
        """Puts on disk what was written, so that the next start is quick. A process that dies loses nothing anyway."""
        ...

    def close(self) -> None:
        """Lets go of files and connections. The index can't be used after."""
        ...


def unit_rows(rows: np.ndarray, what: str, dim: int | None) -> np.ndarray:
    """(n, dim) float32 rows of unit length; rows of NaN stay."""
    rows = np.asarray(rows, dtype=np.float32)
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim):
        raise ValueError(f"{what} must have the shape (n, {dim or 'dim'}), got {rows.shape}.")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0))[:, 0] & ~np.isnan(rows).all(axis=1))
    if len(bad):
        raise ValueError(f"{what}: row {bad[0]} is zero or holds NaN or infinity, so it has no direction.")
    return rows / lengths


def check_keys(keys: Sequence[str]) -> list[str]:
    """The keys as a list, each checked to be a UUID in its usual spelling."""
    for key in keys:
        try:
            canonical = str(uuid.UUID(key))
        except (ValueError, AttributeError, TypeError):
            canonical = None
        if key != canonical:
            raise ValueError(f"The key {key!r} is no UUID as str(uuid.UUID(...)) writes it.")
    return list(keys)


def check_upsert(
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
    check_keys(keys)
    if unknown := [name for name in vectors if name not in dims]:
        raise ValueError(f"The index has no {unknown[0]!r} vectors, only: {', '.join(dims)}.")
    if "product" not in vectors:
        raise ValueError("The 'product' vectors are missing: every product must have one.")
    units = {name: unit_rows(rows, f"vectors[{name!r}]", dims[name]) for name, rows in vectors.items()}
    if (lacking := np.flatnonzero(np.isnan(units["product"][:, 0]))).size:
        raise ValueError(f"The product {keys[lacking[0]]} has no 'product' vector: every product must have one.")
    cleaned = []
    for payload in payloads:
        attributes = check_attributes(payload.get("attributes", {}), schema)
        cleaned.append(payload | {"attributes": {name: v for name, v in attributes.items() if v is not None}})
    return units, cleaned


def check_search(queries: np.ndarray, top_k: int, using: str, dims: Mapping[str, int | None]) -> np.ndarray:
    """(n, dim) float32 unit vectors of a search's queries."""
    if using not in dims:
        raise ValueError(f"using={using!r}: the index has only the vectors {', '.join(dims)}.")
    check_top_k(top_k)
    queries = unit_rows(queries, "queries", dims[using])
    if np.isnan(queries).any():
        raise ValueError("queries: a row is NaN, so it has no direction.")
    return queries


def check_changes(
    keys: Sequence[str], attributes: Sequence[Mapping[str, Any]], schema: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Cleaned attributes of `set_attributes`."""
    check_keys(keys)
    if len(keys) != len(attributes):
        raise ValueError(f"{len(keys)} keys but {len(attributes)} dicts of attributes: there must be one for each.")
    return [check_attributes(change, schema) for change in attributes]


def check_known(keys: Sequence[str], known: Collection[str]) -> None:
    """Raises KeyError if a key is not among the known ones."""
    if unknown := [key for key in keys if key not in known]:
        raise KeyError(
            f"{len(unknown)} of {len(keys)} products aren't in the index, the first with the key {unknown[0]}."
        )


def check_vector_names(names: Sequence[str]) -> None:
    """Raises ValueError if a name is not one of `VECTORS`."""
    if unknown := [name for name in names if name not in VECTORS]:
        raise ValueError(f"Unknown vectors {unknown[0]!r}: they must be of {', '.join(VECTORS)}.")


def check_top_k(top_k: int) -> None:
    """Raises ValueError unless there is at least one hit to return."""
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")


def check_facet(name: str, schema: Mapping[str, str]) -> None:
    """Raises ValueError if the attribute's values can't be counted."""
    if (kind := schema.get(name, "number")) in UNCOUNTED:
        fit = ", ".join(sorted(other for other, kind in schema.items() if kind not in UNCOUNTED))
        what = f"a {kind}, whose values aren't counted" if name in schema else "unknown"
        raise ValueError(f"The attribute {name!r} is {what}: ask for one of {fit or '(there are none)'}.")


def most_frequent(counts: Iterable[tuple[Any, int]], limit: int) -> dict[Any, int]:
    """The `limit` highest counts, highest first; of equal counts the smaller value first."""
    return dict(heapq.nsmallest(limit, counts, key=lambda item: (-item[1], item[0])))
