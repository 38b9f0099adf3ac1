"""What the machine can do at most: matrix products a second in float32 and bfloat16, and bytes moved in its memory."""

from collections.abc import Callable

import torch
from timing import Row, Spread, interleave, rates, timed
from workload import Workload

from acebert.utils.hardware import has_bfloat16


def matrix_product(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Callable[[], object], float]:
    """A product of two square matrices, and its operations."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out), 2.0 * size**3


def measure_reference(workload: Workload) -> Callable[[], float]:
    """Times one matrix product in the models' type; returns operations a second."""
    size = workload.sizes.matrix * (4 if workload.device.type == "cuda" else 1)
    product, operations = matrix_product(size, workload.dtype, workload.device)
    run = timed(product)
    return lambda: operations / run()


def share(operations: float, seconds: list[float], reference: list[float]) -> list[float]:
    """Of the matrix products' rate in the same rounds."""
    return [operations / second / rate for second, rate in zip(seconds, reference, strict=True)]


@torch.inference_mode()
def measure(workload: Workload) -> list[Row]:
    sizes, device = workload.sizes, workload.device
    size = sizes.matrix * (4 if device.type == "cuda" else 1)
    products = {
        "float32": matrix_product(size, torch.float32, device),
        "bfloat16": matrix_product(size, torch.bfloat16, device),
    }
    values = torch.ones(sizes.bandwidth_mib * 2**18, device=device)  # float32
    copy = torch.empty_like(values)
    calls = {name: timed(call) for name, (call, _) in products.items()} | {"copy": timed(lambda: copy.copy_(values))}
    seconds = interleave(calls, sizes.repeats)
    figures = {name: Spread.of(rates(operations / 1e9, seconds[name])) for name, (_, operations) in products.items()}
    emulated = [] if has_bfloat16() else ["This machine has no bfloat16 arithmetic: it emulates it."]
    moved = Spread.of(rates(2 * values.nbytes / 1e9, seconds["copy"]))
    return [
        Row(f"Matrix product, {size} x {size}", "GFLOP/s", figures, notes=emulated),
        Row(f"Copy of {sizes.bandwidth_mib} MiB, read and written", "GB/s", {"memory": moved}),
    ]
