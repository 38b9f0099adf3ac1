"""Measures what quantized vectors cost: recall@10 of searches whose candidates are scored again by the full vectors.

    python benchmarks/quantization.py --model_name_or_path . --products 50000

On the embedded engine, whose quantization and graph are the code of the server's. The vectors are those of the
checkpoint for invented titles, repeated with noise as in `catalog_scale.py`; the queries are a colour and a kind each.
Prints one line for each way to keep the vectors and each oversampling.
"""

import argparse
import itertools
import tempfile
import uuid

import numpy as np
import qdrant_edge
import torch
from transformers import AutoModel, AutoProcessor

from acebert.encoding.encoder import Encoder

COLOURS = ["red", "blue", "green", "black", "white", "pink", "yellow", "grey", "navy", "purple", "brown", "orange"]
KINDS = ["shirt", "dress", "shoe", "bag", "watch", "jacket", "scarf", "sandal", "belt", "cap", "jeans", "sock"]
LOOKS = ["striped", "plain", "leather", "cotton", "slim", "printed", "casual", "formal", "sporty", "woollen"]
WEARERS = ["men", "women", "boys", "girls"]
NOISE = 0.35  # length, on vectors of length 1
CONFIGS = {
    "none": None,
    "scalar": qdrant_edge.ScalarQuantizationConfig(qdrant_edge.ScalarType.Int8, quantile=0.99, always_ram=True),
    "binary": qdrant_edge.BinaryQuantizationConfig(always_ram=True),
}


def make_vectors(encoder: Encoder, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(count, dim) vectors of products, and (144, dim) of queries."""
    titles = [f"{a} {c} {k} for {w}" for a, c, k, w in itertools.product(LOOKS, COLOURS, KINDS, WEARERS)]
    chosen = [titles[i] for i in rng.permutation(len(titles))[:1500]]
    parts = [chosen[start : start + 64] for start in range(0, len(chosen), 64)]
    real = np.concatenate([encoder.encode_products(p, [None] * len(p), ["product"])["product"] for p in parts])
    noise = rng.normal(size=(count, real.shape[1])).astype(np.float32)
    products = real[rng.integers(0, len(real), count)] + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    queries = encoder.encode_queries([f"{colour} {kind}" for colour in COLOURS for kind in KINDS], None)
    return products / np.linalg.norm(products, axis=1, keepdims=True), queries


def measure(products: np.ndarray, queries: np.ndarray, name: str, oversampling: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        graph = qdrant_edge.HnswIndexConfig(16, 100, 10)
        options = {} if CONFIGS[name] is None else {"quantization_config": CONFIGS[name]}
        cosine = qdrant_edge.Distance.Cosine
        vectors = {"product": qdrant_edge.EdgeVectorParams(products.shape[1], cosine, hnsw_config=graph, **options)}
        optimizers = qdrant_edge.EdgeOptimizersConfig(indexing_threshold=10)
        shard = qdrant_edge.EdgeShard.create(folder, qdrant_edge.EdgeConfig(vectors, {}, optimizers=optimizers))
        for start in range(0, len(products), 2000):
            rows = range(start, min(len(products), start + 2000))
            points = [qdrant_edge.Point(str(uuid.UUID(int=i)), {"product": products[i].tolist()}, {}) for i in rows]
            shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
        shard.optimize()
        right = np.argsort(-(queries @ products.T), axis=1)[:, :10]
        for factor in oversampling if options else [1.0]:
            search = qdrant_edge.QuantizationSearchParams(rescore=True, oversampling=factor) if options else None
            params = qdrant_edge.SearchParams(hnsw_ef=512, quantization=search)
            shares = []
            for query, best in zip(queries, right, strict=True):
                nearest = qdrant_edge.Query.Nearest(query.tolist(), using="product")
                found = shard.query(qdrant_edge.QueryRequest(limit=10, query=nearest, params=params))
                shares.append(len({uuid.UUID(str(point.id)).int for point in found} & set(best.tolist())) / 10)
            print(f"{name}, oversampling {factor:g}: recall@10 {np.mean(shares):.3f}", flush=True)
        shard.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name_or_path", default=".")
    parser.add_argument("--products", type=int, default=50_000)
    parser.add_argument("--oversampling", type=float, nargs="+", default=[1, 2, 3, 5, 10, 20])
    args = parser.parse_args()
    model = AutoModel.from_pretrained(args.model_name_or_path, trust_remote_code=True, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(args.model_name_or_path, trust_remote_code=True)
    products, queries = make_vectors(Encoder(model, processor), args.products, np.random.default_rng(0))
    for name in CONFIGS:
        measure(products, queries, name, args.oversampling)


if __name__ == "__main__":
    main()
