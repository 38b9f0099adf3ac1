"""What a cell of a table means, and which rows can't be used: one rule for training, evaluation and catalogue."""

import json
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import datasets

from acebert.image_processing_acebert import open_photo, to_upright_rgb

SKIP = "Mend it, drop it, or leave such rows out with --on_bad_row skip."

OnBadRow = Literal["raise", "skip"]


@dataclass(frozen=True)
class BadRow:
    """A row that can't be taken as it is.

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


def is_blank(text: str) -> bool:
    """Whether a text holds no letter, digit, sign or symbol: tokenizers drop spaces, control and invisible characters.

    So they do with accents alone, and with U+FFFD, which stands for a character that got lost.
    """
    return not any(unicodedata.category(char)[0] in "LNPS" and char != "\ufffd" for char in text)


def read_value(value: Any) -> Any | None:
    """None for a missing value; 42 for 42.0, as tables hold whole numbers beside missing ones."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else value
    return None if isinstance(value, str) and is_blank(value) else value


def read_text(value: Any) -> str | None:
    """A title, a query or an attribute's value as a text, None for a missing one."""
    value = read_value(value)
    return None if value is None else str(value)


def read_photo(photo: Any) -> Any | None:
    """A photo as a dataset holds it, None for a missing one; a file without a byte is there, and broken."""
    if isinstance(photo, dict) and photo.get("bytes") is None:
        path = photo.get("path")
        return None if path is None or (isinstance(path, str) and is_blank(path)) else photo
    return None if isinstance(photo, str) and is_blank(photo) else photo


def can_hold_photos(feature: Any) -> bool:
    """Whether a column's type is one of photos: images, bytes, paths, or bytes beside a path."""
    if isinstance(feature, dict):
        return bool(feature.keys() & {"bytes", "path"})
    dtypes = ("string", "large_string", "binary", "large_binary")
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in dtypes


def find_photo_error(photo: Any) -> str | None:
    """Why a photo can't be read, None if it can: all of it is decoded, a JPEG at an eighth of its size."""
    try:
        image = open_photo(photo)
        if image is not photo:
            image.draft("RGB", (1, 1))
        to_upright_rgb(image, do_convert_rgb=True).load()
    except Exception as error:  # Pillow's decoders raise errors of many kinds for broken files
        reason = str(error).rstrip(".")
        return f"can't be read: {reason}. Give the path or the bytes of an image file, or None for no photo"
    return None


def find_bad_ids(ids: Sequence[Any], column: str, unique: bool) -> Iterator[BadRow]:
    """Rows without an id and, where ids are to be unique, rows with one that an earlier row has."""
    first: dict[Any, int] = {}
    for row, product_id in enumerate(ids):
        if read_value(product_id) is None:
            yield BadRow(row, None, column, "is missing: give every product an id")
        elif unique and first.setdefault(product_id, row) != row:
            yield BadRow(row, product_id, column, f"is row {first[product_id]}'s too: ids must be unique")


def write_bad_rows(bad: Sequence[BadRow], file: str | os.PathLike) -> None:
    """Lists bad rows in a file of JSON lines: row, id, field and reason."""
    lines = [json.dumps(asdict(row), default=str) + "\n" for row in bad]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("".join(lines), encoding="utf-8")
