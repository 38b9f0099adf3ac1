"""A catalogue's index moves: between the embedded index and a server, or between servers, without encoding anything."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from acebert.catalog.indexes.connection import ServerOptions
from acebert.catalog.maintenance import (
    fill_index,
    index_folder,
    make_edge_index,
    needs_graph,
    read_applied,
    run_child,
    write_applied,
)
from acebert.catalog.server_index import ServerPlace, is_server
from acebert.catalog.store import ProductStore, Settings


def move_index(
    path: Path,
    index: str,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    keep_old: bool = False,
) -> int:
    """Makes a catalogue's index elsewhere from its files, then has the catalogue use it.

    Stopped at any moment, the catalogue uses the old index or the new one, and the same call goes on.

    Args:
        path: folder of a catalogue that nobody has open for changes.
        index: "edge", "memory", or the URL of a name on a Qdrant server.
        options: of a server's index, see `ServerOptions`.
        overwrite: take the name on the server from the catalogue that has it, once this one's collection is filled. The
            other catalogue's collection stays, and so do searches of it.
        keep_old: leave the old collection on its server, for processes that search it still.

    Returns:
        The number of products of the generation that was indexed; changes since are applied by the next load.

    Raises:
        FileExistsError: the name on the server is another's, and `overwrite` isn't given.
        FileNotFoundError: the folder holds no catalogue.
        IndexUnavailableError, PermissionError: the server can't be reached, or wants a key.
        RuntimeError: another process has the catalogue open for changes.
        ValueError: for a wrong index or option.
    """
    if index not in ("edge", "memory") and not is_server(index):
        raise ValueError(f"index must be 'edge', 'memory' or a server's URL, got {index!r}.")
    if options and not is_server(index):
        raise ValueError(f"index_options are for a server's index, and index is {index!r}.")
    store = ProductStore(path)
    lock = FileLock(path / "lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(f"Another process has {path} open for changes: close it there first.") from None
    try:
        if not store.settings.catalog_id:
            store.set_index(store.settings.index, store.settings.index_options)
        old, generation = store.settings, store.settings.generation
        folder = index_folder(path, generation)
        if is_server(index):
            _fill_server(store, index, options, overwrite)
            if read_applied(folder) is not None:
                write_applied(folder, old.merged)  # before the switch, for the new index has no change since
            store.set_index(index, ServerOptions.of(options).to_keep())
            shutil.rmtree(folder.parent, ignore_errors=True)
            write_applied(folder, old.merged)
        elif index == "edge":
            if needs_graph(store, generation):
                run_child(path, generation, old.merged, "edge")
            else:
                make_edge_index(store, generation, old.merged)
            store.set_index(index, {})
        else:
            store.set_index(index, {})
            shutil.rmtree(folder.parent, ignore_errors=True)
        if is_server(old.index) and not keep_old:
            _remove_old(old, store.settings)
        return store.count(generation)
    finally:
        lock.release()


def _fill_server(store: ProductStore, index: str, options: Mapping[str, Any] | None, overwrite: bool) -> None:
    place = ServerPlace(replace(store.settings, index=index, index_options={}), options)
    try:
        if overwrite:
            place.server.check()
        else:
            place.check_free()
        filled = place.make()
        if place.server.find(place.alias) is None:
            place.take_alias()  # so that nobody else takes it meanwhile
        fill_index(filled, store, store.settings.generation)
        place.take_alias()
        filled.close()
    finally:
        place.server.close()


def _remove_old(old: Settings, new: Settings) -> None:
    before = ServerPlace(old)
    if is_server(new.index):
        after = ServerPlace(new)
        if (before.server.urls, before.collection) == (after.server.urls, after.collection):
            return
    before.remove()
    before.server.close()
