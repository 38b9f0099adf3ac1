"""What a training run remembers and logs."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from acebert.utils.files import atomic_write


class Progress:
    """Where the run stands; saved and restored with every checkpoint."""

    def __init__(self) -> None:
        self.step = self.epoch = self.batch = 0
        self.seconds = 0.0  # of wall time, validation and mining included
        self.best_score = -math.inf
        self.best_metrics: dict[str, float] = {}
        self.checks_without_gain = 0

    def improve(self, score: float, metrics: dict[str, float]) -> bool:
        """Takes note of a validation; whether it is the best so far."""
        if not score > self.best_score:  # nor if it is NaN
            self.checks_without_gain += 1
            return False
        self.best_score, self.best_metrics, self.checks_without_gain = score, metrics, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class LogWindow:
    """Means of the logged values, and products per second, since the last entry. Reads the device only to flush."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.batches, self.products, self.start = 0, 0, time.perf_counter()

    def add(self, values: dict[str, torch.Tensor], products: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.batches, self.products = self.batches + 1, self.products + products

    def flush(self) -> dict[str, float]:
        entry = {name: float(value) / self.batches for name, value in self.sums.items()}
        entry["rate"] = self.products / (time.perf_counter() - self.start)
        self.reset()
        return entry


def rewind_log(folder: str, progress: Progress, accelerator: Accelerator) -> None:
    """Takes out what a resumed run writes again: entries after its checkpoint, and a line that a kill left half."""
    file = Path(folder) / "train_log.jsonl"
    if accelerator.is_main_process and file.exists():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= progress.step]
        atomic_write(file, "".join(kept))


def append_log(folder: str, progress: Progress, entry: dict[str, Any], accelerator: Accelerator) -> None:
    """Adds a line to `train_log.jsonl`: the step, the seconds trained so far, and the entry."""
    if accelerator.is_main_process:
        entry = {"step": progress.step, "seconds": round(progress.seconds, 1), **entry}
        with open(Path(folder) / "train_log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
