"""The log of a run that was killed."""

import json
from pathlib import Path
from types import SimpleNamespace

from acebert.training.log import TrainLog


def test_a_half_written_or_later_entry_leaves_the_log(tmp_path: Path) -> None:
    log = TrainLog(tmp_path, SimpleNamespace(is_main_process=True))
    log.rewind(2)  # nothing there yet
    entries = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 2, 3)]
    (tmp_path / "train_log.jsonl").write_text("".join(entries) + '{"step": 2')
    log.rewind(2)
    assert (tmp_path / "train_log.jsonl").read_text() == "".join(entries[:3])
