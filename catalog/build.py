"""How a catalogue is built from a dataset: by all processes, file by file, so that a stopped build can be resumed."""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import ProcessorMixin
from transformers.utils import logging

from acebert.catalog.source import Source
from acebert.catalog.store import PART_ROWS, Products, ProductStore, Settings, part_path, products_folder, write_table
from acebert.data.batching import PREFETCH_BATCHES
from acebert.data.cleaning import BadRow, OnBadRow, find_photo_error, write_bad_rows
from acebert.encoding.encoder import Encoder, find_title_error, prepare
from acebert.image_processing_acebert import open_photo, to_upright_rgb
from acebert.utils.files import atomic_write

logger = logging.get_logger(__name__)

WEB_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


# ----------------------------------------------------------------------------------------------------------------------
# The steps
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuildOptions:
    """What [`ProductCatalog.build`] is asked for; it documents each field.

    Raises:
        ValueError: for a value that can't be, naming it.
    """

    id_column: str
    title_column: str | None
    image_column: str | None
    attribute_columns: Sequence[str] | None
    sides: bool
    photo_size: int
    index: str
    batch_size: int
    num_workers: int
    on_bad_row: OnBadRow
    overwrite: bool

    def __post_init__(self) -> None:
        if self.on_bad_row not in ("raise", "skip"):
            raise ValueError(f"on_bad_row must be 'raise' or 'skip', got {self.on_bad_row!r}.")
        if not isinstance(self.index, str) or not (self.index in ("edge", "memory") or "://" in self.index):
            raise ValueError(f"index must be 'edge', 'memory' or a server's URL, got {self.index!r}.")
        for name, number, least in (("batch_size", self.batch_size, 1), ("photo_size", self.photo_size, 0)):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}.")


def build_catalog(encoder: Encoder, dataset: datasets.Dataset, path: Path, options: BuildOptions) -> bool:
    """Encodes a dataset's products into a catalogue's folder. Its index is made when the catalogue is loaded.

    Args:
        encoder: makes the vectors.
        dataset: one row per product.
        path: folder to make.
        options: see [`ProductCatalog.build`].

    Returns:
        Whether this process is the main one, which may open the catalogue.

    Raises:
        FileExistsError, ValueError: as [`ProductCatalog.build`].
    """
    state = PartialState()
    source = Source.of(
        dataset, options.id_column, options.title_column, options.image_column, options.attribute_columns
    )
    bad = source.find_bad_rows()
    if bad and options.on_bad_row == "raise":
        raise ValueError(f"{len(bad)} bad rows, the first is {bad[0]}. Or pass on_bad_row='skip'.")
    skipped = {row.row for row in bad}
    rows = [row for row in range(len(dataset)) if row not in skipped]
    if not rows:
        raise ValueError(f"None of the dataset's {len(dataset)} rows can be used, the first is {bad[0]}.")
    id_type: Literal["string", "integer"] = "string" if isinstance(source.ids()[rows[0]], str) else "integer"
    settings = Settings(
        encoder.describe(), encoder.dim, id_type, source.kinds(), options.sides, options.photo_size, options.index
    )
    folder = products_folder(path, 0)
    if state.is_main_process:
        _start_building(path, source.plan_sha256(settings, rows), options.overwrite)
        folder.mkdir(parents=True, exist_ok=True)
    state.wait_for_everyone()
    write_parts(encoder, source, settings, folder, rows, options.batch_size, options.num_workers, options.on_bad_row)
    if not state.is_main_process:
        return False
    for file in sorted(folder.glob("*.bad.json")):
        bad += [BadRow(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
        file.unlink()
    write_bad_rows(sorted(bad, key=lambda row: row.row), path / "bad_rows.jsonl")
    if bad:
        logger.warning(f"{len(bad)} bad rows are listed in {path / 'bad_rows.jsonl'}.")
    ProductStore.create(path, settings)
    (path / "building.json").unlink()
    return True


def _start_building(path: Path, plan: str, overwrite: bool) -> None:
    """Makes the folder ready: empty, or with the parts of the same unfinished catalogue."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose a folder for the catalogue.")
    if overwrite and path.exists():
        shutil.rmtree(path)
    if (path / "catalog.json").exists() and not (path / "building.json").exists():
        raise FileExistsError(f"{path} holds a catalogue: load it, or pass overwrite=True to build it anew.")
    if path.exists() and any(path.iterdir()) and not (path / "building.json").exists():
        raise FileExistsError(f"{path} is not empty: choose another folder, or pass overwrite=True to clear it.")
    path.mkdir(parents=True, exist_ok=True)
    file = path / "building.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8"))["plan"] != plan:
        raise FileExistsError(
            f"{path} holds an unfinished catalogue of other products, settings or weights: pass overwrite=True to "
            "start again."
        )
    atomic_write(file, json.dumps({"plan": plan}))


# ----------------------------------------------------------------------------------------------------------------------
# The products' files
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
