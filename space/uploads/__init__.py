"""From what a user drops to products that can be encoded: a table, a zip of photos, or a dataset's name on the Hub.

    upload = open_upload(Path("products.csv"), Path("photos.zip"), None, folder, Limits())
    columns = guess_columns(upload)  # of `upload_columns`, for the user to correct
    products, bad_rows = read_products(upload, columns)  # of `upload_products`

All input is untrusted. It is read within `Limits`; names in it are looked up among its own parts and never opened as
paths or addresses; a bad row is listed, and no row disappears without being listed. What can't be read at all is a
`ValueError` whose message is for the user.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from huggingface_hub import HfFileSystem

from acebert.data.exports import read_export
from acebert.data.photo_cells import ADDRESS, PHOTO_ENDING, find_placeholder, split_photos
from acebert.data.photo_columns import MAX_IMAGES
from acebert.data.tables import RowProblem, Table, read_table
from acebert.data.tables.parquet import add_parquet
from acebert.data.texts import clean_words
from acebert.data.values import parse_list
from acebert.space.uploads.limits import Limits
from acebert.space.uploads.photo_zip import PhotoZip
from acebert.utils.words import cut

DATASET_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """What was dropped: opened, every cell as text or as a photo's bytes, no photo decoded.

    Args:
        texts (`dict[str, list[str | None]]`): the columns of text by name, without surrounding spaces, None for empty.
        photos (`dict[str, pa.ChunkedArray]`): the columns of encoded photos by name.
        rows (`list[int]`): each row's number as the user counts, see `RowProblem`.
        unread (`list[RowProblem]`): rows that could not be read at all.
        zip (`PhotoZip`, *optional*): the zip of photos.
        notes (`list[str]`): what was assumed or left out, for the user to read.
        folder (`Path`): where the products are kept.
        limits (`Limits`): how much is taken.
    """

    texts: dict[str, list[str | None]]
    photos: dict[str, pa.ChunkedArray]
    rows: list[int]
    unread: list[RowProblem]
    zip: PhotoZip | None
    notes: list[str]
    folder: Path
    limits: Limits

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return [*self.texts, *self.photos]

    @property
    def num_rows(self) -> int:
        """Rows that were dropped, those that could not be read included."""
        return len(self.rows) + len(self.unread)

    @property
    def unused_photos(self) -> list[str]:
        """Photos in the zip that were read for no product, after the products were read."""
        return self.zip.unread_names if self.zip is not None else []

    def close(self) -> None:
        """Closes the zip of photos."""
        if self.zip is not None:
            self.zip.close()


def open_upload(table: Path | None, photos: Path | None, dataset: str | None, folder: Path, limits: Limits) -> Upload:
    """Opens what a user dropped.

    Args:
        table (`Path`, *optional*): CSV, TSV or other separated text, JSON, JSON Lines or Parquet, whatever its
            extension.
        photos (`Path`, *optional*): a zip. Without a table every photo in it is a product, and its path is the id.
        dataset (`str`, *optional*): "owner/name" of a public dataset on the Hub, instead of a table.
        folder (`Path`): where `read_products` keeps the products; made if need be.
        limits (`Limits`): how much is taken.

    Raises:
        `ValueError`: with a message for the user, where it can't be read.
    """
    dataset = (dataset or "").strip()
    if table and dataset:
        raise ValueError("Drop a table or name a dataset, not both.")
    if not (table or photos or dataset):
        raise ValueError("Drop a table, a zip of photos, or name a dataset on the Hub.")
    with ExitStack() as refused:
        archive = PhotoZip(photos, limits) if photos else None
        if archive:
            refused.callback(archive.close)
        if table:
            read = read_table(table, limits.table)
        elif archive and not dataset:
            read = _read_names(archive, limits)
        else:
            read = _read_dataset(dataset, limits)
        _read_as_products(read)
        if not read.rows:
            first = f" Row {read.unread[0].row}: {read.unread[0].reason}." if read.unread else ""
            raise ValueError(f"There are no products in it.{first}")
        folder.mkdir(parents=True, exist_ok=True)
        columns = {name: pa.chunked_array(arrays) for name, arrays in read.photos.items()}
        refused.pop_all()  # accepted: the zip stays open
    return Upload(read.texts, columns, read.rows, read.unread, archive, read.notes, folder, limits)


def _read_as_products(table: Table) -> None:
    """Makes of a shop system's export the products that it stands for, and cleans the words, in place."""
    if table.rows and not table.photos and (products := read_export(table.texts)):
        table.texts, table.rows = products.texts, [table.rows[row] for row in products.rows]
        table.notes.append(f"It is an export of {products.system}. {' '.join(products.notes)}".strip())
    cleaned = 0
    for name, values in table.texts.items():
        clean = [value if value is None or _may_name_photos(value) else clean_words(value) or None for value in values]
        cleaned += sum(old != new for old, new in zip(values, clean, strict=True))
        table.texts[name] = clean
        named = (split_photos(value) for value in values if value)
        cells = [photos for photos in named if photos and PHOTO_ENDING.search(photos[0])]
        if 2 * len(cells) > len(values):
            table.notes += _note_photos(name, cells)
    if cleaned:
        table.notes.append(f"Cleaned of spaces and HTML: {cleaned:,} cells.")


def _note_photos(name: str, cells: Sequence[Sequence[str]]) -> list[str]:
    """What is to be said of a column's cells, each of which names photos."""
    notes = []
    if several := sum(len(photos) > 1 for photos in cells):
        notes.append(f"{several:,} products have several photos in {cut(name)!r}: up to {MAX_IMAGES} of each are used.")
    if shared := find_placeholder(photos[0] for photos in cells):
        notes.append(
            f"{shared[1]:,} products have the same photo in {cut(name)!r}, {cut(shared[0])!r}. If it is a placeholder, "
            "take it out: a product without a photo is found by its title."
        )
    return notes


def _may_name_photos(value: str) -> bool:
    return bool(ADDRESS.match(value) or PHOTO_ENDING.search(value) or parse_list(value))


def _read_names(archive: PhotoZip, limits: Limits) -> Table:
    """A zip without a table: a row for every photo."""
    table = Table(limits.table)
    for number, name in enumerate(archive.names, start=1):
        table.add_row(number, {"id": name, "image": name})
    return table


def _read_dataset(name: str, limits: Limits) -> Table:
    """The first rows of a public dataset, from the Parquet files that the Hub makes of every dataset.

    Not by `datasets.load_dataset`: a dataset's card names its data files
    (https://huggingface.co/docs/hub/datasets-manual-configuration), and datasets 5.2 opens whatever it names, be it a
    file of the server. The Hub's conversion has the photos inside (https://huggingface.co/docs/dataset-viewer/parquet).
    """
    if not DATASET_NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ValueError(f"{name!r} is no name of a dataset on the Hub: write it as owner/name.")
    try:
        # Never the server's own token, which may open private datasets.
        hub = HfFileSystem(token=False, skip_instance_cache=True)
        paths = hub.glob(f"datasets/{name}@refs/convert/parquet/**/*.parquet")
    except FileNotFoundError:
        paths = []
    except Exception as error:  # the network fails in the classes of many libraries
        raise ValueError("The Hugging Face Hub can't be reached now: try again later, or drop a file.") from error
    if not paths:
        raise ValueError(
            f"The Hub has no public dataset {name!r}, or no Parquet of it: check the name, or drop a file."
        )
    # .../configuration/split/0000.parquet
    configurations = sorted({path.split("/")[-3] for path in paths})
    chosen = "default" if "default" in configurations else configurations[0]
    table = Table(limits.table)
    if len(configurations) > 1:
        table.notes.append(f"Of the dataset's configurations, {', '.join(configurations)}, {chosen!r} is read.")
    paths = [path for path in paths if path.split("/")[-3] == chosen]
    for path in sorted(paths, key=lambda path: (path.split("/")[-2] != "train", path)):
        try:
            with hub.open(path) as file:
                whole = add_parquet(table, file, name)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError("The Hugging Face Hub stopped answering: try again later, or drop a file.") from error
        if not whole:
            table.notes.append(f"{name!r} is larger than what is taken: these are its first {len(table.rows):,} rows.")
            break
    return table
