"""Flags from a YAML file: `--config run.yaml` stands for its `flag: value` lines, which flags after it override."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG = "--config"


def add_config_flag(parser: ArgumentParser) -> None:
    parser.add_argument(CONFIG, help="YAML file of flags; flags on the command line override it.")


def expand_config(parser: ArgumentParser, argv: Sequence[str]) -> list[str]:
    """Puts the flags of the YAML file that `--config` names before the others.

    Args:
        parser: reports a file that can't be used.
        argv: flags as on the command line.
    """
    first = ArgumentParser(add_help=False, allow_abbrev=False)  # the other flags may be required, and in the file
    add_config_flag(first)
    config, flags = first.parse_known_args(argv)
    if not config.config:
        return flags
    try:
        values = yaml.safe_load(Path(config.config).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(f"{CONFIG} {config.config} can't be read: {error}. Give a YAML file of `flag: value` lines.")
    if not isinstance(values, dict):
        parser.error(f"{CONFIG} {config.config} must hold `flag: value` lines.")
    return to_argv(values) + flags


def to_argv(flags: Mapping[str, Any]) -> list[str]:
    """Flags as on the command line; those that are null or empty are left out."""
    return [
        part
        for name, value in flags.items()
        if value is not None and value != []
        for part in (f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)]))
    ]
