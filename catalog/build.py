"""A dataset's products to Parquet files with their vectors: by all processes, part by part, so that it can go on."""

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import ProcessorMixin
from transformers.utils import logging

from acebert.catalog.filters import KINDS, check_attributes
from acebert.catalog.store import PART_ROWS, RESERVED, Products, Settings, part_path, write_table
from acebert.data.batching import POOL
from acebert.data.cleaning import (
    BadRow,
    OnBadRow,
    can_hold_photos,
    find_bad_ids,
    find_photo_error,
    read_photo,
    read_text,
)
from acebert.encoding.encoder import ProductEncoder, find_title_error, prepare
from acebert.image_processing_acebert import open_photo, to_upright_rgb

logger = logging.get_logger(__name__)

WEB_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


def keep_photo(photo: Any | None, size: int) -> bytes | None:
    """An image file to show the product by.

    Args:
        photo: anything that the processor reads.
        size: longest side in pixels; 0 keeps nothing. A file within it is kept as it is, a larger photo as a JPEG.
    """
    if photo is None or not size:
        return None
    if isinstance(photo, dict):
        photo = photo["bytes"] if photo.get("bytes") is not None else photo.get("path")
    if isinstance(photo, str | Path):
        photo = Path(photo).read_bytes()
    image = open_photo(photo)
    if isinstance(photo, bytes) and image.format in WEB_FORMATS and max(image.size) <= size:
        return photo
    image.draft("RGB", (size, size))
    image = to_upright_rgb(image, do_convert_rgb=True)
    image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


@dataclass(frozen=True)
class Source:
    """The columns of a dataset that make a catalogue.

    Args:
        dataset: one row per product, photos not decoded.
        id, title, image: names of columns; title or image may be None.
        attributes: names of columns.
    """

    dataset: datasets.Dataset
    id: str
    title: str | None
    image: str | None
    attributes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        dataset: datasets.Dataset,
        id_column: str,
        title_column: str | None,
        image_column: str | None,
        attribute_columns: Sequence[str] | None,
    ) -> "Source":
        """Checks the columns; without `attribute_columns` every column that can be one is an attribute.

        Raises:
            ValueError: for a missing column, one of another type than its use needs, or a name that is taken.
        """
        if not isinstance(dataset, datasets.Dataset):
            hint = f": choose one of its splits {list(dataset)}" if isinstance(dataset, Mapping) else ""
            raise ValueError(f"dataset must be a datasets.Dataset, got {type(dataset).__name__}{hint}.")
        main = [name for name in (id_column, title_column, image_column) if name is not None]
        for name in (*main, *(attribute_columns or ())):
            if name not in dataset.column_names:
                raise ValueError(
                    f"The dataset has no column {name!r}: it has {dataset.column_names}. Name yours by id_column, "
                    "title_column, image_column and attribute_columns; None says that there is no title or no photo."
                )
        if title_column is None and image_column is None:
            raise ValueError("A product needs a title or a photo: name title_column, image_column or both.")
        if not len(dataset):
            raise ValueError("The dataset is empty: give one with at least one product.")
        if _kind(dataset.features[id_column]) not in ("string", "integer"):
            raise ValueError(
                f"The id column {id_column!r} holds {dataset.features[id_column]}, not texts or integers: make them of "
                "it by dataset.cast_column."
            )
        if title_column and _kind(dataset.features[title_column]) != "string":
            raise ValueError(
                f"The title column {title_column!r} holds {dataset.features[title_column]}, not texts: make them of it "
                "by dataset.cast_column, or name another by title_column."
            )
        if image_column and not can_hold_photos(dataset.features[image_column]):
            raise ValueError(
                f"The image column {image_column!r} holds {dataset.features[image_column]}: photos are an Image "
                "column, paths or bytes of image files, one for a product."
            )
        others = [name for name in dataset.column_names if name not in main]
        if attribute_columns is None:
            attribute_columns = [name for name in others if _kind(dataset.features[name]) is not None]
            left_out = [name for name in others if name not in attribute_columns]
            if left_out:
                logger.warning(f"Not taken as attributes, since they hold neither texts nor numbers: {left_out}.")
        for name in attribute_columns:
            if _kind(dataset.features[name]) is None:
                raise ValueError(
                    f"The attribute column {name!r} holds {dataset.features[name]}: attributes are texts, numbers, "
                    "booleans or lists of texts."
                )
            if name in RESERVED or '"' in name:
                raise ValueError(f"An attribute can't be named {name!r}: rename the column by dataset.rename_column.")
        if image_column and isinstance(dataset.features[image_column], datasets.Image):
            dataset = dataset.cast_column(image_column, datasets.Image(decode=False))
        return cls(dataset, id_column, title_column, image_column, tuple(attribute_columns))

    def kinds(self) -> dict[str, str]:
        # Each has a kind, or the source would not have been made.
        return {name: str(_kind(self.dataset.features[name])) for name in self.attributes}

    def ids(self) -> list[Any]:
        return self.read(self.id, slice(None))

    def titles(self, rows: Sequence[int] | slice) -> list[str | None]:
        return self.read(None, rows) if self.title is None else self.attribute(self.title, rows)

    def photos(self, rows: Sequence[int]) -> list[Any | None]:
        return [read_photo(photo) for photo in self.read(self.image, rows)]

    def attribute(self, name: str, rows: Sequence[int] | slice) -> list[Any]:
        """Values of an attribute; blanks are none, and so is a number that is NaN, as pandas has it."""
        values = self.read(name, rows)
        feature = self.dataset.features[name]
        if isinstance(feature, datasets.ClassLabel):
            return [None if value is None else feature.int2str(value) for value in values]
        if _kind(feature) == "string":
            return [read_text(value) for value in values]
        return [None if isinstance(value, float) and math.isnan(value) else value for value in values]

    def read(self, name: str | None, rows: Sequence[int] | slice) -> list[Any]:
        """A column's values as they are; None for each row where there is no such column."""
        if name is None:
            return [None] * (len(self.dataset) if isinstance(rows, slice) else len(rows))
        return list(self.dataset.select_columns([name])[rows][name])

    def find_bad_rows(self) -> list[BadRow]:
        """Rows without an id, with one that an earlier row has, without title and photo, or with a bad attribute.

        Each row is there once, with the first that is wrong with it.
        """
        ids, titles = self.ids(), self.titles(slice(None))
        bad = list(find_bad_ids(ids, self.id, unique=True))
        untitled = [row for row, title in enumerate(titles) if title is None]
        field = " and ".join(name for name in (self.title, self.image) if name)
        for start in range(0, len(untitled), PART_ROWS):
            rows = untitled[start : start + PART_ROWS]
            bad += [
                BadRow(row, ids[row], field, "is empty: a product needs a title or a photo")
                for row, photo in zip(rows, self.photos(rows), strict=True)
                if photo is None
            ]
        for name, kind in self.kinds().items():
            if kind in ("string", "boolean"):  # a column of these holds nothing else
                continue
            for row, value in enumerate(self.attribute(name, slice(None))):
                try:
                    check_attributes({name: value}, {name: kind})
                except ValueError:
                    reason = f"must be {KINDS[kind]}, got {value!r}: mend it, or give None for none"
                    bad.append(BadRow(row, ids[row], name, reason))
        first = {row.row: row for row in reversed(bad)}
        return [first[row] for row in sorted(first)]


def _kind(feature: Any) -> str | None:
    """A column's type as an attribute, None if it can't be one."""
    if isinstance(feature, datasets.ClassLabel):
        return "string"
    if isinstance(feature, datasets.List) and feature.length == -1:
        return "strings" if _kind(feature.feature) == "string" else None
    dtype = getattr(feature, "dtype", "") if isinstance(feature, datasets.Value) else ""
    if dtype in ("string", "large_string"):
        return "string"
    if dtype.startswith(("int", "uint")):
        return "integer"
    return {"bool": "boolean"}.get(dtype, "number" if dtype.startswith("float") else None)


class Batches(torch.utils.data.Dataset):
    """Prepared batches of rows, made in the loader's workers."""

    def __init__(self, batches: Sequence[Sequence[int]], source: Source, processor: ProcessorMixin, photo_size: int):
        self.batches, self.source, self.processor, self.photo_size = batches, source, processor, photo_size

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows, bad = list(self.batches[index]), []
        titles, photos = self.source.titles(rows), self.source.photos(rows)
        try:
            kept = [keep_photo(photo, self.photo_size) for photo in photos]
            inputs = prepare(self.processor, titles, photos)
        except Exception:  # Pillow's decoders raise errors of many kinds for broken files
            ids = self.source.read(self.source.id, rows)
            for i, row in enumerate(rows):
                title = titles[i]
                if title is not None and (error := find_title_error(self.processor, title)):
                    bad.append(BadRow(row, ids[i], str(self.source.title), error))
                    titles[i] = None
                if photos[i] is not None and (error := find_photo_error(photos[i])):
                    bad.append(BadRow(row, ids[i], str(self.source.image), error))
                    photos[i] = None
            if not bad:
                raise
            left = [i for i in range(len(rows)) if titles[i] is not None or photos[i] is not None]
            rows, titles, photos = [rows[i] for i in left], [titles[i] for i in left], [photos[i] for i in left]
            kept = [keep_photo(photo, self.photo_size) for photo in photos]
            inputs = prepare(self.processor, titles, photos) if rows else {}
        return {"rows": rows, "titles": titles, "photos": kept, "bad": bad, "inputs": inputs}


def write_parts(
    encoder: ProductEncoder,
    source: Source,
    settings: Settings,
    folder: Path,
    rows: Sequence[int],
    batch_size: int,
    num_workers: int,
    on_bad_row: OnBadRow,
) -> None:
    """Encodes a dataset's rows into parts, as far as they aren't there, each part by one of the processes.

    Which rows make a batch doesn't depend on the number of processes, so neither do the vectors.

    Args:
        encoder: makes the vectors.
        source: the products.
        settings: of the catalogue.
        folder: gets `part-*.parquet`, and `part-*.bad.json` with the rows that were skipped or lost their photo.
        rows: of the source, to encode.
        batch_size: products in a forward pass; some of these are read at a time.
        num_workers: processes that read and cut photos, for each process.
        on_bad_row: "skip" keeps a product with a broken photo by its title, or with a title that can't be read by its
            photo, and leaves out one that has nothing else.

    Raises:
        ValueError: for a broken photo or title where `on_bad_row` is "raise".
    """
    state = PartialState()
    parts = [list(rows[start : start + PART_ROWS]) for start in range(0, len(rows), PART_ROWS)]
    missing = [number for number in range(len(parts)) if not part_path(folder, number).exists()]
    if len(missing) < len(parts) and state.is_main_process:
        logger.warning(f"Going on: {len(parts) - len(missing)} of {len(parts)} parts are there.")
    mine = missing[state.process_index :: state.num_processes]
    pool = POOL * batch_size
    batches = [part[start : start + pool] for part in (parts[n] for n in mine) for start in range(0, len(part), pool)]
    owners = [number for number in mine for _ in range(0, len(parts[number]), pool)]
    # batch_size None: an item is a batch already.
    loader = DataLoader(Batches(batches, source, encoder.processor, settings.photo_size), None, num_workers=num_workers)
    done: list[dict[str, Any]] = []
    with tqdm(total=sum(map(len, batches)), unit="product", disable=not state.is_main_process) as bar:
        for index, batch in enumerate(loader):
            if batch["bad"] and on_bad_row == "raise":
                raise ValueError(f"{batch['bad'][0]}. Or pass on_bad_row='skip', which lists such rows and goes on.")
            if batch["rows"]:
                batch["vectors"] = encoder.encode(batch.pop("inputs"), settings.vectors, batch_size)
            done.append(batch)
            bar.update(len(batches[index]))
            if index + 1 == len(batches) or owners[index + 1] != owners[index]:
                _write_part(done, source, settings, part_path(folder, owners[index]))
                done = []
    state.wait_for_everyone()


def _write_part(batches: list[dict[str, Any]], source: Source, settings: Settings, file: Path) -> None:
    rows = [row for batch in batches for row in batch["rows"]]
    bad = [bad for batch in batches for bad in batch["bad"]]
    if bad:
        lines = [asdict(row) for row in bad]
        file.with_suffix(".bad.json").write_text(json.dumps(lines), encoding="utf-8")
    encoded = [batch["vectors"] for batch in batches if batch["rows"]]
    empty = np.empty((0, settings.dim), dtype=np.float32)
    products = Products(
        ids=source.read(source.id, rows),
        titles=[title for batch in batches for title in batch["titles"]],
        photos=[photo for batch in batches for photo in batch["photos"]],
        attributes={name: source.attribute(name, rows) for name in source.attributes},
        vectors={name: np.concatenate([empty, *(vectors[name] for vectors in encoded)]) for name in settings.vectors},
    )
    write_table(products.to_table(settings), file)


def plan_sha256(source: Source, settings: Settings, rows: Sequence[int]) -> str:
    """Tells whether an unfinished build is of the same products, model and settings; photos are not looked at."""
    digest = hashlib.sha256(json.dumps([vars(settings), len(rows)], sort_keys=True, default=str).encode())
    for values in (
        source.ids(),
        source.titles(slice(None)),
        *(source.attribute(n, slice(None)) for n in source.attributes),
    ):
        digest.update(json.dumps(values, default=str).encode())
    return digest.hexdigest()
