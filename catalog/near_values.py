"""What a filter that no product meets may have meant: values of the attributes that are spelt almost alike."""

from collections.abc import Mapping
from typing import Any

from rapidfuzz import fuzz, process, utils

from acebert.catalog.filters import And, Filter, Not, OneOf, Or
from acebert.catalog.indexes.base import CatalogIndex

MOST_VALUES = 10_000  # of an attribute, to look among
NEAR = 5  # values named for each
ALIKE = 75  # of 100, by WRatio


def find_near_values(index: CatalogIndex, where: Filter, schema: Mapping[str, str]) -> dict[str, list[Any]]:
    """Values that there are, near to each asked for that no product has.

    Args:
        index: of the catalogue.
        where: the filter.
        schema: attribute to kind.

    Returns:
        Attribute to values, the nearest first; of texts alone. An attribute whose value isn't near to any has none.
    """
    near: dict[str, list[Any]] = {}
    for part in _equalities(where):
        if schema.get(part.name) not in ("string", "strings"):
            continue
        values = index.facets(part.name, limit=MOST_VALUES)
        for asked in part.values:
            if asked not in values:
                found = process.extract(
                    str(asked),
                    list(values),
                    scorer=fuzz.WRatio,
                    processor=utils.default_process,
                    score_cutoff=ALIKE,
                    limit=NEAR,
                )
                near[part.name] = [*near.get(part.name, ()), *(value for value, _, _ in found)]
    return near


def _equalities(where: Filter) -> list[OneOf]:
    if isinstance(where, OneOf):
        return [where]
    if isinstance(where, And | Or):
        return [found for part in where.parts for found in _equalities(part)]
    return _equalities(where.part) if isinstance(where, Not) else []
