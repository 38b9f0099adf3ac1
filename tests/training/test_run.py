"""What a run remembers of its validations."""

from acebert.training.run import Progress


def test_a_nan_is_never_the_best() -> None:
    progress = Progress()
    assert progress.improve(0.5, {}) and not progress.improve(float("nan"), {}) and progress.best_score == 0.5


def test_patience() -> None:
    progress = Progress()
    for score, without_gain in [(0.5, 0), (0.4, 1), (float("nan"), 2), (0.6, 0), (0.6, 1)]:
        progress.improve(score, {"score": score})
        assert progress.checks_without_gain == without_gain
    other = Progress()
    other.load_state_dict(progress.state_dict())
    assert (other.best_score, other.checks_without_gain, other.best_metrics) == (0.6, 1, {"score": 0.6})
