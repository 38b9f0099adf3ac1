"""Catalogues from any source that `datasets` reads: columns by name, and the split that is held out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict, Image, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers.utils import logging

from acebert.data.cleaning import (
    SKIP,
    BadRow,
    OnBadRow,
    can_hold_photos,
    find_bad_ids,
    find_photo_error,
    read_photo,
    read_text,
    read_value,
    write_bad_rows,
)
from acebert.data.grouping import group_products, hash_text

logger = logging.get_logger(__name__)
MAX_EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}  # from there on, floats skip whole numbers
FILE_FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


@dataclass
class Columns:
    """Which column holds what. `None` means that the catalogue has no such column."""

    id: str = "id"
    title: str | None = "title"
    image: str | None = "image"
    query: str | None = None
    hot_query: str | None = None
    attributes: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        single = [self.id, self.title, self.image, self.query, self.hot_query]
        return list(dict.fromkeys(name for name in (*single, *self.attributes) if name))


def load_products(
    sources: Sequence[str],
    split: str,
    columns: Columns,
    revision: str | None = None,
    config_name: str | None = None,
    on_bad_row: OnBadRow = "raise",
) -> Dataset:
    """Loads one split of one or more catalogues and puts them one after another.

    Args:
        sources: each a Hub id, a folder or a CSV, TSV, JSON or Parquet file. Image paths in a file are relative to it.
        split: name of the split; a single file has the split "train".
        columns: the columns to read. A catalogue may lack some, as long as another has them; the values are then null.
        revision: of a Hub dataset.
        config_name: of a dataset with several configurations.
        on_bad_row: "skip" lets rows without an id through, for [`find_good_rows`] to list.

    Returns:
        The products with exactly the columns named, photos not decoded. Of several different catalogues the ids become
        "source:id", so that two shops that both count from 1 don't meet.

    Raises:
        ValueError: if a source can't be read or no source has a column, a split is unknown (both with the names that
            exist), two catalogues disagree on a column's type or it is none for its use, an id is missing, or a photo
            is a URL.
    """
    parts, available = [], set()
    for source in sources:
        path, splits = Path(source), open_source(source, revision, config_name)
        if split not in splits:
            raise ValueError(f"'{source}' has no split '{split}': it has {sorted(splits)}.")
        available |= set(splits[split].column_names)
        part = _read_columns(splits[split], columns, str(path.parent if path.is_file() else path))
        if columns.id in part.column_names:
            missing = next(find_bad_ids(part[columns.id][:], columns.id, unique=False), None)
            if missing and on_bad_row == "raise":
                raise ValueError(f"Row {missing.row} has no {columns.id}: give every product an id. {SKIP}")
        elif columns.id in available:
            raise ValueError(f"'{source}' has no {columns.id}: give every product an id.")
        if len(set(sources)) > 1 and columns.id in part.column_names:
            ids = [None if value is None else f"{source}:{value}" for value in map(read_text, part[columns.id][:])]
            part = part.remove_columns(columns.id).add_column(columns.id, ids)
        parts.append(part)
    missing = [name for name in columns.names() if name not in available]
    if missing:
        raise ValueError(
            f"No column {missing} in the split '{split}' of {list(sources)}: the columns are {sorted(available)}. "
            "Name yours by --id_column, --title_column, --image_column, --query_column, --hot_query_column and in "
            "--query_templates; 'none' says that there is no title or no photo."
        )
    features: dict[str, Any] = {}
    for part in parts:
        for name, feature in part.features.items():
            if features.setdefault(name, feature) != feature:
                raise ValueError(
                    f"Column '{name}' is {features[name]} in one catalogue and {feature} in another: make them alike."
                )
    return concatenate_datasets(parts)


def open_source(source: str, revision: str | None = None, config_name: str | None = None) -> DatasetDict:
    """All splits of a Hub id, a folder or a file, as [`load_products`] takes them, with all of their columns."""
    path = Path(source)
    kind = FILE_FORMATS.get(path.suffix)
    try:
        if kind is None:
            return load_dataset(source, config_name, revision=revision)
        # Without `index_col` pandas takes the first column for row names where lines end with a separator.
        options = {"delimiter": "\t" if path.suffix == ".tsv" else ",", "index_col": False} if kind == "csv" else {}
        return load_dataset(kind, data_files=str(path), **options)
    except (DatasetGenerationError, pa.ArrowException, ValueError) as error:
        raise ValueError(
            f"'{source}' can't be read: {error.__cause__ or error}. It has to be whole, in UTF-8, and hold a row at "
            "least."
        ) from error


def _read_columns(part: Dataset, columns: Columns, folder: str) -> Dataset:
    """The named columns of one catalogue, those that hold nothing left out, strings as strings, photos not decoded."""
    part = part.select_columns([name for name in columns.names() if name in part.column_names])
    for name, feature in part.features.items():
        if len(part) and part.data.column(name).null_count == len(part):
            part = part.remove_columns(name)
        elif getattr(feature, "dtype", None) == "large_string":
            part = part.cast_column(name, Value("string"))
    for name in (columns.id, columns.title, columns.query, columns.hot_query):
        dtype = getattr(part.features.get(name, Value("string")), "dtype", "")
        if not dtype.startswith(("string", "int", "uint", "float")):
            raise ValueError(f"The column '{name}' holds {part.features[name]}: ids and texts are texts or numbers.")
    if columns.id in part.column_names and part.features[columns.id].dtype.startswith("float"):
        # Tables hold whole numbers as floats where one is missing, which NaN may stand for.
        ids, most = [read_value(value) for value in part[columns.id][:]], MAX_EXACT[part.features[columns.id].dtype]
        for row, value in enumerate(ids):
            if isinstance(value, float) or abs(value or 0) >= most:
                raise ValueError(
                    f"The column '{columns.id}' holds fractions or floats that are too large to be exact, as {value!r} "
                    f"in row {row}: ids are texts or whole numbers."
                )
        whole = part.remove_columns(columns.id).add_column(columns.id, ids, feature=Value("int64"))
        part = whole.select_columns(part.column_names)  # in their order
    if columns.image in part.column_names:
        if not can_hold_photos(part.features[columns.image]):
            raise ValueError(
                f"The column '{columns.image}' holds {part.features[columns.image]}: photos are images, or paths or "
                "bytes of image files, one for a product."
            )
        if part.features[columns.image] == Value("string"):
            part = part.map(_resolve, fn_kwargs={"column": columns.image, "folder": folder}, with_indices=True)
        part = part.cast_column(columns.image, Image(decode=False))
    return part


def _resolve(row: dict[str, Any], index: int, column: str, folder: str) -> dict[str, Any]:
    """Makes a path relative to the catalogue's file absolute."""
    value = read_photo(row[column])
    if value and "://" in value:
        raise ValueError(f"{column} of row {index} is the URL {value}: download the photos and give their paths.")
    return {column: value and os.path.join(folder, value)}


def find_good_rows(
    products: Dataset,
    columns: Columns,
    file: str | os.PathLike | None,
    unique_ids: bool = False,
    learns_from: Sequence[str | None] | None = None,
) -> list[int]:
    """The rows that can be used. The others are counted in a warning and listed in a file, with what is wrong.

    A row is bad if its id is missing, if it has neither a title nor a photo, or if its photo can't be read. Each photo
    is decoded once. All processes have to call this: each decodes a part of the photos, and all get the same rows.

    Args:
        products: rows of [`load_products`].
        columns: which column holds what.
        file: the list, of one JSON object a line: row, id, field and reason. The main process writes it; None for none.
        unique_ids: whether a row with an id that an earlier one has is bad, too.
        learns_from: columns that queries are made from. A row that has neither any of them nor both title and photo is
            bad, too: nothing is learned from it.

    Raises:
        ValueError: if no row is good.
    """

    def read(column: str | None) -> list[Any]:
        return products[column][:] if column in products.column_names else [None] * len(products)

    ids, titles = read(columns.id), [read_text(value) for value in read(columns.title)]
    bad = {found.row: found for found in find_bad_ids(ids, columns.id, unique_ids)}
    queries = [False] * len(ids)
    for column in learns_from or ():
        queries = [there or read_text(value) is not None for there, value in zip(queries, read(column), strict=True)]
    shown = " and ".join(name for name in (columns.title, columns.image) if name)
    missing, broken = _check_photos(products, columns.image)
    for row, title in enumerate(titles):
        reason, field = None, shown
        if row in broken:
            reason, field = broken[row], columns.image or shown
        elif title is None and row in missing:
            reason = "is empty: a product needs a title or a photo"
        elif learns_from is not None and not queries[row] and (title is None or row in missing):
            reason = "is not all there, and there is no query: nothing can be learned from it"
        if reason:
            bad.setdefault(row, BadRow(row, ids[row], field, reason))
    found = [bad[row] for row in sorted(bad)]
    is_main = PartialState().is_main_process
    if file is not None and is_main:
        write_bad_rows(found, file)
    if found and is_main:
        listed = "" if file is None else f", listed in {file}"
        logger.warning(f"{len(found)} of {len(ids)} rows are left out{listed}; the first: {found[0]}.")
    if len(found) == len(ids):
        raise ValueError(f"None of {len(ids)} rows can be used" + (f"; the first: {found[0]}." if found else "."))
    return [row for row in range(len(ids)) if row not in bad]


def _check_photos(products: Dataset, column: str | None) -> tuple[set[int], dict[int, str]]:
    """The rows without a photo, and those whose photo can't be read with the reason. All processes share the work."""
    rows = list(range(len(products)))
    if column not in products.column_names:
        return set(rows), {}
    found: list[tuple[int, str | None]] = []
    with PartialState().split_between_processes(rows) as own:
        for row, photo in zip(own, map(read_photo, products.select(own)[column]), strict=True):
            error = None if photo is None else find_photo_error(photo)
            if photo is None or error is not None:
                found.append((row, error))
    found = gather_object(found)
    return {row for row, error in found if error is None}, {row: error for row, error in found if error is not None}


def hold_out(products: Dataset, columns: Columns, share: float) -> tuple[Dataset, Dataset]:
    """Splits a catalogue in two by a hash of the products' ids, so that the same products are held out in every run.

    Products that share an id or a title go to the same side.

    Args:
        products: rows of [`load_products`].
        columns: which column holds what.
        share: of the products to hold out, in (0, 1), met but for chance.

    Returns:
        The larger rest and what is held out.

    Raises:
        ValueError: if nothing would be held out or nothing left.
    """
    ids = products[columns.id][:]
    titles = products[columns.title][:] if columns.title in products.column_names else [None] * len(ids)
    groups = group_products(ids, [read_text(title) for title in titles])
    least: dict[int, str] = {}  # id of each group: it stands for all of them, whatever the order of the rows
    for group, product_id in zip(groups, map(str, ids), strict=True):
        least[group] = min(product_id, least.get(group, product_id))
    held = np.array([hash_text(f"hold out {least[group]}") % 1_000_000 < 1_000_000 * share for group in groups])
    if held.all() or not held.any():
        raise ValueError(
            f"Holding out a share of {share} of {len(ids)} products leaves one side empty: change --validation_share, "
            "or name a --validation_split."
        )
    return products.select(np.flatnonzero(~held)), products.select(np.flatnonzero(held))
