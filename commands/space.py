"""Searches a catalogue in the browser: starts the app of the Space on this machine."""

import sys
from collections.abc import Sequence
from importlib import import_module


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the app as `python space/app.py` does.

    Args:
        argv: flags of the app; those of the process by default.
    """
    # Started by its name, as the recipes are: the Space imports the package, and nothing in the package the Space.
    import_module("acebert.space.app").main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
