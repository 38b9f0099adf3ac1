"""Marks the common tests that don't apply to ACE-BERT, each with its reason, which `pytest -rs` prints."""

import unittest


def leave_out(case: type[unittest.TestCase], reasons: dict[str, str]) -> None:
    """Skips the tests of a class whose names begin with a key.

    Raises:
        ValueError: a key that no test's name begins with: transformers has renamed or dropped it.
    """
    for start, reason in reasons.items():
        names = [name for name in dir(case) if name.startswith(start)]
        if not names:
            raise ValueError(f"{case.__name__} has no test {start}: take it off the list.")
        for name in names:
            setattr(case, name, unittest.skip(reason)(getattr(case, name)))
