"""A table's file, whatever its name is: the content tells which kind it is of."""

import gzip
import io
import zlib
from pathlib import Path

from acebert.data.tables.json_text import add_json
from acebert.data.tables.parquet import add_parquet
from acebert.data.tables.separated_text import add_separated
from acebert.data.tables.table import Table, TableLimits, megabytes
from acebert.data.tables.workbook import add_workbook

READ = "CSV, TSV and other separated text, JSON, JSON Lines, Parquet and Excel, each also as .gz"
UNPACKED_BYTES = 2**24  # at a time
UNREAD = f"This kind isn't read: what is read is {READ}."


def read_table(path: Path, limits: TableLimits | None = None) -> Table:
    """Reads a table.

    Args:
        path: separated text, JSON, JSON Lines, Parquet or an Excel workbook, each of which may be packed by gzip. The
            content tells which it is; the extension may be wrong.
        limits: how much is read.

    Raises:
        ValueError: with a message for the user, where it can't be read or is over a limit.
    """
    table, name = Table(limits or TableLimits()), path.name
    data = _read_bytes(path, table.limits)
    if data.startswith(b"PAR1"):
        if not add_parquet(table, io.BytesIO(data), name):
            most = f"{table.limits.rows:,} rows or {megabytes(table.limits.unpacked_bytes)}"
            raise ValueError(f"{name!r} holds more than {most}: give a part of it.")
    elif data.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        add_workbook(table, data, name)
    else:
        text = decode(data, name, table.notes)
        begin = text.lstrip()[:1]
        if not begin:
            raise ValueError(f"{name!r} is empty.")
        if begin == "<":
            raise ValueError(f"{name!r} is a web page or XML. {UNREAD}")
        (add_json if begin in "[{" else add_separated)(table, text, name)
    return table


def _read_bytes(path: Path, limits: TableLimits) -> bytes:
    too_large = ValueError(f"{path.name!r} is larger than {megabytes(limits.file_bytes)}: give a part of it.")
    if path.stat().st_size > limits.file_bytes:
        raise too_large
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read()
        file.seek(0)
        try:
            parts, size = [], 0
            with gzip.open(file) as unpacked:
                while size <= limits.file_bytes and (part := unpacked.read(UNPACKED_BYTES)):
                    parts.append(part)
                    size += len(part)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path.name!r} is damaged or cut off: pack it again.") from error
    if size > limits.file_bytes:
        raise too_large
    return b"".join(parts)


def decode(data: bytes, name: str, notes: list[str]) -> str:
    """The text of a file; where its encoding had to be assumed, that is noted."""
    try:
        # Excel's "Unicode text" is UTF-16, with a byte order mark or without.
        wide = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else _wide_without_mark(data)
        text = data.decode(wide or "utf-8-sig")
    except UnicodeDecodeError:
        # Browsers, too, read "Latin-1" as Windows-1252, which has the same letters and some more.
        text = data.decode("cp1252", errors="replace")
        notes.append(f"{name!r} is not UTF-8: read as Latin-1 (Windows-1252). If accents look wrong, save it as UTF-8.")
    if "\0" in text:
        raise ValueError(f"{name!r} is not a table that can be read. {UNREAD}")
    return text


def _wide_without_mark(data: bytes) -> str | None:
    """UTF-16's byte order, where nearly every other byte of the start is zero, as of Latin letters."""
    start = data[:200]
    for order, zeros, letters in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if zeros.count(0) > 0.8 * len(zeros) and all(letters):
            return order
    return None
