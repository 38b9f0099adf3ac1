"""What a run chooses for flags that weren't given, where the catalogue's size decides what is good.

The defaults of the flags are for catalogues of thousands of products; a small one gets others. Flags that were given
always win, and a run that is resumed keeps what it chose when it began.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any

from accelerate import Accelerator

from acebert.training.arguments import TrainingArguments, read_record

BATCHES = 4  # an epoch has, at least
VALIDATIONS = 4  # a run has, at least
WARMUP_STEPS = 4  # at least
MAX_WARMUP = 0.3  # of the steps
HELD_OUT = 100  # products to validate on
MAX_SHARE = 0.2  # of the products, to validate on


@dataclass(frozen=True)
class Choice:
    """A flag's value, and why it is that."""

    value: Any
    reason: str


def choose_by_size(
    products: int, validating: int | None, processes: int, settings: Mapping[str, Any], given: Set[str] = frozenset()
) -> dict[str, Choice]:
    """What is better than the defaults for a catalogue of this size.

    Args:
        products: of the split to train on, before a part of it is held out.
        validating: products of a split of their own to validate on; None without such a split.
        processes: that share a batch.
        settings: flags by name, with the values given or their defaults.
        given: names of the flags that were given.

    Returns:
        Flags by name, none of them given, in the order in which they follow from each other; only those that should
        differ from their defaults.
    """
    chosen: dict[str, Choice] = {}
    values = dict(settings)

    def choose(name: str, value: Any, reason: str) -> None:
        if name in values and name not in given and value != values[name]:
            chosen[name], values[name] = Choice(value, reason), value

    trained = products
    if validating is None and values["validation_share"]:
        share = min(MAX_SHARE, max(values["validation_share"], HELD_OUT / max(1, products)))
        choose(
            "validation_share",
            round(share, 3),
            f"fewer than {HELD_OUT} products say little of which model is best, and more than a fifth are missed",
        )
        trained = math.floor(products * (1 - values["validation_share"]))
    size = max(2, min(values["per_device_batch_size"], trained // (BATCHES * processes)))
    choose("per_device_batch_size", size, f"an epoch of {trained:,} products then has {BATCHES} batches or more")
    batches = max(1, trained // (values["per_device_batch_size"] * processes))
    steps_an_epoch = math.ceil(batches / values["gradient_accumulation_steps"])
    steps = values["max_train_steps"] or max(1, math.ceil(values["num_train_epochs"] * steps_an_epoch))
    choose(
        "warmup_ratio",
        round(max(values["warmup_ratio"], min(MAX_WARMUP, WARMUP_STEPS / steps)), 3),
        f"{steps:,} steps are few: the first {WARMUP_STEPS} or so warm up",
    )
    if steps < 2 * values["eval_steps"]:
        every = max(1, steps // VALIDATIONS)
        choose("eval_steps", every, f"{steps:,} steps then have {VALIDATIONS} validations, the best of which is kept")
    if values["stage"] == "finetune" and values["freeze_image_encoder"]:
        # Measured: docs/training.md.
        reason = "photos that stay where they are would pull the titles away from the words, so other queries are asked"
        choose("title_query_probability", 0.0, reason)
    most = max(HELD_OUT, trained)
    if validating is not None and min(validating, values["validation_size"] or validating) > most:
        choose("validation_size", most, "a validation then costs no more than an epoch")
    return chosen


def settle(args: TrainingArguments, products: int, validating: int | None, accelerator: Accelerator) -> None:
    """Sets the flags that weren't given to what [`choose_by_size`] says, tells why, and notes it in `args.reasons`.

    A run that goes on keeps what it chose when it began.

    Args:
        args: flags.
        products, validating: of [`choose_by_size`].
        accelerator: of the run.
    """
    chosen = choose_by_size(products, validating, accelerator.num_processes, asdict(args), args.given)
    before = read_record(args)
    kept = {name: before[name] for name in before.get("reasons", {}) if name in before and name not in args.given}
    chosen = {name: choice for name, choice in chosen.items() if not before}
    chosen |= {name: Choice(value, before["reasons"][name]) for name, value in kept.items()}
    for name, choice in chosen.items():
        setattr(args, name, choice.value)
        args.reasons[name] = choice.reason
        accelerator.print(f"--{name} {choice.value}, as it isn't given: {choice.reason}.")
