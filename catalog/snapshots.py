"""Backups of a catalogue: its files as they are at one moment, and on request the server's own snapshot of its index.

The files are all that is needed: a catalogue is restored by copying them to its place and loading it, which fills the
index again. The server's snapshot only saves that time. A cluster takes one on each node, of the parts that lie there:
there the files alone are the backup.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acebert.catalog.calibration import FILE as CALIBRATION
from acebert.catalog.maintenance import UNFILLED, index_folder, read_applied, write_applied
from acebert.catalog.server_index import ServerPlace, is_server
from acebert.catalog.store import ProductStore

ATTEMPTS = 3  # of a copy during which the catalogue was optimized
SNAPSHOT = "index.snapshot"


def save_snapshot(
    path: Path, output_dir: Path, with_index: bool = False, options: Mapping[str, Any] | None = None
) -> int:
    """Copies a catalogue's files, while it may be searched and changed.

    Args:
        path: folder of the catalogue.
        output_dir: folder to make. It is there whole or not at all.
        with_index: also download a snapshot of the collection, as `index.snapshot`.
        options: for the server, see `ServerOptions`.

    Returns:
        The number of changes in it beyond the merged products.

    Raises:
        FileExistsError: `output_dir` is there.
        FileNotFoundError: `path` holds no catalogue.
        RuntimeError: the catalogue was optimized each time that it was copied.
        ValueError: `with_index`, and the index is on no server, or isn't filled yet.
    """
    if output_dir.exists():
        raise FileExistsError(f"{output_dir} is there already: choose another folder.")
    if with_index and not is_server(ProductStore(path).settings.index):
        raise ValueError("Only a server makes snapshots of its index; an embedded one is made again from the files.")
    unfinished = output_dir.with_name(output_dir.name + ".unfinished")
    for _ in range(ATTEMPTS):
        shutil.rmtree(unfinished, ignore_errors=True)
        store = ProductStore(path)
        try:
            _copy(store, unfinished)
            break
        except FileNotFoundError:  # merged and removed since it was listed
            continue
    else:
        raise RuntimeError(f"{path} was optimized each of the {ATTEMPTS} times that it was copied: try again.")
    if with_index:
        # Asked before: the collection has these changes, and perhaps more, which the next load applies again.
        applied = read_applied(index_folder(path, store.settings.generation))
        if applied in (None, UNFILLED):
            raise ValueError(f"The index of {path} isn't filled yet: load the catalogue first.")
        _download(ServerPlace(store.settings, options), unfinished / SNAPSHOT)
        write_applied(index_folder(unfinished, store.settings.generation), min(applied, store.last_change))
    os.replace(unfinished, output_dir)
    return store.last_change - store.settings.merged


def _copy(store: ProductStore, folder: Path) -> None:
    changes = [file for _, file in store.changes(store.settings.merged)]
    files = [*store.parts(), *changes, *(store.path / name for name in ("catalog.json", "README.md"))]
    (folder / "changes").mkdir(parents=True)
    for file in files:
        target = folder / file.relative_to(store.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for name in ("bad_rows.jsonl", CALIBRATION):
        if (store.path / name).exists():
            shutil.copyfile(store.path / name, folder / name)
    copied = ProductStore(folder).settings
    if copied != store.settings:
        raise FileNotFoundError("another generation counts by now")


def _download(place: ServerPlace, file: Path) -> None:
    server, collection = place.server, place.collection
    try:
        made = server.call(
            f"make a snapshot of {collection!r}", lambda client: client.create_snapshot(collection, wait=True)
        )
        try:
            server.download(f"/collections/{collection}/snapshots/{made.name}", file)
        finally:
            server.call("remove a snapshot", lambda client: client.delete_snapshot(collection, made.name))
    finally:
        server.close()
