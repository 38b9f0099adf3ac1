"""How products are written to Parquet files with their vectors: by all processes, resumable file by file."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import ProcessorMixin
from transformers.utils import logging

from acebert.catalog.source import Source
from acebert.catalog.store import PART_ROWS, Products, Settings, part_path, write_table
from acebert.data.batching import PREFETCH_BATCHES
from acebert.data.cleaning import BadRow, OnBadRow, as_photos, split_broken
from acebert.encoding.encoder import Encoder, find_title_error, prepare
from acebert.image_processing_acebert import open_photo, to_upright_rgb
from acebert.utils.files import atomic_write

logger = logging.get_logger(__name__)

WEB_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


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
            kept = [keep_photos(photo, self.photo_size) for photo in photos]
            inputs = prepare(self.processor, titles, photos)
        except Exception:  # Pillow's decoders raise errors of many kinds for broken files
            ids = self.source.ids(rows)
            for i, row in enumerate(rows):
                title = titles[i]
                if title is not None and (error := find_title_error(self.processor, title)):
                    bad.append(BadRow(row, ids[i], str(self.source.columns.title), error))
                    titles[i] = None
                photos[i], error = split_broken(photos[i])
                if error:
                    bad.append(BadRow(row, ids[i], str(self.source.columns.image), error))
            if not bad:
                raise
            left = [i for i in range(len(rows)) if titles[i] is not None or photos[i] is not None]
            rows, titles, photos = [rows[i] for i in left], [titles[i] for i in left], [photos[i] for i in left]
            kept = [keep_photos(photo, self.photo_size) for photo in photos]
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
        folder: gets `part-*.parquet`, and `part-*.bad.json` with the rows that were skipped or lost a photo.
        rows: of the source, to encode.
        batch_size: products in a forward pass; some of these are read at a time.
        num_workers: processes that read and cut photos, for each process.
        on_bad_row: "skip" keeps a product with a broken photo by its others or its title, or with a title that can't
            be read by its photo, and leaves out one that has nothing else.

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


def keep_photos(photos: Any | None, size: int) -> list[bytes]:
    """Image files to show a product by.

    Args:
        photos: anything that the processor reads, or a list of it; None for none.
        size: longest side in pixels; 0 keeps nothing. A file within it is kept as it is, a larger photo as a JPEG.
    """
    return [_keep_photo(photo, size) for photo in as_photos(photos)] if size else []


def _keep_photo(photo: Any, size: int) -> bytes:
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
