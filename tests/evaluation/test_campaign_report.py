"""Statistics of an ablation campaign."""

import pytest

from acebert.evaluation.campaign_report import t_interval, to_words


def test_t_interval() -> None:
    """t at 0.975 is 4.302653 with 2 degrees of freedom, 12.706205 with 1 (any table of Student's t)."""
    three = t_interval([1.0, 2.0, 6.0])  # standard deviation sqrt(7)
    half = 4.302653 * (7 / 3) ** 0.5
    assert three == pytest.approx({"mean": 3.0, "low": 3 - half, "high": 3 + half})
    two = t_interval([1.0, 2.0])
    assert two == pytest.approx({"mean": 1.5, "low": 1.5 - 12.706205 / 2, "high": 1.5 + 12.706205 / 2}, rel=1e-6)
    assert t_interval([0.4]) == {"mean": 0.4, "low": None, "high": None}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.2, "higher"),
        (-0.2, -0.1, "lower"),
        (-0.1, 0.2, "no difference shown"),
        (0.0, 0.2, "no difference shown"),
        (float("nan"), float("nan"), "no difference shown"),
        (None, None, "one seed, no interval"),
    ],
)
def test_to_words(low: float | None, high: float | None, words: str) -> None:
    assert to_words({"low": low, "high": high}) == words
