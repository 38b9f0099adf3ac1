"""How a table of products is read: what its cells mean, which types its columns may have, which rows can't be used.

Training, evaluation and catalogues all read products by these rules.
"""

import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import ClassLabel, Dataset, Image, List, Value
from transformers.utils import logging

from acebert.data.columns import Columns, can_hold_photos, column_kind, replace_column
from acebert.data.downloads import PhotoDownloads
from acebert.data.notes import tell
from acebert.data.photo_columns import PHOTOS, find_photos
from acebert.data.texts import clean_texts
from acebert.image_processing_acebert import open_photo, to_upright_rgb
from acebert.utils.files import atomic_write
from acebert.utils.words import cut

logger = logging.get_logger(__name__)

SKIP = "Fix or remove it, or skip such rows with --on_bad_row skip."
ROWS_READ = 1024  # at a time
# What a column may hold by its use. Titles of numbers are most likely another column by mistake.
TEXT_KINDS = {
    "id": (("string", "integer", "number"), "texts or whole numbers"),
    "title": (("string",), "texts"),
    "query": (("string", "integer", "number"), "texts or numbers"),
    "hot query": (("string", "integer", "number"), "texts or numbers"),
}
MAX_EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}  # from there on, floats skip whole numbers

OnBadRow = Literal["raise", "skip"]


# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------


def is_blank(text: str) -> bool:
    """Whether a text holds no letter, digit, sign or symbol: tokenizers drop spaces, control and invisible characters.

    They drop accents that stand alone too, and U+FFFD, the replacement for a character that got lost.
    """
    return not any(unicodedata.category(char)[0] in "LNPS" and char != "\ufffd" for char in text)


def clean_value(value: Any) -> Any | None:
    """A cell's value: None for a missing one, 42 for 42.0, as tables hold whole numbers beside missing ones."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else value
    return None if isinstance(value, str) and is_blank(value) else value


def clean_text(value: Any) -> str | None:
    """A title, a query or an attribute's value as a text, None for a missing one."""
    value = clean_value(value)
    return None if value is None else str(value)


def clean_photo(photo: Any) -> Any | None:
    """A product's photo as a dataset holds it, None for a missing one. An empty file is not missing, but broken.

    Of a list of photos those that aren't missing, as a list only where they are several.
    """
    if isinstance(photo, list | tuple):
        photos = [each for each in map(clean_photo, photo) if each is not None]
        return photos if len(photos) > 1 else photos[0] if photos else None
    if isinstance(photo, dict) and photo.get("bytes") is None:
        path = photo.get("path")
        return None if path is None or (isinstance(path, str) and is_blank(path)) else photo
    return None if isinstance(photo, str) and is_blank(photo) else photo


def as_photos(photo: Any) -> list[Any]:
    """The photos of [`clean_photo`]: none, one or several."""
    return photo if isinstance(photo, list) else [] if photo is None else [photo]


def split_broken(photo: Any) -> tuple[Any | None, str | None]:
    """What of a product's photo or photos can be read, and why the rest can't.

    Args:
        photo: of [`clean_photo`].

    Returns:
        The same without those that are broken, None where nothing is left; and the first fault, None for none.
    """
    photos = as_photos(photo)
    faults = {place: fault for place, each in enumerate(photos) if (fault := find_photo_error(each))}
    if not faults:
        return photo, None
    first = next(iter(faults.values()))
    if len(photos) > 1:
        first = f"{', '.join(str(place + 1) for place in faults)} of {len(photos)} {first}"
    return clean_photo([each for place, each in enumerate(photos) if place not in faults]), first


def find_photo_error(photo: Any) -> str | None:
    """Why a photo can't be read, None if it can: it is decoded completely, a JPEG at an eighth of its size."""
    try:
        image = open_photo(photo)
        if image is not photo:
            image.draft("RGB", (1, 1))
        to_upright_rgb(image, do_convert_rgb=True).load()
    except Exception as error:  # Pillow's decoders raise errors of many kinds for broken files
        reason = str(error).rstrip(".")
        return f"can't be read: {reason}. Give the path or the bytes of an image file, or None for no photo"
    return None


# ----------------------------------------------------------------------------------------------------------------------
# Columns of cells
# ----------------------------------------------------------------------------------------------------------------------


def read_column(products: Dataset, column: str | None, rows: Sequence[int] | slice | None = None) -> list[Any]:
    """A column's cells as they are, class labels by their names; None for each row where there is no such column.

    Args:
        products: one row per product.
        column: its name.
        rows: which rows to read; all by default.
    """
    rows = slice(None) if rows is None else rows
    if column not in products.column_names:
        return [None] * (len(range(*rows.indices(len(products)))) if isinstance(rows, slice) else len(rows))
    values = list(products.select_columns([column])[rows][column])
    return [_to_names(products.features[column], value) for value in values]


def _to_names(feature: Any, value: Any) -> Any:
    if isinstance(feature, ClassLabel):
        return None if value is None else feature.int2str(value)
    if isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
        return value and [_to_names(feature.feature, each) for each in value]
    return value


def read_texts(products: Dataset, column: str | None, rows: Sequence[int] | slice | None = None) -> list[str | None]:
    """A column's cells as texts; arguments as in [`read_column`].

    Raises:
        ValueError: for a cell that holds several values.
    """
    values = read_column(products, column, rows)
    for row, value in enumerate(values):
        if isinstance(value, list | dict):
            raise ValueError(f"{column} of row {row} is {cut(value)}: it has to be a single value.")
    return [clean_text(value) for value in values]


def read_photos(products: Dataset, column: str | None, rows: Sequence[int]) -> list[Any | None]:
    """Some products' photos, not decoded: of each a photo, a list of several, or None. See [`clean_photo`]."""
    return [clean_photo(photo) for photo in read_column(products, column, rows)]


def have_photos(products: Dataset, column: str | None) -> np.ndarray:
    """(rows,) booleans: which products have a photo. No file and no embedded bytes are read."""
    if column not in products.column_names:
        return np.zeros(len(products), dtype=bool)
    found: list[bool] = []
    for table in products.select_columns([column]).with_format("arrow").iter(ROWS_READ):
        found += _are_photos(table.column(column).combine_chunks())
    return np.array(found, dtype=bool)


def _are_photos(cells: pa.Array) -> list[bool]:
    """Which cells are a photo, or a list with one."""
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        owners = pc.list_parent_indices(cells).to_pylist()
        having = {row for row, found in zip(owners, _are_photos(pc.list_flatten(cells)), strict=True) if found}
        return [row in having for row in range(len(cells))]
    if pa.types.is_struct(cells.type) and cells.type.get_field_index("bytes") >= 0:
        embedded = pc.is_valid(pc.struct_field(cells, "bytes")).to_pylist()
        has_path = cells.type.get_field_index("path") >= 0
        paths = pc.struct_field(cells, "path").to_pylist() if has_path else [None] * len(cells)
        return [
            is_embedded or clean_photo({"path": path}) is not None
            for is_embedded, path in zip(embedded, paths, strict=True)
        ]
    return [clean_photo(cell) is not None for cell in cells.to_pylist()]


def prepare_columns(
    products: Dataset,
    columns: Columns,
    folder: str = os.curdir,
    on_bad_row: OnBadRow | None = None,
    downloads: PhotoDownloads | None = None,
    max_images: int | None = None,
) -> Dataset:
    """Checks the types of the columns and brings them to the forms that the rest of the project reads.

    Ids become texts or integers, decimals numbers, dates and times texts in ISO 8601, and photos
    {"bytes": ..., "path": ...}, not decoded, or lists of them. Titles, queries and attributes are cleaned, see
    [`clean_texts`]. Columns that the dataset lacks are passed over.

    Args:
        products: one row per product.
        columns: which column holds what.
        folder, on_bad_row, downloads, max_images: of [`find_photos`].

    Raises:
        ValueError: for a column of another type than its use needs, ids that floats can't hold exactly, or as
            [`find_photos`].
    """
    products = to_plain_types(products)
    used = {"id": columns.id, "title": columns.title, "query": columns.query, "hot query": columns.hot_query}
    for use, name in used.items():
        kinds, words = TEXT_KINDS[use]
        if name in products.column_names and column_kind(products.features[name]) not in kinds:
            raise ValueError(
                f"The {use} column {name!r} holds {cut(products.features[name])}, not {words}: name another column as "
                f"{use.replace(' ', '_')}_column, or convert it by dataset.cast_column."
            )
    if column_kind(products.features.get(columns.id)) == "number":
        products = _to_integers(products, columns.id)
    image = columns.image
    if image is not None and image in products.column_names:
        if not can_hold_photos(products.features[image]):
            raise ValueError(
                f"The image column {image!r} holds {cut(products.features[image])}: photos are images, "
                "or paths or bytes of image files, or lists of them. Name another column as image_column, or convert "
                "it by dataset.cast_column."
            )
        products = find_photos(products, image, folder, on_bad_row, downloads, max_images)
        if products.features[image] != PHOTOS:
            products = products.cast_column(image, Image(decode=False))
    return clean_texts(products, columns)


def to_plain_types(products: Dataset) -> Dataset:
    """Decimals as numbers, dates and times as texts in ISO 8601, and large texts as texts."""
    for name, feature in products.features.items():
        dtype = getattr(feature, "dtype", None) or ""
        if dtype.startswith("decimal"):
            products = products.cast_column(name, Value("float64"))
        elif dtype.startswith(("date", "time", "large_string")):
            products = products.cast_column(name, Value("string"))
    return products


def _to_integers(products: Dataset, column: str) -> Dataset:
    """Ids that are floats as integers: tables hold whole numbers as floats where NaN stands for a missing one."""
    ids, limit = [clean_value(value) for value in products[column][:]], MAX_EXACT[products.features[column].dtype]
    for row, value in enumerate(ids):
        if isinstance(value, float) or abs(value or 0) >= limit:
            raise ValueError(
                f"The id column {column!r} holds fractions or floats that are too large to be exact, as {value!r} in "
                f"row {row}: ids are texts or whole numbers. Name another column as id_column, or convert it by "
                "dataset.cast_column."
            )
    return replace_column(products, column, ids, Value("int64"))


# ----------------------------------------------------------------------------------------------------------------------
# Rows
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadRow:
    """A row that can't be used as it is.

    Args:
        row: counted from 0.
        id: the product's, None where it has none.
        field: the column.
        reason: what is wrong with it, and the remedy.
    """

    row: int
    id: Any
    field: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row} (id {self.id!r}), {self.field}: {self.reason}"


def find_bad_rows(
    products: Dataset,
    columns: Columns,
    unique_ids: bool,
    learns_from: Sequence[str | None] | None = None,
    broken: Sequence[BadRow] = (),
) -> list[BadRow]:
    """Rows that can't be used, each once, in their order. No photo is opened.

    A row is bad if its id is missing, or if it has neither a title nor a photo.

    Args:
        products: one row per product.
        columns: which column holds what.
        unique_ids: a row with an id that an earlier one has is bad, too.
        learns_from: columns that training queries are made from. A row that has neither any of them nor both title and
            photo is bad, too: nothing can be learned from it.
        broken: rows of [`drop_broken_photos`], which are bad, too.
    """
    ids, titles = read_column(products, columns.id), read_texts(products, columns.title)
    bad = [*find_bad_ids(ids, columns.id, unique_ids), *broken]
    has_query = [False] * len(ids)
    for column in learns_from or ():
        texts = map(clean_text, read_column(products, column))
        has_query = [found or text is not None for found, text in zip(has_query, texts, strict=True)]
    for row, (title, has_photo) in enumerate(zip(titles, have_photos(products, columns.image), strict=True)):
        if title is None and not has_photo:
            bad.append(BadRow(row, ids[row], columns.shown, "is empty: a product needs a title or a photo"))
        elif learns_from is not None and not has_query[row] and (title is None or not has_photo):
            reason = "is incomplete, and there is no query: nothing can be learned from it"
            bad.append(BadRow(row, ids[row], columns.shown, reason))
    return keep_first(bad)


def find_bad_ids(ids: Sequence[Any], column: str, unique: bool) -> list[BadRow]:
    """Rows without an id and, where ids have to be unique, rows with one that an earlier row has."""
    first: dict[Any, int] = {}
    bad = []
    for row, product_id in enumerate(ids):
        if clean_value(product_id) is None:
            bad.append(BadRow(row, None, column, "is missing: give every product an id"))
        elif unique and first.setdefault(product_id, row) != row:
            bad.append(BadRow(row, product_id, column, f"is row {first[product_id]}'s too: ids must be unique"))
    return bad


def drop_broken_photos(products: Dataset, columns: Columns) -> tuple[Dataset, list[BadRow]]:
    """Leaves out photos that can't be read where a product has others, which is told; each photo is decoded once.

    All processes have to call this: each decodes a part of the photos, and all get the same.

    Returns:
        The products, and the rows that have no photo that can be read.
    """
    if columns.image not in products.column_names:
        return products, []
    image = str(columns.image)
    broken: list[tuple[int, Any, str]] = []
    with PartialState().split_between_processes(np.flatnonzero(have_photos(products, image)).tolist()) as own:
        for start in range(0, len(own), ROWS_READ):
            rows = own[start : start + ROWS_READ]
            for row, photo in zip(rows, read_photos(products, image, rows), strict=True):
                left, error = split_broken(photo)
                if error:
                    broken.append((row, left, error))
    broken = sorted(gather_object(broken), key=lambda each: each[0])
    ids = read_column(products, columns.id, [row for row, _, _ in broken])
    bad = [BadRow(row, each_id, image, error) for (row, _, error), each_id in zip(broken, ids, strict=True)]
    fewer = {row: as_photos(left) for row, left, _ in broken if left is not None}
    if fewer:
        tell(
            f"{len(fewer):,} products lose photos that can't be read, and keep others: the first, "
            f"{next(each for each in bad if each.row in fewer)}."
        )
        photos = [fewer.get(row, photos) for row, photos in enumerate(products[image][:])]
        products = replace_column(products, image, photos, PHOTOS)
    return products, [each for each in bad if each.row not in fewer]


def keep_good_rows(
    products: Dataset,
    columns: Columns,
    file: str | os.PathLike | None,
    unique_ids: bool = False,
    learns_from: Sequence[str | None] | None = None,
) -> tuple[Dataset, list[int]]:
    """The products that can be used. The others are counted in a warning and listed in a file, with what is wrong.

    A row is bad by [`find_bad_rows`], or if no photo of it can be read: [`drop_broken_photos`]. All processes have to
    call this, and all get the same rows.

    Args:
        products: one row per product.
        columns: which column holds what.
        file: the list, one JSON object a line: row, id, field and reason. The main process writes it; None for none.
        unique_ids, learns_from: see [`find_bad_rows`].

    Returns:
        The products, and the numbers of their rows among those that were given.

    Raises:
        ValueError: if no row is good, or most are bad.
    """
    products, broken = drop_broken_photos(products, columns)
    bad = find_bad_rows(products, columns, unique_ids, learns_from, broken)
    is_main = PartialState().is_main_process
    if file is not None and is_main:
        write_bad_rows(bad, file)
    if bad and is_main:
        listed = "" if file is None else f", listed in {file}"
        logger.warning(f"{len(bad)} of {len(products)} rows are left out{listed}; the first: {bad[0]}.")
    if len(bad) == len(products):
        raise ValueError(f"None of {len(products)} rows can be used" + (f"; the first: {bad[0]}." if bad else "."))
    refuse_most(bad, len(products))
    left_out = {found.row for found in bad}
    good = [row for row in range(len(products)) if row not in left_out]
    return products.select(good), good


FEW = 3  # bad rows that may have a cause each; of so few rows, most are most all the same


def refuse_most(bad: Sequence[BadRow], count: int, what: str = "rows") -> None:
    """Refuses a table most of which is bad: that has one cause, and to leave it all out would hide it.

    Args:
        bad: what is bad.
        count: of all that could be bad.
        what: they are.

    Raises:
        ValueError: naming the most frequent fault, with an example.
    """
    if len(bad) > (max(FEW, count / 2) if count > FEW else count / 2):
        fault, frequency = Counter((found.field, found.reason.split(":")[0]) for found in bad).most_common(1)[0]
        example = next(found for found in bad if (found.field, found.reason.split(":")[0]) == fault)
        raise ValueError(
            f"{len(bad):,} of {count:,} {what} can't be used, {frequency:,} as that of {cut(example.id)!r}: its "
            f"{example.field} {example.reason}. Correct the cause; only single bad rows may be skipped."
        )


def keep_first(bad: Sequence[BadRow]) -> list[BadRow]:
    """Each bad row once, with the first of its faults, in the order of the rows."""
    first = {found.row: found for found in reversed(bad)}
    return [first[row] for row in sorted(first)]


def write_bad_rows(bad: Sequence[BadRow], file: str | os.PathLike) -> None:
    """Lists bad rows in a file of JSON lines: row, id, field and reason."""
    lines = [json.dumps(asdict(row), default=str) + "\n" for row in bad]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(Path(file), "".join(lines))
