"""Length bucketing: batches of rows of about equal length, with little padding."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

POOL = 4  # batches to encode that are read together, so that `split_by_length` has a choice


def split_by_sides(sides: torch.Tensor, lengths: Sequence[torch.Tensor], size: int) -> list[torch.Tensor]:
    """Numbers of the rows in chunks of about equal size, cut where what is shown changes.

    Args:
        sides: (rows,) integers, what each shows.
        lengths: each (rows,): keys to sort by within equal sides, the last key first.
        size: rows in one chunk, at most.
    """
    order = torch.from_numpy(np.lexsort((*lengths, sides)))
    groups = order.split(torch.unique(sides, return_counts=True)[1].tolist())
    return [part for group in groups for part in group.tensor_split(math.ceil(len(group) / size))]


def split_by_length(
    inputs: Mapping[str, torch.Tensor], size: int
) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Queries or products in chunks of about equal length, so that little of each is padding.

    Args:
        inputs: of the processor.
        size: rows in one chunk, at most.

    Returns:
        For each chunk the numbers of its rows (rows,), and its tensors, cut to its longest.
    """
    none = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.long)
    words, patches = (
        inputs[mask].sum(1) if mask in inputs else none for mask in ("attention_mask", "pixel_attention_mask")
    )
    order = torch.from_numpy(np.lexsort(_length_keys(words, patches)))
    return [(rows, trim_padding(select_rows(inputs, rows))) for rows in order.split(size)]


def _length_keys(words: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For `lexsort`, the last key first: the model pads the sum of both; equal sums go by their photos."""
    return patches, words + patches


def select_rows(inputs: Mapping[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in inputs.items()}


def trim_padding(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cuts off the columns that are padding in every row."""
    sequences = {
        "query_attention_mask": ("query_input_ids", "query_attention_mask"),
        "attention_mask": ("input_ids", "attention_mask"),
        "pixel_attention_mask": ("pixel_values", "pixel_attention_mask", "pixel_position_ids"),
    }
    lengths = {
        name: int(inputs[mask].sum(1).max().clamp(min=1))
        for mask, names in sequences.items()
        if mask in inputs
        for name in names
    }
    return {name: value[:, : lengths[name]] if name in lengths else value for name, value in inputs.items()}
