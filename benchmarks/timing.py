"""Contenders side by side: what each round of A B A B measures, and how figures and ratios spread over the rounds.

Machines are noisy, most of all virtual ones. So contenders take turns within each round, a ratio is taken within a
round, and what is reported is the median over the rounds with the lowest and the highest.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

OURS = "ACE-BERT"
REFERENCE = "matrix product"  # timed in each round, to tell what share of the machine is used


@dataclass(frozen=True)
class Spread:
    """The median over the rounds, and the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, numerators: Sequence[float], denominators: Sequence[float]) -> "Spread":
        """Of the ratios within each round."""
        return cls.of([a / b for a, b in zip(numerators, denominators, strict=True)])


@dataclass
class Row:
    """One line of the report: the same work by all contenders.

    Args:
        name: what was done.
        unit: of the figures.
        figures: by contender.
        ratios: this project's figure divided by the contender's, by contender.
        shares: work done as a share of the machine's matrix products in the same round, by contender; padding is no
            work.
        notes: sentences that belong under the table.
        skipped: why the row was not run; it then has no figures.
    """

    name: str
    unit: str = ""
    figures: dict[str, Spread] = field(default_factory=dict)
    ratios: dict[str, Spread] = field(default_factory=dict)
    shares: dict[str, Spread] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        rounds: Mapping[str, Sequence[float]],
        shares: Mapping[str, Sequence[float]] | None = None,
        notes: Sequence[str] = (),
        ours: str = OURS,
    ) -> "Row":
        """From each contender's figures, one a round; `ours` is the one that the others are compared with."""
        return cls(
            name,
            unit,
            {contender: Spread.of(values) for contender, values in rounds.items()},
            {name: Spread.of_ratios(rounds[ours], values) for name, values in rounds.items() if name != ours},
            {contender: Spread.of(values) for contender, values in (shares or {}).items()},
            list(notes),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def interleave(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """What each call returned in each round; before them comes one round that warms up and isn't kept."""
    results: dict[str, list[Any]] = {name: [] for name in calls}
    for number in tqdm(range(-1, repeats), desc=", ".join(calls), unit="round", leave=False):
        for name, call in calls.items():
            result = call()
            if number >= 0:
                results[name].append(result)
    return results


def timed(call: Callable[[], Any]) -> Callable[[], float]:
    """The call, made to return the seconds that it took, a GPU's work included."""

    def run() -> float:
        start = time.perf_counter()
        call()
        synchronize()
        return time.perf_counter() - start

    return run


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rates(items: float, seconds: Sequence[float]) -> list[float]:
    return [items / value for value in seconds]


def percentile(seconds: Sequence[float], percent: float) -> float:
    return float(np.percentile(seconds, percent))
