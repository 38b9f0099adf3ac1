"""A catalogue's products as Parquet files: the truth from which its index can always be made again.

    catalog.json                     settings; names the generation that counts
    README.md                        front matter by which `datasets` and the Hub read the products
    products/00000/part-00000.parquet ...   all products when the generation was written
    changes/00000001.parquet ...     each call that changed products since, in order

Files are written atomically, so a process that is killed leaves none torn.
"""

import json
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from acebert.catalog.words import WORDS_ATTRIBUTE
from acebert.utils.files import atomic_write

FORMAT = 2
PART_ROWS = 2048
# A photo is read together with its row group.
ROW_GROUP = 256
VALUE_TYPES = {
    "string": Value("string"),
    "integer": Value("int64"),
    "number": Value("float64"),
    "boolean": Value("bool"),
    "strings": List(Value("string")),
    "date": Value("string"),  # of ISO 8601
}
PHOTOS = ("image", "more_images")  # columns that are read for a single product at a time
RESERVED = (
    "id",
    "title",
    "image",
    "more_images",
    "num_images",
    "product_vector",
    "title_vector",
    "image_vector",
    "change",
    "changed",
    WORDS_ATTRIBUTE,
)
Location = tuple[str, int]  # a file, relative to the catalogue's folder, and a row of it


@dataclass
class Settings:
    """What `catalog.json` holds.

    Args:
        model: name, revision, precision, product_weights_sha256, processor_sha256 of what made the vectors.
        dim: numbers in a vector.
        id_type: "string" or "integer".
        attributes: name to type, see `VALUE_TYPES`.
        sides: whether products have vectors of their title and of their photo alone, too.
        photo_size: longest side of the photos kept, in pixels; 0 keeps none.
        index: "edge", "memory", or the URL of a server's collection.
        index_options: of a server's index, see `ServerOptions`.
        group: the attribute that the variants of a product share, as their parent's id; None where there is none.
        max_images: photos of a product that are read; 1 in a catalogue of before there were several.
        catalog_id: tells catalogues apart on a server; given when the folder is complete.
        generation: number of the products' files that count.
        merged: number of the last change that is in them.
        format: of the folder.
    """

    model: dict[str, str | None]
    dim: int
    id_type: Literal["string", "integer"]
    attributes: dict[str, str]
    sides: bool
    photo_size: int
    index: str
    generation: int = 0
    merged: int = 0
    index_options: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    max_images: int = 1
    catalog_id: str = ""
    format: int = field(default=FORMAT)

    @property
    def vectors(self) -> tuple[str, ...]:
        return ("product", "title", "image") if self.sides else ("product",)

    def arrow_schema(self) -> pa.Schema:
        """Of the products' files; its metadata tells `datasets` that the photos are photos."""
        id_value = Value("string" if self.id_type == "string" else "int64")
        features = {"id": id_value, "title": Value("string"), "image": Image()}
        if self.max_images > 1:
            features |= {"more_images": List(Image()), "num_images": Value("int32")}
        features |= {name: VALUE_TYPES[kind] for name, kind in self.attributes.items()}
        # Half precision: a score changes in its fourth digit, the files are half as large.
        features |= {f"{name}_vector": List(Value("float16"), length=self.dim) for name in self.vectors}
        return Features(features).arrow_schema


@dataclass
class Products:
    """Some products, column by column.

    Args:
        ids: strings or integers.
        titles: None where a product has none.
        photos: encoded image files of each product, none where it has none or they aren't kept, or aren't read.
        num_photos: how many each has.
        attributes: name to values.
        vectors: name to (products, dim) float32; a row of NaN where a product lacks the side.
    """

    ids: list[Any]
    titles: list[str | None]
    photos: list[list[bytes]]
    attributes: dict[str, list[Any]]
    vectors: dict[str, np.ndarray]
    num_photos: list[int | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_table(cls, table: pa.Table, settings: Settings) -> "Products":
        """Reads all columns but the photos themselves."""
        return cls(
            ids=table["id"].to_pylist(),
            titles=table["title"].to_pylist(),
            photos=[[]] * len(table),
            num_photos=table["num_images"].to_pylist() if settings.max_images > 1 else [None] * len(table),
            attributes={name: table[name].to_pylist() for name in settings.attributes},
            vectors={name: _to_array(table[f"{name}_vector"], settings.dim) for name in settings.vectors},
        )

    def to_table(self, settings: Settings) -> pa.Table:
        schema = settings.arrow_schema()
        columns: dict[str, Any] = {
            "id": self.ids,
            "title": self.titles,
            "image": [_to_image(photos[0]) if photos else None for photos in self.photos],
            "more_images": [[_to_image(photo) for photo in photos[1:]] for photos in self.photos],
            "num_images": [len(photos) for photos in self.photos],
            **{name: self.attributes[name] for name in settings.attributes},
        }
        arrays = [pa.array(columns[name], schema.field(name).type) for name in schema.names if name in columns]
        arrays += [_to_column(self.vectors[name]) for name in settings.vectors]
        return pa.Table.from_arrays(arrays, schema=schema)


def _to_image(photo: bytes) -> dict[str, Any]:
    return {"bytes": photo, "path": None}


def _to_column(vectors: np.ndarray) -> pa.Array:
    # A missing vector stays NaN: before version 26, Arrow can't read a null of a fixed length from Parquet.
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), vectors.shape[1])


def _to_array(column: pa.ChunkedArray, dim: int) -> np.ndarray:
    array = pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
    vectors = (
        np.asarray(array.values, dtype=np.float32).reshape(-1, dim)[array.offset : array.offset + len(array)].copy()
    )
    vectors[np.asarray(array.is_null())] = np.nan  # other programs may write null where there is none
    return vectors


class ProductStore:
    """The files of one catalogue.

    Args:
        path: folder with a `catalog.json`.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for a folder of another format.
    """

    def __init__(self, path: Path):
        self.path = path
        file = path / "catalog.json"
        if not file.exists():
            raise FileNotFoundError(f"{path} holds no catalogue (no catalog.json): make one by ProductCatalog.build.")
        self._stamp = self._read_stamp()  # before the file is read: if it's replaced in between, that shows later
        values = json.loads(file.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise ValueError(
                f"{file} has the format {values.get('format')!r} and this version reads {FORMAT}: build it again."
            )
        self.settings = Settings(**values)
        self.last_change = max([self.settings.merged, *(int(file.stem) for file in self._changes.glob("*.parquet"))])

    def is_behind(self) -> bool:
        """Whether another process has changed the catalogue or merged its changes: two looks at the folder."""
        return self._change(self.last_change + 1).exists() or self._read_stamp() != self._stamp

    def look_again(self) -> "ProductStore":
        """The store with what other processes have done: itself, or a new one if other settings count now."""
        if self._read_stamp() != self._stamp:
            return ProductStore(self.path)
        while self._change(self.last_change + 1).exists():
            self.last_change += 1
        return self

    def _read_stamp(self) -> tuple[int, int]:
        status = (self.path / "catalog.json").stat()
        return status.st_ino, status.st_mtime_ns

    @classmethod
    def create(cls, path: Path, settings: Settings) -> "ProductStore":
        """Makes the folder a catalogue. The products of its generation have to be there."""
        (path / "changes").mkdir(exist_ok=True)
        write_settings(path, replace(settings, catalog_id=settings.catalog_id or uuid.uuid4().hex))
        return cls(path)

    def set_index(self, index: str, options: Mapping[str, Any]) -> None:
        """Says where the index is from now on. A catalogue of before there were ids gets one."""
        catalog_id = self.settings.catalog_id or uuid.uuid4().hex
        settings = replace(self.settings, index=index, index_options=dict(options), catalog_id=catalog_id)
        self._write_settings(settings)

    def parts(self, generation: int | None = None) -> list[Path]:
        """The files of a generation, by default of the one that counts."""
        generation = self.settings.generation if generation is None else generation
        return sorted(products_folder(self.path, generation).glob("part-*.parquet"))

    def changes(self, after: int) -> list[tuple[int, Path]]:
        """Numbers and files of the changes that came after one, in order."""
        first = max(after, self.settings.merged) + 1
        return [(number, self._change(number)) for number in range(first, self.last_change + 1)]

    @property
    def _changes(self) -> Path:
        return self.path / "changes"

    def _change(self, number: int) -> Path:
        return self._changes / f"{number:08d}.parquet"

    def read_products(self, generation: int) -> Iterator[tuple[list[Location], Products]]:
        """All products of a generation without their photos, and where each lies."""
        columns = [name for name in self.settings.arrow_schema().names if name not in PHOTOS]
        for part in self.parts(generation):
            name, row = part.relative_to(self.path).as_posix(), 0
            for batch in pq.ParquetFile(part).iter_batches(batch_size=4 * ROW_GROUP, columns=columns):
                table = pa.Table.from_batches([batch])
                yield [(name, row + i) for i in range(len(batch))], Products.from_table(table, self.settings)
                row += len(batch)

    def read_ids(self) -> list[Any]:
        """Each id that was ever there since the generation was written, once, deleted ones too."""
        files = [*self.parts(), *(file for _, file in self.changes(self.settings.merged))]
        return list(dict.fromkeys(i for file in files for i in pq.read_table(file, columns=["id"])["id"].to_pylist()))

    def count(self, generation: int) -> int:
        return sum(pq.read_metadata(part).num_rows for part in self.parts(generation))

    def count_rows(self, changes: Iterable[Path]) -> int:
        """How many products some changes are of, those that changes of later are of too among them."""
        return sum(pq.read_metadata(file).num_rows for file in changes)

    def count_products(self) -> int:
        """How many products there are, with all changes."""
        replaced, dropped, _ = self._fold(self.last_change)
        gone = pa.array([*replaced, *dropped], self.settings.arrow_schema().field("id").type)
        kept = 0
        for part in self.parts():
            ids = pq.read_table(part, columns=["id"])["id"]
            kept += len(ids) - pa.compute.sum(pa.compute.is_in(ids, gone)).as_py() if len(ids) else 0
        return kept + len(replaced)

    # Changes

    def append_upsert(self, products: Products) -> None:
        """Keeps new or replaced products."""
        self._append(products.to_table(self.settings), "upsert")

    def append_delete(self, ids: Sequence[Any]) -> None:
        schema = self.settings.arrow_schema()
        self._append(pa.table({"id": pa.array(ids, schema.field("id").type)}), "delete")

    def append_attributes(self, ids: Sequence[Any], values: Sequence[Mapping[str, Any]]) -> None:
        """Keeps new values of some attributes of each product; None takes a value away."""
        schema = self.settings.arrow_schema()
        columns = {"id": pa.array(ids, schema.field("id").type)}
        for name in self.settings.attributes:
            columns[name] = pa.array([row.get(name) for row in values], schema.field(name).type)
        columns["changed"] = pa.array([list(row) for row in values], pa.list_(pa.string()))
        self._append(pa.table(columns), "attributes")

    def _append(self, table: pa.Table, kind: str) -> None:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"change": kind.encode()})
        write_table(table, self._change(self.last_change + 1))
        self.last_change += 1

    def read_all_photos(self, location: Location) -> list[bytes]:
        """All photos of the product that lies there, as encoded image files."""
        photos = self.read_photos([location])
        if self.settings.max_images > 1:
            name, row = location
            with pq.ParquetFile(self.path / name) as file:
                several = file.read_row_group(row // ROW_GROUP, columns=["more_images"])["more_images"]
            photos += [image["bytes"] for image in several[row % ROW_GROUP].as_py() or ()]
        return [photo for photo in photos if photo is not None]

    def read_photos(self, locations: Sequence[Location]) -> list[bytes | None]:
        """The photos that lie there, of several the first, as encoded image files."""
        photos: list[bytes | None] = [None] * len(locations)
        by_group: dict[tuple[str, int], list[int]] = {}
        for i, (name, row) in enumerate(locations):
            by_group.setdefault((name, row // ROW_GROUP), []).append(i)
        for (name, group), members in by_group.items():
            with pq.ParquetFile(self.path / name) as file:
                images = file.read_row_group(group, columns=["image"])["image"]
            for i in members:
                image = images[locations[i][1] % ROW_GROUP].as_py()
                photos[i] = image and image["bytes"]
        return photos

    # Merging

    def merge(self, upto: int, generation: int) -> None:
        """Writes a new generation: the current one with all changes up to a number in it. Nothing else is touched."""
        folder = products_folder(self.path, generation)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        writer = PartWriter(folder, self.settings.arrow_schema())
        for table in self.read_tables(upto):
            writer.write(table)
        writer.close()

    def read_tables(self, upto: int, without: Collection[str] = ()) -> Iterator[pa.Table]:
        """All products as they are after the changes up to a number, some at a time.

        Args:
            upto: number of the last change.
            without: columns to leave out, as "image".
        """
        replaced, dropped, attributes = self._fold(upto)
        schema = self.settings.arrow_schema()
        columns = [name for name in schema.names if name not in without]
        schema = pa.schema([schema.field(name) for name in columns])
        gone = pa.array([*replaced, *dropped], schema.field("id").type)
        for part in self.parts():
            for batch in pq.ParquetFile(part).iter_batches(batch_size=4 * ROW_GROUP, columns=columns):
                table = pa.Table.from_batches([batch])
                table = table.filter(pa.compute.invert(pa.compute.is_in(table["id"], gone)))
                yield self._set_attributes(table, attributes)
        for file, rows in _by_file(replaced).items():
            table = pq.read_table(self.path / file, columns=columns).take(rows)
            yield self._set_attributes(table.cast(schema), attributes)

    def _fold(self, upto: int) -> tuple[dict[Any, Location], set[Any], dict[Any, dict[str, Any]]]:
        """What the changes come to: where replaced products lie, which were dropped, and attributes set since."""
        replaced: dict[Any, Location] = {}
        dropped: set[Any] = set()
        attributes: dict[Any, dict[str, Any]] = {}
        for number, file in self.changes(self.settings.merged):
            if number > upto:
                break
            kind, table = read_change(file)
            for row, product_id in enumerate(table["id"].to_pylist()):
                if kind == "attributes":
                    continue
                attributes.pop(product_id, None)
                replaced.pop(product_id, None)
                dropped.discard(product_id)
                if kind == "delete":
                    dropped.add(product_id)
                else:
                    replaced[product_id] = (file.relative_to(self.path).as_posix(), row)
            if kind == "attributes":
                for product_id, values in read_attributes(table):
                    attributes.setdefault(product_id, {}).update(values)
        return replaced, dropped, attributes

    def _set_attributes(self, table: pa.Table, attributes: Mapping[Any, Mapping[str, Any]]) -> pa.Table:
        ids = table["id"].to_pylist()
        touched = [row for row, product_id in enumerate(ids) if product_id in attributes]
        for name in {name for row in touched for name in attributes[ids[row]]}:
            values = table[name].to_pylist()
            for row in touched:
                values[row] = attributes[ids[row]].get(name, values[row])
            index = table.schema.get_field_index(name)
            table = table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))
        return table

    def switch(self, generation: int, merged: int) -> None:
        """Makes another generation the one that counts, then removes what it replaces."""
        settings = replace(self.settings, generation=generation, merged=merged)
        self._write_settings(settings)
        self.remove_leftovers()

    def _write_settings(self, settings: Settings) -> None:
        write_settings(self.path, settings)
        self.settings, self._stamp = settings, self._read_stamp()

    def remove_leftovers(self) -> None:
        """Removes generations that don't count and changes that are merged."""
        current = products_folder(self.path, self.settings.generation)
        for folder in current.parent.iterdir():
            if folder != current:
                shutil.rmtree(folder, ignore_errors=True)
        self._changes.mkdir(exist_ok=True)  # git and the Hub keep no empty folder
        for file in self._changes.iterdir():
            if file.suffix != ".parquet" or int(file.stem) <= self.settings.merged:
                file.unlink(missing_ok=True)


class PartWriter:
    """Writes tables one after another into parts of `PART_ROWS` rows, in row groups of `ROW_GROUP`."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema = folder, schema
        self.pending: list[pa.Table] = []
        self.number = 0

    def write(self, table: pa.Table) -> None:
        self.pending.append(table.select(self.schema.names))
        while sum(map(len, self.pending)) >= PART_ROWS:
            self._flush(PART_ROWS)

    def close(self) -> None:
        if sum(map(len, self.pending)) or not self.number:
            self._flush(PART_ROWS)

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self.pending or [self.schema.empty_table()])
        write_table(
            table.slice(0, rows).replace_schema_metadata(self.schema.metadata), part_path(self.folder, self.number)
        )
        self.pending, self.number = [table.slice(rows)], self.number + 1


def products_folder(path: Path, generation: int) -> Path:
    return path / "products" / f"{generation:05d}"


def part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def read_change(file: Path) -> tuple[str, pa.Table]:
    """A change's kind, "upsert", "delete" or "attributes", and its rows without photos."""
    schema = pq.read_schema(file)
    table = pq.read_table(file, columns=[name for name in schema.names if name not in PHOTOS])
    return schema.metadata[b"change"].decode(), table


def read_attributes(table: pa.Table) -> list[tuple[Any, dict[str, Any]]]:
    """Ids, and the attributes set, of a change of attributes."""
    return [(row["id"], {name: row[name] for name in row["changed"]}) for row in table.to_pylist()]


def _by_file(locations: Mapping[Any, Location]) -> dict[str, list[int]]:
    files: dict[str, list[int]] = {}
    for name, row in locations.values():
        files.setdefault(name, []).append(row)
    return files


def write_table(table: pa.Table, file: Path) -> None:
    """Writes a Parquet file atomically."""
    atomic_write(file, lambda stream: pq.write_table(table, stream, row_group_size=ROW_GROUP, compression="zstd"))


def write_settings(path: Path, settings: Settings) -> None:
    """Writes `catalog.json`, and the `README.md` by which `datasets` finds the generation's files."""
    card = f"---\nconfigs:\n- config_name: default\n  data_files: products/{settings.generation:05d}/*.parquet\n---\n\n"
    card += "A catalogue encoded by ACE-BERT: products with their photos, attributes and vectors.\n"
    atomic_write(path / "README.md", card)
    atomic_write(path / "catalog.json", json.dumps(asdict(settings), indent=2) + "\n")
