"""The filters of a search panel: a fixed number of slots, which a catalogue fills as far as it has attributes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gradio as gr
import numpy as np

from acebert.catalog.dates import read_date
from acebert.catalog.product_catalog import ProductCatalog
from acebert.space.cards import label
from acebert.space.shop import read_text

CHOICE_SLOTS = 20  # filters by value
RANGE_SLOTS = 6  # filters by number, each from and to
DATE_SLOTS = 2  # filters by date, each from and to
VALUES = 1_000  # of a filter that are listed; others may be typed
SLOTS = CHOICE_SLOTS + 2 * RANGE_SLOTS + 2 * DATE_SLOTS

Filters: TypeAlias = dict[str, Any]
"""Attribute to a list of values, or to the lowest and the highest number or date."""


@dataclass(frozen=True)
class FilterSlots:
    """Which attribute of a catalogue each slot filters by.

    Args:
        choices: attributes filtered by value, at most `CHOICE_SLOTS`.
        ranges: numbers, filtered by lowest and highest, at most `RANGE_SLOTS`.
        dates: filtered by first and last, at most `DATE_SLOTS`.
    """

    choices: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()

    @classmethod
    def of(cls, catalog: ProductCatalog, attributes: Sequence[str]) -> "FilterSlots":
        numbers = [name for name in attributes if catalog.attributes[name] in ("integer", "number")]
        dates = [name for name in attributes if catalog.attributes[name] == "date"]
        others = [name for name in attributes if name not in (*numbers, *dates)]
        return cls(tuple(others[:CHOICE_SLOTS]), tuple(numbers[:RANGE_SLOTS]), tuple(dates[:DATE_SLOTS]))

    @staticmethod
    def left_out(catalog: ProductCatalog, attributes: Sequence[str]) -> list[str]:
        """The attributes that there is no slot for."""
        slots = FilterSlots.of(catalog, attributes)
        return [name for name in attributes if name not in (*slots.choices, *slots.ranges, *slots.dates)]

    def read(self, values: Sequence[Any]) -> Filters:
        """The filters that the slots' values make: a list for each choice, then two ends of each range."""
        filters: Filters = {name: chosen for name, chosen in zip(self.choices, values, strict=False) if chosen}
        numbers, days = values[CHOICE_SLOTS:][: 2 * RANGE_SLOTS], values[CHOICE_SLOTS + 2 * RANGE_SLOTS :]
        for names, ends in ((self.ranges, numbers), (self.dates, [read_text(day) or None for day in days])):
            for name, low, high in zip(names, ends[::2], ends[1::2], strict=False):
                if (low, high) != (None, None):
                    filters[name] = (low, high)
        return filters

    def orders(self) -> list[tuple[str, str]]:
        """The ways to sort by a number or a date, and how each is called in an address."""
        ways = {name: ("low to high", "high to low") for name in self.ranges}
        ways |= {name: ("oldest first", "newest first") for name in self.dates}
        return [
            (f"{label(name)}, {way}", sign + name)
            for name, both in ways.items()
            for way, sign in zip(both, ("", "-"), strict=True)
        ]

    def write(self, filters: Filters) -> list[Any]:
        """The slots' values that make these filters."""
        values = [filters.get(name, []) for name in self.choices]
        values += [[]] * (CHOICE_SLOTS - len(values))
        for name in self.ranges:
            values += filters.get(name, (None, None))
        values += [None] * (SLOTS - 2 * DATE_SLOTS - len(values))
        for name in self.dates:
            values += [day or "" for day in filters.get(name, ("", ""))]
        return values + [""] * (SLOTS - len(values))

    def parse(self, catalog: ProductCatalog, fields: Mapping[str, Sequence[str]]) -> Filters:
        """The filters in an address; what can be none is left out."""
        filters: Filters = {}
        for name in self.choices:
            # Of texts any value is taken, listed or not; that no product has it is told.
            possible = {"True": True, "False": False} if catalog.attributes[name] == "boolean" else None
            asked = dict.fromkeys(value for value in fields.get(name, ()) if value)
            chosen = list(asked) if possible is None else [possible[value] for value in asked if value in possible]
            if chosen:
                filters[name] = chosen
        for name in self.ranges:
            low, high = (_read_number(fields.get(f"{name}.{end}", [""])[0]) for end in ("min", "max"))
            if low is None and high is None:
                continue
            if low is None or high is None or low <= high:
                filters[name] = (low, high)
        for name in self.dates:
            first, last = (read_date(fields.get(f"{name}.{end}", [""])[0]) for end in ("min", "max"))
            if (first or last) and (not first or not last or first <= last):
                filters[name] = (first, last)
        return filters

    def updates(self, catalog: ProductCatalog, filters: Filters) -> list[dict[str, Any]]:
        """What changes in the slots: each value with how many products, or groups, it would leave by the others."""
        updates = []
        for name in self.choices:
            others = {other: value for other, value in filters.items() if other != name}
            counts = catalog.facets(name, others, limit=VALUES)
            # Chosen ones stay, or the shopper couldn't take them away.
            counts |= {value: 0 for value in filters.get(name, ()) if value not in counts}
            choices = [(f"{value} ({count:,})", value) for value, count in counts.items()]
            more = len(counts) >= VALUES
            named = f"{label(name)} (the first {VALUES:,}, or type one)" if more else label(name)
            updates.append(gr.update(choices=choices, label=named, visible=True, allow_custom_value=more))
        updates += [gr.update(visible=False)] * (CHOICE_SLOTS - len(updates))
        for name in self.ranges:
            updates += [gr.update(label=f"{label(name)} {end}", visible=True) for end in ("from", "to")]
        updates += [gr.update(visible=False)] * (SLOTS - 2 * DATE_SLOTS - len(updates))
        for name in self.dates:
            updates += [gr.update(label=f"{label(name)} {end}", visible=True) for end in ("from", "to")]
        return updates + [gr.update(visible=False)] * (SLOTS - len(updates))


def _read_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
