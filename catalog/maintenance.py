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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from acebert.catalog.exact_words import is_code
from acebert.catalog.indexes.base import CatalogIndex
from acebert.catalog.indexes.edge import EdgeIndex
from acebert.catalog.store import Location, Products, ProductStore, Settings, read_attributes, read_change
from acebert.catalog.words import WORDS_ATTRIBUTE, naming_attributes, product_words
from acebert.utils.files import atomic_write

EXACT_UP_TO = 300_000  # products; beyond, an exact search takes longer than 50 ms on one core (docs/catalog.md)
FLUSH_EVERY = 20  # batches, of 1,024 products: unflushed, a million products take gigabytes of write-ahead log
INDEX_FORMAT = 2  # of what `put` writes; an index of another is made again
UNFILLED = -1  # in place of the last change that an index has: it exists, and has yet to be filled
NAMESPACE = uuid.UUID("6f0c4a52-6f3e-5d0e-9b57-6c1f6ab8ad0e")  # of the keys that engines know products by


def index_folder(path: Path, generation: int) -> Path:
    return path / "index" / f"{generation:05d}"


def read_applied(folder: Path) -> int | None:
    """The last change that an index has for certain; None where there is no whole index, `UNFILLED` for an old one."""
    with suppress(FileNotFoundError, JSONDecodeError):  # a file may be empty after a power cut
        values = json.loads((folder / "applied.json").read_text(encoding="utf-8"))
        return values["change"] if values.get("format") == INDEX_FORMAT else UNFILLED
    return None


def write_applied(folder: Path, change: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "applied.json", json.dumps({"change": change, "format": INDEX_FORMAT}))


def to_key(product_id: str | int) -> str:
    """The UUID that engines know a product by. The text "7" and the number 7 are two products."""
    kind = "string" if isinstance(product_id, str) else "integer"
    return str(uuid.uuid5(NAMESPACE, f"{kind}:{product_id}"))


def index_schema(settings: Settings) -> dict[str, str]:
    """The attributes that an index keeps: the catalogue's own, and each product's exact words."""
    return {**settings.attributes, WORDS_ATTRIBUTE: "strings"}


def put(index: CatalogIndex, products: Products, locations: Sequence[Location], settings: Settings) -> None:
    """Adds products to an index, or replaces them."""
    payloads = []
    for row, product_id in enumerate(products.ids):
        title = products.titles[row]
        attributes = {
            name: values[row] for name, values in products.attributes.items() if values[row] not in (None, [])
        }
        attributes[WORDS_ATTRIBUTE] = find_words(title, product_id, attributes, settings)
        payload = {"id": product_id, "title": title, "attributes": attributes, "location": list(locations[row])}
        if products.num_photos and products.num_photos[row] is not None:
            payload["photos"] = products.num_photos[row]
        payloads.append(payload)
    index.upsert([to_key(product_id) for product_id in products.ids], products.vectors, products.titles, payloads)


def fill_index(index: CatalogIndex, store: ProductStore, generation: int) -> None:
    with tqdm(total=store.count(generation), desc="index", unit="product", leave=False) as bar:
        for number, (locations, products) in enumerate(store.read_products(generation), start=1):
            put(index, products, locations, store.settings)
            if number % FLUSH_EVERY == 0:
                index.flush()
            bar.update(len(products))


def apply_change(index: CatalogIndex, store: ProductStore, file: Path) -> None:
    """Brings one change into an index. A second time makes no difference."""
    kind, table = read_change(file)
    if kind == "upsert":
        name = file.relative_to(store.path).as_posix()
        locations = [(name, row) for row in range(len(table))]
        put(index, Products.from_table(table, store.settings), locations, store.settings)
    elif kind == "delete":
        index.delete([to_key(product_id) for product_id in table["id"].to_pylist()])
    else:
        keyed = [(to_key(product_id), values) for product_id, values in read_attributes(table)]
        # A product may be gone by a later change that the index has already.
        there = index.get([key for key, _ in keyed])
        left = [(key, values, match.payload) for (key, values), match in zip(keyed, there, strict=True) if match]
        index.set_attributes(
            [key for key, _, _ in left],
            [
                values
                | {
                    WORDS_ATTRIBUTE: find_words(
                        payload["title"], payload["id"], payload["attributes"] | values, store.settings
                    )
                }
                for _, values, payload in left
            ],
        )


def find_words(
    title: str | None, product_id: str | int, attributes: Mapping[str, Any], settings: Settings
) -> list[str] | None:
    """The exact words that a product is found by: of its title, its names, and an id that is a code; None for none."""
    values = [attributes.get(name) for name in naming_attributes(settings.attributes)]
    names = [name for value in values if value for name in ([value] if isinstance(value, str) else value)]
    if isinstance(product_id, str) and is_code(product_id) and not product_id.isdigit():
        names.append(product_id)
    return product_words([title or ""], names) or None


def needs_graph(store: ProductStore, generation: int) -> bool:
    """Whether a generation has too many products for an exact search."""
    return store.count(generation) > EXACT_UP_TO


def make_edge_index(store: ProductStore, generation: int, change: int) -> None:
    """Makes the embedded index of a generation's products, by HNSW where there are many."""
    folder, settings = index_folder(store.path, generation), store.settings
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    hnsw = needs_graph(store, generation)
    index = EdgeIndex.create(folder, settings.dim, index_schema(settings), hnsw=hnsw, sides=settings.sides)
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
