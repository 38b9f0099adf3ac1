"""Parsers of flags whose `--help` can be read: in groups, one line for a short flag, each flag spelled once."""

from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Iterable
from typing import Any

from transformers import HfArgumentParser


class HelpFormatter(ArgumentDefaultsHelpFormatter):
    """Shows each flag once, says which are required, and shows a default only where there is one.

    `HfArgumentParser` also takes every flag with hyphens, every switch with a value (`--plots false`), and `--no_plots`
    for a switch that is on by default; of these only the last is shown.
    """

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def add_argument(self, action: Action) -> None:
        if not _is_opposite(action):
            super().add_argument(action)

    def _format_action_invocation(self, action: Action) -> str:
        if len(action.option_strings) == 0 or "-h" in action.option_strings:
            return super()._format_action_invocation(action)
        flag = action.option_strings[0]
        if action.nargs == "?":
            return f"{flag}, --no_{flag.removeprefix('--')}" if action.default is True else flag
        kind = getattr(action.type, "__name__", "text")
        return f"{flag} {self._format_args(action, 'TEXT' if kind == 'str' else kind.upper())}".rstrip()

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if action.required:
            return f"{text} (required)"
        if action.default is None or action.default == [] or isinstance(action.default, bool):
            return text
        return super()._get_help_string(action) or ""


def _is_opposite(action: Action) -> bool:
    """Whether this is the `--no_plots` that `HfArgumentParser` adds to `--plots`."""
    return action.const is False and any(flag.startswith("--no_") for flag in action.option_strings)


def make_parser(name: str, description: str, dataclasses: Iterable[Any]) -> HfArgumentParser:
    """A parser of the fields of dataclasses, each a group of flags: that which it names `_argument_group_name`.

    Args:
        name: of the command, as users type it.
        description: what it does, in a sentence.
        dataclasses: whose fields are the flags.
    """
    return HfArgumentParser(
        dataclasses,
        prog=name,
        usage=f"{name} [flags]",
        description=description,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
