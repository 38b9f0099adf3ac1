"""How a run ends before its time: signals, lost processes, a loss that is not finite."""

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator


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


@contextmanager
def explain_lost_processes() -> Iterator[None]:
    """Ends the run with a remedy where PyTorch reports that a process which it needs is gone or hangs."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error)
        if reason.startswith("DataLoader "):
            lost = "A process that reads data is gone or hangs"
            remedy = "If memory ran out, lower --dataloader_num_workers or --per_device_batch_size"
        elif isinstance(error, torch.distributed.DistError) or "gloo" in reason:
            lost = "Another process of the run is gone or out of reach"
            remedy = "See its own message, or docs/training.md where the run never began"
        else:
            raise
        raise SystemExit(f"{lost}: {reason}\n{remedy}; the same command goes on from the last checkpoint.") from error


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
