"""Markdown tables and numbers with intervals, as reports show them."""

from acebert.utils.markdown import format_interval, format_mean, table, table_row


def test_tables() -> None:
    assert table_row(["a", "b"]) == "| a | b |"
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_means_with_intervals() -> None:
    value = {"mean": 0.3, "low": -0.1, "high": 0.70004}
    assert format_interval(value) == "[-0.100, 0.700]"
    assert format_mean(value) == "0.300 [-0.100, 0.700]"
    assert format_mean(value, "+") == "+0.300 [-0.100, +0.700]"
    assert format_mean({"mean": 0.3, "low": None, "high": None}) == "0.300"
