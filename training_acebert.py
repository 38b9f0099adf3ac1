"""The machinery of a training run: what it remembers, how it stops, averages, logs, and looks for a rate."""

import atexit
import json
import math
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from .checkpoints_acebert import write_whole

WORKER_TIMEOUT = 900  # seconds after which a process that reads data and delivers no batch counts as hanging

# ----------------------------------------------------------------------------------------------------------------------
# State
# ----------------------------------------------------------------------------------------------------------------------


class Progress:
    """Where the run stands; saved and restored with every checkpoint."""

    def __init__(self) -> None:
        self.step = self.epoch = self.batch = 0
        self.seconds = 0.0  # of wall time, validation and mining included
        self.best_score = -math.inf
        self.best_metrics: dict[str, float] = {}
        self.checks_without_gain = 0

    def improve(self, score: float, metrics: dict[str, float]) -> bool:
        """Takes note of a validation; whether it is the best so far."""
        if not score > self.best_score:  # nor if it is NaN
            self.checks_without_gain += 1
            return False
        self.best_score, self.best_metrics, self.checks_without_gain = score, metrics, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


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


def use_loopback() -> None:
    """Lets processes that all run on this machine talk over its loopback interface.

    Without `GLOO_SOCKET_IFNAME`, Gloo takes the address that the host's name resolves to. Where that is out of reach,
    the processes would wait for each other until the process group's timeout, half an hour.
    """
    processes, of_this_machine = os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_WORLD_SIZE")
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if processes and processes == of_this_machine and loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


def average_weights(model: torch.nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights, which early on forgets faster.

    After n updates the average keeps min(decay, (1 + n) / (10 + n)) of itself, as TensorFlow's
    `ExponentialMovingAverage` does, so that the first, random weights are soon gone.
    """

    def update(averages: list[torch.Tensor], weights: list[torch.Tensor], num_averaged: torch.Tensor) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)


# ----------------------------------------------------------------------------------------------------------------------
# Ends
# ----------------------------------------------------------------------------------------------------------------------


class Stopper:
    """Turns the first Ctrl-C or SIGTERM into a checkpoint after the step in flight; the second stops at once.

    So does the end of the launcher: `accelerate launch` passes no signal on to a single process.
    """

    def __init__(self) -> None:
        self.stopping = False
        launched = any(name in os.environ for name in ("ACCELERATE_DYNAMO_MODE", "TORCHELASTIC_RUN_ID"))
        self.launcher = os.getppid() if launched else None
        self.before = {kind: signal.signal(kind, self._ask) for kind in (signal.SIGINT, signal.SIGTERM)}

    def restore(self) -> None:
        for kind, handler in self.before.items():
            signal.signal(kind, handler)

    def _ask(self, kind: int, frame: Any) -> None:
        self.stopping = True
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # no `print`, which a signal may have interrupted
            os.write(2, b"\nA checkpoint follows after this step, then the end. A second signal stops at once.\n")
        signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)

    def asked(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked, so that all of them stop after the same step."""
        if self.launcher is not None and os.getppid() != self.launcher:
            self.stopping = True
        if accelerator.num_processes == 1:
            return self.stopping
        flag = torch.tensor(int(self.stopping), device=accelerator.device)
        return bool(accelerator.reduce(flag, reduction="sum") > 0)


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


@contextmanager
def explain_lost_processes() -> Iterator[None]:
    """Ends the run with a remedy where PyTorch reports that a process which it needs is gone or hangs."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error)
        if reason.startswith("DataLoader "):
            lost = "A process that reads data is gone or hangs"
            remedy = "If memory ran out, lower --num_workers or --per_device_batch_size"
        elif isinstance(error, torch.distributed.DistError) or "gloo" in reason:
            lost = "Another process of the run is gone or out of reach"
            remedy = "See its own message, or docs/training.md where the run never began"
        else:
            raise
        raise SystemExit(f"{lost}: {reason}\n{remedy}; the same command goes on from the last checkpoint.") from error


def kill_readers() -> None:
    """Ends the readers of data that are left at Python's exit, which would send each a SIGTERM and wait for it.

    A spared worker doesn't heed the first one, and one that hangs in a library heeds none.
    """
    for child in multiprocessing.active_children():
        if child.daemon:  # as a `DataLoader`'s are; Python's exit ends these alone
            child.kill()


class DivergenceWatch:
    """Finds the first step whose loss or gradient is not finite.

    Both are noted on the device, without a synchronisation, and read by `check`. That is called where the device is
    read anyway: before an entry of the log, a validation and a checkpoint, and once an epoch.
    """

    def __init__(self) -> None:
        self.noted: list[tuple[int, int, float, torch.Tensor, torch.Tensor]] = []

    def add(
        self, step: int, batch: int, learning_rate: float, loss: torch.Tensor, gradient_norm: torch.Tensor | None
    ) -> None:
        """Notes a batch. `gradient_norm` is None where there is none yet, or where it may overflow (float16)."""
        loss = loss.detach().float()
        norm = loss if gradient_norm is None else gradient_norm.detach().float()
        self.noted.append((step, batch, learning_rate, loss, norm))

    def check(self, product_ids: Callable[[list[int]], list[Any]], output_dir: str) -> None:
        """Reads what was noted since the last time.

        Args:
            product_ids: the ids of this process's products in the batches of these numbers of the present epoch.
            output_dir: of the run, for the message.

        Raises:
            SystemExit: naming step, learning rate and products.
        """
        noted, self.noted = self.noted, []
        values = torch.stack([torch.stack(note[3:]) for note in noted]).tolist() if noted else []
        for (step, _, learning_rate, *_), (loss, norm) in zip(noted, values, strict=True):
            if math.isfinite(loss) and math.isfinite(norm):
                continue
            what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient's norm is {norm}"
            ids = product_ids([batch for other, batch, *_ in noted if other == step])
            raise SystemExit(
                f"The {what} at step {step}, learning rate {learning_rate:.3g}. Products of the batch: {ids}.\n"
                "The weights since then are lost; checkpoints and model are from before. Look at these products, or "
                f"start from the best model so far (--model_name_or_path {output_dir}) in another --output_dir with a "
                "lower --learning_rate: the same command would end at the same step."
            )


# ----------------------------------------------------------------------------------------------------------------------
# Gradients
# ----------------------------------------------------------------------------------------------------------------------


class GatherRows(torch.autograd.Function):
    """All processes' rows, in their order. The gradient of a row is the sum of what all processes send back to it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def encode_chunks(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and product vectors of a batch of `PairCollator`, (rows, projection_dim) each, in the order of its rows."""
    outputs = [model(**chunk, return_loss=False) for chunk in batch["chunks"]]
    query_embeds = torch.cat([output.query_embeds for output in outputs])
    product_embeds = torch.cat([output.product_embeds for output in outputs])
    return query_embeds[batch["query_order"]], product_embeds[batch["product_order"]]


def cached_backward(
    model: torch.nn.Module,
    batch: dict[str, Any],
    compute_loss: Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]],
    accelerator: Accelerator,
) -> dict[str, torch.Tensor]:
    """The backward pass of a contrastive loss, holding the activations of one chunk at a time.

    Gradient caching (Gao et al. 2021, arXiv 2101.06983, section 3.2): encode all chunks without a graph, take the
    loss's gradient for the vectors, then encode each chunk again and send its rows of that gradient back. Dropout
    draws the same in both passes. The gradients are those of the plain backward pass, for about a third more time.

    Args:
        model: maps a chunk to `query_embeds` and `product_embeds`.
        batch: of `PairCollator`.
        compute_loss: maps the vectors of the batch to values, `loss` among them; may hold parameters of its own.
        accelerator: scales the loss, and averages gradients over processes with the last chunk.

    Returns:
        The values, without a graph.
    """
    chunks = batch["chunks"]
    seeds = torch.randint(2**62, (len(chunks),)).tolist()
    query_parts, product_parts = [], []
    with torch.no_grad():
        for chunk, seed in zip(chunks, seeds, strict=True):
            torch.manual_seed(seed)
            outputs = model(**chunk, return_loss=False)
            query_parts.append(outputs.query_embeds)
            product_parts.append(outputs.product_embeds)
    query_embeds = torch.cat(query_parts)[batch["query_order"]].requires_grad_()
    product_embeds = torch.cat(product_parts)[batch["product_order"]].requires_grad_()
    values = compute_loss(query_embeds, product_embeds)
    gradients = torch.autograd.grad(values["loss"], (query_embeds, product_embeds))
    sizes = [len(part) for part in query_parts]
    query_gradients = gradients[0][batch["query_order"].argsort()].split(sizes)
    product_gradients = gradients[1][batch["product_order"].argsort()].split(sizes)
    for i, (chunk, seed) in enumerate(zip(chunks, seeds, strict=True)):
        last = i == len(chunks) - 1
        torch.manual_seed(seed)
        with accelerator.no_sync(model) if not last else nullcontext():
            outputs = model(**chunk, return_loss=False)
            # The gradient of this scalar product for the vectors is the cached one.
            product = (outputs.query_embeds * query_gradients[i]).sum()
            product = product + (outputs.product_embeds * product_gradients[i]).sum()
            if last:  # with the loss's own parameters
                product = product + compute_loss(query_embeds.detach(), product_embeds.detach())["loss"]
            accelerator.backward(product)
    return {name: value.detach() for name, value in values.items()}


# ----------------------------------------------------------------------------------------------------------------------
# Logs
# ----------------------------------------------------------------------------------------------------------------------


class LogWindow:
    """Means of the logged values, and products per second, since the last entry. Reads the device only to flush."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.batches, self.products, self.start = 0, 0, time.perf_counter()

    def add(self, values: dict[str, torch.Tensor], products: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.batches, self.products = self.batches + 1, self.products + products

    def flush(self) -> dict[str, float]:
        entry = {name: float(value) / self.batches for name, value in self.sums.items()}
        entry["rate"] = self.products / (time.perf_counter() - self.start)
        self.reset()
        return entry


def rewind_log(folder: str, progress: Progress, accelerator: Accelerator) -> None:
    """Takes out what a resumed run writes again: entries after its checkpoint, and a line that a kill left half."""
    file = Path(folder) / "train_log.jsonl"
    if accelerator.is_main_process and file.exists():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= progress.step]
        write_whole(file, "".join(kept))


def append_log(folder: str, progress: Progress, entry: dict[str, Any], accelerator: Accelerator) -> None:
    """Adds a line to `train_log.jsonl`: the step, the seconds trained so far, and the entry."""
    if accelerator.is_main_process:
        entry = {"step": progress.step, "seconds": round(progress.seconds, 1), **entry}
        with open(Path(folder) / "train_log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


# ----------------------------------------------------------------------------------------------------------------------
# Learning rate
# ----------------------------------------------------------------------------------------------------------------------


def find_learning_rate(
    batches: Iterable[dict[str, Any]],
    step: Callable[[dict[str, Any]], float],
    optimizer: torch.optim.Optimizer,
    num_steps: int,
    output_dir: str,
    accelerator: Accelerator,
    lowest: float = 0.01,
    highest: float = 30.0,
) -> float:
    """A learning-rate range test (Smith 2017, arXiv 1506.01186, section 3.3), with a plot and a suggestion.

    All rates of the optimizer are multiplied by a factor that grows from step to step. What is suggested is the factor
    at which the smoothed loss falls fastest. The test ends early once the loss has grown half as large again as its
    least. The model is of no further use.

    Args:
        batches: endless, or at least `num_steps` of them.
        step: one optimizer step; returns the loss before it.
        optimizer: its groups' "lr" are the rates to multiply.
        num_steps: at most.
        output_dir: gets `learning_rate.json` and `learning_rate.png`.
        accelerator: tells which process writes.
        lowest, highest: the first and the last factor.

    Returns:
        The suggested factor.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    factors = np.geomspace(lowest, highest, num_steps)
    losses: list[float] = []
    smoothed: list[float] = []
    average, weight = 0.0, 0.0
    progress = tqdm(
        zip(factors, batches, strict=False), total=num_steps, unit="step", disable=not accelerator.is_main_process
    )
    for factor, batch in progress:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        losses.append(step(batch))
        average, weight = 0.9 * average + 0.1 * losses[-1], 0.9 * weight + 0.1
        smoothed.append(average / weight)
        progress.set_postfix(factor=f"{factor:.3g}", loss=f"{smoothed[-1]:.3g}")
        if not math.isfinite(losses[-1]) or smoothed[-1] > 1.5 * min(smoothed):
            break
    if np.isfinite(smoothed).sum() < 2:
        raise SystemExit(f"The loss is {losses[-1]} at {factor:.2g} times the rates given already: lower them.")
    tried = factors[: len(smoothed)]
    slopes = np.gradient(np.array(smoothed), np.log(tried))
    best = float(tried[int(np.nanargmin(slopes))])
    if accelerator.is_main_process:
        _write_learning_rates(Path(output_dir), rates, tried, losses, smoothed, best)
    return best


def _write_learning_rates(
    folder: Path, rates: list[float], factors: np.ndarray, losses: list[float], smoothed: list[float], best: float
) -> None:
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "rates": rates,
        "factor": factors.tolist(),
        "loss": losses,
        "smoothed_loss": smoothed,
        "suggested_factor": best,
        "suggested_rates": [rate * best for rate in rates],
    }
    (folder / "learning_rate.json").write_text(json.dumps(report, indent=2))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(factors, losses, color="0.8", label="loss")
    axes.semilogx(factors, smoothed, color="tab:blue", label="smoothed")
    axes.axvline(best, color="tab:orange", linestyle="--", label=f"falls fastest: {best:.2g}")
    axes.set(xlabel="factor of the learning rates given", ylabel="loss", title="Learning-rate range test")
    axes.legend(frameon=False)
    figure.savefig(folder / "learning_rate.png", dpi=150)
