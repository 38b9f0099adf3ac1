"""A dataset of products as a catalogue takes it: which columns it uses, what their cells hold, which rows are bad."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import datasets
from transformers.utils import logging

from acebert.catalog.dates import read_date
from acebert.catalog.filters import KINDS, check_attributes
from acebert.catalog.store import RESERVED, Settings
from acebert.data.cleaning import (
    BadRow,
    find_bad_rows,
    keep_first,
    prepare_columns,
    read_column,
    read_photos,
    read_texts,
    to_plain_types,
)
from acebert.data.columns import Columns, column_kind
from acebert.data.photo_columns import MAX_IMAGES
from acebert.utils.fingerprints import plan_sha256
from acebert.utils.words import cut

logger = logging.get_logger(__name__)

LOOKED_AT = 100  # first values of a column, before all of them are read
Rows = Sequence[int] | slice | None  # all by default


@dataclass(frozen=True)
class Source:
    """A dataset of products, and which of its columns make a catalogue.

    Args:
        products: one row per product, in the forms of [`prepare_columns`].
        columns: the columns of the dataset that are used.
        max_images: photos of a product that are read.
    """

    products: datasets.Dataset
    columns: Columns
    max_images: int = MAX_IMAGES

    @classmethod
    def of(
        cls,
        dataset: datasets.Dataset,
        id_column: str,
        title_column: str | None,
        image_column: str | None,
        attribute_columns: Sequence[str] | None,
        max_images: int = MAX_IMAGES,
    ) -> "Source":
        """Checks the columns; without `attribute_columns` every column that can be one is an attribute.

        Raises:
            ValueError: for a missing column, one of another type than its use needs, or a name that is taken.
        """
        if not isinstance(dataset, datasets.Dataset):
            hint = f": choose one of its splits {list(dataset)}" if isinstance(dataset, Mapping) else ""
            raise ValueError(f"dataset must be a datasets.Dataset, got {type(dataset).__name__}{hint}.")
        columns = Columns(id_column, title_column, image_column, attributes=list(attribute_columns or ()))
        for name in columns.names():
            if name not in dataset.column_names:
                raise ValueError(
                    f"The dataset has no column {name!r}: it has {dataset.column_names}. Name yours by id_column, "
                    "title_column, image_column and attribute_columns; None says that there is no title or no photo."
                )
        if title_column is None and image_column is None:
            raise ValueError("A product needs a title or a photo: name title_column, image_column or both.")
        if not len(dataset):
            raise ValueError("The dataset is empty: give one with at least one product.")
        dataset = to_plain_types(dataset)
        if attribute_columns is None:
            others = [name for name in dataset.column_names if name not in columns.names()]
            columns.attributes = [name for name in others if column_kind(dataset.features[name]) is not None]
            left_out = [name for name in others if name not in columns.attributes]
            if left_out:
                logger.warning(f"Not taken as attributes, since they hold neither texts nor numbers: {left_out}.")
        products = prepare_columns(dataset, columns, max_images=max_images)
        for name in columns.attributes:
            if column_kind(dataset.features[name]) is None:
                raise ValueError(
                    f"The attribute column {name!r} holds {cut(dataset.features[name])}: attributes are texts, "
                    "numbers, booleans or lists of texts. Name another column, or convert it by dataset.cast_column."
                )
            if name in RESERVED or '"' in name:
                raise ValueError(f"An attribute can't be named {name!r}: rename the column by dataset.rename_column.")
        return cls(products, columns, max_images)

    def kinds(self) -> dict[str, str]:
        """Each attribute's type."""
        kinds = {name: str(column_kind(self.products.features[name])) for name in self.columns.attributes}
        return kinds | dict.fromkeys(self._dates, "date")

    @cached_property
    def _dates(self) -> list[str]:
        """The attributes whose texts are all days or moments of ISO 8601."""
        texts = [name for name in self.columns.attributes if column_kind(self.products.features[name]) == "string"]
        return [name for name in texts if self._holds_dates(name, slice(LOOKED_AT)) and self._holds_dates(name)]

    def _holds_dates(self, name: str, rows: Rows = None) -> bool:
        filled = [text for text in read_texts(self.products, name, rows) if text is not None]
        return bool(filled) and all(map(read_date, filled))

    def ids(self, rows: Rows = None) -> list[Any]:
        return read_column(self.products, self.columns.id, rows)

    def titles(self, rows: Rows = None) -> list[str | None]:
        return read_texts(self.products, self.columns.title, rows)

    def photos(self, rows: Sequence[int]) -> list[Any | None]:
        return read_photos(self.products, self.columns.image, rows)

    def attribute(self, name: str, rows: Rows = None) -> list[Any]:
        """Values of an attribute in its column's type, None for a missing one. Infinity stays, to be refused."""
        if column_kind(self.products.features[name]) == "string":
            texts = read_texts(self.products, name, rows)
            return [text and read_date(text) for text in texts] if name in self._dates else texts
        values = read_column(self.products, name, rows)
        return [None if isinstance(value, float) and math.isnan(value) else value for value in values]

    def find_bad_rows(self) -> list[BadRow]:
        """Rows that can't be used by the common rules, and those with an attribute that the catalogue can't keep.

        Each row is there once, with the first of its faults.
        """
        bad = find_bad_rows(self.products, self.columns, unique_ids=True)
        ids = self.ids()
        for name, kind in self.kinds().items():
            if kind in ("string", "boolean", "date"):  # a column of these holds nothing else
                continue
            for row, value in enumerate(self.attribute(name)):
                try:
                    check_attributes({name: value}, {name: kind})
                except ValueError:
                    reason = f"must be {KINDS[kind]}, got {cut(value)}: correct it, or give None for none"
                    bad.append(BadRow(row, ids[row], name, reason))
        return keep_first(bad)

    def plan_sha256(self, settings: Settings, rows: Sequence[int]) -> str:
        """Tells whether an unfinished build is of the same products, model and settings; photos are not looked at."""
        attributes = map(self.attribute, self.columns.attributes)
        return plan_sha256(vars(settings), len(rows), chain([self.ids(), self.titles()], attributes))
