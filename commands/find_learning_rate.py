"""Finds a learning rate by a range test: a few steps at growing rates, and the loss over them.

    acebert find-learning-rate --stage finetune --model_name_or_path runs/pretrained \
        --dataset_name path/to/catalogue.csv --output_dir runs/rates --num_steps 100

Takes all flags of `acebert train`, and trains nothing that is kept. It suggests a factor for all learning rates
given, and plots the loss into `learning_rate.png` in --output_dir.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

from accelerate.utils import set_seed

from acebert.training.accelerator import make_accelerator
from acebert.training.command_line import parse_arguments
from acebert.training.lr_range_test import run_range_test
from acebert.training.optimization import make_optimizer
from acebert.training.signals import explain_lost_processes
from acebert.training.stages import STAGES


@explain_lost_processes()
def main(argv: Sequence[str] | None = None) -> float:
    """Runs the test. Returns the suggested factor of all learning rates given."""
    own = ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--num_steps", type=int, default=100, help="Number of learning rates to try.")
    num_steps = own.parse_known_args(argv)[0].num_steps
    args = parse_arguments(argv, "acebert find-learning-rate", __doc__.splitlines()[0], parents=[own])
    if num_steps < 2:
        raise SystemExit(f"--num_steps must be at least 2, since two rates make a slope, got {num_steps}.")
    accelerator = make_accelerator(args)
    set_seed(args.seed)

    stage = STAGES[args.stage](args, accelerator)
    stage.load_data()
    model = stage.load_model()
    train_loader, _ = stage.make_loaders()
    optimizer = make_optimizer(model, stage.learning_rates(), args)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)
    stage.prepare(model)
    model.train()

    def step(batch: dict[str, Any]) -> float:
        losses = stage.backward(model, batch, done=1.0)
        accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return losses["loss"].item()

    batches = chain.from_iterable(repeat(train_loader))
    factor = run_range_test(batches, step, optimizer, num_steps, args.output_dir, accelerator)
    rates = " ".join(f"--{name} {rate * factor:.2g}" for name, rate in stage.peak_rates().items())
    accelerator.print(f"The loss falls fastest at {factor:.2g} times the learning rates given: {rates}")
    accelerator.print(f"The curve is in {args.output_dir}/learning_rate.png.")
    return factor


if __name__ == "__main__":
    main()
