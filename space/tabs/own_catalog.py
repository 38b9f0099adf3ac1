"""The tab "Your own catalogue": what a user drops becomes searchable, for this user alone and until they leave."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from acebert.catalog.product_catalog import ProductCatalog
from acebert.catalog.store import RESERVED
from acebert.data.tables import RowProblem
from acebert.space.cards import notice
from acebert.space.gradio_compat import on_unload
from acebert.space.rendering import render
from acebert.space.search_panel import SearchPanel
from acebert.space.sessions import NOTHING_DROPPED, REMOVED, Sessions
from acebert.space.shop import Shop
from acebert.space.uploads import Upload
from acebert.space.uploads.columns import UploadColumns, guess_columns
from acebert.space.uploads.limits import MB
from acebert.utils.words import cut

TABLE_ENDINGS = [".csv", ".tsv", ".txt", ".xlsx", ".xls", ".json", ".jsonl", ".parquet", ".gz"]
PREVIEW_ROWS = 3
PREVIEW_CHARACTERS = 60
REPORTED_REASONS = 100
NONE = ""  # a dropdown's value for "no such column"
PRIVATE = {"api_visibility": "private"}
# One at a time: a second one would make both twice as slow.
ALONE = {"concurrency_limit": 1, "concurrency_id": "own"}


def possible_attributes(upload: Upload) -> list[str]:
    """The columns that products can be filtered by."""
    return [name for name in upload.texts if name not in RESERVED and '"' not in name]


def choose_columns(
    upload: Upload, id: str | None, title: str | None, image: str | None, attributes: Sequence[str]
) -> UploadColumns:
    """The columns that a user chose by name, "" or None for none. One that has another role is no attribute as well."""
    kinds = guess_columns(upload).attributes
    others = [name for name in attributes if name not in (id, title, image)]
    return UploadColumns(id or None, title or None, image or None, {name: kinds.get(name, "text") for name in others})


# ----------------------------------------------------------------------------------------------------------------------
# What is shown
# ----------------------------------------------------------------------------------------------------------------------


def preview(upload: Upload) -> Markup:
    """An upload's first rows as an HTML table, and what was assumed about it."""

    def cell(name: str, row: int) -> str:
        if name in upload.photos:
            return "photo"
        text = upload.texts[name][row] or ""
        return text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"

    return render(
        "own_preview",
        count=f"{upload.num_rows:,} row{'s' if upload.num_rows != 1 else ''}",
        notes=upload.notes,
        header=upload.columns,
        rows=[[cell(name, row) for name in upload.columns] for row in range(min(PREVIEW_ROWS, len(upload.rows)))],
    )


def report(products: int, bad_rows: Sequence[RowProblem], unused_photos: Sequence[str] = ()) -> Markup:
    """What became of an upload, as HTML: the numbers, and the bad rows by reason, the most frequent first."""
    skipped = sum(bad.skipped for bad in bad_rows)
    kept = len({bad.row for bad in bad_rows} - {bad.row for bad in bad_rows if bad.skipped})
    sentences = [f"{products:,} product{'s are' if products != 1 else ' is'} searchable."]
    if skipped:
        sentences.append(f"{skipped:,} row{'s were' if skipped != 1 else ' was'} left out.")
    if kept:
        sentences.append(f"{kept:,} product{'s lack' if kept != 1 else ' lacks'} a value that can't be used.")
    if unused_photos:
        named = ", ".join(map(cut, unused_photos[:3])) + (" …" if len(unused_photos) > 3 else "")
        several = "s are" if len(unused_photos) != 1 else " is"
        sentences.append(f"{len(unused_photos):,} photo{several} not used: {named}.")
    groups: dict[tuple[str, str, bool], list[RowProblem]] = defaultdict(list)
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
    return render("own_report", summary=" ".join(sentences), rows=rows, more=f"{unsaid:,}" if unsaid else "")


# ----------------------------------------------------------------------------------------------------------------------
# The tab
# ----------------------------------------------------------------------------------------------------------------------


class OwnCatalogTab:
    """A catalogue that a user brings: files, columns, a search panel; and endpoints that do the same.

    Args:
        shop: whose model encodes the user's products.
    """

    def __init__(self, shop: Shop) -> None:
        self.sessions = Sessions(shop.encoder.model, shop.encoder.processor)
        self.panel = SearchPanel(shop, self.catalog_of, "own")

    def catalog_of(self, request: gr.Request) -> ProductCatalog | None:
        """The catalogue of who asks, None while there is none."""
        return self.sessions.catalog(request.session_hash)

    # ------------------------------------------------------------------------------------------------------------------
    # Layout
    # ------------------------------------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        """Adds the tab's content and its endpoints to the `gr.Blocks` that is being made."""
        limits = self.sessions.limits
        gr.HTML(
            render("own_intro", rows=f"{limits.rows:,}", megabytes=limits.zip_bytes // MB),
            elem_id="own-intro",
            apply_default_css=False,
        )
        with gr.Row(elem_id="own-files"):
            self._lay_out_files()
        self.found = gr.HTML(elem_id="own-found", apply_default_css=False)
        with gr.Column(visible=False, elem_id="own-columns") as self.chooser:
            self._lay_out_columns()
        self.result = gr.HTML(elem_id="own-result", apply_default_css=False)
        with gr.Column(visible=False, elem_id="own-search") as self.searching:
            self.download = gr.Button("Download it, encoded, as a zip", size="sm", elem_id="own-download")
            self.archive = gr.DownloadButton(visible="hidden", elem_id="own-archive")
            self.panel.lay_out()
        self._connect_events()
        self._add_endpoints()

    def _lay_out_files(self) -> None:
        self.table = gr.File(
            label="Products: CSV, TSV, Excel, JSON or Parquet",
            file_types=TABLE_ENDINGS,
            type="filepath",
            height=120,
            min_width=240,
            elem_id="own-table",
        )
        self.photos = gr.File(
            label="Photos: a zip, if you have one",
            file_types=[".zip"],
            type="filepath",
            height=120,
            min_width=240,
            elem_id="own-photos",
        )
        self.dataset = gr.Textbox(
            label="Or a public dataset on the Hugging Face Hub",
            placeholder="owner/name",
            submit_btn="Open",
            max_length=200,
            min_width=240,
            elem_id="own-dataset",
            elem_classes="query",
        )

    def _lay_out_columns(self) -> None:
        with gr.Row():
            self.id_column = gr.Dropdown(label="Product id", min_width=160, elem_id="own-id")
            self.title_column = gr.Dropdown(label="Title", min_width=160, elem_id="own-title")
            self.image_column = gr.Dropdown(label="Photo", min_width=160, elem_id="own-image")
        self.attributes = gr.Dropdown(label="Filter by", multiselect=True, elem_id="own-attributes")
        self.make = gr.Button("Make it searchable", variant="primary", elem_id="own-make")

    @property
    def _dropped(self) -> list[gr.components.Component]:
        return [self.table, self.photos, self.dataset]

    @property
    def _chosen(self) -> list[gr.components.Component]:
        return [self.id_column, self.title_column, self.image_column, self.attributes]

    def _connect_events(self) -> None:
        files = [self.table.upload, self.table.clear, self.photos.upload, self.photos.clear]
        gr.on(
            [*files, self.dataset.submit],
            self.show_upload,
            self._dropped,
            [self.found, *self._chosen, self.chooser, self.result, self.searching],
            show_progress_on=[self.found, *self._chosen],
            concurrency_limit=2,
            **PRIVATE,
        )
        self.make.click(
            self.show_built,
            self._chosen,
            [self.result, self.searching],
            show_progress_on=self.result,
            **ALONE,
            **PRIVATE,
        ).then(self.panel.open_another, None, self.panel.opened_another, **PRIVATE)
        # A DownloadButton gives what it had before the click: so a button fills it, and then clicks it.
        self.download.click(self.download_catalog, None, self.archive, api_name="download_catalog").success(
            None, js="() => document.querySelector('#own-archive').click()", **PRIVATE
        )
        on_unload(self.leave)

    def _add_endpoints(self) -> None:
        with gr.Row(visible=False):
            answer, names = gr.JSON(), gr.JSON([])
            columns = [gr.Textbox() for _ in range(3)]
            open_button, build_button = gr.Button(), gr.Button()
        open_button.click(self.open_catalog, self._dropped, answer, api_name="open_catalog", concurrency_limit=2)
        build_button.click(self.build_catalog, [*columns, names], answer, api_name="build_catalog", **ALONE)

    # ------------------------------------------------------------------------------------------------------------------
    # Events
    # ------------------------------------------------------------------------------------------------------------------

    def show_upload(self, table: str | None, photos: str | None, dataset: str, request: gr.Request) -> tuple:
        """After another file or dataset: its first rows, and the columns to choose from."""
        hidden = gr.Column(visible=False)
        if not (table or photos or (dataset or "").strip()):
            self.sessions.end(_session_of(request))
            return "", *[gr.skip()] * 4, hidden, "", hidden
        try:
            upload = self.sessions.open(_session_of(request), table, photos, dataset)
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
        self,
        id: str,
        title: str,
        image: str,
        attributes: list[str],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 - Gradio finds it by the default
    ) -> tuple:
        """After "Make it searchable"."""
        try:
            built = self.build_catalog(id, title, image, attributes, request, progress)
        except gr.Error as error:
            return notice("That didn't work", error.message), gr.Column(visible=False)
        bad_rows = [RowProblem(**bad) for bad in built["bad_rows"]]
        return report(built["products"], bad_rows, built["unused_photos"]), gr.Column(visible=True)

    def leave(self, request: gr.Request) -> None:
        """After the page was closed."""
        self.sessions.leave(request.session_hash)

    # ------------------------------------------------------------------------------------------------------------------
    # The API
    # ------------------------------------------------------------------------------------------------------------------

    def open_catalog(self, table: str | None, photos: str | None, dataset: str, request: gr.Request) -> dict[str, Any]:
        """Opens a catalogue of your own and guesses which column is what. It is visible in this session alone.

        Args:
            table: a CSV, TSV, Excel, JSON, JSON Lines or Parquet file, perhaps as .gz, with a row for each product.
            photos: a zip of the products' photos.
            dataset: instead of a table, "owner/name" of a public dataset on the Hugging Face Hub.

        Returns:
            The number of rows, the columns, the guess for each role, and notes on what was assumed.
        """
        try:
            upload = self.sessions.open(_session_of(request), table, photos, dataset)
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
        self,
        id_column: str | None,
        title_column: str | None,
        image_column: str | None,
        attribute_columns: list[str] | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 - Gradio finds it by the default
    ) -> dict[str, Any]:
        """Makes the catalogue that was opened in this session searchable.

        Args:
            id_column: unique values; none takes the row's number.
            title_column: the products' titles.
            image_column: photos, or their file names in the zip.
            attribute_columns: what to filter by and to show.

        Returns:
            The number of products, the rows that could not be used, each with the reason, and the photos in the zip
            that no product has.
        """
        progress(None, desc="Reading the products")
        session = _session_of(request)
        try:
            upload = self.sessions.upload(session)
            if upload is None:
                raise ValueError(NOTHING_DROPPED)
            columns = choose_columns(upload, id_column, title_column, image_column, attribute_columns or [])
            bad_rows = self.sessions.build(session, columns)
            catalog = self.sessions.catalog(session)
            if catalog is None:
                raise ValueError(REMOVED)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return {
            "products": len(catalog),
            "bad_rows": [vars(bad) for bad in bad_rows],
            "unused_photos": upload.unused_photos,
        }

    def download_catalog(self, request: gr.Request) -> str:
        """The catalogue of this session as a zip of Parquet files with its vectors, for `ProductCatalog.load`."""
        try:
            return str(self.sessions.archive(_session_of(request)))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error


def _session_of(request: gr.Request) -> str:
    if not request.session_hash:
        raise gr.Error("Your own catalogue needs a session: call by gradio_client, or send a session_hash.")
    return request.session_hash
