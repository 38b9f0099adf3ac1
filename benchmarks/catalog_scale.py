"""Measures a catalogue of a million products: making, opening, searching, filtering, and searching while it changes.

    python benchmarks/catalog_scale.py --dataset_name path/to/catalogue --split validation --products 1000000

The vectors are those of the checkpoint for real products, repeated with noise: neighbours lie as they do in a shop, and
there are a million of them. Two attributes are drawn: `category`, of which each value has 1 % of the products, and
`price`. Exact answers are computed by a matrix product over all vectors. Prints and writes `scale.json`.
"""

import argparse
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from tqdm.auto import tqdm
from transformers import AutoModel, AutoProcessor

from acebert.catalog import maintenance
from acebert.catalog.product_catalog import ProductCatalog
from acebert.catalog.store import Products, ProductStore, Settings, part_path, products_folder, write_table
from acebert.encoding.encoder import Encoder

CHUNK = 2048  # products in a part
CATEGORIES = 100
ATTRIBUTES = {"category": "string", "price": "number"}
FILTERS: dict[str, dict[str, Any] | None] = {
    "no filter": None,
    "1 % (category)": {"category": "c7"},
    "10 % (price range)": {"price": (90.0, 100.0)},
}
# Length of the noise on vectors of length 1: a product's nearest neighbours are then other versions of it, at a cosine
# of about 0.9.
NOISE = 0.35


def encode_real(encoder: Encoder, args: argparse.Namespace) -> tuple[np.ndarray, list[str]]:
    """Vectors and titles of real products."""
    dataset = load_dataset(args.dataset_name, split=args.split)
    vectors = []
    for start in tqdm(range(0, len(dataset), 64), desc="encode", unit="batch"):
        rows = dataset[start : start + 64]
        vectors.append(
            encoder.encode_products(rows[args.title_column], rows[args.image_column], ["product"])["product"]
        )
    return np.concatenate(vectors), dataset[args.title_column][:]


def write_products(store_path: Path, settings: Settings, real: np.ndarray, titles: list[str], count: int) -> None:
    folder = products_folder(store_path, 0)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for start in tqdm(range(0, count, CHUNK), desc="write", unit="part"):
        rows = np.arange(start, min(start + CHUNK, count))
        noise = rng.standard_normal((len(rows), settings.dim), dtype=np.float32) * (NOISE / settings.dim**0.5)
        vectors = real[rows % len(real)] + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        products = Products(
            ids=rows.tolist(),
            titles=[titles[row % len(titles)] for row in rows],
            photos=[[]] * len(rows),
            attributes={
                "category": [f"c{value}" for value in rng.integers(CATEGORIES, size=len(rows))],
                "price": rng.uniform(0, 100, size=len(rows)).round(2).tolist(),
            },
            vectors={"product": vectors},
        )
        write_table(products.to_table(settings), part_path(folder, start // CHUNK))
    ProductStore.create(store_path, settings)


def read_all(store: ProductStore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(products, dim) float32 unit vectors, categories and prices, as they were written."""
    parts = [products for _, products in store.read_products(0)]
    vectors = np.concatenate([part.vectors["product"] for part in parts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    categories = np.concatenate([np.array(part.attributes["category"]) for part in parts])
    prices = np.concatenate([np.array(part.attributes["price"]) for part in parts])
    return vectors, categories, prices


def exact_scores(queries: np.ndarray, vectors: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """(queries,) the tenth best score among the products that fit: what a right answer scores at least."""
    rows = np.flatnonzero(fits)
    scores = [queries @ vectors[part].T for part in np.array_split(rows, max(1, len(rows) // 100_000))]
    return np.sort(np.concatenate(scores, axis=1), axis=1)[:, -10]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def resident_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {"p50_ms": 1000 * float(np.percentile(seconds, 50)), "p99_ms": 1000 * float(np.percentile(seconds, 99))}


def measure_searches(
    catalog: ProductCatalog, queries: np.ndarray, truth: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    results = {}
    for name, filters in FILTERS.items():
        catalog.search(vector=queries[0], filters=filters)
        times, right = [], 0
        for query, least in zip(queries, truth[name], strict=True):
            seconds, hits = timed(partial(catalog.search, vector=query, filters=filters))
            times.append(seconds)
            # By score, not by id: products that tie may take each other's place.
            right += sum(hit.score >= least - 1e-5 for hit in hits)
        results[name] = percentiles(times) | {"recall@10": right / (10 * len(queries))}
    return results


def measure_while_writing(catalog: ProductCatalog, queries: np.ndarray, seconds: float) -> dict[str, float]:
    """Eight readers and a writer that encodes and upserts 16 products at a time."""
    times: list[float] = []
    written, errors, stop = [0], [], threading.Event()

    def read(number: int) -> None:
        for i in range(10**9):
            if stop.is_set():
                return
            try:
                query = queries[(number * 97 + i) % len(queries)]
                times.append(timed(partial(catalog.search, vector=query))[0])
            except Exception as error:
                errors.append(repr(error))

    def write() -> None:
        while not stop.is_set():
            first = 10**9 + written[0]
            catalog.upsert([{"id": first + i, "title": f"blue shirt {first + i}", "price": 5.0} for i in range(16)])
            written[0] += 16

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError(f"{len(errors)} searches failed, the first by {errors[0]}")
    rates = {"searches_per_s": len(times) / seconds, "upserts_per_s": written[0] / seconds}
    return percentiles(times) | rates


def build(path: Path, encoder: Encoder, args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Makes the catalogue; what it took, and the titles."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    real, titles = encode_real(encoder, args)
    settings = Settings(encoder.describe(), encoder.dim, "integer", ATTRIBUTES, sides=False, photo_size=0, index="edge")
    write_s, _ = timed(lambda: write_products(path, settings, real, titles, args.products))
    index_s, catalog = timed(lambda: ProductCatalog.load(path, encoder.model, encoder.processor))
    catalog.close()
    report = {
        "products": args.products,
        "dim": encoder.dim,
        "graph": args.products > maintenance.EXACT_UP_TO,
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "write_s": write_s,
        "index_s": index_s,
    }
    return report, titles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name_or_path", default=".")
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--title_column", default="productDisplayName")
    parser.add_argument("--image_column", default="image")
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--output_dir", type=Path, default=Path("build/scale"))
    parser.add_argument("--exact", action="store_true", help="Search exactly, however many products there are.")
    parser.add_argument("--reuse", action="store_true", help="Measure the catalogue that an earlier run left.")
    args = parser.parse_args()
    if args.exact:
        maintenance.EXACT_UP_TO = args.products

    model = AutoModel.from_pretrained(args.model_name_or_path, trust_remote_code=True, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(args.model_name_or_path, trust_remote_code=True)
    encoder = Encoder(model, processor)
    path = args.output_dir / "catalog"
    written = args.output_dir / "scale.json"
    if args.reuse:
        report: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        titles = load_dataset(args.dataset_name, split=args.split)[args.title_column][:]
    else:
        report, titles = build(path, encoder, args)
    before = resident_mib()
    report["open_s"], catalog = timed(lambda: ProductCatalog.load(path, model, processor))

    vectors, categories, prices = read_all(ProductStore(path))
    shown = np.random.default_rng(1).choice(titles, args.queries, replace=False).tolist()
    queries = catalog.encode_queries(shown)
    fits = {"no filter": prices >= 0, "1 % (category)": categories == "c7"}
    fits["10 % (price range)"] = (prices >= 90) & (prices <= 100)
    truth = {name: exact_scores(queries, vectors, fits[name]) for name in FILTERS}
    del vectors, categories, prices
    report["search"] = measure_searches(catalog, queries, truth)
    report["resident_mib"] = resident_mib() - before
    report["reading_while_writing"] = measure_while_writing(catalog, queries, seconds=30)
    catalog.close()
    sizes = {
        name: sum(f.stat().st_size for f in (path / name).rglob("*") if f.is_file()) for name in ("products", "index")
    }
    report["disk_mib"] = {name: size / 2**20 for name, size in sizes.items()}
    written.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
