"""The products that are ranked, column by column; photos are read when they are needed."""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
from accelerate import PartialState

from acebert.data.cleaning import OnBadRow, read_photo, read_text
from acebert.data.sources import Columns, find_good_rows, load_products


@dataclass(frozen=True, eq=False)
class Catalog:
    """Products to rank.

    They are in descending order of id, as strings: a sort by score that keeps the order of ties then ranks ties as the
    metric and trec_eval do.

    Args:
        name: where it comes from, for messages.
        ids: unique.
        titles: None for a product without one.
        photos: one column of photos, not decoded; None for a catalogue without photos.
        attributes: column to values, None where a product has none.
        splits: of each product.
    """

    name: str
    ids: list[str]
    titles: list[str | None]
    photos: datasets.Dataset | None
    attributes: dict[str, list[str | None]]
    splits: list[str]

    @classmethod
    def load(
        cls,
        sources: Sequence[str],
        splits: Sequence[str],
        columns: Columns,
        config_name: str | None = None,
        on_bad_row: OnBadRow = "raise",
        bad_rows_file: str | os.PathLike | None = None,
        revision: str | None = None,
    ) -> "Catalog":
        """Reads the splits of one or more catalogues, each with the columns named, as one, in all processes.

        Args:
            sources, columns, config_name, revision: of [`load_products`].
            splits: their names.
            on_bad_row: "skip" leaves out the rows that [`find_good_rows`] finds bad, and lists them.
            bad_rows_file: the list.

        Raises:
            ValueError: if there is no product, a split or a column is missing, titles aren't strings, or, where
                `on_bad_row` is "raise", an id is missing or repeated.
        """
        with PartialState().main_process_first():  # it fills the cache, the others read it
            parts = [load_products(sources, split, columns, revision, config_name, on_bad_row) for split in splits]
        names = [split for split, part in zip(splits, parts, strict=True) for _ in range(len(part))]
        products = datasets.concatenate_datasets(parts)
        if on_bad_row == "skip":
            good = find_good_rows(products, columns, bad_rows_file, unique_ids=True)
            products, names = products.select(good), [names[row] for row in good]
        return cls.from_products(products, names, columns, " + ".join(sources))

    @classmethod
    def from_products(cls, products: datasets.Dataset, splits: Sequence[str], columns: Columns, name: str) -> "Catalog":
        """A catalogue of rows of `load_products`; raises as [`Catalog.load`]."""
        if not len(products):
            raise ValueError(f"{name} has no product: check the source and the split.")
        title_type = products.features.get(columns.title)
        if title_type is not None and title_type.dtype != "string":
            raise ValueError(f"--title_column {columns.title!r} holds {title_type}; titles are strings.")
        ids = [read_text(value) or "" for value in products[columns.id][:]]  # none is missing
        order = sorted(range(len(ids)), key=lambda row: ids[row], reverse=True)
        for left, right in pairwise(order):
            if ids[left] == ids[right]:
                raise ValueError(
                    f"Rows {left} and {right} of {name} share the {columns.id} {ids[left]!r}: ids have to be unique. "
                    "Mend them, or leave all but the first out with --on_bad_row skip."
                )
        products = products.select(order)

        def read(column: str | None) -> list[str | None]:
            values = products[column][:] if column in products.column_names else [None] * len(products)
            for product_id, value in zip(products[columns.id][:], values, strict=True):
                if isinstance(value, list | dict):
                    raise ValueError(
                        f"{column} of the product {product_id!r} of {name} is {value!r}: it has to be a single value."
                    )
            return [read_text(value) for value in values]

        return cls(
            name=name,
            ids=[ids[row] for row in order],
            titles=read(columns.title),
            photos=products.select_columns([image]) if (image := columns.image) in products.column_names else None,
            attributes={column: read(column) for column in columns.attributes},
            splits=[splits[row] for row in order],
        )

    def __len__(self) -> int:
        return len(self.ids)

    def read_photos(self, rows: Sequence[int]) -> list[Any | None]:
        """The photos of some rows, as the processor takes them; None for a product without one."""
        if self.photos is None:
            return [None] * len(rows)
        (column,) = self.photos.column_names
        photos = self.photos[list(rows)][column]
        return [photo if self.has_photo[row] else None for row, photo in zip(rows, photos, strict=True)]

    @cached_property
    def has_photo(self) -> np.ndarray:
        """(products,) booleans."""
        if self.photos is None:
            return np.zeros(len(self), dtype=bool)
        (column,) = self.photos.column_names
        return np.array([read_photo(photo) is not None for photo in self.photos[column]])

    def shows(self, sides: Collection[str]) -> np.ndarray:
        """(products,) booleans: which have at least one of the sides, "title" and "image"."""
        shown = np.zeros(len(self), dtype=bool)
        if "title" in sides:
            shown |= np.array([title is not None for title in self.titles])
        if "image" in sides:
            shown |= self.has_photo
        return shown

    @cached_property
    def members(self) -> dict[str, dict[str, set[int]]]:
        """For each attribute column the rows that have a value."""
        members: dict[str, dict[str, set[int]]] = {}
        for column, values in self.attributes.items():
            found = members.setdefault(column, {})
            for row, value in enumerate(values):
                if value is not None:
                    found.setdefault(value, set()).add(row)
        return members

    @cached_property
    def sha256(self) -> str:
        """Of ids and titles, whatever the order of the rows and the machine. Photos are not part of it."""
        return hashlib.sha256(json.dumps([self.ids, self.titles]).encode()).hexdigest()

    @cached_property
    def photos_sha256(self) -> str:
        """Of the photos' bytes; of path, size and time of change for photos that are files of their own."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1024):
            for photo in self.read_photos(range(start, min(start + 1024, len(self)))):
                if photo is None or photo.get("bytes") is not None:
                    content = b"" if photo is None else photo["bytes"]
                else:
                    content = photo["path"].encode()
                    if os.path.exists(photo["path"]):
                        status = os.stat(photo["path"])
                        content += f" {status.st_size} {status.st_mtime_ns}".encode()
                digest.update(len(content).to_bytes(8, "big") + content)
        return digest.hexdigest()
