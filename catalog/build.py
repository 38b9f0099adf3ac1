"""How a catalogue is built: the order of the steps, what a stopped build leaves, and how the same call resumes it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
from accelerate import PartialState
from filelock import FileLock, Timeout
from transformers.utils import logging

from acebert.catalog.indexes.connection import ServerOptions, parse_address
from acebert.catalog.maintenance import index_folder, write_applied
from acebert.catalog.opening import open_index
from acebert.catalog.parts import write_parts
from acebert.catalog.server_index import ServerPlace, is_server
from acebert.catalog.source import Source
from acebert.catalog.store import ProductStore, Settings, products_folder
from acebert.data.cleaning import BadRow, OnBadRow, have_photos, refuse_most, write_bad_rows
from acebert.encoding.encoder import Encoder
from acebert.utils.files import atomic_write

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
    index_options: Mapping[str, Any]
    batch_size: int
    num_workers: int
    on_bad_row: OnBadRow
    overwrite: bool
    group_column: str | None
    max_images: int

    def __post_init__(self) -> None:
        if self.on_bad_row not in ("raise", "skip"):
            raise ValueError(f"on_bad_row must be 'raise' or 'skip', got {self.on_bad_row!r}.")
        if not isinstance(self.index, str) or not (self.index in ("edge", "memory") or "://" in self.index):
            raise ValueError(f"index must be 'edge', 'memory' or a server's URL, got {self.index!r}.")
        if self.index_options and not is_server(self.index):
            raise ValueError(f"index_options are for a server's index, and index is {self.index!r}.")
        if is_server(self.index):
            parse_address(self.index)
            ServerOptions.of(self.index_options)
        for name, least in (("batch_size", 1), ("photo_size", 0), ("max_images", 1)):
            if (number := getattr(self, name)) < least:
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
    attributes, group = options.attribute_columns, options.group_column
    if attributes is not None and group is not None and group not in attributes:
        attributes = [*attributes, group]
    columns = (options.id_column, options.title_column, options.image_column, attributes)
    source = Source.of(dataset, *columns, max_images=options.max_images)
    bad = source.find_bad_rows()
    if bad and options.on_bad_row == "raise":
        raise ValueError(f"{len(bad)} bad rows, the first is {bad[0]}. Or pass on_bad_row='skip'.")
    skipped = {row.row for row in bad}
    rows = [row for row in range(len(dataset)) if row not in skipped]
    if not rows:
        raise ValueError(f"None of the dataset's {len(dataset)} rows can be used, the first is {bad[0]}.")
    refuse_most(bad, len(dataset))
    id_type: Literal["string", "integer"] = "string" if isinstance(source.ids()[rows[0]], str) else "integer"
    settings = Settings(
        encoder.describe(),
        encoder.dim,
        id_type,
        source.kinds(),
        options.sides,
        options.photo_size,
        options.index,
        index_options=ServerOptions.of(options.index_options).to_keep(),
        group=check_group(group, source),
        max_images=source.max_images,
    )
    if state.is_main_process:
        finish_replacing(path)
    state.wait_for_everyone()
    # A catalogue stays as it is, and may be searched, until the one that replaces it is complete.
    replacing = options.overwrite and is_complete(path)
    target = _beside(path, "replacement") if replacing else path
    folder = products_folder(target, 0)
    old = _read_settings(path) if replacing else None
    with _lock(path) if replacing and state.is_main_process else nullcontext():
        if state.is_main_process:
            if is_server(options.index):
                place = ServerPlace(settings, options.index_options)
                begun = _read_settings(target) if replacing else None  # a stopped call may have the name already
                place.check_free(*(each.catalog_id for each in (old, begun) if each))
                place.server.close()
            _start_building(target, source.plan_sha256(settings, rows), options.overwrite, replacing)
            folder.mkdir(parents=True, exist_ok=True)
        state.wait_for_everyone()
        write_parts(
            encoder, source, settings, folder, rows, options.batch_size, options.num_workers, options.on_bad_row
        )
        if not state.is_main_process:
            return False
        lists = sorted(folder.glob("*.bad.json"))
        bad += [BadRow(**row) for file in lists for row in json.loads(file.read_text(encoding="utf-8"))]
        lost = [row for row in bad if row.field == options.image_column]
        refuse_most(lost, int(have_photos(source.products, options.image_column).sum()), "photos")
        write_bad_rows(sorted(bad, key=lambda row: row.row), target / "bad_rows.jsonl")
        for file in lists:
            file.unlink()
        if bad:
            logger.warning(f"{len(bad)} bad rows are listed in {path / 'bad_rows.jsonl'}.")
        if not (target / "catalog.json").exists():  # or a stopped call had come as far, and filled a collection
            ProductStore.create(target, settings)
        if replacing:
            _make_index(target, old, options.index_options)
        (target / "building.json").unlink()
        if replacing:
            finish_replacing(path)
            _remove_index(old, ProductStore(path).settings)
    return True


def check_group(name: str | None, source: Source) -> str | None:
    """The attribute that groups products.

    Raises:
        ValueError: if there is none of this name, or it has no single values.
    """
    kinds = source.kinds()
    if name is not None and kinds.get(name) not in ("string", "integer"):
        raise ValueError(
            f"group_column is {name!r}, which is {kinds.get(name, 'none of the attributes')}: name an attribute of "
            f"texts or whole numbers, of {[each for each, kind in kinds.items() if kind in ('string', 'integer')]}."
        )
    return name


def is_complete(path: Path) -> bool:
    """Whether a folder holds a whole catalogue, though perhaps without its index."""
    return (path / "catalog.json").exists() and not (path / "building.json").exists()


def finish_replacing(path: Path) -> None:
    """Puts a complete replacement in its catalogue's place, if there is one: also one that a kill left beside it."""
    replacement, replaced = _beside(path, "replacement"), _beside(path, "replaced")
    if is_complete(replacement):
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        replacement.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def _beside(path: Path, what: str) -> Path:
    path = path.resolve()
    return path.with_name(f"{path.name}.{what}")


def _lock(path: Path) -> FileLock:
    """Keeps a catalogue from being changed: changes of the old one would be lost."""
    lock = FileLock(path / "lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(
            f"Another process has {path} open for changes: close it there before replacing it."
        ) from None
    lock.release()
    return lock


def _read_settings(path: Path) -> Settings | None:
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):  # another format is replaced all the same
        return ProductStore(path).settings
    return None


def _make_index(path: Path, old: Settings | None, options: Mapping[str, Any]) -> None:
    """Makes the replacement's index, and has a server's name stand for it."""
    store = ProductStore(path)
    if store.settings.index == "memory":
        return
    index, applied = open_index(store, False, options, replaces=old.catalog_id if old else None)
    index.flush()
    index.close()
    write_applied(index_folder(path, store.settings.generation), applied)


def _remove_index(old: Settings | None, new: Settings) -> None:
    """Removes the collection of a catalogue that was replaced."""
    if old is not None and is_server(old.index) and old.catalog_id:
        place = ServerPlace(old)
        place.remove()
        place.server.close()


def _start_building(path: Path, plan: str, overwrite: bool, replacing: bool) -> None:
    """Makes the folder ready: empty, or with the parts of the same unfinished catalogue."""
    file = path / "building.json"
    same = file.exists() and json.loads(file.read_text(encoding="utf-8"))["plan"] == plan
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose a folder for the catalogue.")
    if overwrite and path.exists() and not (replacing and same):
        shutil.rmtree(path)
        same = False
    if is_complete(path):
        raise FileExistsError(f"{path} holds a catalogue: load it, or pass overwrite=True to build it anew.")
    if path.exists() and any(path.iterdir()) and not file.exists():
        raise FileExistsError(f"{path} is not empty: choose another folder, or pass overwrite=True to clear it.")
    path.mkdir(parents=True, exist_ok=True)
    if file.exists() and not same:
        raise FileExistsError(
            f"{path} holds an unfinished catalogue of other products, settings or weights: pass overwrite=True to "
            "start again."
        )
    atomic_write(file, json.dumps({"plan": plan}))
