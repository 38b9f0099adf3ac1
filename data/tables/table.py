"""A table of products as it is read, row by row or batch by batch, and what could not be used of it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from acebert.utils.words import cut

MB = 2**20


def megabytes(size: int) -> str:
    """A number of bytes for the user to read."""
    return f"{size / MB:,g} MB"


@dataclass(frozen=True)
class TableLimits:
    """How much of a table is read. The default is for one's own files; a stranger's need less.

    Args:
        rows: of the table.
        columns: of the table.
        file_bytes: of its file, and of what a compressed file unpacks to.
        unpacked_bytes: of all that a Parquet file holds.
    """

    rows: int = 2**31
    columns: int = 10_000
    file_bytes: int = 2**40
    unpacked_bytes: int = 2**40


@dataclass(frozen=True)
class RowProblem:
    """Something in a row that could not be used.

    Args:
        row: as the user counts: 1 is a CSV's header, a JSON Lines file's first line, or the first product.
        field: the column's name, or "" for the whole row.
        value: what stands there, cut to 80 characters.
        reason: what is wrong with it.
        skipped: whether the row became no product; if not, the product is kept without this value.
    """

    row: int
    field: str
    value: str
    reason: str
    skipped: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", cut(self.value))


class Table:
    """A table as it grows, within the limits. Every cell is text or a photo's bytes.

    Args:
        limits: of `rows`, `columns` and, for batches, `unpacked_bytes`.
    """

    def __init__(self, limits: TableLimits) -> None:
        self.limits = limits
        self.texts: dict[str, list[str | None]] = {}
        self.photos: dict[str, list[pa.Array]] = {}
        self.rows: list[int] = []
        self.unread: list[RowProblem] = []
        self.notes: list[str] = []
        self._bytes = 0  # of the batches

    def check_header(self, names: Sequence[str]) -> None:
        """Refuses columns that share a name, and too many."""
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"Several columns are named {cut(twice[0])!r}: rename all but one.")
        self._check_width(len(names))

    def add_row(self, number: int, cells: dict[str, str | None]) -> None:
        """Adds a row; a column that the rows before it lacked is empty in them."""
        if len(self.rows) == self.limits.rows:
            raise ValueError(f"There are more than {self.limits.rows:,} rows: give a part of them.")
        for name in cells:
            if name not in self.texts:
                self.texts[name] = [None] * len(self.rows)
                self._check_width(len(self.texts))
        for name, values in self.texts.items():
            values.append(strip_cell(cells.get(name)))
        self.rows.append(number)

    def add_batch(self, columns: dict[str, pa.Array], rows: int) -> bool:
        """Adds as many rows of a batch as fit, and says whether all did. All batches have the same columns."""
        size = sum(values.nbytes for values in columns.values())
        fitting = min(rows, self.limits.rows - len(self.rows))
        if self._bytes + size > self.limits.unpacked_bytes:
            fitting = 0
        self._bytes += size
        self.rows += range(len(self.rows) + 1, len(self.rows) + 1 + fitting)
        for name, values in columns.items():
            if pa.types.is_large_binary(values.type):
                self.photos.setdefault(name, []).append(values[:fitting])
            else:
                self.texts.setdefault(name, []).extend(map(strip_cell, values[:fitting].to_pylist()))
        return fitting == rows

    def skip_row(self, number: int, value: str, reason: str) -> None:
        """Lists a row that can't be read."""
        if len(self.unread) == self.limits.rows:
            raise ValueError(f"More than {self.limits.rows:,} rows can't be read. Row {number}: {reason}.")
        self.unread.append(RowProblem(number, "", value, reason, skipped=True))

    def leave_out(self, names: Iterable[str]) -> None:
        """Notes columns that are neither text nor photos."""
        if shown := ", ".join(repr(cut(name)) for name in names):
            self.notes.append(f"Left out, for they hold objects: {shown}.")

    def _check_width(self, width: int) -> None:
        if width > self.limits.columns:
            raise ValueError(f"There are more than {self.limits.columns} columns: leave some out.")


def strip_cell(text: str | None) -> str | None:
    """A cell without surrounding spaces and halves of characters, which JSON may hold; None for an empty one."""
    return text.encode(errors="replace").decode().strip() or None if text else None
