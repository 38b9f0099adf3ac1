"""An index on a Qdrant server or cluster."""

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from acebert.catalog.filters import OneOf
from acebert.catalog.indexes.base import BM25, VECTORS, WORDS, check_keys
from acebert.catalog.indexes.connection import Server, ServerOptions, parse_address
from acebert.catalog.indexes.qdrant import FIELD_INDEXES, QdrantIndex, attribute_path

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

SERVER_BATCH = 256  # writes per request, if they are no larger than
REQUEST_BYTES = 8 * 2**20  # of vectors and payloads in a request: a server takes 32 MiB, and JSON needs thrice as much
SECONDS_KEPT = 60.0  # that it is remembered how many products have a value
COUNTS_KEPT = 20_000
COUNTS_AT_A_TIME = 8
OWNER = "acebert"  # the key of a collection's metadata under which it is kept whose it is


class ServerIndex(QdrantIndex):
    """A collection on a Qdrant server or cluster: `ServerIndex.create` or `ServerIndex.open`.

    All tests of the engines and of the catalogue passed on a server of version 1.18.2. Needs
    `pip install "acebert[server]"`.

    Args of both:
        url: `http(s)://host:port/collection`, perhaps several joined by commas, or a [`Server`] that is shared.
        schema: attribute -> kind, as for `parse_filters`.
        options: of [`ServerOptions`], by name.
        client: a connection to use instead of one to the url, which then only names the collection.
    """

    def __init__(self, server: Server, collection: str, schema: Mapping[str, str], dims: Mapping[str, int]):
        from qdrant_client import models

        super().__init__(models, schema, dims)
        self.server, self.collection, self._options = server, collection, server.options
        self._hnsw_ef = server.options.hnsw_ef
        self._grpc: bool | None = None  # looked at when something is written
        self._uploads = ThreadPoolExecutor(server.options.parallel, thread_name_prefix="qdrant-upload")
        self._counts = ThreadPoolExecutor(COUNTS_AT_A_TIME, thread_name_prefix="qdrant-count")
        self._counted: dict[tuple[str, str], tuple[int, float]] = {}  # products that have a value, and until when

    @classmethod
    def create(
        cls,
        url: str,
        dim: int,
        schema: Mapping[str, str],
        sides: bool = True,
        options: Mapping[str, Any] | None = None,
        client: "QdrantClient | None" = None,
        owner: Mapping[str, Any] | None = None,
    ) -> "ServerIndex":
        """A new, empty collection.

        Args:
            dim: of all vectors.
            sides: hold "title" and "image" vectors too: in float16, read from disk.
            owner: what its metadata say about whose it is.

        Raises:
            FileExistsError: the server has a collection or an alias of this name.
        """
        address = parse_address(url)
        server = Server(address.urls, ServerOptions.of(options), client)
        return cls.make(server, address.collection, dim, schema, sides, owner)

    @classmethod
    def open(
        cls,
        url: str,
        schema: Mapping[str, str],
        options: Mapping[str, Any] | None = None,
        client: "QdrantClient | None" = None,
        owner: Mapping[str, Any] | None = None,
    ) -> "ServerIndex":
        """A collection that `create` made.

        Args:
            owner: what its metadata must say; None for anything.

        Raises:
            FileNotFoundError: the server has no collection of this name.
            ValueError: the collection is another's, or wasn't made by `create`; what differs is named.
        """
        address = parse_address(url)
        server = Server(address.urls, ServerOptions.of(options), client)
        index = cls.find(server, address.collection, schema, owner)
        if index is None:
            raise FileNotFoundError(
                f"There's no collection {address.collection!r} on {', '.join(server.urls)}: make one with "
                "ServerIndex.create."
            )
        return index

    @classmethod
    def make(
        cls,
        server: Server,
        collection: str,
        dim: int,
        schema: Mapping[str, str],
        sides: bool,
        owner: Mapping[str, Any] | None,
    ) -> "ServerIndex":
        """As [`ServerIndex.create`], on a server that is spoken to already."""
        from qdrant_client import models

        if server.find(collection) is not None:
            raise FileExistsError(f"The collection {collection!r} is there already: open it, or choose another name.")
        options = server.options
        cosine, half = models.Distance.COSINE, models.Datatype.FLOAT16
        product = models.VectorParams(
            size=dim,
            distance=cosine,
            on_disk=options.on_disk or None,
            hnsw_config=models.HnswConfigDiff(m=options.hnsw_m, ef_construct=options.hnsw_ef_construct),
            quantization_config=_to_quantization(options, models),
        )
        vectors = {"product": product}
        if sides:
            side = models.VectorParams(size=dim, distance=cosine, datatype=half, on_disk=True)
            vectors |= {"title": side, "image": side}
        words = models.SparseVectorParams(modifier=models.Modifier.IDF)
        try:
            server.call(
                f"create {collection!r}",
                lambda client: client.create_collection(
                    collection,
                    vectors,
                    {WORDS: words},
                    shard_number=options.shard_number,
                    replication_factor=options.replication_factor,
                    write_consistency_factor=options.write_consistency_factor,
                    metadata={OWNER: dict(owner or {})},
                ),
            )
        except RuntimeError:
            # Where the answer to the first request was lost, the second is refused: the collection is there.
            if server.find(collection) is None:
                raise
        index = cls(server, collection, schema, dict.fromkeys(vectors, dim))
        index._index_attributes({})
        return index

    @classmethod
    def find(
        cls, server: Server, collection: str, schema: Mapping[str, str], owner: Mapping[str, Any] | None
    ) -> "ServerIndex | None":
        """As [`ServerIndex.open`], on a server that is spoken to already; None where there is no such collection."""
        collection = server.find(collection) or ""
        if not collection:
            return None
        info = server.call(f"describe {collection!r}", lambda client: client.get_collection(collection))
        vectors, sparse = info.config.params.vectors, info.config.params.sparse_vectors or {}
        vectors = vectors if isinstance(vectors, dict) else {"": vectors}
        differs = find_differences(vectors, sparse, (info.config.metadata or {}).get(OWNER), owner)
        if differs:
            raise ValueError(
                f"The collection {collection!r} on {', '.join(server.urls)} isn't this index's: {'; '.join(differs)}. "
                "Choose another name, or remove the collection if nobody needs it."
            )
        index = cls(server, collection, schema, {name: vectors[name].size for name in VECTORS if name in vectors})
        index._index_attributes(info.payload_schema or {})
        return index

    def _index_attributes(self, there: Mapping[str, Any]) -> None:
        """Has the server index the attributes that it doesn't yet: filters and facets need it."""
        indexed = {path.replace('"', "") for path in there}
        for name, kind in self._schema.items():
            if f"attributes.{name}" not in indexed:
                field = self._models.PayloadSchemaType[FIELD_INDEXES[kind].upper()]
                self._call(
                    "index an attribute of",
                    lambda client, n=name, f=field: client.create_payload_index(self.collection, attribute_path(n), f),
                )

    def _write(
        self,
        keys: Sequence[str],
        units: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        # Requests go side by side, so a key may be in one of them only: of rows that share it, the last counts.
        rows = sorted({key: row for row, key in enumerate(keys)}.values())
        width = 4 * sum(unit.shape[1] for unit in units.values())
        sizes = [width + len(json.dumps(payloads[row])) for row in rows]
        for row, size in zip(rows, sizes, strict=True):
            if size > REQUEST_BYTES:
                raise ValueError(
                    f"The product {keys[row]} takes {size:,} bytes, and a request to a server holds {REQUEST_BYTES:,}: "
                    "shorten its title or attributes."
                )
        if self._grpc is None:
            self._grpc = self.server.has_grpc()

        def upload(batch: list[int]) -> None:
            chosen = [rows[position] for position in batch]
            if self._grpc:
                self._write_by_grpc(chosen, keys, units, titles, payloads)
            else:
                points = self._points(chosen, keys, units, titles, payloads)
                self._call("write to", lambda client: client.upsert(self.collection, points))

        list(self._uploads.map(upload, split_by_size(sizes)))

    def _write_by_grpc(
        self,
        rows: list[int],
        keys: Sequence[str],
        units: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        """Writes by gRPC, without qdrant-client's own conversion, which would take most of the time."""
        from qdrant_client import grpc
        from qdrant_client.conversions.conversion import RestToGrpc

        points = []
        for row in rows:
            vectors = {
                name: grpc.Vector(dense=grpc.DenseVector(data=unit[row].tolist()))
                for name, unit in units.items()
                if not np.isnan(unit[row, 0])
            }
            words = BM25.embed_document(titles[row] or "")
            if words.indices:
                vectors[WORDS] = grpc.Vector(sparse=grpc.SparseVector(indices=words.indices, values=words.values))
            point = grpc.PointStruct(
                id=grpc.PointId(uuid=keys[row]),
                vectors=grpc.Vectors(vectors=grpc.NamedVectors(vectors=vectors)),
                payload=RestToGrpc.convert_payload(payloads[row]),
            )
            points.append(point)
        request = grpc.UpsertPoints(collection_name=self.collection, wait=True, points=points)
        limit = self._options.timeout
        self._call("write to", lambda client: client.grpc_points.Upsert(request, timeout=limit), grpc=True)

    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            checked = check_keys(keys)
            self._call("delete from", lambda client: client.delete(self.collection, checked))

    def count_values(self, name: str, values: Collection[str]) -> dict[str, int]:
        # One request where none of the values is there, as of most phrases of a query, or all were lately.
        now = time.monotonic()
        if len(self._counted) > COUNTS_KEPT:
            self._counted.clear()
        kept = {value: self._counted.get((name, value), (0, 0.0)) for value in values}
        found = {value: count for value, (count, until) in kept.items() if until > now}
        others = [value for value in dict.fromkeys(values) if value not in found]
        if others and self.count(OneOf(name, tuple(others))):
            counts = list(self._counts.map(lambda value: self.count(OneOf(name, (value,))), others))
            found |= {value: count for value, count in zip(others, counts, strict=True) if count}
            self._counted |= {(name, value): (found[value], now + SECONDS_KEPT) for value in others if value in found}
        return found

    def flush(self) -> None:
        pass  # the server has stored what it acknowledged

    def is_up(self) -> bool:
        """Whether the server answers at this moment."""
        return self.server.is_up()

    def close(self) -> None:
        self._uploads.shutdown()
        self._counts.shutdown()
        self.server.close()

    def _call(self, operation: str, function: Any, grpc: bool = False) -> Any:
        return self.server.call(f"{operation} {self.collection!r}", function, grpc)

    def _point(self, key: str, vectors: dict[str, Any], payload: dict[str, Any]) -> Any:
        return self._models.PointStruct(id=key, vector=vectors, payload=payload)

    def _has_vector(self, name: str) -> Any:
        return self._models.HasVectorCondition(has_vector=name)

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
            batch = operations[start : start + SERVER_BATCH]
            self._call("change", lambda client, b=batch: client.batch_update_points(self.collection, b))

    def _query(
        self, queries: list[Any], using: str, top_k: int, condition: Any, with_vectors: list[str], exact: bool
    ) -> list[list[Any]]:
        quantization = None
        if self._options.quantization != "none" and using == "product":
            quantization = self._models.QuantizationSearchParams(rescore=True, oversampling=self._options.oversampling)
        params = self._models.SearchParams(hnsw_ef=self._hnsw_ef, exact=exact, quantization=quantization)
        requests = [
            self._models.QueryRequest(
                limit=top_k,
                query=query,
                using=using,
                with_vector=with_vectors,
                with_payload=True,
                filter=condition,
                params=params,
            )
            for query in queries
        ]
        answers = self._call("search in", lambda client: client.query_batch_points(self.collection, requests))
        return [found.points for found in answers]

    def _retrieve(self, keys: Sequence[str], with_vectors: Sequence[str], payload: bool) -> list[Any]:
        checked, names = check_keys(keys), list(with_vectors)
        return self._call("read from", lambda client: client.retrieve(self.collection, checked, payload, names))

    def _count(self, condition: Any) -> int:
        return self._call("count in", lambda client: client.count(self.collection, condition, exact=True)).count

    def _facet(self, path: str, condition: Any, limit: int) -> list[Any]:
        answer = self._call(
            "count in", lambda client: client.facet(self.collection, path, condition, limit, exact=True)
        )
        return answer.hits


def split_by_size(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Positions in batches of at most `SERVER_BATCH` items and `REQUEST_BYTES` bytes."""
    batch: list[int] = []
    filled = 0
    for position, size in enumerate(sizes):
        if batch and (len(batch) == SERVER_BATCH or filled + size > REQUEST_BYTES):
            yield batch
            batch, filled = [], 0
        batch.append(position)
        filled += size
    if batch:
        yield batch


def find_differences(
    vectors: Mapping[str, Any],
    sparse: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    owner: Mapping[str, Any] | None,
) -> list[str]:
    """What makes a collection none that an index of this owner can use, each in words."""
    differs = []
    dims = {params.size for name, params in vectors.items() if name in VECTORS}
    dim = (owner or {}).get("dim", max(dims, default=0))
    wanted = (VECTORS if owner["sides"] else VECTORS[:1]) if owner and "sides" in owner else ("product",)
    for name in wanted:
        if name not in vectors:
            has = ", ".join(repr(each) for each in vectors) or "none"
            differs.append(f"it has no vectors {name!r}, only {has}")
    for name in VECTORS:
        if name in vectors:
            distance = getattr(vectors[name].distance, "value", vectors[name].distance)
            if distance != "Cosine":
                differs.append(f"its vectors {name!r} are compared by {distance}, not by Cosine")
            if vectors[name].size != dim:
                differs.append(f"its vectors {name!r} have {vectors[name].size} numbers, not {dim}")
    if WORDS not in sparse:
        differs.append(f"it has no sparse vectors {WORDS!r}")
    elif getattr(sparse[WORDS].modifier, "value", sparse[WORDS].modifier) != "idf":
        differs.append(f"its sparse vectors {WORDS!r} lack the modifier idf")
    if owner is not None:
        if not found:
            differs.append("no catalogue made it")
        else:
            for name, value in owner.items():
                if found.get(name) != value:
                    differs.append(f"its {name} is {_short(found.get(name))}, not {_short(value)}")
    return differs


def _to_quantization(options: ServerOptions, models: Any) -> Any:
    if options.quantization == "scalar":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        return models.ScalarQuantization(scalar=scalar)
    if options.quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
