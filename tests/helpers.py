"""What several test modules draw and make."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

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
