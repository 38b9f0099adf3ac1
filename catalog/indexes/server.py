"""An index on a Qdrant server or cluster."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from acebert.catalog.indexes.base import VECTORS, WORDS, check_keys
from acebert.catalog.indexes.qdrant import FIELD_INDEXES, HNSW_EF, QdrantIndex, attribute_path

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

SERVER_BATCH = 256  # writes per request: about 3 MB with three vectors of 384 numbers, where a server takes 32 MB


class ServerIndex(QdrantIndex):
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
            client.create_payload_index(
                collection, attribute_path(name), models.PayloadSchemaType[FIELD_INDEXES[kind].upper()]
            )
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
            self._client.delete(self._collection, check_keys(keys))

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
        return self._client.retrieve(self._collection, check_keys(keys), payload, list(with_vectors))

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
