"""From the command line to the flags of a stage."""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any

from transformers import HfArgumentParser

from acebert.training.arguments import TrainingArguments
from acebert.training.stages import STAGES
from acebert.utils.arguments import check_bounds, defaults_of, groups_of, names_of
from acebert.utils.command_line import HelpFormatter
from acebert.utils.config_file import add_config_flag, expand_config


def parse_arguments(
    argv: Sequence[str] | None = None,
    name: str = "acebert train",
    description: str = "Trains ACE-BERT on your own catalogue.",
    parents: Sequence[ArgumentParser] = (),
) -> TrainingArguments:
    """Reads the flags of the stage that `--stage` names, and before them those of the YAML file of `--config`.

    Args:
        argv: flags; those of the command line by default.
        name: of the command, as users type it.
        description: what it does, in a sentence.
        parents: parsers of more flags, without help of their own, whose values the caller reads.

    Returns:
        An instance of the stage's `arguments`.

    Raises:
        SystemExit: for `--help`, and for flags that are unknown, out of bounds or don't go together, naming them.
    """
    # An abbreviated flag would escape the checks below.
    common = ArgumentParser(add_help=False, allow_abbrev=False)
    add_config_flag(common)
    flags = expand_config(common, sys.argv[1:] if argv is None else argv)
    stage = _choose_stage(flags, name, description, [common, *parents])
    arguments = STAGES[stage].arguments
    parser = HfArgumentParser(
        groups_of(arguments),
        prog=name,
        usage=f"{name} --stage {stage} [flags]",
        description=f"{description} These are the flags of --stage {stage}.",
        formatter_class=HelpFormatter,
        parents=[common, *parents],
        allow_abbrev=False,
    )
    parser.set_defaults(**defaults_of(arguments))  # a stage may have others than the group that a flag is of
    values, unknown = parser.parse_known_args(flags)
    args = arguments(**{name: getattr(values, name) for name in names_of(arguments)})
    try:
        _refuse_unknown(unknown, stage)
        check_bounds(args)
        args.given = frozenset(_name(flag) for flag in flags if flag.startswith("--"))
        args.check(args.given)
    except ValueError as error:
        parser.error(str(error))
    return args


def default_settings() -> dict[str, dict[str, Any]]:
    """By stage, what each of its flags is where it isn't given; None for those that have to be."""
    return {name: defaults_of(stage.arguments) for name, stage in STAGES.items()}


def _choose_stage(flags: Sequence[str], name: str, description: str, parents: Sequence[ArgumentParser]) -> str:
    width = max(map(len, STAGES)) + 2
    parser = ArgumentParser(
        prog=name,
        usage=f"{name} --stage STAGE [flags]",
        description=description,
        epilog="stages:\n" + "\n".join(f"  {name:<{width}}{stage.summary}" for name, stage in STAGES.items()),
        formatter_class=RawDescriptionHelpFormatter,
        parents=list(parents),
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--stage", choices=STAGES, help="What to train. `--stage STAGE --help` lists its flags.")
    stage: str | None = parser.parse_known_args(flags)[0].stage
    if stage is None and {"-h", "--help"} & set(flags):
        parser.print_help()
        raise SystemExit(0)
    if stage is None:
        parser.error(f"Give --stage: {', '.join(STAGES)}.")
    return stage


def _name(flag: str) -> str:
    return flag.split("=")[0].removeprefix("--").replace("-", "_").removeprefix("no_")


def _refuse_unknown(unknown: Sequence[str], stage: str) -> None:
    """Names the flags that a stage doesn't have, and the stages that have them."""
    flags = [_name(part) for part in unknown if part.startswith("--")]
    elsewhere = {
        flag: [other for other, kind in STAGES.items() if flag in names_of(kind.arguments)] for flag in sorted(flags)
    }
    named = ", ".join(f"--{flag} (of {', '.join(others)})" for flag, others in elsewhere.items() if others)
    if named:
        raise ValueError(f"--stage {stage} doesn't take {named}: leave out.")
    if unknown:
        raise ValueError(f"No such flag: {' '.join(unknown)}. `--stage {stage} --help` lists all flags.")
