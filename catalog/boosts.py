"""What a shop wants ranked higher: stock, popularity, margin, novelty, as a known share of the score."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acebert.catalog.dates import read_date, to_moment

SECONDS_A_DAY = 86_400
PARTS = ("similarity", "bm25", "words", "understood")  # of a score beside boosts


@dataclass(frozen=True)
class Boost:
    """Adds to a product's score by one of its attributes.

    - A boolean adds `weight` where it is true.
    - A number v adds `weight` · v / (v + `pivot`): nothing at 0, half of `weight` at the pivot, and never more than
      `weight`, however large the number (the saturation function of Elasticsearch's `rank_feature`).
    - With `half_life`, the attribute is a day, as a date or a text of ISO 8601 ("2026-11-26"), and adds `weight` today
      or later, and half as much for each `half_life` of days that have passed.

    A product that lacks the attribute gains nothing.

    Args:
        weight: the most that it adds, in units of the score, which is a cosine similarity and what exact words are
            worth: 0.05 overturns small differences, 0.3 most of them. A negative one ranks lower.
        pivot: above 0.
        half_life: in days, above 0.
    """

    weight: float
    pivot: float = 1.0
    half_life: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"A boost's weight must be a finite number, got {self.weight!r}.")
        for name, number in (("pivot", self.pivot), ("half_life", self.half_life)):
            if number is not None and not (math.isfinite(number) and number > 0):
                raise ValueError(f"A boost's {name} must be a number above 0, got {number!r}.")

    def of(self, value: Any) -> float:
        """What a product with this value of the attribute gains."""
        if value is None:
            return 0.0
        if self.half_life is not None:
            age = (time.time() - _timestamp(value)) / SECONDS_A_DAY
            return self.weight * 0.5 ** (max(age, 0.0) / self.half_life)
        if isinstance(value, bool):
            return self.weight * value
        return self.weight * max(value, 0) / (max(value, 0) + self.pivot)


def check_boosts(boosts: Mapping[str, Boost | float] | None, attributes: Mapping[str, str]) -> dict[str, Boost]:
    """Boosts by attribute; a number alone is a boost of that weight.

    Raises:
        ValueError: an unknown attribute, or one of a kind that no boost is made of.
    """
    checked = {}
    for name, boost in (boosts or {}).items():
        if name not in attributes:
            raise ValueError(f"boosts: there is no attribute {str(name)[:80]!r}: there are {list(attributes)}.")
        if name in PARTS:
            raise ValueError(f"boosts: {name!r} is the name of a part of every score: rename the attribute.")
        boost = boost if isinstance(boost, Boost) else Boost(boost)
        kinds = ("string", "date") if boost.half_life is not None else ("boolean", "integer", "number")
        if attributes[name] not in kinds:
            raise ValueError(
                f"boosts: {name!r} is a {attributes[name]}, and this boost needs one of {kinds}: "
                "give a half_life for days, none for numbers."
            )
        checked[name] = boost
    return checked


def _timestamp(value: Any) -> float:
    day = read_date(value)
    return -math.inf if day is None else to_moment(day).timestamp()  # a text that is no day: long ago
