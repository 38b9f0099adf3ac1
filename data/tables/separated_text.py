"""Separated text: CSV, TSV, and what else spreadsheets save by these names."""

import csv
import io
import re
from itertools import count
from typing import Any

from acebert.data.tables.table import Table, strip_cell

SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(r"\s*sep=(.)\r?\n", re.IGNORECASE)  # by which Excel is told
TEMPLATE, ITEM = "TemplateType=", "item_sku"  # Amazon's templates have lines for people before the header
CELL_CHARACTERS = 2**28  # a photo in base64 is one cell; csv's own limit is 2**17


def add_separated(table: Table, text: str, name: str) -> None:
    """Adds separated text with a header; rows count from 1, the header, as in a spreadsheet."""
    limit = csv.field_size_limit(CELL_CHARACTERS)
    try:
        told = SEPARATOR_LINE.match(text)
        lines = text[told.end() :] if told else text
        separator = told[1] if told else max(SEPARATORS, key=lambda separator: _width(lines, separator))
        if separator != ",":
            shown = "tabs" if separator == "\t" else repr(separator)
            table.notes.append(f"{name!r} is read with {shown} as separators.")
        _add_lines(table, lines, separator, name, 2 if told else 1)
    finally:
        csv.field_size_limit(limit)


def _records(text: str, separator: str) -> Any:  # the type of csv.reader has no public name
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)


def _width(text: str, separator: str) -> int:
    """Columns of the header: the separator that finds most is the file's."""
    try:
        return len(next(filter(None, _records(text, separator)), []))
    except csv.Error:
        return 0


def _add_lines(table: Table, text: str, separator: str, name: str, first: int) -> None:
    header: list[str] | None = None
    skipping = False
    reader = _records(text, separator)
    for number in count(first):
        line = reader.line_num + first
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            last = reader.line_num + first - 1
            lines = f"line {line}" if last == line else f"lines {line} to {last}"
            if header is None:
                raise ValueError(f"The header of {name!r} can't be read ({lines}): {error}.") from error
            table.skip_row(number, "", f"its quotation marks don't match or a cell is too long, in {lines}: {error}")
            continue
        if not any(cell.strip() for cell in record):
            continue
        if header is None and (skipping := skipping or record[0].startswith(TEMPLATE)) and ITEM not in record:
            continue
        if header is None:
            header = name_columns(record)
            table.check_header(header)
            continue
        while len(record) > len(header) and not record[-1].strip():
            record.pop()
        if len(record) == len(header):
            table.add_row(number, dict(zip(header, record, strict=True)))
        else:
            reason = f"it has {len(record)} cells where the header has {len(header)}: quote cells that hold separators"
            table.skip_row(number, separator.join(record), reason)


def name_columns(header: list[str]) -> list[str]:
    """The columns' names; pandas saves its index as a column without one."""
    while not header[-1].strip():
        header = header[:-1]
    return [strip_cell(column) or f"column {place}" for place, column in enumerate(header, start=1)]
