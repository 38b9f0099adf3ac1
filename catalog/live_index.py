"""A catalogue's index, kept in step with its files while threads and processes change them.

A change is first in the files, then in the index, then done. Whatever stops a process in between, the next start, the
next change or the server's return brings into the index what only the files have.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from filelock import FileLock, Timeout
from transformers.utils import logging

from acebert.catalog.indexes.base import CatalogIndex
from acebert.catalog.indexes.connection import IndexUnavailableError
from acebert.catalog.indexes.edge import EdgeIndex
from acebert.catalog.indexes.memory import MemoryIndex
from acebert.catalog.indexes.server import ServerIndex
from acebert.catalog.maintenance import (
    UNFILLED,
    apply_change,
    fill_index,
    index_folder,
    index_schema,
    read_applied,
    run_child,
    write_applied,
)
from acebert.catalog.opening import find_miscount, open_index, refill
from acebert.catalog.server_index import is_server
from acebert.catalog.store import ProductStore

logger = logging.get_logger(__name__)

FLUSH_EVERY = 256  # changes between two flushes of the index: what a start after a kill has to apply again
SHARED_WAIT = 10.0  # seconds that a change waits for those of other processes
CATCH_UP_EVERY = 0.5  # seconds between looks whether a server is back
UNREACHABLE = (IndexUnavailableError, PermissionError)  # what a server's index raises until somebody mends it


class ChangeKeptError(IndexUnavailableError):
    """A change is on the disk, but not in the index: its server can't be reached. It must not be repeated."""


class CatalogBusyError(RuntimeError):
    """Another process keeps a shared catalogue from being changed. The change may be tried again."""


class LiveIndex:
    """The index of a catalogue's files, and who may change them when.

    Args:
        store: the files.
        lock: of the catalogue's folder; None for one that is read only. Held while the catalogue is open or, where
            processes share it, during a change.
        shared: whether other processes change the catalogue, too.
        on_change: called when the index has taken a change.
    """

    def __init__(self, store: ProductStore, lock: FileLock | None, shared: bool, on_change: Callable[[], None]):
        self.store, self._lock, self._shared, self._on_change = store, lock, shared, on_change
        self._index: CatalogIndex | None = MemoryIndex(index_schema(store.settings))  # until `open`
        self._changing = threading.Lock()
        self._turn = threading.Lock()  # of a thread to have the lock that processes share
        self._optimizing = threading.Lock()
        self._applied = self._flushed = store.settings.merged  # changes that the index has, and has on the disk
        self._filled = True  # False while a server's index is filled again
        self._closing = threading.Event()
        self._catching: threading.Thread | None = None  # applies changes that a server missed

    @property
    def index(self) -> CatalogIndex:
        """The index as it is now; an optimisation puts another in its place.

        Raises:
            RuntimeError: after `close`.
        """
        if self._index is None:
            raise RuntimeError(f"The catalogue {self.store.path} is closed: load it again.")
        return self._index

    def open(self, options: Mapping[str, Any] | None) -> None:
        """Opens the index, and brings into it what only the files have.

        Args:
            options: of this process for a server's index.
        """
        read_only = self._lock is None or self._shared
        self._index, self._applied = open_index(self.store, read_only, options)
        self._flushed = self._applied
        if read_only and is_server(self.store.settings.index):
            return  # the collection is its writer's to change
        self.apply()
        if read_only:
            return
        wrong = find_miscount(self.index, self.store)
        if wrong is not None:
            logger.warning(f"{wrong}: it is filled again.")
            assert isinstance(self.index, ServerIndex), "other indexes aren't counted"
            self._index, self._applied = refill(self.index, self.store)
            self.apply()
        self.flush()

    def abandon(self) -> None:
        """Closes what failed to open, and no more: a flush would mark as applied what the index may lack."""
        self.index.close()
        self._index = None
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Flushes, and gives the folder free for other processes."""
        self._closing.set()
        with self._changing:
            if self._index is None:
                return
            if self._lock is not None:
                if not self._shared:
                    self._flush()
                self._lock.release()
            self._index.close()
            self._index = None

    def optimize(self) -> None:
        """Merges all changes into the products' files and makes the index anew, beyond 300,000 products by HNSW.

        A child process does the work, since the engine's optimizer stops every thread of its own. Searches and changes
        go on meanwhile; at the end changes wait until the new index has taken those made in between.

        Raises:
            RuntimeError: if it runs already, or the child fails; the catalogue is then as before.
        """
        self.check_writable()
        if self._shared:
            raise RuntimeError(
                "A shared catalogue can't be optimized: close it everywhere, and open it in one process."
            )
        if not self._optimizing.acquire(blocking=False):
            raise RuntimeError("The catalogue is being optimized already.")
        try:
            self._optimize()
        finally:
            self._optimizing.release()

    def _optimize(self) -> None:
        store, settings = self.store, self.store.settings
        with self._changing:
            upto, generation = store.last_change, settings.generation + 1
        run_child(store.path, generation, upto)
        with self._changing:
            if settings.index == "edge":
                index = EdgeIndex.open(index_folder(store.path, generation), index_schema(settings))
            elif settings.index == "memory":
                index = MemoryIndex(index_schema(settings))
                fill_index(index, store, generation)
            else:
                # A server keeps its one collection: the products only learn where their photos lie now. A kill in
                # between has the next start do it again.
                index = self.index
                self._filled = False
                write_applied(index_folder(store.path, settings.generation), UNFILLED)
                fill_index(index, store, generation)
                write_applied(index_folder(store.path, generation), upto)
            for _, file in store.changes(upto):
                apply_change(index, store, file)
            self._index = index  # a search that still has the old one keeps it alive
            self._applied, self._filled = store.last_change, True
            store.switch(generation, upto)
            self._flush()
            for folder in (store.path / "index").glob("*"):
                if folder != index_folder(store.path, generation):
                    shutil.rmtree(folder, ignore_errors=True)

    def flush(self) -> None:
        """Writes the index out, so that the next start after a kill is as quick as after a close."""
        self.check_writable()
        with self._changing:
            self._flush()

    def _flush(self) -> None:
        self.index.flush()
        self._flushed = self._applied
        if not isinstance(self.index, MemoryIndex):
            applied = self._applied if self._filled else UNFILLED
            write_applied(index_folder(self.store.path, self.store.settings.generation), applied)

    def apply(self) -> None:
        """Brings into the index what only the files have: the newest change, and any that failed to get there."""
        for number, file in self.store.changes(self._applied):
            apply_change(self.index, self.store, file)
            self._applied = number
            self._on_change()
        if self._lock is not None and self._applied - self._flushed >= (1 if self._shared else FLUSH_EVERY):
            self._flush()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else changes the catalogue meanwhile: no other thread, and no other process that shares it."""
        if self._lock is None or not self._shared:
            with self._changing:
                yield
            return
        with self._turn:  # not `_changing`, for which searches wait that see another process's changes
            try:
                self._lock.acquire()
            except Timeout:
                raise CatalogBusyError(
                    f"Another process has kept {self.store.path} from being changed for {SHARED_WAIT:g} s: close it "
                    "there, or try again."
                ) from None
            try:
                with self._changing:
                    self._see_changes()
                    yield
            finally:
                self._lock.release()

    def refresh(self) -> None:
        """Brings into a shared catalogue what other processes have changed; with nothing changed it takes microseconds.

        The next search then sees every change that had returned anywhere. On a server it does without being called.
        """
        if not self._shared or is_server(self.store.settings.index):
            return
        # A change that another thread is about to apply counts as not seen yet.
        if self._applied < self.store.last_change or self.store.is_behind():
            with self._changing:
                self._see_changes()

    def _see_changes(self) -> None:
        """What other processes have done since the last look: changes, and a merge while nobody shared it."""
        store = self.store.look_again()
        if is_server(store.settings.index):
            applied = read_applied(index_folder(store.path, store.settings.generation))
            if applied is None or applied == UNFILLED:
                raise RuntimeError(f"The index of {self.store.path} isn't filled yet: load it in one process first.")
            self.store, self._applied = store, applied
        elif store is not self.store:
            index = MemoryIndex(index_schema(store.settings))
            fill_index(index, store, store.settings.generation)
            self.store, self._index = store, index
            self._applied = self._flushed = store.settings.merged
        self.apply()

    def apply_kept(self) -> None:
        """Applies changes of which the newest was just kept; if the server can't be reached, as soon as it can be."""
        try:
            self.apply()
        except UNREACHABLE as error:
            if self._catching is None or not self._catching.is_alive():
                self._catching = threading.Thread(target=self._catch_up, name="catalog-catch-up", daemon=True)
                self._catching.start()
            waiting = self.store.last_change - self._applied
            raise ChangeKeptError(
                f"The change is kept in {self.store.path}, the {waiting}. of those that wait for the index: it will be "
                f"found as soon as the server answers again, or at the next load. Don't repeat it. {error}"
            ) from error

    def _catch_up(self) -> None:
        while not self._closing.wait(CATCH_UP_EVERY):
            index = self._index
            if not isinstance(index, ServerIndex) or not index.is_up():
                continue
            # It is down again, or another process is busy with the catalogue.
            with suppress(*UNREACHABLE, CatalogBusyError), self.alone():
                if self._index is not None:
                    self.apply()
                    return

    def check_writable(self) -> None:
        if self._lock is None or self._index is None or not (self._shared or self._lock.is_locked):
            raise RuntimeError(f"The catalogue {self.store.path} is open read-only, or closed: load it to change it.")
