"""Markdown tables, and numbers with their intervals as the reports show them."""

from collections.abc import Iterable, Mapping, Sequence


def table_row(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table."""
    return [table_row(header), table_row(["---"] * len(header)), *map(table_row, rows)]


def format_interval(value: Mapping[str, float | None], sign: str = "") -> str:
    """The interval from "low" to "high" to three digits, "[0.123, 0.456]"; "" where there is none.

    Args:
        value: with "low" and "high", None where there is no interval.
        sign: "+" to show the sign of positive numbers too.
    """
    if value["low"] is None:
        return ""
    return f"[{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def format_mean(value: Mapping[str, float | None], sign: str = "") -> str:
    """ "mean" and its interval, "0.300 [0.123, 0.456]"; arguments as in [`format_interval`]."""
    return f"{value['mean']:{sign}.3f} {format_interval(value, sign)}".rstrip()
