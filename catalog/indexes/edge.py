"""An index in a folder, by Qdrant Edge: no server, nothing lost when the process dies."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge

from acebert.catalog.indexes.base import VECTORS, WORDS, check_keys
from acebert.catalog.indexes.qdrant import FIELD_INDEXES, FULL_SCAN_KB, HNSW_EF, QdrantIndex, attribute_path

EDGE_BATCH = 16  # queries per call: a third of the time of 16 calls; more would hold up other threads for longer


class EdgeIndex(QdrantIndex):
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
                shard.update(qdrant_edge.UpdateOperation.create_field_index(attribute_path(name), kind))

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
        self._shard.update(qdrant_edge.UpdateOperation.delete_points([*check_keys(keys)]))

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

    def _write(
        self,
        keys: Sequence[str],
        units: Mapping[str, np.ndarray],
        titles: Sequence[str | None],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        points = self._points(range(len(keys)), keys, units, titles, payloads)
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
        return self._shard.retrieve([*check_keys(keys)], payload, list(with_vectors))

    def _count(self, condition: Any) -> int:
        return self._shard.count(qdrant_edge.CountRequest(exact=True, filter=condition))

    def _facet(self, path: str, condition: Any, limit: int) -> list[qdrant_edge.FacetHit]:
        return self._shard.facet(qdrant_edge.FacetRequest(path, limit=limit, exact=True, filter=condition)).hits
