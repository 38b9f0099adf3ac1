"""What several test modules draw, make, read and run."""

import json
import multiprocessing
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch.multiprocessing import start_processes

COLOURS = {"red": (200, 30, 30), "green": (30, 150, 60), "blue": (40, 60, 190), "black": (25, 25, 25)}
KINDS = ("shirt", "shoe", "bag", "mug")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, *KINDS, "men", "women", "the", "of", *"abcdefghij"]


def draw(kind: str, colour: str, shift: int) -> Image.Image:
    photo = Image.new("RGB", (36, 48), "white")
    pencil = ImageDraw.Draw(photo)
    corner = 3 + KINDS.index(kind) * 4
    pencil.rectangle((corner, 4 + shift, 32, 44 - corner), fill=COLOURS[colour])
    return photo


def product_rows(count: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(count):
        kind, colour = KINDS[i % 4], list(COLOURS)[(i // 4) % 4]
        gender = ("men", "women", None)[i % 3]
        title = f"{'abcdefghij'[i % 10]} {kind} {'abcdefghij'[(i // 10) % 10]}"
        rows.append(
            {"id": 100 + i, "title": title, "kind": kind, "colour": colour, "gender": gender, "hot_query": None}
            | {"image": draw(kind, colour, i % 3)}
        )
    return rows


def unit_vectors(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    vectors = np.random.default_rng(seed).normal(size=(rows, width))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()


# ----------------------------------------------------------------------------------------------------------------------
# Training runs
# ----------------------------------------------------------------------------------------------------------------------


# New processes are forks of a server that imports the script once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["acebert.train_accelerate"])


# For a model that comes from --model_name_or_path: takes out the flags that say how a new one is built.
FROM_CHECKPOINT = {"backbone": None, "patch_size": None, "max_num_patches": None, "projection_dim": None}


class Killed(BaseException):
    """Stands for kill -9: no handler of errors sees it."""


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def without_times(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if name not in ("seconds", "rate", "waiting")}
        for entry in entries
    ]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = read_weights(one), read_weights(other)
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_processes(function: Callable[..., None], processes: int, *arguments: object, seconds: float = 240) -> None:
    """Runs `function(rank, processes, port, *arguments)` in new processes, which don't outlive the time given."""
    options = {"join": False, "daemon": True, "start_method": "forkserver"}
    context = start_processes(function, (processes, free_port(), *arguments), nprocs=processes, **options)
    deadline = time.monotonic() + seconds
    try:
        while not context.join(timeout=max(0.0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, f"{processes} processes did not end in {seconds} s"
    finally:
        for process in context.processes:
            process.kill()
