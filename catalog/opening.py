"""How a catalogue's index is opened: made or filled where it is missing, and checked against the catalogue's files."""

from collections.abc import Mapping
from typing import Any

from transformers.utils import logging

from acebert.catalog.indexes.base import CatalogIndex
from acebert.catalog.indexes.edge import EdgeIndex
from acebert.catalog.indexes.memory import MemoryIndex
from acebert.catalog.indexes.server import ServerIndex
from acebert.catalog.maintenance import (
    UNFILLED,
    fill_index,
    index_folder,
    index_schema,
    make_edge_index,
    needs_graph,
    read_applied,
    run_child,
    write_applied,
)
from acebert.catalog.server_index import ServerPlace, is_server
from acebert.catalog.store import ProductStore

logger = logging.get_logger(__name__)


def open_index(
    store: ProductStore, read_only: bool, options: Mapping[str, Any] | None = None, replaces: str | None = None
) -> tuple[CatalogIndex, int]:
    """Opens a catalogue's index.

    Args:
        store: of the catalogue.
        read_only: change nothing, on the disk or on a server.
        options: of this process for a server's index, see `ServerOptions`.
        replaces: id of a catalogue whose name on the server this one takes over.

    Returns:
        The index, and the number of the last change that it has for certain.

    Raises:
        IndexUnavailableError, PermissionError: the server can't be reached, or wants a key.
        ValueError: the index isn't this catalogue's, or doesn't exist and `read_only` forbids to make it.
    """
    settings = store.settings
    if is_server(settings.index):
        return _open_server_index(store, read_only, options, replaces)
    if options:
        raise ValueError(f"index_options are for a server's index, and this catalogue's is {settings.index!r}.")
    if settings.index == "memory" or read_only:
        index = MemoryIndex(index_schema(settings))
        fill_index(index, store, settings.generation)
        return index, settings.merged
    folder = index_folder(store.path, settings.generation)
    if read_applied(folder) in (None, UNFILLED):
        if needs_graph(store, settings.generation):
            run_child(store.path, settings.generation, settings.merged)
        else:
            make_edge_index(store, settings.generation, settings.merged)
    applied = read_applied(folder)
    assert applied is not None, "an index that was made says what it holds"
    return EdgeIndex.open(folder, index_schema(settings)), applied


def _open_server_index(
    store: ProductStore, read_only: bool, options: Mapping[str, Any] | None, replaces: str | None
) -> tuple[ServerIndex, int]:
    settings = store.settings
    if not settings.catalog_id and not read_only:  # built before catalogues had ids
        store.set_index(settings.index, settings.index_options)
    place = ServerPlace(store.settings, options)
    try:
        place.server.check()
        folder = index_folder(store.path, settings.generation)
        applied = read_applied(folder)
        index = place.open() if store.settings.catalog_id else None
        if read_only:
            if index is None or applied in (None, UNFILLED):
                raise ValueError(f"{settings.index} lacks this catalogue still: load it without read_only first.")
            return index, applied
        if index is not None and applied not in (None, UNFILLED):
            return index, applied
        if applied is None:
            place.check_free(replaces)
        elif index is None:
            logger.warning(
                f"{', '.join(place.server.urls)} has no collection {place.collection!r}, though this catalogue filled "
                f"it: it lost its disk, or the collection was removed. It is filled again from {store.path}."
            )
        if index is None or applied is None:  # one that was being filled goes on: products are written by their keys
            index = place.make()
            write_applied(folder, UNFILLED)
            if place.server.find(place.alias) is None:
                place.take_alias()  # so that nobody else takes it meanwhile
        fill_index(index, store, settings.generation)
        if place.is_free(replaces):  # else it was moved on to another catalogue, after this one was made
            place.take_alias()
        return index, settings.merged
    except BaseException:
        place.server.close()
        raise


def find_miscount(index: CatalogIndex, store: ProductStore) -> str | None:
    """What is wrong with a server's index that has all changes, if it lost products or was restored from elsewhere."""
    if not isinstance(index, ServerIndex):
        return None
    has, wanted = index.count(), store.count_products()
    return None if has == wanted else f"{index.collection!r} has {has} products, and {store.path} {wanted}"


def refill(index: ServerIndex, store: ProductStore) -> tuple[ServerIndex, int]:
    """Makes a server's index again, by the same connection.

    Returns:
        As [`open_index`].
    """
    write_applied(index_folder(store.path, store.settings.generation), UNFILLED)
    place = ServerPlace(store.settings, server=index.server)
    fresh = place.make()
    if place.is_free():
        place.take_alias()
    fill_index(fresh, store, store.settings.generation)
    return fresh, store.settings.merged
