"""A catalogue's place on a Qdrant server: whose a collection is, and which collection a name stands for.

A catalogue has a collection of its own, `<name>-<the start of its id>`, and the name of the URL is an alias of it. So a
new catalogue can be filled beside the one in use, which the alias leaves from one moment to the next; and who has the
old one open goes on with it. The collection's metadata say which catalogue it belongs to, by which model and with which
attributes.
"""

from collections.abc import Mapping
from typing import Any

from transformers.utils import logging

from acebert.catalog.indexes.connection import IndexUnavailableError, Server, ServerOptions, parse_address
from acebert.catalog.indexes.server import ServerIndex
from acebert.catalog.maintenance import index_schema
from acebert.catalog.store import Settings

logger = logging.get_logger(__name__)

COLLECTION_FORMAT = 1  # of what a collection holds


def is_server(index: str) -> bool:
    """Whether an index is named by a server's URL."""
    return "://" in index


class ServerPlace:
    """Where a catalogue's index is, or is to be.

    Args:
        settings: of the catalogue; it must have its id.
        options: of [`ServerOptions`], on top of the catalogue's own: timeouts and the key of this process.
        server: one that is spoken to already.
    """

    def __init__(self, settings: Settings, options: Mapping[str, Any] | None = None, server: Server | None = None):
        self.settings = settings
        self.address = parse_address(settings.index)
        self.server = server or Server(
            self.address.urls, ServerOptions.of({**settings.index_options, **(options or {})})
        )

    @property
    def alias(self) -> str:
        return self.address.collection

    @property
    def collection(self) -> str:
        return own_collection(self.alias, self.settings.catalog_id)

    @property
    def owner(self) -> dict[str, Any]:
        """What the collection's metadata say."""
        settings = self.settings
        return {
            "catalog": settings.catalog_id,
            "product_weights_sha256": settings.model["product_weights_sha256"],
            "processor_sha256": settings.model["processor_sha256"],
            "dim": settings.dim,
            "sides": settings.sides,
            "attributes": dict(settings.attributes),
            "format": COLLECTION_FORMAT,
        }

    def check_free(self, *replaces: str | None) -> None:
        """Whether the alias can be this catalogue's. Nothing is changed.

        Args:
            replaces: ids of catalogues that this one replaces.

        Raises:
            FileExistsError: it stands for another catalogue's collection, or is a collection itself.
            IndexUnavailableError, PermissionError, RuntimeError: as [`Server.check`].
        """
        self.server.check()
        if self.is_free(*replaces):
            return
        found = self.server.find(self.alias)
        whose = "it is a collection that no catalogue made" if found == self.alias else f"it stands for {found!r}"
        raise FileExistsError(
            f"The name {self.alias!r} on {', '.join(self.server.urls)} belongs to another: {whose}. Choose another "
            "name in the URL, or have it moved by `acebert move-index --overwrite_index`."
        )

    def is_free(self, *replaces: str | None) -> bool:
        """Whether the alias stands for nothing, for this catalogue, or for one that it replaces."""
        found = self.server.find(self.alias)
        ours = [own_collection(self.alias, each) for each in (self.settings.catalog_id, *replaces) if each]
        return found is None or found in ours

    def open(self) -> ServerIndex | None:
        """The catalogue's collection, None where there is none.

        Raises:
            ValueError: it isn't what the catalogue needs; what differs is named.
        """
        return ServerIndex.find(self.server, self.collection, index_schema(self.settings), self.owner)

    def make(self) -> ServerIndex:
        """A new, empty collection, instead of one that is there."""
        if self.server.find(self.collection) is not None:
            self.server.drop(self.collection)
        settings = self.settings
        return ServerIndex.make(
            self.server, self.collection, settings.dim, index_schema(settings), settings.sides, self.owner
        )

    def take_alias(self) -> None:
        """Has the alias stand for this catalogue's collection from now on.

        Raises:
            FileExistsError: a collection itself has that name.
        """
        found = self.server.find(self.alias)
        if found == self.alias:
            raise FileExistsError(
                f"{self.alias!r} on {', '.join(self.server.urls)} is a collection itself, so it can't stand for "
                f"{self.collection!r}: remove that collection, or choose another name."
            )
        if found != self.collection:
            self.server.set_alias(self.alias, self.collection)

    def remove(self) -> None:
        """Removes the collection, and the alias if it stands for it. A server that is down only costs a warning."""
        try:
            self.server.drop(self.collection)
        except IndexUnavailableError as error:
            logger.warning(f"The collection {self.collection!r} is left over, remove it by hand: {error}")


def own_collection(alias: str, catalog_id: str) -> str:
    return f"{alias}-{catalog_id[:12]}"
