"""How a catalogue is built: the order of the steps, what a stopped build leaves, and how the same call resumes it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
from accelerate import PartialState
from transformers.utils import logging

from acebert.catalog.build import Source, plan_sha256, write_parts
from acebert.catalog.store import ProductStore, Settings, products_folder
from acebert.data.cleaning import BadRow, OnBadRow, write_bad_rows
from acebert.encoding.encoder import ProductEncoder

logger = logging.get_logger(__name__)


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


def build_catalog(encoder: ProductEncoder, dataset: datasets.Dataset, path: Path, options: BuildOptions) -> bool:
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
        _start_building(path, plan_sha256(source, settings, rows), options.overwrite)
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
    file.write_text(json.dumps({"plan": plan}), encoding="utf-8")
