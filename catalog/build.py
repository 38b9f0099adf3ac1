"""From a dataset of products to a catalogue's Parquet files: by all processes, and resumable file by file."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
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
from acebert.data.batching import PREFETCH_BATCHES
from acebert.data.cleaning import (
    BadRow,
    OnBadRow,
    find_bad_rows,
    find_photo_error,
    keep_first,
    prepare_columns,
    read_column,
    read_photos,
    read_texts,
)
from acebert.data.columns import Columns, column_kind
from acebert.encoding.encoder import Encoder, find_title_error, prepare
from acebert.image_processing_acebert import open_photo, to_upright_rgb
from acebert.utils.files import atomic_write
from acebert.utils.fingerprints import plan_sha256

logger = logging.get_logger(__name__)

WEB_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
Rows = Sequence[int] | slice | None  # all by default


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


# ----------------------------------------------------------------------------------------------------------------------
# The dataset
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A dataset of products, and which of its columns make a catalogue.

    Args:
        products: one row per product, in the forms of [`prepare_columns`].
        columns: the columns of the dataset that are used.
    """

    products: datasets.Dataset
    columns: Columns

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
        columns = Columns(id_column, title_column, image_column, attributes=list(attribute_columns or ()))
        for name in columns.names():
            if name not in dataset.column_names:
                raise ValueError(
                    f"The dataset has no column {name!r}: it has {dataset.column_names}. Name yours by id_column, "
                    "title_column, image_column and attribute_columns; None says that there is no title or no photo."
                )
        if title_column is None and image_column is None:
            raise ValueError("A product needs a title or a photo: name title_column, image_column or both.")
        if not len(dataset):
            raise ValueError("The dataset is empty: give one with at least one product.")
        if attribute_columns is None:
            others = [name for name in dataset.column_names if name not in columns.names()]
            columns.attributes = [name for name in others if column_kind(dataset.features[name]) is not None]
            left_out = [name for name in others if name not in columns.attributes]
            if left_out:
                logger.warning(f"Not taken as attributes, since they hold neither texts nor numbers: {left_out}.")
        for name in columns.attributes:
            if column_kind(dataset.features[name]) is None:
                raise ValueError(
                    f"The attribute column {name!r} holds {dataset.features[name]}: attributes are texts, numbers, "
                    "booleans or lists of texts. Name another column, or convert it by dataset.cast_column."
                )
            if name in RESERVED or '"' in name:
                raise ValueError(f"An attribute can't be named {name!r}: rename the column by dataset.rename_column.")
        return cls(prepare_columns(dataset, columns), columns)

    def kinds(self) -> dict[str, str]:
        """Each attribute's type."""
        return {name: str(column_kind(self.products.features[name])) for name in self.columns.attributes}

    def ids(self, rows: Rows = None) -> list[Any]:
        return read_column(self.products, self.columns.id, rows)

    def titles(self, rows: Rows = None) -> list[str | None]:
        return read_texts(self.products, self.columns.title, rows)

    def photos(self, rows: Sequence[int]) -> list[Any | None]:
        return read_photos(self.products, self.columns.image, rows)

    def attribute(self, name: str, rows: Rows = None) -> list[Any]:
        """Values of an attribute in its column's type, None for a missing one. Infinity stays, to be refused."""
        if column_kind(self.products.features[name]) == "string":
            return read_texts(self.products, name, rows)
        values = read_column(self.products, name, rows)
        return [None if isinstance(value, float) and math.isnan(value) else value for value in values]

    def find_bad_rows(self) -> list[BadRow]:
        """Rows that can't be used by the common rules, and those with an attribute that the catalogue can't keep.

        Each row is there once, with the first of its faults.
        """
        bad = find_bad_rows(self.products, self.columns, unique_ids=True)
        ids = self.ids()
        for name, kind in self.kinds().items():
            if kind in ("string", "boolean"):  # a column of these holds nothing else
                continue
            for row, value in enumerate(self.attribute(name)):
                try:
                    check_attributes({name: value}, {name: kind})
                except ValueError:
                    reason = f"must be {KINDS[kind]}, got {str(value)[:80]}: correct it, or give None for none"
                    bad.append(BadRow(row, ids[row], name, reason))
        return keep_first(bad)

    def plan_sha256(self, settings: Settings, rows: Sequence[int]) -> str:
        """Tells whether an unfinished build is of the same products, model and settings; photos are not looked at."""
        attributes = map(self.attribute, self.columns.attributes)
        return plan_sha256(vars(settings), len(rows), chain([self.ids(), self.titles()], attributes))


# ----------------------------------------------------------------------------------------------------------------------
# The catalogue's files
# ----------------------------------------------------------------------------------------------------------------------


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
            ids = self.source.ids(rows)
            for i, row in enumerate(rows):
                title = titles[i]
                if title is not None and (error := find_title_error(self.processor, title)):
                    bad.append(BadRow(row, ids[i], str(self.source.columns.title), error))
                    titles[i] = None
                if photos[i] is not None and (error := find_photo_error(photos[i])):
                    bad.append(BadRow(row, ids[i], str(self.source.columns.image), error))
                    photos[i] = None
            if not bad:
                raise
            left = [i for i in range(len(rows)) if titles[i] is not None or photos[i] is not None]
            rows, titles, photos = [rows[i] for i in left], [titles[i] for i in left], [photos[i] for i in left]
            kept = [keep_photo(photo, self.photo_size) for photo in photos]
            inputs = prepare(self.processor, titles, photos) if rows else {}
        return {"rows": rows, "titles": titles, "photos": kept, "bad": bad, "inputs": inputs}


def write_parts(
    encoder: Encoder,
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
    pool = PREFETCH_BATCHES * batch_size
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
        atomic_write(file.with_suffix(".bad.json"), json.dumps([asdict(row) for row in bad]))
    encoded = [batch["vectors"] for batch in batches if batch["rows"]]
    empty = np.empty((0, settings.dim), dtype=np.float32)
    products = Products(
        ids=source.ids(rows),
        titles=[title for batch in batches for title in batch["titles"]],
        photos=[photo for batch in batches for photo in batch["photos"]],
        attributes={name: source.attribute(name, rows) for name in source.columns.attributes},
        vectors={name: np.concatenate([empty, *(vectors[name] for vectors in encoded)]) for name in settings.vectors},
    )
    write_table(products.to_table(settings), file)
