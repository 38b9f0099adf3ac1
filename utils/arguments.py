"""Flags as dataclass fields: their bounds, their groups in `--help`, their defaults.

A field says its bounds in its type (`chunk_size: Count = 64`). A dataclass of flags names its group in `--help` by
`_argument_group_name`, which `transformers.HfArgumentParser` reads. Dataclasses that inherit from several groups put a
command's flags together.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, get_args, get_type_hints


@dataclass(frozen=True)
class Bound:
    """What a flag's value must do, in words and as a test."""

    words: str
    holds: Callable[[float], bool]


Count = Annotated[int, Bound("be at least 1", lambda value: value >= 1)]
Probability = Annotated[float, Bound("lie in [0, 1]", lambda value: 0 <= value <= 1)]


def check_bounds(arguments: Any) -> None:
    """Makes sure that every field of a dataclass instance keeps the bounds of its type; None always does.

    Raises:
        ValueError: naming the flag, its bound and its value.
    """
    for name, hint in get_type_hints(type(arguments), include_extras=True).items():
        value = getattr(arguments, name)
        for bound in _bounds(hint):
            if value is not None and not bound.holds(value):
                raise ValueError(f"--{name} must {bound.words}, got {value}.")


def _bounds(hint: Any) -> Iterator[Bound]:
    for part in get_args(hint):
        if isinstance(part, Bound):
            yield part
        else:
            yield from _bounds(part)


def groups_of(arguments: type) -> list[type]:
    """The dataclasses that a dataclass of flags inherits its fields from, each a group of `--help`."""
    return [part for part in arguments.__mro__ if "_argument_group_name" in vars(part)]


def names_of(arguments: type) -> set[str]:
    """The flags of a dataclass, without the dashes."""
    return {field.name for field in fields(arguments)}


def defaults_of(arguments: type) -> dict[str, Any]:
    """What each flag of a dataclass is where it isn't given; None for those that have to be."""
    return {
        field.name: (
            field.default_factory()
            if field.default_factory is not MISSING
            else (None if field.default is MISSING else field.default)
        )
        for field in fields(arguments)
    }
