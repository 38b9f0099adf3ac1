"""Length bucketing: batches of rows of about equal length, with little padding."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

PREFETCH_BATCHES = 4  # batches to encode that are loaded together and bucketed by length


def split_by_modalities(shown: torch.Tensor, lengths: Sequence[torch.Tensor], size: int) -> list[torch.Tensor]:
    """Row numbers in micro-batches of about equal size, each of rows that show the same.

    Args:
        shown: (rows,) integers, what each row shows.
        lengths: each (rows,): keys to sort by within those that show the same, the last key first.
        size: maximum rows in a micro-batch.
    """
    order = torch.from_numpy(np.lexsort((*lengths, shown)))
    groups = order.split(torch.unique(shown, return_counts=True)[1].tolist())
    return [part for group in groups for part in group.tensor_split(math.ceil(len(group) / size))]


def split_by_length(
    inputs: Mapping[str, torch.Tensor], size: int
) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Queries or products in length-bucketed micro-batches, so that little of each is padding.

    Args:
        inputs: of the processor.
        size: maximum rows in a micro-batch.

    Returns:
        For each micro-batch the numbers of its rows (rows,), and its tensors, cut to its longest row.
    """
    none = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.long)
    words, patches = (  # of several photos the patches of all
        inputs[mask].flatten(1).sum(1) if mask in inputs else none
        for mask in ("attention_mask", "pixel_attention_mask")
    )
    order = torch.from_numpy(np.lexsort(length_keys(words, patches)))
    return [(rows, trim_padding(select_rows(inputs, rows))) for rows in order.split(size)]


def length_keys(words: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys for `lexsort`, the last one first: the model pads the sum of both; equal sums go by their photos."""
    return patches, words + patches


def select_rows(inputs: Mapping[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in inputs.items()}


def trim_padding(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cuts off the columns that are padding in every row, of several photos a row in each of them."""
    sequences = {
        "query_attention_mask": ("query_input_ids", "query_attention_mask"),
        "attention_mask": ("input_ids", "attention_mask"),
        "pixel_attention_mask": ("pixel_values", "pixel_attention_mask", "pixel_position_ids"),
    }
    trimmed = dict(inputs)
    for mask, names in sequences.items():
        if mask in inputs:
            length = int(inputs[mask].sum(-1).max().clamp(min=1))
            dim = inputs[mask].ndim - 1
            trimmed |= {name: inputs[name].narrow(dim, 0, length) for name in names if name in inputs}
    return trimmed
