"""Products with their vectors as files for other search engines: Parquet or JSON lines, in shards, resumable.

    vectors.json            what the files hold: model, width, precision, types, number of products, names of the files
    products-00000.parquet  id, title, the attributes, and `product_vector`, `title_vector`, `image_vector`
    products-00001.parquet ...

A vector that a product lacks is null in Parquet; in JSON lines, what a product lacks isn't written.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from acebert.catalog.store import Products, Settings
from acebert.utils.files import atomic_write

FORMAT = 1
MANIFEST = "vectors.json"
UNFINISHED = "unfinished.json"  # holds the plan while the files are written
ARROW_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}

FileFormat = Literal["parquet", "jsonl"]
Precision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class VectorFiles:
    """Files to write.

    Args:
        folder: to write to.
        settings: of the products: model, width, types of ids and attributes.
        vectors: which of their vectors, of "product", "title" and "image".
        format: "parquet" or "jsonl".
        precision: of the vectors, see [`convert`].
        shard_rows: products in a file.

    Raises:
        ValueError: for vectors that the products don't have, or no products in a file.
    """

    folder: Path
    settings: Settings
    vectors: Sequence[str] = ("product",)
    format: FileFormat = "parquet"
    precision: Precision = "float32"
    shard_rows: int = 50_000

    def __post_init__(self) -> None:
        unknown = [name for name in self.vectors if name not in self.settings.vectors]
        if unknown or not self.vectors:
            raise ValueError(f"vectors must be of {list(self.settings.vectors)}, got {list(self.vectors)}.")
        if self.shard_rows < 1:
            raise ValueError(f"shard_rows must be at least 1, got {self.shard_rows}.")

    def start(self, plan: str, overwrite: bool = False) -> bool:
        """Makes the folder ready, empty or with the files of the same plan that a stopped call left.

        Args:
            plan: fingerprint of what is to be written.
            overwrite: replace files of another plan.

        Returns:
            Whether anything is left to do: not if the folder holds all files of this plan.

        Raises:
            FileExistsError: the folder holds something else.
        """
        record, manifest = self.folder / UNFINISHED, self.folder / MANIFEST
        there = next((file for file in (record, manifest) if file.exists()), None)
        same = there is not None and json.loads(there.read_text(encoding="utf-8"))["plan"] == plan
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"{self.folder} is a file: choose a folder.")
        if there is None and self.folder.exists() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} holds something else: choose an empty or new folder.")
        if there is not None and not same:
            if not overwrite:
                raise FileExistsError(
                    f"{self.folder} holds vectors of other products, weights or options: choose another folder, or "
                    "pass overwrite to replace them."
                )
            shutil.rmtree(self.folder)
        if same and there == manifest:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(record, json.dumps({"plan": plan}))
        return True

    def write(self, products: Iterable[Products], total: int) -> None:
        """Writes the files that aren't there, and then `vectors.json`. After `start`.

        Args:
            products: all of them, in the same order in every call.
            total: how many there are.
        """
        files = [self.folder / f"products-{number:05d}.{self.format}" for number in range(self._count(total))]
        with tqdm(total=total, desc="writing", unit="product") as bar:
            for file, shard in zip(files, self._shards(products), strict=True):
                if not file.exists():
                    atomic_write(file, partial(self._write_shard, shard))
                bar.update(len(shard))
        plan = json.loads((self.folder / UNFINISHED).read_text(encoding="utf-8"))["plan"]
        contents = {
            "format": FORMAT,
            "plan": plan,
            "model": self.settings.model,
            "dim": self.settings.dim,
            "precision": self.precision,
            "similarity": "cosine",
            "id_type": self.settings.id_type,
            "attributes": self.settings.attributes,
            "vectors": [f"{name}_vector" for name in self.vectors],
            "products": total,
            "files": [file.name for file in files],
        }
        atomic_write(self.folder / MANIFEST, json.dumps(contents, indent=2) + "\n")
        (self.folder / UNFINISHED).unlink()

    def _count(self, total: int) -> int:
        return max(1, -(-total // self.shard_rows))

    def _shards(self, products: Iterable[Products]) -> Iterator[pa.Table]:
        """Tables of `shard_rows` rows but for the last; an empty one where there is no product."""
        waiting = self._schema().empty_table()
        written = False
        for some in products:
            waiting = pa.concat_tables([waiting, self._to_table(some)])
            while len(waiting) >= self.shard_rows:
                yield waiting.slice(0, self.shard_rows)
                waiting, written = waiting.slice(self.shard_rows), True
        if len(waiting) or not written:
            yield waiting

    def _schema(self) -> pa.Schema:
        kept = self.settings.arrow_schema()
        columns = [kept.field(name) for name in ("id", "title", *self.settings.attributes)]
        kind = pa.list_(ARROW_TYPES[self.precision])
        return pa.schema([*columns, *(pa.field(f"{name}_vector", kind) for name in self.vectors)])

    def _to_table(self, products: Products) -> pa.Table:
        schema = self._schema()
        columns = {"id": products.ids, "title": products.titles, **products.attributes}
        arrays = [pa.array(columns[field.name], field.type) for field in schema if field.name in columns]
        arrays += [_to_lists(products.vectors[name], self.precision) for name in self.vectors]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _write_shard(self, shard: pa.Table, stream: BinaryIO) -> None:
        if self.format == "parquet":
            pq.write_table(shard, stream, compression="zstd")
        else:
            stream.writelines(_json_lines(shard, [f"{name}_vector" for name in self.vectors]))


def convert(vectors: np.ndarray, precision: Precision) -> np.ndarray:
    """Vectors in the numbers that an engine keeps.

    Args:
        vectors: (rows, dim) float32 of any length but 0.
        precision: "float32" or "float16", of unit length; or "int8", where the largest number of each row becomes 127
            or -127. That keeps a vector's direction up to rounding, but not its length: compare int8 by cosine.

    Returns:
        (rows, dim).
    """
    if precision == "int8":
        return np.rint(vectors * (127 / np.abs(vectors).max(1, keepdims=True))).astype(np.int8)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(precision)


def _to_lists(vectors: np.ndarray, precision: Precision) -> pa.Array:
    """Lists of numbers, null for a row of NaN."""
    # Of no fixed length: before version 26, Arrow can't read nulls of those from Parquet.
    there = ~np.isnan(vectors[:, 0])
    numbers = convert(vectors[there], precision)
    offsets = np.concatenate([[0], np.cumsum(there * vectors.shape[1])]).astype(np.int32)
    values = pa.array(numbers.ravel(), ARROW_TYPES[precision])
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~there))


def _json_lines(shard: pa.Table, vectors: Sequence[str]) -> Iterator[bytes]:
    columns = [shard[name] for name in vectors]
    for row, product in enumerate(shard.drop_columns(list(vectors)).to_pylist()):
        values: dict[str, Any] = {name: value for name, value in product.items() if value is not None}
        for name, column in zip(vectors, columns, strict=True):
            if column[row].is_valid:
                values[name] = column[row].values.to_numpy(zero_copy_only=False)
        yield orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
