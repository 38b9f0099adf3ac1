"""The products that are ranked, column by column; photos are read when they are needed."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset

from acebert.data.cleaning import OnBadRow, have_photos, keep_good_rows, prepare_columns, read_photos, read_texts
from acebert.data.columns import Columns
from acebert.data.photo_columns import concatenate_products
from acebert.data.sources import ReadOptions, load_products
from acebert.utils.fingerprints import corpus_sha256, photos_sha256

PHOTOS_READ = 1024  # at a time


@dataclass(frozen=True, eq=False)
class Corpus:
    """Products to rank.

    They are in descending order of id, as strings: a sort by score that keeps the order of ties then ranks ties as the
    metric and trec_eval do.

    Args:
        name: where it comes from, for messages.
        ids: unique.
        titles: None for a product without one.
        photos: one column of photos or of lists of them, not decoded; None for a catalogue without photos.
        attributes: column to values, None where a product has none.
        splits: of each product.
    """

    name: str
    ids: list[str]
    titles: list[str | None]
    photos: Dataset | None
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
        options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    ) -> "Corpus":
        """Reads the splits of one or more catalogues, each with the columns named, as one, in all processes.

        Args:
            sources, columns, config_name, revision, options: of [`load_products`].
            splits: their names.
            on_bad_row: "skip" leaves out the rows that [`keep_good_rows`] finds bad, and lists them.
            bad_rows_file: the list.

        Raises:
            ValueError: if there is no product, a split or a column is missing, a column has another type than its use
                needs, or, where `on_bad_row` is "raise", an id is missing or repeated.
        """
        with PartialState().main_process_first():  # it fills the cache, the others read it
            parts = [
                load_products(sources, split, columns, revision, config_name, on_bad_row, options=options)
                for split in splits
            ]
        names = [split for split, part in zip(splits, parts, strict=True) for _ in range(len(part))]
        products = concatenate_products(parts, columns.image)
        if on_bad_row == "skip":
            products, good = keep_good_rows(products, columns, bad_rows_file, unique_ids=True)
            names = [names[row] for row in good]
        return cls.from_products(products, names, columns, " + ".join(sources))

    @classmethod
    def from_products(cls, products: Dataset, splits: Sequence[str], columns: Columns, name: str) -> "Corpus":
        """A corpus of products, one in each row; raises as [`Corpus.load`]."""
        if not len(products):
            raise ValueError(f"{name} has no product: check the source and the split.")
        products = prepare_columns(products, columns)
        ids = [text or "" for text in read_texts(products, columns.id)]  # none is missing
        order = sorted(range(len(ids)), key=lambda row: ids[row], reverse=True)
        for left, right in pairwise(order):
            if ids[left] == ids[right]:
                raise ValueError(
                    f"Rows {left} and {right} of {name} share the {columns.id} {ids[left]!r}: ids have to be unique. "
                    "Correct them, or keep only the first with --on_bad_row skip."
                )
        products = products.select(order)
        return cls(
            name=name,
            ids=[ids[row] for row in order],
            titles=read_texts(products, columns.title),
            photos=products.select_columns([image]) if (image := columns.image) in products.column_names else None,
            attributes={column: read_texts(products, column) for column in columns.attributes},
            splits=[splits[row] for row in order],
        )

    def __len__(self) -> int:
        return len(self.ids)

    def read_photos(self, rows: Sequence[int]) -> list[Any | None]:
        """The photos of some rows, as the processor takes them: a photo, a list of several, or None."""
        if self.photos is None:
            return [None] * len(rows)
        return read_photos(self.photos, self.photos.column_names[0], list(rows))

    @cached_property
    def has_photo(self) -> np.ndarray:
        """(products,) booleans."""
        if self.photos is None:
            return np.zeros(len(self), dtype=bool)
        return have_photos(self.photos, self.photos.column_names[0])

    def shows(self, modalities: Collection[str]) -> np.ndarray:
        """(products,) booleans: which have at least one of the modalities, "title" and "image"."""
        shown = np.zeros(len(self), dtype=bool)
        if "title" in modalities:
            shown |= np.array([title is not None for title in self.titles])
        if "image" in modalities:
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
        """See [`corpus_sha256`]."""
        return corpus_sha256(self.ids, self.titles)

    @cached_property
    def photos_sha256(self) -> str:
        """See [`photos_sha256`][acebert.utils.fingerprints.photos_sha256]."""
        parts = (range(start, min(start + PHOTOS_READ, len(self))) for start in range(0, len(self), PHOTOS_READ))
        return photos_sha256(photo for rows in parts for photo in self.read_photos(rows))
