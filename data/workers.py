"""DataLoader workers that survive the signals which stop a run."""

import atexit
import multiprocessing
import signal
from typing import Any

WORKER_TIMEOUT = 900  # seconds after which a process that reads data and delivers no batch counts as hanging


def spare_worker(worker: int) -> None:
    """For `DataLoader(worker_init_fn=...)`: the worker survives one SIGINT and one SIGTERM.

    A terminal or a cluster sends them to all processes of a run. The main process needs its workers until the step in
    flight is done, and then ends them.
    """

    def ignore_once(kind: int, frame: Any) -> None:
        signal.signal(kind, signal.SIG_DFL)

    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, ignore_once)


def worker_options(num_workers: int) -> dict[str, Any]:
    """Of a `DataLoader`: its processes outlive the signals that stop a run, and one that hangs doesn't hold it up."""
    if num_workers:
        atexit.unregister(kill_readers)
        atexit.register(kill_readers)
    return {"num_workers": num_workers, "worker_init_fn": spare_worker, "timeout": WORKER_TIMEOUT if num_workers else 0}


def kill_readers() -> None:
    """Ends the readers of data that are left at Python's exit, which would send each a SIGTERM and wait for it.

    A spared worker doesn't heed the first one, and one that hangs in a library heeds none.
    """
    for child in multiprocessing.active_children():
        if child.daemon:  # as a `DataLoader`'s are; Python's exit ends these alone
            child.kill()
