"""Catalogues as training data: any `datasets` source, columns by name, queries by log or template, and batches.

Nothing is drawn from a global random state: item `i` of epoch `e` is the same whatever worker makes it and however
often the run was interrupted.
"""

import hashlib
import json
import math
import os
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict, Image, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError
from PIL import ImageOps
from transformers.utils import logging

from .checking_acebert import (
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
from .processing_acebert import open_photo, to_upright_rgb

logger = logging.get_logger(__name__)

HASHED_ROWS = 2**16  # at a time
MAX_EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}  # from there on, floats skip whole numbers
POOL = 4  # batches to encode that are read together, so that `split_by_length` has a choice
SKIP = "Mend it, drop it, or leave such rows out with --on_bad_row skip."
MEND_QUERY = "Mend it in the file or the column that it comes from."  # no query makes its row a bad one
MAX_CUT = 0.2  # of a photo's side, by the random crop
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


def products_sha256(products: Dataset) -> str:
    """Of the rows of [`load_products`], or of a selection of them, in their order.

    Of a selection, the rows that were left out may count, too. Photos count by their file name and the size of their
    embedded bytes, for the time that reading them all would take: one that changes and keeps both is not noticed. Files
    of their own count by name alone.
    """
    digest = hashlib.sha256()
    for name, feature in sorted(products.features.items()):
        column = products.data.column(name)
        parts = [column]
        if isinstance(feature, Image):
            parts = [pc.binary_length(pc.struct_field(column, "bytes")), pc.struct_field(column, "path")]
        digest.update(f"{name} {len(column)}".encode())
        for part in parts:
            for start in range(0, len(part), HASHED_ROWS):
                values = part.slice(start, HASHED_ROWS).to_pylist()
                if isinstance(feature, Image):
                    values = [os.path.basename(value) if isinstance(value, str) else value for value in values]
                digest.update(json.dumps(values, default=str).encode())
    if products._indices is not None:  # there is no public way to the rows that `Dataset.select` chose
        digest.update(json.dumps(products._indices.column(0).to_pylist()).encode())
    return digest.hexdigest()


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


class QueryTemplates:
    """Makes shopper-style queries from attributes: `"{gender} {baseColour} {articleType}"`.

    Such queries are synthetic. Each attribute of a template but one may be dropped at random, since shoppers rarely
    name them all; an attribute that the product doesn't have is dropped in any case. A template of attributes alone
    asks for nothing else, so every product that has them answers it. One with words of its own ("{brand} shoes") may
    ask for more, so only its own product is known to.

    Args:
        templates: strings whose fields are attribute columns.
        drop_probability: of each attribute, in [0, 1).

    Raises:
        ValueError: for a template without a field, or with one that is no column's name; naming it.
    """

    def __init__(self, templates: Sequence[str], drop_probability: float = 0.3):
        if isinstance(templates, str) or not all(isinstance(template, str) for template in templates):
            raise ValueError(f"Query templates must be a list of texts, got {templates!r}.")
        if not 0 <= drop_probability < 1:
            raise ValueError(f"`drop_probability` must lie in [0, 1), got {drop_probability}.")
        self.templates = list(templates)
        self.drop_probability = drop_probability
        self.fields: list[list[str]] = []
        self.has_words: list[bool] = []
        for template in self.templates:
            try:
                parts = list(string.Formatter().parse(template))
            except ValueError as error:
                raise ValueError(
                    f"The query template '{template}' can't be read ({error}): write {{column}}."
                ) from None
            fields = [name for _, name, _, _ in parts if name is not None]
            if not fields:
                raise ValueError(f"The query template '{template}' names no attribute: write one as {{column}}.")
            if not all(name.isidentifier() for name in fields) or any(spec or conv for _, _, spec, conv in parts):
                raise ValueError(f"The query template '{template}' must name columns plainly, as in {{colour}}.")
            self.fields.append(fields)
            self.has_words.append(any(text.strip() for text, _, _, _ in parts))

    @property
    def attributes(self) -> list[str]:
        """All attribute columns that some template names."""
        return list(dict.fromkeys(name for fields in self.fields for name in fields))

    def make(
        self, product: dict[str, Any], rng: np.random.Generator, strict: bool = True
    ) -> tuple[str, list[str]] | None:
        """Returns a query and the attributes that it states; None if there is none.

        Args:
            product: its attributes.
            rng: draws template and attributes.
            strict: state only what is all that the query asks for. Otherwise a template with words of its own states
                its attributes too: of every product that has them it would make the same query.
        """
        usable = [i for i, fields in enumerate(self.fields) if any(product.get(name) is not None for name in fields)]
        if not usable:
            return None
        index = usable[rng.integers(len(usable))]
        kept = self.keep(index, rng, [name for name in self.fields[index] if product.get(name) is not None])
        return self.phrase(index, product, kept), [] if strict and self.has_words[index] else kept

    def keep(self, index: int, rng: np.random.Generator, present: Sequence[str]) -> list[str]:
        """Those of a template's attributes that are not dropped: of the ones that are `present`, at least one."""
        kept = [name for name in present if rng.random() >= self.drop_probability]
        return kept or [present[int(rng.integers(len(present)))]]

    def phrase(self, index: int, product: Mapping[str, Any], kept: Collection[str]) -> str:
        """The query of a template that asks for these attributes of the product."""
        values = {name: str(product[name]) if name in kept else "" for name in self.fields[index]}
        return " ".join(self.templates[index].format(**values).split())


def hash_text(text: str) -> int:
    """A 63-bit integer that is the same for equal texts, letter case and spacing aside, in every process."""
    normal = " ".join(text.lower().split()).encode()
    return int.from_bytes(hashlib.blake2b(normal, digest_size=8).digest(), "big") >> 1


def group_products(ids: Sequence[Any], titles: Sequence[str | None]) -> np.ndarray:
    """Numbers the products, (rows,) int64: rows with one id or one title (letter case aside) share a number."""
    parent = list(range(len(ids)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, Any], int] = {}
    for row, (product_id, title) in enumerate(zip(ids, titles, strict=True)):
        keys = [("id", product_id)] + ([("title", hash_text(title))] if title else [])
        for key in keys:
            parent[find(row)] = find(first.setdefault(key, row))
    return np.array([find(row) for row in range(len(ids))], dtype=np.int64)


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


class ProductPairs(torch.utils.data.Dataset):
    """Draws a query and a product's title and photo for each row of a catalogue.

    The query is the title itself with probability `title_query_probability`, or where the row offers no other; the
    product then shows its photo alone, or the match would be one of equal words. Otherwise it is, with equal chances,
    of any kind that the row has: a real query, a hot query, or one made by a template; the title or the photo is then
    left out at random, never both.

    Args:
        products: rows of [`load_products`].
        columns: which column holds what.
        templates: makes queries from attributes.
        title_query_probability, drop_title_probability, drop_image_probability: in [0, 1].
        flip_probability: of mirroring the photo, in [0, 1].
        crop_probability: of cutting up to a fifth off the photo's width and off its height, in [0, 1].
        seed: of all draws, together with epoch and row.
    """

    strict_templates = True  # of `QueryTemplates.make`

    def __init__(
        self,
        products: Dataset,
        columns: Columns,
        templates: QueryTemplates | None = None,
        title_query_probability: float = 0.5,
        drop_title_probability: float = 0.2,
        drop_image_probability: float = 0.1,
        flip_probability: float = 0.0,
        crop_probability: float = 0.0,
        seed: int = 0,
    ):
        if len(products) == 0:
            raise ValueError("The catalogue has no product: check the source and the split.")
        if columns.id not in products.column_names:
            raise ValueError(f"No column '{columns.id}' for the ids: the columns are {products.column_names}.")
        for name, probability in (
            ("title_query_probability", title_query_probability),
            ("drop_title_probability", drop_title_probability),
            ("drop_image_probability", drop_image_probability),
            ("flip_probability", flip_probability),
            ("crop_probability", crop_probability),
        ):
            if not 0 <= probability <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {probability}.")
        self.columns, self.templates, self.seed, self.epoch = columns, templates, seed, 0
        self.title_query_probability = title_query_probability
        self.drop_title_probability = drop_title_probability
        self.drop_image_probability = drop_image_probability
        self.flip_probability, self.crop_probability = flip_probability, crop_probability
        self.photos = products.select_columns([columns.image]) if columns.image in products.column_names else None

        def read(column: str | None) -> list[Any]:
            return products[column][:] if column in products.column_names else [None] * len(products)

        self.ids, self.titles = read(columns.id), [read_text(value) for value in read(columns.title)]
        self.queries = [read_text(value) for value in read(columns.query)]
        self.hot_queries = [read_text(value) for value in read(columns.hot_query)]
        self.groups = group_products(self.ids, self.titles)
        self.attribute_names = templates.attributes if templates else []
        self.attributes = {name: [read_value(value) for value in read(name)] for name in self.attribute_names}
        self.codes = np.full((len(products), len(self.attribute_names)), -1, dtype=np.int64)
        for column, name in enumerate(self.attribute_names):
            for row, value in enumerate(self.attributes[name]):
                if isinstance(value, list | dict):
                    raise ValueError(f"{name} of row {row} is {value!r}: a query template takes single values.")
                if value is not None:
                    self.codes[row, column] = hash_text(str(value))

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def rng(self, row: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, row))

    def id_of(self, row: int) -> Any:
        """The id of the product that is drawn for a row in the present epoch."""
        return self.ids[row]

    def photo(self, row: int, rng: np.random.Generator) -> Any | None:
        """The row's photo as the processor takes it, cut and mirrored at random, or None. Colours stay as they are."""
        photo = None if self.photos is None else read_photo(self.photos[row][self.columns.image])
        if photo is None:
            return None
        cut, mirror = rng.random(2) < (self.crop_probability, self.flip_probability)
        if cut or mirror:
            try:
                photo = to_upright_rgb(open_photo(photo), do_convert_rgb=True)
                photo.load()
            except Exception as error:  # Pillow's decoders raise errors of many kinds for broken files
                raise ValueError(
                    f"The photo of product {self.ids[row]!r} (row {row}) can't be read: {error}. {SKIP}"
                ) from error
            if cut:
                size = np.array(photo.size)
                kept = np.maximum(1, (size * rng.uniform(1 - MAX_CUT, 1, size=2)).round()).astype(int)
                left, top = rng.integers(size - kept + 1).tolist()
                photo = photo.crop((left, top, left + int(kept[0]), top + int(kept[1])))
            if mirror:
                photo = ImageOps.mirror(photo)
        return photo

    def make_query(self, row: int, rng: np.random.Generator) -> tuple[str, list[str]] | None:
        """A query that isn't the title, and the attributes that it states; None for a row that offers none."""
        kinds: list[tuple[str, list[str]]] = []
        for texts in (self.queries, self.hot_queries):
            if (text := texts[row]) is not None:
                kinds.append((text, []))
        if self.templates is not None:
            product = {name: values[row] for name, values in self.attributes.items()}
            made = self.templates.make(product, rng, self.strict_templates)
            kinds += [made] if made else []
        return kinds[rng.integers(len(kinds))] if kinds else None

    def asked_codes(self, row: int, stated: list[str]) -> np.ndarray:
        """The codes of the stated attributes, -1 for the others: (attributes,) int64."""
        return np.where(np.isin(self.attribute_names, stated), self.codes[row], -1)

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = self.rng(row)
        photo = self.photo(row, rng)
        from_title = rng.random() < self.title_query_probability
        return self.item(row, *self.draw(row, rng, photo, from_title))

    def draw(
        self, row: int, rng: np.random.Generator, photo: Any | None, from_title: bool
    ) -> tuple[str, list[str], str | None, Any]:
        """A query, the attributes that it states, and the title and the photo that the product shows.

        Args:
            row: of the catalogue.
            rng: of the row.
            photo: the row's, None if it has none; anything that stands for it will do.
            from_title: the query is to be the title, if the product has one and a photo.

        Raises:
            ValueError: if there is nothing to learn from the row, naming it.
        """
        title, made = self.titles[row], self.make_query(row, rng)
        if title is not None and photo is not None and (from_title or made is None):
            return title, [], None, photo
        if made is None:
            raise ValueError(
                f"Product {self.ids[row]!r} (row {row}) has neither a query nor both title and photo: nothing can be "
                f"learned from it: give it a query, hot query or attributes for --query_templates. {SKIP}"
            )
        return *made, *self.draw_sides(row, rng, photo)

    def draw_sides(self, row: int, rng: np.random.Generator, photo: Any | None) -> tuple[str | None, Any | None]:
        """The title and the photo that the product shows for a query that isn't its title: one may be left out."""
        title = self.titles[row]
        if title is None and photo is None:
            raise ValueError(f"Product {self.ids[row]!r} (row {row}) has neither a title nor a photo. {SKIP}")
        if title is not None and photo is not None:
            draw = rng.random()
            if draw < self.drop_title_probability:
                title = None
            elif draw < self.drop_title_probability + self.drop_image_probability:
                photo = None
        return title, photo

    def item(self, row: int, query: str, stated: list[str], title: str | None, photo: Any | None) -> dict[str, Any]:
        return {
            "id": self.ids[row],
            "row": row,
            "query": query,
            "title": title,
            "image": photo,
            "product_id": self.groups[row],
            "query_id": hash_text(query),
            "product_attributes": self.codes[row],
            "query_attributes": self.asked_codes(row, stated),
            "from_title": title is None and self.titles[row] == query,
        }


class WholeProducts(torch.utils.data.Dataset):
    """The rows of [`ProductPairs`] with all that each shows and its own words as the query, nothing drawn.

    The words are the row's title, else its hot query, its real query or one made by a template.
    """

    def __init__(self, pairs: ProductPairs):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> dict[str, Any]:
        pairs = self.pairs
        title, photo = pairs.titles[row], None
        if pairs.photos is not None:
            photo = read_photo(pairs.photos[row][pairs.columns.image])
        query = title or pairs.hot_queries[row] or (pairs.make_query(row, pairs.rng(row)) or (None,))[0]
        if query is None:
            raise ValueError(f"Product {pairs.ids[row]!r} (row {row}) has no words to mine hard negatives by.")
        return pairs.item(row, query, [], title, photo)


class ProductParts(ProductPairs):
    """For pre-training: title and photo of each row, and for half of the rows a hot query before the title.

    A row without a hot query of its own gets a real query or one made by a template, if it can. Half go without, as
    most products do when they are encoded later; a row without a title keeps its hot query.
    """

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = self.rng(row)
        query, stated = self.make_query(row, rng) or (None, [])
        if self.hot_queries[row] is not None:
            query, stated = self.hot_queries[row], []
        if self.titles[row] is not None and rng.random() < 0.5:
            query, stated = None, []
        return {
            "id": self.ids[row],
            "row": row,
            "title": self.titles[row],
            "image": self.photo(row, rng),
            "hot_query": query,
            "query_attributes": self.asked_codes(row, stated),
        }


def process_named(
    process: Callable[..., Any], names: Sequence[str], remedy: str, **fields: list[Any]
) -> dict[str, torch.Tensor]:
    """The processor's tensors of a batch, or an error with the name of the item that it is about.

    Args:
        process: a method of the processor.
        names: of the items, to start a message with.
        remedy: to end it with.
        fields: its arguments, each with one entry an item.
    """
    try:
        return dict(process(**fields, return_tensors="pt"))
    except ValueError:
        for index, name in enumerate(names):
            try:
                process(**{field: [values[index]] for field, values in fields.items()})
            except ValueError as error:
                what = str(error).replace("images[0]", "the photo").replace("[0]", "", 1)
                raise ValueError(f"{name}: {what}. {remedy}") from error
        raise


def name_rows(rows: list[dict[str, Any]]) -> list[str]:
    return [f"Product {row['id']!r} (row {row['row']})" for row in rows]


def _process(processor: Any, rows: list[dict[str, Any]], **fields: list[Any]) -> dict[str, torch.Tensor]:
    """The processor's tensors of a batch of products.

    A batch without any photo gets one place of padding for them: data parallelism wants every process to use the same
    weights in every step.
    """
    inputs = process_named(processor.process_products, name_rows(rows), SKIP, **fields)
    if "pixel_values" not in inputs:
        width = 3 * processor.image_processor.patch_size**2
        inputs["pixel_values"] = torch.zeros(len(rows), 1, width)
        inputs["pixel_attention_mask"] = inputs["pixel_position_ids"] = torch.zeros(len(rows), 1, dtype=torch.long)
        inputs["spatial_shapes"] = torch.zeros(len(rows), 2, dtype=torch.long)
    return inputs


@dataclass
class PairCollator:
    """Rows of [`ProductPairs`] to arguments of `AceBertForRetrieval.forward`, in chunks, and of `find_positives`.

    A chunk holds as many queries as products, each padded only to its own longest: queries are sorted by length, and
    products by what they show (photo, title, both) and by length. So the rows of a chunk are no pairs: `query_order`
    and `product_order` put the vectors of all chunks back into the rows' order.

    Args:
        processor: makes the tensors.
        chunk_size: rows in one chunk, at most.
        drop_patch_probability: of leaving each patch out, in [0, 1], as FLIP does (Li et al. 2023, arXiv 2212.00794,
            section 3): less to compute, and another look at the same photo in every epoch. One patch always stays.
        seed: of the patches to leave out, together with epoch and rows. The epoch is read from `dataset`.
        dataset: where the rows come from; needed to drop patches.
    """

    processor: Any
    chunk_size: int = 64
    drop_patch_probability: float = 0.0
    seed: int = 0
    dataset: ProductPairs | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        texts = [row["query"] for row in rows]
        queries = process_named(self.processor.process_queries, name_rows(rows), MEND_QUERY, queries=texts)
        titles, images = [row["title"] for row in rows], [row["image"] for row in rows]
        products = _process(self.processor, rows, titles=titles, images=images)
        if self.drop_patch_probability:
            assert self.dataset is not None, "patches are dropped by the dataset's epoch"
            rng = np.random.default_rng((self.seed, self.dataset.epoch, rows[0]["row"], len(rows)))
            _drop_patches(products, self.drop_patch_probability, rng)
        queries = {f"query_{name}": value for name, value in queries.items()}

        words, patches = products["attention_mask"].sum(1), products["pixel_attention_mask"].sum(1)
        shown = torch.tensor(
            [2 * (title is not None) + (image is not None) for title, image in zip(titles, images, strict=True)]
        )
        parts = split_by_sides(shown, _length_keys(words, patches), self.chunk_size)
        product_order = torch.cat(parts)
        query_order = queries["query_attention_mask"].sum(1).argsort(stable=True)
        chunks = [
            trim_padding(select_rows(queries, query_part) | select_rows(products, part))
            for query_part, part in zip(query_order.split([len(part) for part in parts]), parts, strict=True)
        ]
        batch = {"chunks": chunks, "query_order": query_order.argsort(), "product_order": product_order.argsort()}
        for name in ("product_id", "query_id", "from_title"):
            batch[f"{name}s"] = torch.tensor([int(row[name]) for row in rows])
        for name in ("product_attributes", "query_attributes"):
            batch[name] = torch.from_numpy(np.stack([row[name] for row in rows]))
        return batch


def split_by_sides(sides: torch.Tensor, lengths: Sequence[torch.Tensor], size: int) -> list[torch.Tensor]:
    """Numbers of the rows in chunks of about equal size, cut where what is shown changes.

    Args:
        sides: (rows,) integers, what each shows.
        lengths: each (rows,): keys to sort by within equal sides, the last key first.
        size: rows in one chunk, at most.
    """
    order = torch.from_numpy(np.lexsort((*lengths, sides)))
    groups = order.split(torch.unique(sides, return_counts=True)[1].tolist())
    return [part for group in groups for part in group.tensor_split(math.ceil(len(group) / size))]


def split_by_length(
    inputs: Mapping[str, torch.Tensor], size: int
) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Queries or products in chunks of about equal length, so that little of each is padding.

    Args:
        inputs: of the processor.
        size: rows in one chunk, at most.

    Returns:
        For each chunk the numbers of its rows (rows,), and its tensors, cut to its longest.
    """
    none = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.long)
    words, patches = (
        inputs[mask].sum(1) if mask in inputs else none for mask in ("attention_mask", "pixel_attention_mask")
    )
    order = torch.from_numpy(np.lexsort(_length_keys(words, patches)))
    return [(rows, trim_padding(select_rows(inputs, rows))) for rows in order.split(size)]


def _length_keys(words: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For `lexsort`, the last key first: the model pads the sum of both; equal sums go by their photos."""
    return patches, words + patches


def select_rows(inputs: Mapping[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in inputs.items()}


def _drop_patches(products: dict[str, torch.Tensor], probability: float, rng: np.random.Generator) -> None:
    """Leaves patches out at random, in place: those that stay move to the front of their row, in their order."""
    mask = products["pixel_attention_mask"].bool()
    draws = torch.from_numpy(rng.random(mask.shape)).masked_fill(~mask, 2.0)
    # The patch with the highest draw stays in any case: a photo without patches would be none.
    kept = mask & ((draws >= probability) | (draws == draws.masked_fill(~mask, -1.0).amax(1, keepdim=True)))
    order = (~kept).int().argsort(dim=1, stable=True)
    positions = products["pixel_position_ids"].gather(1, order)
    values = products["pixel_values"].gather(1, order[..., None].expand_as(products["pixel_values"]))
    kept = kept.gather(1, order)
    products["pixel_values"] = values.masked_fill(~kept[..., None], 0.0)
    products["pixel_position_ids"] = positions.masked_fill(~kept, 0)
    products["pixel_attention_mask"] = kept.to(products["pixel_attention_mask"].dtype)


def trim_padding(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cuts off the columns that are padding in every row."""
    sequences = {
        "query_attention_mask": ("query_input_ids", "query_attention_mask"),
        "attention_mask": ("input_ids", "attention_mask"),
        "pixel_attention_mask": ("pixel_values", "pixel_attention_mask", "pixel_position_ids"),
    }
    lengths = {
        name: int(inputs[mask].sum(1).max().clamp(min=1))
        for mask, names in sequences.items()
        if mask in inputs
        for name in names
    }
    return {name: value[:, : lengths[name]] if name in lengths else value for name, value in inputs.items()}


@dataclass
class MaskingCollator:
    """Rows of [`ProductParts`] to the arguments of `AceBertForPreTraining.forward`.

    Words are masked as BERT does (Devlin et al. 2019, arXiv 1810.04805, section 3.1): 80 % become [MASK], 10 % a random
    word, 10 % stay. Patches are hidden at random. In a share of the rows the photo or the hot query is another row's.

    Args:
        processor: makes the tensors.
        mlm_probability, patch_mask_probability, mismatch_probability: in [0, 1].
        seed: of all draws, together with epoch and rows. The epoch is read from `dataset`.
    """

    processor: Any
    dataset: ProductParts
    mlm_probability: float = 0.15
    patch_mask_probability: float = 0.5
    mismatch_probability: float = 0.25
    seed: int = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.dataset.epoch, rows[0]["row"], len(rows)))
        groups = [self.dataset.groups[row["row"]] for row in rows]
        images, hot_queries = [row["image"] for row in rows], [row["hot_query"] for row in rows]
        matching = np.ones(len(rows), dtype=np.int64)
        for i in np.flatnonzero(rng.random(len(rows)) < self.mismatch_probability):
            j = int(rng.integers(len(rows)))
            part = hot_queries if rows[i]["hot_query"] is not None and rng.random() < 0.5 else images
            other = rows[j]["hot_query" if part is hot_queries else "image"]
            if groups[i] == groups[j] or other is None or part[i] is None:
                continue
            asked, has = rows[j]["query_attributes"], self.dataset.codes[rows[i]["row"]]
            if part is hot_queries and (asked >= 0).any() and ((asked < 0) | (asked == has)).all():
                continue  # another product's query, but true of this one
            part[i], matching[i] = other, 0
        titles = [row["title"] for row in rows]
        batch = _process(self.processor, rows, titles=titles, images=images, hot_queries=hot_queries)
        batch["input_ids"], batch["labels"] = self._mask_words(batch["input_ids"], rng)
        hidden = rng.random(batch["pixel_attention_mask"].shape) < self.patch_mask_probability
        batch["bool_masked_pos"] = torch.from_numpy(hidden) & batch["pixel_attention_mask"].bool()
        batch["matching_labels"] = torch.from_numpy(matching)
        return batch

    def _mask_words(self, input_ids: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        tokenizer = self.processor.tokenizer
        ids = input_ids.numpy().copy()
        special = np.isin(ids, tokenizer.all_special_ids)
        chosen = (rng.random(ids.shape) < self.mlm_probability) & ~special
        labels = np.where(chosen, ids, -100)
        kind = rng.random(ids.shape)
        ids[chosen & (kind < 0.8)] = tokenizer.mask_token_id
        random_word = chosen & (kind >= 0.8) & (kind < 0.9)
        ids[random_word] = rng.integers(len(tokenizer), size=int(random_word.sum()))
        return torch.from_numpy(ids), torch.from_numpy(labels)
