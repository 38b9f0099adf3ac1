"""Catalogues from any source that is read, as one table with named columns, and the split that is held out.

A source becomes a `datasets.Dataset` here, and nothing after this module knows what kind of file it was. What its cells
mean is said in [`acebert.data.cleaning`] and [`acebert.data.values`].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from acebert.data.cleaning import SKIP, OnBadRow, find_bad_ids, prepare_columns, read_column, read_texts
from acebert.data.columns import Columns, is_code
from acebert.data.downloads import PhotoDownloads
from acebert.data.exports import GROUP, read_export
from acebert.data.grouping import group_products, hash_text
from acebert.data.notes import tell
from acebert.data.opening import Opened, open_source
from acebert.data.photo_columns import MAX_IMAGES, concatenate_products
from acebert.data.values import parse_list, read_values, split_paths, split_tags
from acebert.utils.words import cut


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read, beside which columns of them.

    Args:
        sql_query: what to ask a database for.
        tag_columns: columns of texts that hold several values each, as "new, sale".
        path_columns: columns of texts that hold paths of categories, as "Home > Kitchen": each becomes the list of its
            prefixes, so that a filter by "Home" finds it, too.
        downloads: where photos that are web addresses are downloaded to, and within which bounds; None opens none.
        max_images: photos of a product that are read.
    """

    sql_query: str | None = None
    tag_columns: Sequence[str] = ()
    path_columns: Sequence[str] = ()
    downloads: PhotoDownloads | None = None
    max_images: int = MAX_IMAGES


def load_products(
    sources: Sequence[str],
    split: str,
    columns: Columns,
    revision: str | None = None,
    config_name: str | None = None,
    on_bad_row: OnBadRow = "raise",
    keep_others: bool = False,
    options: ReadOptions = ReadOptions(),
) -> Dataset:
    """Loads one split of one or more catalogues and puts them one after another.

    Args:
        sources: each a file of separated text, JSON, JSON Lines, Parquet or Excel, a folder, a Hub id, or a database's
            URL. The photos' paths in a file are relative to it.
        split: name of the split; a single file has the split "train".
        columns: the columns to read. A catalogue may lack some, as long as another has them; the values are then null.
            The export of a shop system that is known has its own names in place of the default ones.
        revision: of a Hub dataset.
        config_name: of a dataset with several configurations.
        on_bad_row: "skip" lets rows without an id and photos that aren't there through, for [`keep_good_rows`] to list.
        keep_others: also read the columns that `columns` doesn't name.
        options: see [`ReadOptions`].

    Returns:
        The products with the columns named, in the forms of [`prepare_columns`]. The ids of several catalogues become
        "source:id", so that two shops that both count from 1 don't meet.

    Raises:
        ValueError: if a source can't be read or no source has a column, a split is unknown (both with the names that
            exist), two catalogues disagree on a column's type or it is none for its use, an id is missing, a photo is a
            URL, or most photos can't be found.
    """
    parts, available = [], set()
    for source in sources:
        opened = open_source(source, revision, config_name, options.sql_query)
        part = choose_split(opened, split, source, on_bad_row)
        if opened.is_text:
            part = _read_export(part, columns, source)
        available |= set(part.column_names)
        if not keep_others:
            part = part.select_columns([name for name in columns.names() if name in part.column_names])
        empty = [name for name in part.column_names if len(part) and part.data.column(name).null_count == len(part)]
        part = part.remove_columns(empty)
        if opened.is_text:
            part = _read_attributes(part, columns, options)
        part = prepare_columns(part, columns, opened.folder, on_bad_row, options.downloads, options.max_images)
        if columns.id in part.column_names:
            missing = next(iter(find_bad_ids(part[columns.id][:], columns.id, unique=False)), None)
            if missing and on_bad_row == "raise":
                raise ValueError(f"Row {missing.row} has no {columns.id}: give every product an id. {SKIP}")
        elif columns.id in available:
            raise ValueError(f"{source!r} has no {columns.id}: give every product an id.")
        if len(set(sources)) > 1 and columns.id in part.column_names:
            ids = [None if value is None else f"{source}:{value}" for value in read_texts(part, columns.id)]
            part = part.remove_columns(columns.id).add_column(columns.id, ids)
        parts.append(part)
    missing = [name for name in columns.names() if name not in available]
    if missing:
        raise ValueError(
            f"No column {missing} in the split {split!r} of {list(sources)}: the columns are {sorted(available)}. "
            "Name yours by --id_column, --title_column, --image_column, --query_column, --hot_query_column and in "
            "--query_templates; 'none' says that there is no title or no photo."
        )
    features: dict[str, Any] = {}
    for part in parts:
        for name, feature in part.features.items():
            if name != columns.image and features.setdefault(name, feature) != feature:
                raise ValueError(
                    f"Column {name!r} is {features[name]} in one catalogue and {feature} in another: make them alike."
                )
    return concatenate_products(parts, columns.image)


def choose_split(opened: Opened, split: str, source: str, on_bad_row: OnBadRow) -> Dataset:
    """A split of a source, where the rows that could not be read may be left out.

    Raises:
        ValueError: if there is no such split, with the names that exist, or if rows that can't be read may not be left
            out or are most of them.
    """
    if split not in opened.splits:
        raise ValueError(f"{source!r} has no split {split!r}: it has {sorted(opened.splits)}.")
    part = opened.splits[split]
    if split in opened.unread:
        count, first = opened.unread[split]
        said = f"{count:,} rows of {source!r} can't be read; the first: {first}."
        if on_bad_row == "raise":
            raise ValueError(f"{said} {SKIP}")
        if count > len(part):
            raise ValueError(f"Most rows of {source!r} can't be read. {said}")
        tell(f"{said} They are left out.")
    return part


def _read_export(part: Dataset, columns: Columns, source: str) -> Dataset:
    """A known system's export as products; its columns get the default names where the user named no others."""
    texts = {name: part[name][:] for name in part.column_names}
    products = read_export(texts, columns.id)
    if products is None:
        return part
    texts, named = products.texts, {}
    for role, name, default in (
        ("id", products.id, columns.id == "id"),
        ("title", products.title, columns.title == "title"),
        ("image", products.image, columns.image == "image"),
    ):
        if default and name is not None and role not in texts:
            named[name] = role
    said = [f"{name!r} is read as the {role}" for name, role in named.items()]
    said += [f"{GROUP!r} names what variants share"] if GROUP in texts else []
    tell(
        f"{source!r} is an export of {products.system}. {'; '.join(said)}".rstrip(". ")
        + ". "
        + " ".join(products.notes)
    )
    texts = {named.get(name, name): values for name, values in texts.items()}
    return Dataset.from_dict(texts, Features({name: Value("string") for name in texts}))


def _repeat_for_queries(values: dict[str, list[Any]], query: str | None) -> dict[str, list[Any]]:
    """The columns with a row for each of several queries that a cell holds as a JSON list."""
    queries = [[text] if text is None else parse_list(text) or [text] for text in values.get(query or "", ())]
    several = sum(len(texts) > 1 for texts in queries)
    if not several and all(texts == [text] for texts, text in zip(queries, values.get(query or "", ()), strict=True)):
        return values
    tell(f"{several:,} cells of {cut(query)!r} hold several queries: each is a row of its own.")
    rows = [row for row, texts in enumerate(queries) for _ in texts]
    repeated = {name: [column[row] for row in rows] for name, column in values.items()}
    return repeated | {str(query): [text for texts in queries for text in texts]}


def _read_attributes(part: Dataset, columns: Columns, options: ReadOptions) -> Dataset:
    """A table of texts with the values of its attributes: numbers, booleans, lists, dates in ISO 8601.

    Ids, titles, queries, photos and groups of variants stay texts, whatever they look like.
    """
    texts = [*replace(columns, attributes=[]).names(), GROUP]
    values = {name: part[name][:] for name in part.column_names}
    for use, name in (("id", columns.id), ("title", columns.title), ("hot query", columns.hot_query)):
        listed = next((text for text in values.get(name, ()) if text and parse_list(text)), None)
        if listed:
            raise ValueError(
                f"The {use} column {name!r} holds lists, as {cut(listed)!r}, not texts: give each product one."
            )
    values = _repeat_for_queries(values, columns.query)
    features = Features({name: Value("string") for name in part.column_names})
    for name in part.column_names:
        if name in options.tag_columns or name in options.path_columns:
            split = split_tags if name in options.tag_columns else split_paths
            values[name] = [None if text is None else split(text) for text in values[name]]
            features[name] = List(Value("string"))
        elif name not in texts and not is_code(name):
            read = read_values(name, values[name])
            if read.note:
                tell(read.note)
            values[name], features[name] = read.values, read.feature
    return Dataset.from_dict(values, features)


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
