"""Variants of one product as one hit: the best of each group, and how many it has."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from acebert.catalog.filters import Filter, Not, OneOf, both
from acebert.catalog.indexes.base import CatalogIndex

GROUPING_KINDS = ("string", "integer")


def check_group(name: str, attributes: Mapping[str, str]) -> None:
    """Raises ValueError unless products can be grouped by an attribute."""
    if attributes.get(name) not in GROUPING_KINDS:
        fit = [other for other, kind in attributes.items() if kind in GROUPING_KINDS]
        raise ValueError(f"group_by must be one of {fit}, an attribute of texts or integers, got {str(name)[:80]!r}.")


def best_of_each(found: Iterable[Any], group_of: Callable[[Any], Any], wanted: int) -> list[Any]:
    """The first of each group, at most `wanted`; what has no group is one of its own."""
    best, seen = [], set()
    for item in found:
        group = group_of(item)
        if group is None or group not in seen:
            seen.add(group)
            best.append(item)
            if len(best) == wanted:
                break
    return best


def outside(name: str, group: Any) -> Filter:
    """A filter for products of other groups, and of none."""
    return Not(OneOf(name, (group,)))


def count_members(index: CatalogIndex, name: str, groups: Collection[Any], where: Filter | None) -> dict[Any, int]:
    """How many products of each of some groups meet a filter; None, for no group, has a single one."""
    named = tuple(sorted({group for group in groups if group is not None}))
    counts = index.facets(name, both(where, OneOf(name, named)), limit=len(named)) if named else {}
    return {**counts, None: 1}
