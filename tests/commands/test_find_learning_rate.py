"""The command that suggests learning rates."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from acebert.commands import find_learning_rate
from acebert.training.checkpoints import checkpoints_of


def test_finding_a_learning_rate_trains_nothing(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    factor = find_learning_rate.main(flags(num_steps=12))
    report = json.loads((tmp_path / "run" / "learning_rate.json").read_text())
    assert report["suggested_factor"] == factor and 2 < len(report["loss"]) <= 12
    assert (tmp_path / "run" / "learning_rate.png").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists() and not checkpoints_of(str(tmp_path / "run"))


def test_one_learning_rate_makes_no_slope(flags: Callable[..., list[str]]) -> None:
    with pytest.raises(SystemExit, match="--num_steps must be at least 2, since two rates make a slope, got 1"):
        find_learning_rate.main(flags(num_steps=1))


def test_its_own_flag_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        find_learning_rate.main(["--stage", "finetune", "--help"])
    text = capsys.readouterr().out
    assert "usage: acebert find-learning-rate --stage finetune" in text and "--num_steps" in text
