"""Variants of one product as one hit: the best of each group, and how many it has."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from acebert.catalog.filters import And, Filter, Not, OneOf
from acebert.catalog.indexes.base import CatalogIndex

GROUPING_KINDS = ("string", "integer")
MOST_GROUPS = 1_000_000  # that are counted


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


def both(*parts: Filter | None) -> Filter | None:
    """A filter for what meets all of several."""
    there = tuple(part for part in parts if part is not None)
    return there[0] if len(there) == 1 else And(there) if there else None


def outside(name: str, group: Any) -> Filter:
    """A filter for products of other groups, and of none."""
    return Not(OneOf(name, (group,)))


def count_members(index: CatalogIndex, name: str, group: Any, where: Filter | None) -> int:
    """How many products of a group meet a filter; a product without a group is alone."""
    return 1 if group is None else index.count(both(where, OneOf(name, (group,))))


def group_facets(index: CatalogIndex, name: str, by: str, where: Filter | None, limit: int) -> dict[Any, int]:
    """The values of an attribute and how many groups have a product with each, the most frequent first."""
    values = index.facets(name, where, limit=limit)
    counts = {value: count_groups(index, by, both(where, OneOf(name, (value,)))) for value in values}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def count_groups(index: CatalogIndex, name: str, where: Filter | None) -> int:
    """How many groups have a product that meets a filter, each product without a group counted as one."""
    groups = index.facets(name, where, limit=MOST_GROUPS)
    return len(groups) + index.count(where) - sum(groups.values())
