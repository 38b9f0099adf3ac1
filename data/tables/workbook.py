"""Excel workbooks."""

import datetime
import io
import zipfile
from contextlib import suppress
from typing import Any

from acebert.data.tables.separated_text import ITEM, TEMPLATE, name_columns
from acebert.data.tables.table import Table, megabytes
from acebert.utils.words import cut


def add_workbook(table: Table, data: bytes, name: str) -> None:
    """Adds the first sheet that holds anything, of .xlsx, .xlsm, .xlsb, .xls or .ods; rows count as Excel counts.

    Raises:
        ValueError: for a file that is no workbook, and where the extra "excel" isn't installed.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise ValueError(
            f"{name!r} is a zip or an Excel workbook. To read workbooks install the extra: pip install "
            "'acebert[excel]'; or save it as CSV. A zip of photos is no table."
        ) from None
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(info.file_size for info in archive.infolist()) > table.limits.unpacked_bytes:
            raise ValueError(
                f"{name!r} unpacks to more than {megabytes(table.limits.unpacked_bytes)}: give a part of it."
            )
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = [sheet for sheet in workbook.sheet_names if workbook.get_sheet_by_name(sheet).height]
        rows = workbook.get_sheet_by_name(sheets[0]).to_python(skip_empty_area=False) if sheets else []
    except CalamineError as error:
        raise ValueError(
            f"{name!r} is a zip or an Excel workbook, but no workbook that can be read: save it as CSV. A zip of "
            "photos is no table."
        ) from error
    if len(sheets) > 1:
        table.notes.append(f"Of the sheets of {name!r}, {', '.join(map(cut, sheets))}, the first is read.")
    header: list[str] | None = None
    skipping = False
    for number, record in enumerate(rows, start=1):
        cells = list(map(_to_text, record))
        if not any(cell.strip() for cell in cells):
            continue
        if header is None and (skipping := skipping or cells[0].startswith(TEMPLATE)) and ITEM not in cells:
            continue
        if header is None:
            header = name_columns(cells)
            table.check_header(header)
        else:
            table.add_row(number, dict(zip(header, cells, strict=False)))  # a sheet is as wide as its widest row
    if header is None:
        raise ValueError(f"{name!r} is empty.")


def _to_text(cell: Any) -> str:
    """A cell as a text: a number cell shows 123 and holds 123.0."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime):
        return (cell.date() if cell.time() == datetime.time() else cell).isoformat()
    return cell.isoformat() if isinstance(cell, datetime.date | datetime.time) else str(cell)
