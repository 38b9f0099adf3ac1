"""DataLoader workers that outlive the signals by which a run is stopped."""

import atexit
import multiprocessing
import signal
from typing import Any

WORKER_TIMEOUT = 900  # seconds without a batch after which a worker counts as hanging


def spare_worker(worker: int) -> None:
    """Lets a worker ignore its first SIGINT and its first SIGTERM, for `DataLoader(worker_init_fn=...)`.

    A terminal or a cluster sends them to all processes of a run. The main process needs its workers until the current
    step is finished, and then terminates them.
    """

    def ignore_once(kind: int, frame: Any) -> None:
        signal.signal(kind, signal.SIG_DFL)

    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, ignore_once)


def worker_options(num_workers: int) -> dict[str, Any]:
    """Options of a `DataLoader` whose workers outlive the signals that stop a run, and don't block it by hanging."""
    if num_workers:
        atexit.unregister(kill_readers)
        atexit.register(kill_readers)
    return {"num_workers": num_workers, "worker_init_fn": spare_worker, "timeout": WORKER_TIMEOUT if num_workers else 0}


def kill_readers() -> None:
    """Kills workers that are left when Python exits, which would otherwise send each a SIGTERM and wait for it.

    A worker ignores the first SIGTERM (see [`spare_worker`]), and one that hangs in a library ignores all.
    """
    for child in multiprocessing.active_children():
        if child.daemon:  # as the workers of a `DataLoader` are
            child.kill()
