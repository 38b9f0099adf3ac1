"""JSON and JSON Lines."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from acebert.data.tables.table import Table, strip_cell
from acebert.utils.words import cut

ADDRESS_KEYS = ("src", "url", "link", "path")  # of a photo that is an object, as interfaces of shops give it


def add_json(table: Table, text: str, name: str) -> None:
    """Adds a list of objects, an object that holds one ("products"), or an object a line."""
    if text.lstrip().startswith("["):
        try:
            _add_objects(table, enumerate(_parse(text), start=1))
        except _BadJsonError as error:
            raise ValueError(f"{name!r} is not valid JSON: {error}.") from error
        return
    try:
        whole = _parse(text)
    except _BadJsonError:
        _add_objects(table, _lines(table, text))
        return
    lists = [key for key, value in whole.items() if isinstance(value, list) and _holds_objects(value)]
    if len(lists) == 1:
        table.notes.append(f"Of {name!r} the list {cut(lists[0])!r} is read.")
        _add_objects(table, enumerate(whole[lists[0]], start=1))
    elif lists or not any(value is None or isinstance(value, str | int | float) for value in whole.values()):
        raise ValueError(
            f"{name!r} holds an object of {[cut(key) for key in list(whole)[:10]]}: give a list of products, "
            '{"products": [...]}, or one product a line.'
        )
    else:
        _add_objects(table, [(1, whole)])


class _BadJsonError(Exception):
    """Not JSON, too deep, or an object with a name twice."""


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _BadJsonError(str(error)) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which by the standard could have a name twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has the same name twice")
    return value


def _holds_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values) and "src" not in values[0]


def _lines(table: Table, text: str) -> Iterator[tuple[int, Any]]:
    """What each line holds, with the line's number from 1; a line that is no JSON is a row that can't be read."""
    # Not by splitlines, which would split inside of strings, at characters that JSON leaves alone.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = _parse(line)
            except _BadJsonError as error:
                table.skip_row(number, line, f"it is not valid JSON: {error}")
            else:
                yield number, value


def _add_objects(table: Table, values: Iterable[tuple[int, Any]]) -> None:
    """Adds JSON objects as rows; a column is left out once it holds an object or a list of them."""
    nested: set[str] = set()
    for number, value in values:
        if not isinstance(value, dict):
            table.skip_row(number, json.dumps(value), "it is not an object")
            continue
        cells: dict[str, str | None] = {}
        for name, cell in value.items():
            name = strip_cell(name) or ""
            if _is_nested(cell):
                nested.add(name)
                table.texts.pop(name, None)
            elif name not in nested:
                cells[name] = _to_text(cell)
        table.add_row(number, cells)
    table.leave_out(sorted(nested))


def _is_nested(cell: Any) -> bool:
    if isinstance(cell, list):
        return any(isinstance(part, dict | list) and _address(part) is None for part in cell)
    return isinstance(cell, dict) and _address(cell) is None


def _address(part: Any) -> str | None:
    """The address of a photo that is an object."""
    found = [part[key] for key in ADDRESS_KEYS if isinstance(part.get(key), str)] if isinstance(part, dict) else []
    return found[0] if found else None


def _to_text(cell: Any) -> str | None:
    """A cell as a text; of a list, its JSON, as CSV files hold lists."""
    if isinstance(cell, list):
        return json.dumps([_address(part) or part for part in cell], ensure_ascii=False) if cell else None
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return cell if isinstance(cell, str) else _address(cell) or json.dumps(cell)
