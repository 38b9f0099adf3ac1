"""Runs a recipe as `accelerate launch` does: on one process or many, by accelerate's configuration."""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module


def launch(recipe: str, argv: Sequence[str] | None = None) -> None:
    """Runs `accelerate launch -m <recipe>`; other than that command, on several processes of a machine's CPUs, too.

    Args:
        recipe: its module.
        argv: flags of the recipe, and after `--` those of `accelerate launch`; those of the process by default.

    Raises:
        SystemExit: after `--help`; for more processes than the machine has accelerators, if it has any; and with a
            status other than 0, if the recipe ended with one.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    flags = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(flags):
        import_module(recipe).main(flags)  # which ends with SystemExit
    split = flags.index("--") if "--" in flags else len(flags)
    # --quiet: a recipe that fails has said why, so that the launcher's own traceback would only bury it.
    launcher_flags = ["--quiet", *flags[split + 1 :]]
    args = launch_command_parser().parse_args([*launcher_flags, "--module", recipe, *flags[:split]])
    environment = share_cpus(args)
    # Ctrl-C reaches the recipe too, which ends with a checkpoint: the launcher waits for it instead of ending first.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with patch_environment(**environment):
            launch_command(args)
    except (ChildFailedError, SignalException):
        raise SystemExit(1) from None  # for the same reason
    finally:
        signal.signal(signal.SIGINT, before)


def share_cpus(args: Namespace) -> dict[str, str]:
    """Has the launcher start all processes of `--num_processes` where there are only CPUs; it would start one alone.

    Args:
        args: of `accelerate launch`, which are changed.

    Returns:
        What the processes need in their environment.

    Raises:
        SystemExit: for more processes than accelerators.
    """
    from torch import accelerator

    count, devices = args.num_processes or 1, accelerator.device_count()
    if count < 2 or (args.num_machines or 1) > 1 or (count <= devices and not args.cpu):
        return {}
    if devices and not args.cpu:
        raise SystemExit(
            f"--num_processes {count} asks for more processes than this machine has accelerators, {devices}: lower it, "
            "or give --cpu to share the CPUs."
        )
    args.cpu, args.multi_gpu = False, True  # "multi-GPU" is the launcher's name for torchrun
    if args.main_process_port is None:
        args.main_process_port = 0  # any that is free
    if args.num_cpu_threads_per_process is None and "OMP_NUM_THREADS" not in os.environ:
        args.num_cpu_threads_per_process = max(1, (os.cpu_count() or 1) // count)
    return {"ACCELERATE_USE_CPU": "1"}
