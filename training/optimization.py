"""The optimizer and its schedule, and what else happens to the weights between two steps."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from transformers import get_scheduler

from acebert.modeling_acebert import AceBertForPreTraining, AceBertForRetrieval
from acebert.training.arguments import TrainingArguments


def parameter_groups(
    parameters: Iterable[tuple[str, torch.nn.Parameter]],
    learning_rates: Mapping[str, float],
    weight_decay: float,
    logged_rate: float,
) -> list[dict[str, Any]]:
    """Groups the trainable parameters by learning rate and weight decay.

    Args:
        parameters: with their names, as `named_parameters` gives them.
        learning_rates: by a part of the name. The first part that a name contains counts, so the more specific come
            first; "" stands for all other names.
        weight_decay: of matrices; vectors and scalars have none.
        logged_rate: the groups of this rate come first, since the first group's rate is the one that is logged.

    Returns:
        Groups for an optimizer.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            rate = next(rate for part, rate in learning_rates.items() if part in name)
            groups.setdefault((rate, weight_decay if parameter.ndim >= 2 else 0.0), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda group: group[0][0] != logged_rate)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in ordered]


def make_optimizer(
    model: torch.nn.Module, learning_rates: Mapping[str, float], args: TrainingArguments
) -> torch.optim.AdamW:
    """AdamW with the [`parameter_groups`] of a model."""
    groups = parameter_groups(model.named_parameters(), learning_rates, args.weight_decay, args.learning_rate)
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, fused=True)


def count_steps(args: TrainingArguments, batches_per_epoch: int) -> int:
    """Optimizer steps of the whole run.

    Raises:
        SystemExit: if there are none.
    """
    steps_per_epoch = math.ceil(batches_per_epoch / args.gradient_accumulation_steps)
    steps = args.max_train_steps or math.ceil(args.num_train_epochs * steps_per_epoch)
    if steps < 1:
        raise SystemExit(f"--num_train_epochs {args.num_train_epochs} makes no step: raise it.")
    return steps


def make_scheduler(
    optimizer: torch.optim.Optimizer, args: TrainingArguments, total_steps: int, accelerator: Accelerator
) -> LRScheduler:
    """Warm-up, then a schedule that ends with the last step. A prepared scheduler moves once per process and step."""
    return get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=round(args.warmup_ratio * total_steps) * accelerator.num_processes,
        num_training_steps=total_steps * accelerator.num_processes,
    )


def clamp_temperature(model: AceBertForPreTraining | AceBertForRetrieval) -> None:
    """Keeps the temperature where its gradient isn't cut off (as CLIP does, arXiv 2103.00020, section 2.5)."""
    with torch.no_grad():
        model.acebert.logit_scale.clamp_(max=model.config.logit_scale_max_value)


def average_weights(model: torch.nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average (EMA) of the weights, which early on forgets faster.

    After n updates the average keeps min(decay, (1 + n) / (10 + n)) of itself, as TensorFlow's
    `ExponentialMovingAverage` does, so that the first, random weights are soon gone.
    """

    def update(averages: list[torch.Tensor], weights: list[torch.Tensor], num_averaged: torch.Tensor) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
