"""Indexes by Qdrant: embedded (Edge) or a server."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import qdrant_edge

from acebert.catalog.filters import And, Filter, Not, Or, Range
from acebert.catalog.indexes.base import (
    BM25,
    VECTORS,
    WORDS,
    Match,
    _check_changes,
    _check_facet,
    _check_keys,
    _check_known,
    _check_names,
    _check_products,
    _check_search,
    _check_top_k,
    _most_frequent,
)

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


FIELD_INDEXES = {"string": "Keyword", "strings": "Keyword", "integer": "Integer", "number": "Float", "boolean": "Bool"}

# Candidates that a search of the graph keeps. Recall@10 among a million products: 0.88 with 64, 0.94 with 100 (the
# engine's own choice), 0.986 with 256, 0.997 with 512, for 10 ms a search (docs/catalog.md).
HNSW_EF = 512
FULL_SCAN_KB = 10_000  # kilobytes of vectors (6,500 of 384 numbers) up to which a scan is as fast as a graph
EDGE_BATCH = 16  # queries per call: a third of the time of 16 calls; more would hold up other threads for longer
SERVER_BATCH = 256  # writes per request: about 3 MB with three vectors of 384 numbers, where a server takes 32 MB


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
