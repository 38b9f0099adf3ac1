"""Catalogues from any source that `datasets` reads, as one table with named columns, and the split that is held out.

A source becomes a `datasets.Dataset` here, and nothing after this module knows what kind of file it was. What its cells
mean is said in [`acebert.data.cleaning`].
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError

from acebert.data.cleaning import (
    SKIP,
    OnBadRow,
    clean_photo,
    find_bad_ids,
    prepare_columns,
    read_column,
    read_texts,
)
from acebert.data.columns import Columns
from acebert.data.grouping import group_products, hash_text

FILE_FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def load_products(
    sources: Sequence[str],
    split: str,
    columns: Columns,
    revision: str | None = None,
    config_name: str | None = None,
    on_bad_row: OnBadRow = "raise",
    keep_others: bool = False,
) -> Dataset:
    """Loads one split of one or more catalogues and puts them one after another.

    Args:
        sources: each a Hub id, a folder or a CSV, TSV, JSON or Parquet file. Image paths in a file are relative to it.
        split: name of the split; a single file has the split "train".
        columns: the columns to read. A catalogue may lack some, as long as another has them; the values are then null.
        revision: of a Hub dataset.
        config_name: of a dataset with several configurations.
        on_bad_row: "skip" lets rows without an id through, for [`find_good_rows`] to list.
        keep_others: also read the columns that `columns` doesn't name.

    Returns:
        The products with the columns named, in the forms of [`prepare_columns`]. The ids of several catalogues become
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
        part = splits[split]
        available |= set(part.column_names)
        if not keep_others:
            part = part.select_columns([name for name in columns.names() if name in part.column_names])
        part = _read_columns(part, columns, str(path.parent if path.is_file() else path))
        if columns.id in part.column_names:
            missing = next(iter(find_bad_ids(part[columns.id][:], columns.id, unique=False)), None)
            if missing and on_bad_row == "raise":
                raise ValueError(f"Row {missing.row} has no {columns.id}: give every product an id. {SKIP}")
        elif columns.id in available:
            raise ValueError(f"'{source}' has no {columns.id}: give every product an id.")
        if len(set(sources)) > 1 and columns.id in part.column_names:
            ids = [None if value is None else f"{source}:{value}" for value in read_texts(part, columns.id)]
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
            f"'{source}' can't be read: {error.__cause__ or error}. It has to be complete, in UTF-8, and "
            "hold at least one row."
        ) from error


def _read_columns(part: Dataset, columns: Columns, folder: str) -> Dataset:
    """The columns of one catalogue in their final forms, without those that are empty. Image paths become absolute."""
    empty = [name for name in part.column_names if len(part) and part.data.column(name).null_count == len(part)]
    part = part.remove_columns(empty)
    if part.features.get(columns.image) in (Value("string"), Value("large_string")):
        part = part.map(_resolve, fn_kwargs={"column": columns.image, "folder": folder}, with_indices=True)
    return prepare_columns(part, columns)


def _resolve(row: dict[str, Any], index: int, column: str, folder: str) -> dict[str, Any]:
    """Makes a path relative to the catalogue's file absolute."""
    value = clean_photo(row[column])
    if value and "://" in value:
        raise ValueError(f"{column} of row {index} is the URL {value[:80]}: download the photos and give their paths.")
    return {column: value and os.path.join(folder, value)}


def hold_out(products: Dataset, columns: Columns, share: float) -> tuple[Dataset, Dataset]:
    """Splits a catalogue in two by a hash of the products' ids, so that the same products are held out in every run.

    Products that share an id or a title go to the same side.

    Args:
        products: rows of [`load_products`].
        columns: which column holds what.
        share: of the products to hold out, in (0, 1), met up to chance.

    Returns:
        The rest and the products held out.

    Raises:
        ValueError: if nothing would be held out or nothing left.
    """
    ids = read_column(products, columns.id)
    groups = group_products(ids, read_texts(products, columns.title))
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
