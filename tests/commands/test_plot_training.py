"""The command that plots a run."""

import json
from pathlib import Path

from acebert.commands import plot_training


def test_a_log_becomes_a_picture(tmp_path: Path) -> None:
    entries = [
        {"step": 10, "seconds": 60.0, "loss": 3.0, "domain_accuracy": 0.7, "modality_gap": 0.5},
        {"step": 10, "seconds": 60.0, "validation": {"title_to_image_recall@10": 0.3, "score": 0.3}},
        {"step": 20, "seconds": 120.0, "loss": 2.0, "domain_accuracy": 0.6, "modality_gap": 0.4},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    plot_training.main([str(tmp_path / "log.jsonl"), "--output", str(tmp_path / "training.png")])
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
