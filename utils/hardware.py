"""What the machine can do."""

import os
import socket

import torch


def has_bfloat16(device: str | None = None) -> bool:
    """Whether the hardware multiplies matrices in bfloat16. On a CPU that only emulates it, float32 is faster.

    Args:
        device: its type, as "cpu"; that which is used by default if None.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases of torch
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def spare_cores(processes: int) -> int:
    """Cores for each of the processes on this machine to read data with, beside the one that it computes on.

    Args:
        processes: of the run, over all machines; those of this machine are counted where its environment says them.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, local) - 1)


def use_loopback() -> None:
    """Lets processes that all run on this machine talk over its loopback interface.

    Without `GLOO_SOCKET_IFNAME`, Gloo takes the address that the host's name resolves to. Where that is out of reach,
    the processes would wait for each other until the process group's timeout, half an hour.
    """
    processes, of_this_machine = os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_WORLD_SIZE")
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if processes and processes == of_this_machine and loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
