"""Tables of products in the formats that shops export: separated text, JSON, JSON Lines and Parquet."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acebert.space.uploads.limits import Limits, megabytes
from acebert.space.uploads.table import Table, clean


def read_table(path: Path, limits: Limits) -> Table:
    """A table of any of the formats, which the content tells; the extension may be wrong."""
    name = path.name
    if path.stat().st_size > limits.table_bytes:
        raise ValueError(f"{name!r} is larger than {megabytes(limits.table_bytes)}: drop a part of it.")
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"PAR1":
            table = Table(limits)
            if not add_parquet(table, file, name):
                most = f"{limits.rows:,} rows or {megabytes(limits.unpacked_bytes)}"
                raise ValueError(f"{name!r} holds more than {most}: drop a part of it.")
            return table
        if start == b"PK\3\4":
            raise ValueError(
                f"{name!r} is a zip or an Excel workbook: save a workbook as CSV; a zip of photos goes to the photos."
            )
        data = file.read()
    table = Table(limits)
    text = _decode(data, name, table.notes)
    begin = text.lstrip()[:1]
    if not begin:
        raise ValueError(f"{name!r} is empty.")
    if begin == "<":
        raise ValueError(f"{name!r} is a web page or XML: drop CSV, TSV, JSON, JSON Lines or Parquet.")
    if begin == "[":
        _add_objects(table, _json_list(text, name))
    elif begin == "{":
        _add_objects(table, _json_lines(table, text))
    else:
        _add_csv(table, text, name)
    return table


def _decode(data: bytes, name: str, notes: list[str]) -> str:
    """The text of a file; where its encoding had to be assumed, that is noted."""
    try:
        # Excel's "Unicode text" is UTF-16 with a byte order mark.
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        # Browsers, too, read "Latin-1" as Windows-1252, which has the same letters and some more.
        text = data.decode("cp1252", errors="replace")
        notes.append(f"{name!r} is not UTF-8: read as Latin-1 (Windows-1252). If accents look wrong, save it as UTF-8.")
    if "\0" in text:
        raise ValueError(f"{name!r} is not a table that can be read: drop CSV, TSV, JSON, JSON Lines or Parquet.")
    return text


def _add_csv(table: Table, text: str, name: str) -> None:
    """Separated text with a header; rows count from 1, the header, as in a spreadsheet."""

    def records(separator: str) -> Any:  # the type of csv.reader has no public name
        return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)

    def width(separator: str) -> int:
        try:
            return len(next(filter(None, records(separator)), []))
        except csv.Error:
            return 0

    separator = max(",;\t|", key=width)  # the one that finds most columns
    if separator != ",":
        table.notes.append(f"{name!r} is read with {'tabs' if separator == chr(9) else repr(separator)} as separators.")
    header: list[str] | None = None
    reader = records(separator)
    for number in count(1):
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            lines = f"line {line}" if reader.line_num == line else f"lines {line} to {reader.line_num}"
            if header is None:
                raise ValueError(f"The header of {name!r} can't be read ({lines}): {error}.") from error
            table.skip_row(number, "", f"its quotation marks don't match or a cell is too long, in {lines}: {error}")
            continue
        if not any(cell.strip() for cell in record):
            continue
        if header is None:
            while not record[-1].strip():
                record.pop()
            # Tables saved by pandas have a column without a name, the index.
            header = [clean(column) or f"column {place}" for place, column in enumerate(record, start=1)]
            table.check_header(header)
            continue
        while len(record) > len(header) and not record[-1].strip():
            record.pop()
        if len(record) == len(header):
            table.add_row(number, dict(zip(header, record, strict=True)))
        else:
            reason = f"it has {len(record)} cells where the header has {len(header)}: quote cells that hold separators"
            table.skip_row(number, separator.join(record), reason)


def _json_list(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """What a JSON list holds, counted from 1."""
    try:
        return enumerate(json.loads(text, object_pairs_hook=_object), start=1)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name!r} is not valid JSON: {error}.") from error


def _json_lines(table: Table, text: str) -> Iterator[tuple[int, Any]]:
    """What each line holds, with the line's number from 1; a line that is no JSON is a row that can't be read."""
    # Not by splitlines, which would split inside of strings, at characters that JSON leaves alone.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                table.skip_row(number, line, f"it is not valid JSON: {error}")
            else:
                yield number, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which by the standard could have a name twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has the same name twice")
    return value


def _add_objects(table: Table, values: Iterable[tuple[int, Any]]) -> None:
    """Adds JSON objects as rows; a column is left out once it holds a list or an object."""
    nested: set[str] = set()
    for number, value in values:
        if not isinstance(value, dict):
            table.skip_row(number, json.dumps(value), "it is not an object")
            continue
        cells: dict[str, str | None] = {}
        for name, cell in value.items():
            name = clean(name) or ""
            if isinstance(cell, dict | list):
                nested.add(name)
                table.texts.pop(name, None)
            elif name not in nested:
                missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
                cells[name] = None if missing else cell if isinstance(cell, str) else json.dumps(cell)
        table.add_row(number, cells)
    table.leave_out(sorted(nested))


def add_parquet(table: Table, file: BinaryIO, name: str) -> bool:
    """Adds a Parquet file's rows as far as the limits allow, and says whether that was all."""
    try:
        parquet = pq.ParquetFile(file)
        table.check_header(parquet.schema_arrow.names)
        columns = {column.name: convert for column in parquet.schema_arrow if (convert := _converter(column.type))}
        if table.rows and columns.keys() != table.texts.keys() | table.photos.keys():
            raise ValueError(f"{name!r} has other columns than the files before it.")
        if not table.rows:
            table.leave_out(column for column in parquet.schema_arrow.names if column not in columns)
        # A file may hold a value once and repeat it in every row, so that its rows are far larger than the file. None
        # is larger than its row group, though: this many rows fit into the limit whatever they hold.
        groups = range(parquet.num_row_groups)
        largest = max((parquet.metadata.row_group(group).total_byte_size for group in groups), default=0)
        batch_size = max(1, min(1000, table.limits.unpacked_bytes // max(1, largest)))
        for batch in parquet.iter_batches(batch_size, columns=list(columns)):
            converted = {column: convert(batch[column]) for column, convert in columns.items()}
            if not table.add_batch(converted, batch.num_rows):
                return False
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name!r} can't be read: it is damaged, cut off or of an unusual kind of Parquet.") from error
    return True


def _converter(kind: pa.DataType) -> Callable[[pa.Array], pa.Array] | None:
    """What makes text or photos' bytes of a column, or None where neither can be made of it."""
    if pa.types.is_dictionary(kind):
        convert = _converter(kind.value_type)
        return convert and (lambda values: convert(values.dictionary_decode()))
    if pa.types.is_struct(kind) and {"bytes", "path"} == {part.name for part in kind}:
        # The Hub's type for photos. A path without bytes stays, so that the row is listed: it is not opened.
        return lambda values: pc.coalesce(
            *(pc.cast(pc.struct_field(values, part), pa.large_binary()) for part in ("bytes", "path"))
        )
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return lambda values: values.cast(pa.large_binary())
    if pa.types.is_floating(kind):
        return lambda values: pc.if_else(pc.is_nan(values), None, values).cast(pa.large_string())
    if pa.types.is_nested(kind) or pa.types.is_duration(kind) or isinstance(kind, pa.BaseExtensionType):
        return None
    return lambda values: values.cast(pa.large_string())
