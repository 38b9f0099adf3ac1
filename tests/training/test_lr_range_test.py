"""The learning-rate range test on a loss whose best rate is known."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from acebert.training.lr_range_test import run_range_test


def test_learning_rate_range_test(tmp_path: Path) -> None:
    """Gradient descent on x² with rate r multiplies x by 1 - 2r: fastest at r = 1/2, growing beyond r = 1."""
    x = torch.nn.Parameter(torch.tensor(10.0))
    optimizer = torch.optim.SGD([x], lr=0.1)

    def step(batch: dict) -> float:
        optimizer.zero_grad()
        loss = x**2
        loss.backward()
        optimizer.step()
        return loss.item()

    accelerator = Accelerator(cpu=True)
    batches = iter([{}] * 200)
    factor = run_range_test(batches, step, optimizer, 60, str(tmp_path), accelerator, lowest=1e-3, highest=1e3)
    assert 0.02 < factor * 0.1 < 1.0
    report = json.loads((tmp_path / "learning_rate.json").read_text())
    assert report["suggested_rates"] == [pytest.approx(0.1 * factor)]
    assert len(report["loss"]) < 60  # it ends when the loss grows
    assert report["factor"][0] == pytest.approx(1e-3)
    assert (tmp_path / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
