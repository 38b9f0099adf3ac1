"""Runs a recipe as `accelerate launch` does: on one process or many, by accelerate's configuration."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module


def launch(recipe: str, argv: Sequence[str] | None = None) -> None:
    """Runs `accelerate launch -m <recipe>`.

    Args:
        recipe: its module.
        argv: flags of the recipe, and after `--` those of `accelerate launch`; those of the process by default.

    Raises:
        SystemExit: after `--help`; and with a status other than 0, if the recipe ended with one.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser

    flags = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(flags):
        import_module(recipe).main(flags)  # which ends with SystemExit
    split = flags.index("--") if "--" in flags else len(flags)
    # --quiet: a recipe that fails has said why, so that the launcher's own traceback would only bury it.
    launcher_flags = ["--quiet", *flags[split + 1 :]]
    args = launch_command_parser().parse_args([*launcher_flags, "--module", recipe, *flags[:split]])
    # Ctrl-C reaches the recipe too, which ends with a checkpoint: the launcher waits for it instead of ending first.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        launch_command(args)
    finally:
        signal.signal(signal.SIGINT, before)
