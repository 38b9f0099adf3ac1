"""Values as messages show them."""

from typing import Any

SHOWN_CHARACTERS = 80


def cut(value: Any) -> str:
    """A value as a message shows it: its first 80 characters, with "…" where more follow."""
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
