"""The tab "Your own catalogue": what a user drops becomes searchable, for this user alone and until they leave."""

import html
import json
import os
import secrets
import shutil
import tempfile
import threading
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from cards import notice
from gradio.utils import get_upload_folder
from guard import remove_upload
from search import add_search
from shop import Shop
from transformers import PreTrainedModel, ProcessorMixin
from upload_columns import UploadColumns, guess_columns
from upload_limits import MB, Limits
from upload_products import read_products
from upload_table import BadRow
from uploads import Upload, open_upload

from acebert.catalog.product_catalog import ProductCatalog
from acebert.catalog.store import RESERVED

# Two cores encode a few dozen products a second.
LIMITS = Limits(rows=5_000, table_bytes=64 * MB, zip_bytes=256 * MB, unpacked_bytes=512 * MB)
MOST_SESSIONS = 8
IDLE_SECONDS = 60 * 60
GRACE_SECONDS = 5 * 60
PREVIEW_ROWS = 3
PREVIEW_CHARACTERS = 60
REPORTED_REASONS = 100
NONE = ""  # a dropdown's value for "no such column"


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
        self._root = tempfile.TemporaryDirectory(prefix="acebert-own-", ignore_cleanup_errors=True)
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
            files = [path and Path(path) for path in (table, photos)]
            try:
                upload = open_upload(*files, dataset, folder, self.limits)
            except (ValueError, FileNotFoundError) as error:
                if session.upload is None:
                    self.end(key)
                if isinstance(error, FileNotFoundError):
                    raise ValueError("What was dropped is removed after an hour: drop it again.") from error
                raise
            session.files.update(filter(None, files))
            if session.upload is not None:
                shutil.rmtree(session.upload.folder, ignore_errors=True)
            session.upload = upload
        return upload

    def build(self, key: str, columns: UploadColumns) -> list[BadRow]:
        """Makes the user's upload searchable, in place of what was before.

        Returns:
            All rows that could not be used, or not wholly, in order.

        Raises:
            ValueError: with a message for the user.
        """
        session = self._find(key)
        if session is None:
            raise ValueError("Drop a catalogue first. One that isn't used for an hour is removed.")
        with session.lock:
            catalog, bad_rows, error = None, [], None
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
                raise ValueError("The page was closed and its catalogue removed: drop it again.") from error
            if error is not None:
                raise error
        self._find(key)  # a long build is a use, too
        return bad_rows

    def _build(self, session: Session, columns: UploadColumns) -> tuple[ProductCatalog, list[BadRow]]:
        upload = session.upload
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
        )
        for file in products.cache_files:
            os.unlink(file["filename"])
        ids = upload.texts[columns.id] if columns.id else map(str, upload.rows)
        rows = dict(zip(reversed(list(ids)), reversed(upload.rows), strict=True))  # of an id's first row
        for line in (catalog.path / "bad_rows.jsonl").read_text(encoding="utf-8").splitlines():
            bad = json.loads(line)  # such as a photo that Pillow reads and the processor refuses
            skipped = bad["id"] not in catalog
            named = {"id": columns.id, "title": columns.title, "image": columns.image}.get(bad["field"], bad["field"])
            bad_rows.append(BadRow(rows[bad["id"]], named or "", bad["id"], bad["reason"], skipped))
        return catalog, sorted(bad_rows, key=lambda bad: bad.row)

    def upload(self, key: str) -> Upload | None:
        """What the user dropped, None where there is nothing."""
        session = self._find(key)
        return session and session.upload

    def catalog(self, key: str | None) -> ProductCatalog | None:
        """The user's catalogue, None where there is none."""
        session = self._find(key)
        return session and session.catalog

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
            session.timer.cancel()
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
                folder = Path(self._root.name) / secrets.token_urlsafe(16)
                folder.mkdir()
                self._sessions[key] = Session(folder)
        return self._find(key)

    def _find(self, key: str | None, seconds: float | None = None) -> Session | None:
        """The user's session, which then lasts for some more seconds, by default those of one that is in use."""
        with self._lock:
            session = self._sessions.get(key)
            if session is not None:
                if session.timer is not None:
                    session.timer.cancel()
                session.timer = threading.Timer(self.idle_seconds if seconds is None else seconds, self.end, [key])
                session.timer.daemon = True
                session.timer.start()
        return session


def write_archive(folder: Path, file: Path) -> None:
    """A catalogue's folder as a zip, without its lock and its index, which is made again from the rest."""
    with zipfile.ZipFile(file, "w") as archive:  # stored as it is: Parquet and photos are compressed
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if name.parts[0] not in ("index", "lock"):
                archive.write(path, Path("catalogue") / name)


def possible_attributes(upload: Upload) -> list[str]:
    """The columns that products can be filtered by."""
    return [name for name in upload.texts if name not in RESERVED and '"' not in name]


def choose_columns(upload: Upload, id: str, title: str, image: str, attributes: Sequence[str]) -> UploadColumns:
    """The columns that a user chose by name, "" for none. One that has another role is no attribute as well."""
    kinds = guess_columns(upload).attributes
    others = [name for name in attributes if name not in (id, title, image)]
    return UploadColumns(id or None, title or None, image or None, {name: kinds.get(name, "text") for name in others})


# ----------------------------------------------------------------------------------------------------------------------
# What is shown
# ----------------------------------------------------------------------------------------------------------------------


def preview(upload: Upload) -> str:
    """An upload's first rows as an HTML table, and what was assumed about it."""

    def cell(name: str, row: int) -> str:
        if name in upload.photos:
            return "photo"
        text = upload.texts[name][row] or ""
        return text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"

    rows = [[cell(name, row) for name in upload.columns] for row in range(min(PREVIEW_ROWS, len(upload.rows)))]
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in upload.notes)
    count = f"{upload.num_rows:,} row{'s' if upload.num_rows != 1 else ''}"
    return f"<h2>{count}, {len(upload.columns)} columns</h2>{notes}{_table(upload.columns, rows, 'The first rows')}"


def report(products: int, bad_rows: Sequence[BadRow]) -> str:
    """What became of an upload, as HTML."""
    skipped = sum(bad.skipped for bad in bad_rows)
    kept = len({bad.row for bad in bad_rows} - {bad.row for bad in bad_rows if bad.skipped})
    sentences = [f"{products:,} product{'s are' if products != 1 else ' is'} searchable."]
    if skipped:
        sentences.append(f"{skipped:,} row{'s were' if skipped != 1 else ' was'} left out.")
    if kept:
        sentences.append(f"{kept:,} product{'s lack' if kept != 1 else ' lacks'} a value that can't be used.")
    heading = f'<h2 role="status">{" ".join(sentences)}</h2>'
    if not bad_rows:
        return heading
    groups: dict[tuple[str, str, bool], list[BadRow]] = defaultdict(list)
    for bad in bad_rows:
        groups[bad.field, bad.reason, bad.skipped].append(bad)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))
    rows = []
    for (name, reason, skip), group in largest[:REPORTED_REASONS]:
        examples = ", ".join(f"{bad.row}{f' ({bad.value})' if bad.value else ''}" for bad in group[:3])
        more = " …" if len(group) > 3 else ""
        rows.append(
            [f"{len(group):,}", name or "–", reason, "left out" if skip else "kept without it", examples + more]
        )
    unsaid = len(largest) - len(rows)
    rest = f"<p>And {unsaid:,} more reasons.</p>" if unsaid else ""
    return (
        heading + _table(["Rows", "Column", "What is wrong", "The product is", "Which rows"], rows, "Bad rows") + rest
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Texts as an HTML table, which scrolls sideways where it is too wide."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    # Reachable by keyboard, to be scrolled.
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(label)}"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def add_tab(shop: Shop) -> None:
    """Lays the tab out, inside of a `gr.Tab`."""
    sessions = Sessions(shop.model, shop.processor)
    limits = sessions.limits

    def key_of(request: gr.Request) -> str:
        if not request.session_hash:
            raise gr.Error("Your own catalogue needs a session: call by gradio_client, or send a session_hash.")
        return request.session_hash

    def open_catalog(table: str | None, photos: str | None, dataset: str, request: gr.Request) -> dict[str, Any]:
        """Opens a catalogue of your own and guesses which column is what. It is visible in this session alone.

        Args:
            table: a CSV, TSV, JSON, JSON Lines or Parquet file with a row for each product.
            photos: a zip of the products' photos.
            dataset: instead of a table, "owner/name" of a public dataset on the Hugging Face Hub.

        Returns:
            The number of rows, the columns, the guess for each role, and notes on what was assumed.
        """
        try:
            upload = sessions.open(key_of(request), table, photos, dataset)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        guess = guess_columns(upload)
        return {
            "rows": upload.num_rows,
            "columns": upload.columns,
            "id_column": guess.id,
            "title_column": guess.title,
            "image_column": guess.image,
            "attribute_columns": [name for name in guess.attributes if name in possible_attributes(upload)],
            "notes": upload.notes,
        }

    def build_catalog(
        id_column: str | None,
        title_column: str | None,
        image_column: str | None,
        attribute_columns: list[str] | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> dict[str, Any]:
        """Makes the catalogue that was opened in this session searchable.

        Args:
            id_column: unique values; none takes the row's number.
            title_column: the products' titles.
            image_column: photos, or their file names in the zip.
            attribute_columns: what to filter by and to show.

        Returns:
            The number of products, and the rows that could not be used, each with the reason.
        """
        progress(None, desc="Reading the products")
        try:
            upload = sessions.upload(key_of(request))
            if upload is None:
                raise ValueError("Drop a catalogue first. One that isn't used for an hour is removed.")
            columns = choose_columns(upload, id_column, title_column, image_column, attribute_columns or [])
            bad_rows = sessions.build(request.session_hash, columns)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return {"products": len(sessions.catalog(request.session_hash)), "bad_rows": [vars(bad) for bad in bad_rows]}

    def download_catalog(request: gr.Request) -> str:
        """The catalogue of this session as a zip of Parquet files with its vectors, for `ProductCatalog.load`."""
        try:
            return str(sessions.archive(key_of(request)))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def show_upload(table: str | None, photos: str | None, dataset: str, request: gr.Request) -> tuple:
        hidden = gr.Column(visible=False)
        if not (table or photos or (dataset or "").strip()):
            sessions.end(key_of(request))
            return "", *[gr.skip()] * 4, hidden, "", hidden
        try:
            upload = sessions.open(key_of(request), table, photos, dataset)
        except ValueError as error:
            return notice("That can't be read", str(error)), *[gr.skip()] * 4, hidden, "", hidden
        guess, texts, possible = guess_columns(upload), list(upload.texts), possible_attributes(upload)
        no_photo = "by the id, in the zip" if upload.zip else "none"
        return (
            preview(upload),
            gr.Dropdown([("none: take the row's number", NONE), *texts], value=guess.id or NONE),
            gr.Dropdown([("none", NONE), *texts], value=guess.title or NONE),
            gr.Dropdown([(no_photo, NONE), *upload.columns], value=guess.image or NONE),
            gr.Dropdown(possible, value=[name for name in guess.attributes if name in possible]),
            gr.Column(visible=True),
            "",
            hidden,
        )

    def show_built(
        id: str,
        title: str,
        image: str,
        attributes: list[str],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> tuple:
        try:
            built = build_catalog(id, title, image, attributes, request, progress)
        except gr.Error as error:
            return notice("That didn't work", error.message), gr.Column(visible=False)
        return report(built["products"], [BadRow(**bad) for bad in built["bad_rows"]]), gr.Column(visible=True)

    gr.HTML(
        "<p>Drop a table of your products, and a zip of their photos if the table names them: up to "
        f"{limits.rows:,} rows and {limits.zip_bytes // MB} MB of photos. Only you see them, they are used for nothing "
        "else, and they are removed when you leave.</p>",
        elem_id="own-intro",
        apply_default_css=False,
    )
    with gr.Row(elem_id="own-files"):
        table = gr.File(
            label="Products: CSV, TSV, JSON or Parquet",
            file_types=[".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet"],
            type="filepath",
            height=120,
            min_width=240,
            elem_id="own-table",
        )
        photos = gr.File(
            label="Photos: a zip, if you have one",
            file_types=[".zip"],
            type="filepath",
            height=120,
            min_width=240,
            elem_id="own-photos",
        )
        dataset = gr.Textbox(
            label="Or a public dataset on the Hugging Face Hub",
            placeholder="owner/name",
            submit_btn="Open",
            max_length=200,
            min_width=240,
            elem_id="own-dataset",
            elem_classes="query",
        )
    found = gr.HTML(elem_id="own-found", apply_default_css=False)
    with gr.Column(visible=False, elem_id="own-columns") as chooser:
        with gr.Row():
            id_column = gr.Dropdown(label="Product id", min_width=160, elem_id="own-id")
            title_column = gr.Dropdown(label="Title", min_width=160, elem_id="own-title")
            image_column = gr.Dropdown(label="Photo", min_width=160, elem_id="own-image")
        attributes = gr.Dropdown(label="Filter by", multiselect=True, elem_id="own-attributes")
        make = gr.Button("Make it searchable", variant="primary", elem_id="own-make")
    result = gr.HTML(elem_id="own-result", apply_default_css=False)
    with gr.Column(visible=False, elem_id="own-search") as searching:
        download = gr.Button("Download it, encoded, as a zip", size="sm", elem_id="own-download")
        archive = gr.DownloadButton(visible="hidden", elem_id="own-archive")
        panel = add_search(shop, lambda request: sessions.catalog(request.session_hash), "own")

    dropped, chosen = [table, photos, dataset], [id_column, title_column, image_column, attributes]
    private = {"api_visibility": "private"}
    gr.on(
        [table.upload, table.clear, photos.upload, photos.clear, dataset.submit],
        show_upload,
        dropped,
        [found, *chosen, chooser, result, searching],
        show_progress_on=[found, *chosen],
        concurrency_limit=2,
        **private,
    )
    # One at a time: a second one would make both twice as slow.
    alone = {"concurrency_limit": 1, "concurrency_id": "own"}
    make.click(show_built, chosen, [result, searching], show_progress_on=result, **alone, **private).then(
        panel.open_another, None, [*panel.asked, *panel.outputs], **private
    )
    # A DownloadButton gives what it had before the click: so a button fills it, and then clicks it.
    download.click(download_catalog, None, archive, api_name="download_catalog").success(
        None, js="() => document.querySelector('#own-archive').click()", **private
    )
    with gr.Row(visible=False):
        answer, names = gr.JSON(), gr.JSON([])
        texts = [gr.Textbox() for _ in range(3)]
        open_button, build_button = gr.Button(), gr.Button()
    open_button.click(open_catalog, dropped, answer, api_name="open_catalog", concurrency_limit=2)
    build_button.click(build_catalog, [*texts, names], answer, api_name="build_catalog", **alone)

    def leave(request: gr.Request) -> None:
        sessions.leave(request.session_hash)

    gr.context.Context.root_block.unload(leave)
