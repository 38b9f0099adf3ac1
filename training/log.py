"""The log of a run: a line of JSON for each entry in `train_log.jsonl`, and the tracker of `--report_to`."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from acebert.utils.files import atomic_write


class LogWindow:
    """Means of the logged values since the last entry, products per second (`rate`), and the share of the time that was
    spent waiting for data (`waiting`). Reads the device only to flush."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.batches, self.products, self.waited, self.start = 0, 0, 0.0, time.perf_counter()

    def add(self, values: dict[str, torch.Tensor], products: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.batches, self.products = self.batches + 1, self.products + products

    def timed(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of a loader; the time that each is waited for counts as waiting."""
        batches, done = iter(loader), object()
        while True:
            begin = time.perf_counter()
            batch = next(batches, done)
            self.waited += time.perf_counter() - begin
            if batch is done:
                return
            yield batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time that passes out of the products per second."""
        begin = time.perf_counter()
        yield
        self.start += time.perf_counter() - begin

    def flush(self) -> dict[str, float]:
        entry = {name: float(value) / self.batches for name, value in self.sums.items()}
        seconds = time.perf_counter() - self.start
        entry |= {"rate": self.products / seconds, "waiting": self.waited / seconds}
        self.reset()
        return entry


class TrainLog:
    """`train_log.jsonl` in the run's folder; the main process writes.

    Args:
        folder: of the run.
        accelerator: with its trackers, if any, initialised.
    """

    def __init__(self, folder: str | Path, accelerator: Accelerator):
        self.file, self.accelerator = Path(folder, "train_log.jsonl"), accelerator

    def rewind(self, step: int) -> None:
        """Takes out what a resumed run writes again: entries after `step`, and a line that a kill left incomplete."""
        if self.accelerator.is_main_process and self.file.exists():
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= step]
            atomic_write(self.file, "".join(kept))

    def write(self, step: int, seconds: float, entry: dict[str, Any]) -> None:
        """Adds a line: the step, the seconds trained so far, and the entry."""
        if self.accelerator.is_main_process:
            line = {"step": step, "seconds": round(seconds, 1), **entry}
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
