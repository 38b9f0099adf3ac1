"""Plots the course of a fine-tuning run: validation recall, the adversary's accuracy and the modality gap.

    acebert plot-training runs/finetuned/train_log.jsonl --output training.png

Reads the log that a run leaves in its --output_dir.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from acebert.evaluation.plots import save_training_plot


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("log", type=Path, help="train_log.jsonl of the run.")
    parser.add_argument("--output", type=Path, default=Path("training.png"), help="PNG file to write.")
    args = parser.parse_args(argv)
    save_training_plot(args.log, args.output)


if __name__ == "__main__":
    main()
