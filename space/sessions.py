"""Catalogues that users bring: each is its user's alone, and is removed when they leave."""

import json
import os
import secrets
import shutil
import tempfile
import threading
import weakref
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from gradio.utils import get_upload_folder
from transformers import PreTrainedModel, ProcessorMixin

from acebert.catalog.product_catalog import ProductCatalog
from acebert.data.exports import GROUP
from acebert.data.tables import RowProblem
from acebert.space.guard import remove_upload
from acebert.space.uploads import Upload, open_upload
from acebert.space.uploads.columns import UploadColumns
from acebert.space.uploads.limits import MB, Limits
from acebert.space.uploads.products import read_products

# Two cores encode a few dozen products a second.
LIMITS = Limits(rows=5_000, table_bytes=64 * MB, zip_bytes=256 * MB, unpacked_bytes=512 * MB)
MOST_SESSIONS = 8
IDLE_SECONDS = 60 * 60
GRACE_SECONDS = 5 * 60
NOTHING_DROPPED = "Drop a catalogue first. One that isn't used for an hour is removed."
REMOVED = "The page was closed and its catalogue removed: drop it again."


@dataclass
class Session:
    """What one user brought.

    Args:
        folder: all that is kept of it on the disk.
        upload: what was dropped last.
        catalog: what was made searchable last.
        lock: held while the session changes.
        timer: ends the session.
        files: as they were uploaded, and the archives to download.
        archive: the one that was made last; those before are gone.
    """

    folder: Path
    upload: Upload | None = None
    catalog: ProductCatalog | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    timer: threading.Timer | None = None
    files: set[Path] = field(default_factory=set)
    archive: Path | None = None


class Sessions:
    """Users' catalogues, by session, in folders with random names.

    A session ends when it was not used for a while. Once its page is closed it ends sooner, but not at once: a phone
    that goes to sleep, or loses its connection for a moment, looks the same as a page that was closed.

    `gr.State(time_to_live=, delete_callback=)` can't promise that
    (https://github.com/gradio-app/gradio/blob/gradio@6.31.0/gradio/state_holder.py): its time counts from the last
    change and not from the last use, after the page was closed it is an hour whatever was asked for, it isn't set back
    when the page comes back, and the state that is evicted when there are too many sessions is dropped without a call.

    Args:
        model: an `AceBertModel`.
        processor: the model's.
        limits: how much is taken from one user.
        most: sessions at a time.
        idle_seconds: after the last use.
        grace_seconds: after the page was closed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        limits: Limits = LIMITS,
        most: int = MOST_SESSIONS,
        idle_seconds: float = IDLE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.model, self.processor, self.limits, self.most = model, processor, limits, most
        self.idle_seconds, self.grace_seconds = idle_seconds, grace_seconds
        # Not in the Space's cache, which may be on storage that outlives the Space.
        self._root = Path(tempfile.mkdtemp(prefix="acebert-own-"))
        weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)  # with these sessions, or the process
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, key: str, table: str | None, photos: str | None, dataset: str | None) -> Upload:
        """Opens what a user dropped, in place of what they dropped before.

        Raises:
            ValueError: with a message for the user, where it can't be read or there are too many users.
        """
        session = self._find_or_start(key)
        with session.lock:
            folder = session.folder / secrets.token_urlsafe(16)
            table_file, photos_file = (Path(path) if path else None for path in (table, photos))
            try:
                upload = open_upload(table_file, photos_file, dataset, folder, self.limits)
            except (ValueError, FileNotFoundError) as error:
                if session.upload is None:
                    self.end(key)
                if isinstance(error, FileNotFoundError):
                    raise ValueError("What was dropped is removed after an hour: drop it again.") from error
                raise
            session.files.update(file for file in (table_file, photos_file) if file)
            if session.upload is not None:
                session.upload.close()
                shutil.rmtree(session.upload.folder, ignore_errors=True)
            session.upload = upload
        return upload

    def build(self, key: str, columns: UploadColumns) -> list[RowProblem]:
        """Makes the user's upload searchable, in place of what was before.

        Returns:
            All rows that could not be used, or not wholly, in order.

        Raises:
            ValueError: with a message for the user.
        """
        session = self._find(key)
        if session is None:
            raise ValueError(NOTHING_DROPPED)
        with session.lock:
            catalog: ProductCatalog | None = None
            bad_rows: list[RowProblem] = []
            error: Exception | None = None
            try:
                catalog, bad_rows = self._build(session, columns)
            except Exception as reason:  # whatever it is where the folder was removed meanwhile
                error = reason
            with self._lock:
                ended = self._sessions.get(key) is not session
                if catalog is not None and not ended:
                    catalog, session.catalog = session.catalog, catalog
            if catalog is not None:  # the one before, or one that came too late
                catalog.close()
                shutil.rmtree(catalog.path, ignore_errors=True)
            if ended:
                shutil.rmtree(session.folder, ignore_errors=True)
                raise ValueError(REMOVED) from error
            if error is not None:
                raise error
        self._find(key)  # a long build is a use, too
        return bad_rows

    def _build(self, session: Session, columns: UploadColumns) -> tuple[ProductCatalog, list[RowProblem]]:
        upload = session.upload
        if upload is None:
            raise ValueError(NOTHING_DROPPED)
        products, bad_rows = read_products(upload, columns)
        if not len(products):
            raise ValueError(f"No row can be used. Row {bad_rows[0].row}: {bad_rows[0].reason}.")
        catalog = ProductCatalog.build(
            self.model,
            self.processor,
            products,
            session.folder / secrets.token_urlsafe(16),
            attribute_columns=list(columns.attributes),
            sides=False,  # half the time
            index="memory",  # nothing to write, and at this size as quick
            on_bad_row="skip",
            group_column=GROUP if GROUP in columns.attributes else None,
        )
        assert catalog is not None  # as it is to all but the first of several processes
        for file in products.cache_files:
            os.unlink(file["filename"])
        ids = upload.texts[columns.id] if columns.id else map(str, upload.rows)
        rows = dict(zip(reversed(list(ids)), reversed(upload.rows), strict=True))  # of an id's first row
        for line in (catalog.path / "bad_rows.jsonl").read_text(encoding="utf-8").splitlines():
            bad = json.loads(line)  # such as a photo that Pillow reads and the processor refuses
            skipped = bad["id"] not in catalog
            named = {"id": columns.id, "title": columns.title, "image": columns.image}.get(bad["field"], bad["field"])
            bad_rows.append(RowProblem(rows[bad["id"]], named or "", bad["id"], bad["reason"], skipped))
        return catalog, sorted(bad_rows, key=lambda bad: bad.row)

    def upload(self, key: str) -> Upload | None:
        """What the user dropped, None where there is nothing."""
        session = self._find(key)
        return session.upload if session else None

    def catalog(self, key: str | None) -> ProductCatalog | None:
        """The user's catalogue, None where there is none."""
        session = self._find(key)
        return session.catalog if session else None

    def archive(self, key: str) -> Path:
        """A zip of the user's catalogue, for `ProductCatalog.load`.

        Raises:
            ValueError: where there is none.
        """
        session = self._find(key)
        if session is None or session.catalog is None:
            raise ValueError("Make a catalogue searchable first.")
        # Gradio serves what lies in its own folder, and copies there what lies elsewhere.
        path = Path(get_upload_folder(), secrets.token_urlsafe(16), "catalogue.zip")
        with session.lock:
            if session.archive is not None:
                remove_upload(session.archive)
            path.parent.mkdir(parents=True)
            session.files.add(path)
            session.archive = path
            write_archive(session.catalog.path, path)
        return path

    def leave(self, key: str) -> None:
        """To be called when the page was closed."""
        self._find(key, self.grace_seconds)

    def end(self, key: str) -> None:
        """Removes all that the user brought."""
        with self._lock:
            session = self._sessions.pop(key, None)
            # Two users who drop the same file have one copy of it.
            needed = set().union(*(other.files for other in self._sessions.values()))
        if session is not None:
            if session.timer is not None:
                session.timer.cancel()
            if session.upload is not None:
                session.upload.close()
            if session.catalog is not None:
                session.catalog.close()
            shutil.rmtree(session.folder, ignore_errors=True)
            for file in session.files - needed:
                remove_upload(file)

    def __len__(self) -> int:
        return len(self._sessions)

    def _find_or_start(self, key: str) -> Session:
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= self.most:
                    raise ValueError(
                        f"{self.most} catalogues are being tried out now, as many as fit: come back in a few minutes."
                    )
                folder = self._root / secrets.token_urlsafe(16)
                folder.mkdir()
                self._sessions[key] = Session(folder)
            session = self._sessions[key]
            self._extend(key, session, self.idle_seconds)
        return session

    def _find(self, key: str | None, seconds: float | None = None) -> Session | None:
        """The user's session, which then lasts for some more seconds, by default those of one that is in use."""
        with self._lock:
            session = self._sessions.get(key) if key else None
            if key and session is not None:
                self._extend(key, session, self.idle_seconds if seconds is None else seconds)
        return session

    def _extend(self, key: str, session: Session, seconds: float) -> None:
        """Has the session end after so many seconds from now. To be called under the lock."""
        if session.timer is not None:
            session.timer.cancel()
        session.timer = threading.Timer(seconds, self.end, [key])
        session.timer.daemon = True
        session.timer.start()


def write_archive(folder: Path, file: Path) -> None:
    """A catalogue's folder as a zip, without its lock and its index, which is made again from the rest."""
    with zipfile.ZipFile(file, "w") as archive:  # stored as it is: Parquet and photos are compressed
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if name.parts[0] not in ("index", "lock"):
                archive.write(path, Path("catalogue") / name)
