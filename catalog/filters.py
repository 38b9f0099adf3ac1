"""Filters on attributes: from what a user writes to a small tree that every index engine reads.

    {"gender": "Men", "price": (None, 50), "colour": ["Red", "Blue"]}

means men's, at most 50, and red or blue. The parts are and-ed. A value alone is "equal", a list or set is "one of", and
a tuple of two is a range with both ends in it, None for an open end. JSON has no tuples, so a range may also be written
`{"price": {"$gte": 10, "$lt": 50}}`. Logic is `{"$or": [{...}, {...}]}`, `{"$and": [...]}` and `{"$not": {...}}`,
nested and beside attributes. The operators have the names of MongoDB's query language
(https://www.mongodb.com/docs/manual/reference/operator/query/), which many vector stores share.

`{"added": {"$gte": "2026-01-01", "$lt": "2026-02-01"}}` is a range of dates; a day given as the last is in it, whole.
`{"category": {"$under": "Home > Kitchen"}}` takes a category path and all below it, whatever sign divides the steps.

A product that lacks an attribute meets no condition on it, and so meets the negation of each. An attribute with several
values (the sizes of a shoe) meets "equal" and "one of" when any of its values does.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from acebert.catalog.dates import day_after, is_day, read_date, to_moment
from acebert.processing_acebert import LONE_SURROGATE

# Engines compare numbers as floats, which hold integers exactly up to 2^53. A longer code is a string.
KINDS = {
    "string": "a string",
    "integer": "an integer between -2^53 and 2^53",
    "number": "a finite number",
    "boolean": "True or False",
    "strings": "a list of strings",
    "date": "a day or a moment of ISO 8601, as '2026-01-31' or '2026-01-31T08:00:00'",
}
BOUNDS = ("gte", "gt", "lte", "lt")
STEPS = re.compile(r"[>/|»]|::")  # between the steps of a category path
MAX_DEPTH = 20  # of nesting: engines recurse, and overflow their stack at some depth, which kills the process

Value: TypeAlias = str | int | float | bool
ValuesOf: TypeAlias = Callable[[str], Iterable[str]]


@dataclass(frozen=True)
class OneOf:
    """The attribute's value, or one of its values, is among `values`: floats for a "number", else of its own type."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Range:
    """The attribute's value lies between the bounds that aren't None: moments for a "date", else numbers."""

    name: str
    gte: float | datetime | None = None
    gt: float | datetime | None = None
    lte: float | datetime | None = None
    lt: float | datetime | None = None


@dataclass(frozen=True)
class And:
    parts: "tuple[Filter, ...]"


@dataclass(frozen=True)
class Or:
    parts: "tuple[Filter, ...]"


@dataclass(frozen=True)
class Not:
    part: "Filter"


Filter: TypeAlias = OneOf | Range | And | Or | Not


def parse_filters(
    filters: Mapping[str, Any] | None, schema: Mapping[str, str], values_of: ValuesOf | None = None
) -> Filter | None:
    """Checks filters against the attributes that exist and makes a tree of them.

    Args:
        filters: as in the module's docstring. None and {} let every product through.
        schema: attribute -> its kind, one of `KINDS`.
        values_of: from an attribute's name to the values that there are, which paths are looked up among.

    Returns:
        The tree, or None for no filter.

    Raises:
        ValueError: what is asked of which attribute can't be, and what can.
    """
    if filters is None or (isinstance(filters, Mapping) and not filters):
        return None
    return _parse_all(filters, schema, "filters", MAX_DEPTH, values_of)


def both(*parts: Filter | None) -> Filter | None:
    """A filter for what meets all of several."""
    there = tuple(part for part in parts if part is not None)
    return there[0] if len(there) == 1 else And(there) if there else None


def _under(name: str, path: str, values_of: ValuesOf | None) -> OneOf:
    """A path by the values that there are at it and below it."""
    if values_of is None:
        raise ValueError(f"The filter on {name!r} asks for a path, which a catalogue's searches alone can look up.")
    steps = _steps(path)
    below = [value for value in values_of(name) if _steps(value)[: len(steps)] == steps]
    return OneOf(name, tuple(sorted(below)) or (path,))


def _steps(path: str) -> list[str]:
    return [step.strip().casefold() for step in STEPS.split(path) if step.strip()]


def check_attributes(attributes: Mapping[str, Any], schema: Mapping[str, str]) -> dict[str, Any]:
    """Checks a product's attributes against the schema.

    Returns:
        A copy in plain Python types; None, for an attribute that the product lacks, stays.

    Raises:
        ValueError: an attribute that isn't in the schema, or a value that isn't of its kind.
    """
    if not isinstance(attributes, Mapping):
        raise ValueError(f'attributes must be a dict of names to values, as {{"price": 10}}, got {attributes!r}.')
    checked: dict[str, Any] = {}
    for name, value in attributes.items():
        kind = _kind(name, schema)
        if value is None:
            checked[name] = None
        elif kind != "strings":
            checked[name] = _check_value(name, value, kind)
        elif isinstance(value, list | tuple):
            checked[name] = [_check_value(name, part, kind) for part in value]
        else:
            raise ValueError(f"The attribute {name!r} is {KINDS[kind]}, got {value!r}.")
    return checked


def _parse_all(filters: Any, schema: Mapping[str, str], place: str, depth: int, values_of: ValuesOf | None) -> Filter:
    """All parts of one dict."""
    if not isinstance(filters, Mapping) or not filters:
        raise ValueError(f'{place} must be a dict with at least one condition, as {{"price": 10}}, got {filters!r}.')
    if not depth:
        raise ValueError(f"filters are nested more than {MAX_DEPTH} levels deep: write them flatter.")
    parts = [_parse_part(name, value, schema, depth - 1, values_of) for name, value in filters.items()]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _parse_part(name: str, value: Any, schema: Mapping[str, str], depth: int, values_of: ValuesOf | None) -> Filter:
    if name == "$not":
        return Not(_parse_all(value, schema, name, depth, values_of))
    if name in ("$and", "$or"):
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(f"{name} takes a list of at least one filter, got {value!r}.")
        parts = tuple(_parse_all(part, schema, f"each part of {name}", depth, values_of) for part in value)
        return And(parts) if name == "$and" else Or(parts)
    if isinstance(name, str) and name.startswith("$") and name not in schema:
        raise ValueError(f"Unknown operator {name!r}: it must be $and, $or or $not, or an attribute's name.")
    kind = _kind(name, schema)
    if isinstance(value, Mapping) and list(value) == ["$under"]:
        if kind not in ("string", "strings"):
            raise ValueError(f"$under asks for a path, and {name!r} is {KINDS[kind]}.")
        return _under(name, str(_check_value(name, value["$under"], kind)), values_of)
    if isinstance(value, Mapping):
        unknown = [key for key in value if key not in [f"${bound}" for bound in BOUNDS]]
        if unknown or not value:
            what = f"Unknown operator {unknown[0]!r}" if unknown else "No operator"
            raise ValueError(f"{what} in the filter on {name!r}: it must be $gte, $gt, $lte, $lt, or $under alone.")
        return _range(name, kind, {key[1:]: bound for key, bound in value.items()})
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(
                f"A tuple is a range (lowest, highest), so the filter on {name!r} must have 2 values, got {value!r}. "
                f"For one of several values write a list: {list(value)!r}."
            )
        return _range(name, kind, {"gte": value[0], "lte": value[1]})
    values = value if isinstance(value, list | set | frozenset) else [value]
    if not values:
        raise ValueError(
            f"The filter on {name!r} is an empty list, which no product can meet: leave it out or name values."
        )
    checked = {_check_value(name, part, kind) for part in values}
    if kind == "date":
        ranges = tuple(_range(name, kind, {"gte": part, "lte": part}) for part in sorted(checked))
        return ranges[0] if len(ranges) == 1 else Or(ranges)
    return OneOf(name, tuple(sorted(float(part) if kind == "number" else part for part in checked)))


def _range(name: str, kind: str, bounds: dict[str, Any]) -> Range:
    bounds = {key: bound for key, bound in bounds.items() if bound is not None}
    if kind not in ("integer", "number", "date"):
        raise ValueError(
            f"The filter on {name!r} is a range, but {name!r} is {KINDS[kind]}: ranges need numbers or dates. "
            f"For one of several values write a list: {list(bounds.values())!r}."
        )
    if not bounds:
        raise ValueError(f"The range on {name!r} is open at both ends: give at least one bound, or leave it out.")
    checked: dict[str, Any] = {}
    for key, bound in bounds.items():
        if kind == "date":
            key, moment = _moment_bound(key, str(_check_value(name, bound, kind)))
            stricter = max if key in ("gte", "gt") else min
            checked[key] = stricter(moment, checked.get(key, moment))
        else:
            checked[key] = float(_check_value(name, bound, "number"))
    lowest = max((checked[key] for key in ("gte", "gt") if key in checked), default=None)
    highest = min((checked[key] for key in ("lte", "lt") if key in checked), default=None)
    if lowest is not None and highest is not None and lowest > highest:
        low, high = (str(end) if kind == "date" else repr(end) for end in (lowest, highest))
        raise ValueError(f"The range on {name!r} is empty: its lowest value {low} is above its highest {high}.")
    return Range(name, **checked)


def _moment_bound(key: str, text: str) -> tuple[str, datetime]:
    """A bound of a range of dates: up to a day is up to its end, and beyond a day is beyond its end."""
    if is_day(text) and key in ("lte", "gt"):
        return {"lte": "lt", "gt": "gte"}[key], day_after(text)
    return key, to_moment(text)


def _kind(name: str, schema: Mapping[str, str]) -> str:
    if name not in schema:
        raise ValueError(
            f"Unknown attribute {name!r}: it must be one of {', '.join(sorted(schema)) or '(there are none)'}."
        )
    return schema[name]


def _check_value(name: str, value: Any, kind: str) -> Value:
    """A value, or one of several values, in a plain Python type."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind in ("string", "strings"):
        fits = isinstance(value, str)
    elif kind == "boolean":
        fits = isinstance(value, bool)
    elif kind == "date":
        value, given = read_date(value), value
        if value is None:
            raise ValueError(f"The attribute {name!r} is {KINDS[kind]}, got {str(given)[:80]!r}.")
        return value
    elif kind == "integer":
        fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53
    else:
        # The comparison also refuses NaN, infinity, and integers that no float holds.
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not fits:
        raise ValueError(f"The attribute {name!r} is {KINDS[kind]}, got {value!r}.")
    if isinstance(value, str) and LONE_SURROGATE.search(value):
        raise ValueError(
            f"The attribute {name!r} has {value[:80]!r}, which holds half of a character (a lone surrogate): "
            "encode it by errors='replace'."
        )
    return value
