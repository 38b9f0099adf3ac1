"""Searches a catalogue in the browser: starts the app of the Space, `space/app.py`, on this machine."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

SPACE = Path(__file__).parents[1] / "space"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the app as `python space/app.py` does.

    Args:
        argv: flags of the app; those of the process by default.
    """
    sys.argv = ["acebert space", *(sys.argv[1:] if argv is None else argv)]
    sys.path.insert(0, str(SPACE))  # the app's modules import each other by their names alone
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")


if __name__ == "__main__":
    main()
