"""Weights between steps."""

import torch
from torch.optim.swa_utils import AveragedModel


def average_weights(model: torch.nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights, which early on forgets faster.

    After n updates the average keeps min(decay, (1 + n) / (10 + n)) of itself, as TensorFlow's
    `ExponentialMovingAverage` does, so that the first, random weights are soon gone.
    """

    def update(averages: list[torch.Tensor], weights: list[torch.Tensor], num_averaged: torch.Tensor) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
