"""A catalogue's index from its files: made, brought up to date, and made anew in a process of its own.

Nothing here loads a model, so that the child that [`run_child`] starts is ready at once.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path

from tqdm.auto import tqdm

from acebert.catalog.indexes.base import CatalogIndex
from acebert.catalog.indexes.edge import EdgeIndex
from acebert.catalog.store import Location, Products, ProductStore, read_attributes, read_change
from acebert.utils.files import atomic_write

EXACT_UP_TO = 300_000  # products; beyond, an exact search takes longer than 50 ms on one core (docs/catalog.md)
FLUSH_EVERY = 20  # batches, of 1,024 products: unflushed, a million products take gigabytes of write-ahead log
UNFILLED = -1  # in place of the last change that an index has: it exists, and has yet to be filled
NAMESPACE = uuid.UUID("6f0c4a52-6f3e-5d0e-9b57-6c1f6ab8ad0e")  # of the keys that engines know products by


def index_folder(path: Path, generation: int) -> Path:
    return path / "index" / f"{generation:05d}"


def read_applied(folder: Path) -> int | None:
    """The last change that an index has for certain; None where there is no whole index."""
    with suppress(FileNotFoundError, JSONDecodeError):  # a file may be empty after a power cut
        return json.loads((folder / "applied.json").read_text(encoding="utf-8"))["change"]
    return None


def write_applied(folder: Path, change: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "applied.json", json.dumps({"change": change}))


def to_key(product_id: str | int) -> str:
    """The UUID that engines know a product by. The text "7" and the number 7 are two products."""
    kind = "string" if isinstance(product_id, str) else "integer"
    return str(uuid.uuid5(NAMESPACE, f"{kind}:{product_id}"))


def put(index: CatalogIndex, products: Products, locations: Sequence[Location]) -> None:
    """Adds products to an index, or replaces them."""
    payloads = [
        {
            "id": product_id,
            "title": products.titles[row],
            "attributes": {
                name: values[row] for name, values in products.attributes.items() if values[row] not in (None, [])
            },
            "location": list(locations[row]),
        }
        for row, product_id in enumerate(products.ids)
    ]
    index.upsert([to_key(product_id) for product_id in products.ids], products.vectors, products.titles, payloads)


def fill_index(index: CatalogIndex, store: ProductStore, generation: int) -> None:
    with tqdm(total=store.count(generation), desc="index", unit="product", leave=False) as bar:
        for number, (locations, products) in enumerate(store.read_products(generation), start=1):
            put(index, products, locations)
            if number % FLUSH_EVERY == 0:
                index.flush()
            bar.update(len(products))


def apply_change(index: CatalogIndex, store: ProductStore, file: Path) -> None:
    """Brings one change into an index. A second time makes no difference."""
    kind, table = read_change(file)
    if kind == "upsert":
        name = file.relative_to(store.path).as_posix()
        put(index, Products.from_table(table, store.settings), [(name, row) for row in range(len(table))])
    elif kind == "delete":
        index.delete([to_key(product_id) for product_id in table["id"].to_pylist()])
    else:
        keyed = [(to_key(product_id), values) for product_id, values in read_attributes(table)]
        # A product may be gone by a later change that the index has already.
        there = index.get([key for key, _ in keyed])
        left = [item for item, match in zip(keyed, there, strict=True) if match is not None]
        index.set_attributes([key for key, _ in left], [values for _, values in left])


def needs_graph(store: ProductStore, generation: int) -> bool:
    """Whether a generation has too many products for an exact search."""
    return store.count(generation) > EXACT_UP_TO


def make_edge_index(store: ProductStore, generation: int, change: int) -> None:
    """Makes the embedded index of a generation's products, by HNSW where there are many."""
    folder, settings = index_folder(store.path, generation), store.settings
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    hnsw = needs_graph(store, generation)
    index = EdgeIndex.create(folder, settings.dim, settings.attributes, hnsw=hnsw, sides=settings.sides)
    fill_index(index, store, generation)
    if hnsw:
        index.optimize()
    index.close()
    write_applied(folder, change)


def run_child(path: Path, generation: int, upto: int, index: str | None = None) -> None:
    """Merges and indexes in a process of its own.

    Args:
        path: folder of the catalogue.
        generation: to merge into, or the one that is there.
        upto: number of the last change to merge.
        index: "edge" makes the embedded index even if the catalogue has another one so far.

    Raises:
        RuntimeError: if it fails; what it printed shows why.
    """
    command = [sys.executable, "-m", "acebert.catalog.maintenance", str(path), str(generation), str(upto)]
    command += [index] if index else []
    # The child finds the package where this process did, installed or not.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    status = subprocess.run(command, env=environment).returncode
    if status:
        raise RuntimeError(f"Indexing {path} failed with the exit status {status}: what it printed above tells why.")


def main() -> None:
    """What [`ProductCatalog.optimize`] has its child do: merge the changes up to a number into a new generation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("generation", type=int)
    parser.add_argument("upto", type=int)
    parser.add_argument("index", nargs="?")
    args = parser.parse_args()
    store = ProductStore(args.path)
    if args.generation != store.settings.generation:
        store.merge(args.upto, args.generation)
    if "edge" in (store.settings.index, args.index):
        make_edge_index(store, args.generation, args.upto)


if __name__ == "__main__":
    main()
