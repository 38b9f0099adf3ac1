"""When a run is asked to stop."""

import os
from types import SimpleNamespace

import pytest

from acebert.training.signals import Stopper


def test_the_end_of_the_launcher_asks_for_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = SimpleNamespace(num_processes=1)
    monkeypatch.delenv("ACCELERATE_DYNAMO_MODE", raising=False)
    alone = Stopper()
    alone.restore()
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "default")
    launched = Stopper()
    launched.restore()
    assert not alone.asked(accelerator) and not launched.asked(accelerator)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launched.asked(accelerator) and not alone.asked(accelerator)  # `nohup python train_accelerate.py &` goes on
