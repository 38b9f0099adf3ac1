"""What the columns of a table of products mean, and what kinds of values they hold."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import datasets

# Columns of codes, by their [`column_key`]: their digits are no numbers.
CODES = re.compile(
    r"(.*(sku|gtin|ean|upc|isbn|mpn|asin|barcode|barcodeean|postcode|zipcode|handle))\d*|.*(artikel|bestell|produkt)(nr|nummer)|"
    r".*(article|product|item|part|model)(code|no|number)"
)

ColumnKind = Literal["string", "integer", "number", "boolean", "strings"]


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

    @property
    def shown(self) -> str:
        """The columns of what a shopper sees of a product, for messages."""
        return " and ".join(name for name in (self.title, self.image) if name)


def column_key(name: str) -> str:
    """A column's name without accents, case and anything but letters and digits: "N° d'Article" is "ndarticle"."""
    # Composed again at the end: what is left of Korean is letters, not accents.
    plain = "".join(char for char in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(char))
    return "".join(char for char in unicodedata.normalize("NFC", plain) if char.isalnum())


def is_code(name: str) -> bool:
    """Whether a column's name says that it holds codes, as "EAN" and "Variant SKU" do."""
    return CODES.fullmatch(column_key(name)) is not None


def column_kind(feature: Any) -> ColumnKind | None:
    """What a column's values are: texts, numbers, booleans or lists of texts; None for anything else."""
    if isinstance(feature, datasets.ClassLabel):
        return "string"
    if isinstance(feature, datasets.List) and feature.length == -1:
        return "strings" if column_kind(feature.feature) == "string" else None
    dtype = getattr(feature, "dtype", "") if isinstance(feature, datasets.Value) else ""
    if dtype in ("string", "large_string"):
        return "string"
    if dtype.startswith(("int", "uint")):
        return "integer"
    if dtype == "bool":
        return "boolean"
    return "number" if dtype.startswith("float") else None


def replace_column(products: datasets.Dataset, name: str, values: Sequence[Any], feature: Any) -> datasets.Dataset:
    """The products with other values of a column, at its place."""
    others = products.remove_columns(name)
    if not others.column_names:
        return datasets.Dataset.from_dict({name: values}, datasets.Features({name: feature}))
    return others.add_column(name, values, feature=feature).select_columns(products.column_names)


def can_hold_photos(feature: Any) -> bool:
    """Whether a column's type is one of photos: images, bytes, paths, or bytes beside a path."""
    if isinstance(feature, dict):
        return bool(feature.keys() & {"bytes", "path"})
    if isinstance(feature, datasets.List):
        return can_hold_photos(feature.feature)
    dtypes = ("string", "large_string", "binary", "large_binary")
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in dtypes
