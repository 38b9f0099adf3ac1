"""How much of a stranger's files is read."""

from dataclasses import dataclass

from acebert.data.tables import TableLimits
from acebert.data.tables.table import MB, megabytes

__all__ = ["MB", "Limits", "megabytes"]


@dataclass(frozen=True)
class Limits:
    """How much is taken from one user.

    Args:
        rows (`int`): of a table; of a Hub dataset the first ones.
        columns (`int`): of a table.
        table_bytes (`int`): of a table's file.
        zip_bytes (`int`): of a zip's file.
        unpacked_bytes (`int`): of all that a zip holds, of all that a Parquet file holds, of all products' photos.
        files (`int`): in a zip.
        photo_bytes (`int`): of one photo's file.
        pixels (`int`): of one photo.
    """

    rows: int = 20_000
    columns: int = 200
    table_bytes: int = 256 * MB
    zip_bytes: int = 512 * MB
    unpacked_bytes: int = 1024 * MB
    files: int = 50_000
    photo_bytes: int = 20 * MB
    pixels: int = 40_000_000

    @property
    def table(self) -> TableLimits:
        """Of a table."""
        return TableLimits(self.rows, self.columns, self.table_bytes, self.unpacked_bytes)
