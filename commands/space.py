"""Searches a catalogue in the browser: starts the app of the Space, `space/app.py`, on this machine."""

import runpy
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the app as `python space/app.py` does.

    Args:
        argv: flags of the app; those of the process by default.
    """
    sys.argv = ["acebert space", *(sys.argv[1:] if argv is None else argv)]
    runpy.run_module("acebert.space.app", run_name="__main__")


if __name__ == "__main__":
    main()
