"""What goes on around the steps of a run, and what the run remembers."""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from acebert.training.arguments import TrainingArguments
from acebert.training.checkpoints import RunFolder
from acebert.training.log import LogWindow, TrainLog
from acebert.training.optimization import average_weights
from acebert.training.signals import DivergenceWatch, Stopper
from acebert.training.stages.base import Stage

SHOWN = ("loss", "recall@1", "anchor_loss", "rate", "waiting")  # beside the progress bar


class Progress:
    """Where the run stands; saved and restored with every checkpoint."""

    def __init__(self) -> None:
        self.step = self.epoch = self.batch = 0
        self.seconds = 0.0  # of wall time, validation and mining included
        self.best_score = -math.inf
        self.best_metrics: dict[str, float] = {}
        self.checks_without_gain = 0

    def improve(self, score: float, metrics: dict[str, float]) -> bool:
        """Takes note of a validation. Returns whether it is the best so far."""
        if not score > self.best_score:  # nor if it is NaN
            self.checks_without_gain += 1
            return False
        self.best_score, self.best_metrics, self.checks_without_gain = score, metrics, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Run:
    """All that surrounds the steps: batches, log, moving average, validation, early stopping, checkpoints, signals.

    Args:
        args: the stage's flags.
        accelerator: of the run.
        stage: with data and processor loaded.
        folder: gets checkpoints and the best model.
        model, scheduler, train_loader: as `accelerator.prepare` returned them.
        validation_loader: None for a run without validation, whose last model is saved.
        total_steps: optimizer steps of the whole run.
    """

    def __init__(
        self,
        args: TrainingArguments,
        accelerator: Accelerator,
        stage: Stage[Any],
        folder: RunFolder,
        model: torch.nn.Module,
        scheduler: LRScheduler,
        train_loader: DataLoader,
        validation_loader: DataLoader | None,
        total_steps: int,
    ):
        self.args, self.accelerator, self.stage, self.folder = args, accelerator, stage, folder
        self.scheduler, self.train_loader, self.validation_loader = scheduler, train_loader, validation_loader
        self.model = accelerator.unwrap_model(model)
        self.average = average_weights(self.model, args.ema_decay) if args.ema_decay else None
        self.best_of = self.average.module if self.average else self.model  # what is validated and saved
        self.total_steps = total_steps
        self.progress, self.window, self.log = Progress(), LogWindow(), TrainLog(folder.path, accelerator)
        self.stopper, self.divergence = Stopper(), DivergenceWatch()
        config = {k: v for k, v in folder.settings.items() if isinstance(v, int | float | str)}
        accelerator.init_trackers("acebert", config=config)
        stateful = [self.progress, stage.sampler, *([self.average] if self.average else [])]
        accelerator.register_for_checkpointing(*stateful)

    @property
    def done(self) -> float:
        """The share of the run's steps that are done, in [0, 1]."""
        return self.progress.step / self.total_steps

    @property
    def is_over(self) -> bool:
        return self.progress.step >= self.total_steps or self.is_out_of_patience

    @property
    def is_out_of_patience(self) -> bool:
        patience = self.args.early_stopping_patience
        return patience is not None and self.progress.checks_without_gain >= patience

    def resume(self) -> None:
        """Goes back to the newest checkpoint, if there is one."""
        self.folder.resume()
        self.log.rewind(self.progress.step)

    def batches(self) -> Iterator[dict[str, Any]]:
        """The batches that are left of the run, epoch by epoch, each with its own seed for dropout."""
        progress, stage = self.progress, self.stage
        is_local_main = self.accelerator.is_local_main_process
        self.bar = tqdm(total=self.total_steps, initial=progress.step, disable=not is_local_main, unit="step")
        self.window.reset()
        self.clock = time.perf_counter()
        while not self.is_over:
            with self.window.paused():
                stage.before_epoch(self.model, progress.epoch)
            stage.sampler.start_epoch(progress.epoch)
            self.train_loader.set_epoch(progress.epoch)
            stage.train_data.set_epoch(progress.epoch)
            loader = self.train_loader
            if progress.batch:  # of a resumed epoch; a loader made anew would start new workers, too
                loader = self.accelerator.skip_first_batches(loader, progress.batch)
            for batch in self.window.timed(loader):
                progress.batch += 1
                seed_step(self.args.seed, progress.epoch, progress.batch, self.accelerator.process_index)
                yield batch
                if self.is_over:
                    return
            self.check_finite()
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def watch(self, losses: dict[str, torch.Tensor], norm: torch.Tensor | None) -> None:
        """Notes a batch's loss and the gradient's norm, where there is one, for [`check_finite`]."""
        norm = None if self.accelerator.scaler else norm  # a scaler expects overflows and skips their steps
        rate = self.scheduler.get_last_lr()[0]
        self.divergence.add(self.progress.step + 1, self.progress.batch, rate, losses["loss"], norm)

    def check_finite(self) -> None:
        """Ends the run if a loss or gradient since the last call is not finite."""
        data, batch_sampler = self.stage.train_data, self.train_loader.batch_sampler

        def ids_of(batches: list[int]) -> list[Any]:
            """Ids of this process's products in batches of the present epoch, which count from 1."""
            return [data.id_of(row) for n, rows in enumerate(batch_sampler, 1) if n in batches for row in rows]

        self.divergence.check(ids_of, self.args.output_dir)

    def after_batch(self, losses: dict[str, torch.Tensor]) -> None:
        """Counts a batch; after the last one of a step logs, validates, saves and stops, as far as each is due.

        Raises:
            SystemExit: after a signal, once the checkpoint is saved.
        """
        args, progress, accelerator = self.args, self.progress, self.accelerator
        done_before = self.done
        self.window.add(losses, args.per_device_batch_size * accelerator.num_processes)
        if not accelerator.sync_gradients:
            return
        progress.step += 1
        progress.seconds, self.clock = progress.seconds + time.perf_counter() - self.clock, time.perf_counter()
        self.bar.update()
        if self.average:
            self.average.update_parameters(self.model)
        is_last = progress.step == self.total_steps
        if progress.step % args.logging_steps == 0 or is_last:
            self.write_entry(done_before)
        with self.window.paused():
            if self.validation_loader and (progress.step % args.eval_steps == 0 or is_last):
                self.validate(self.validation_loader)
            is_stopping = self.stopper.asked(accelerator)
            if progress.step % args.checkpointing_steps == 0 or self.is_over or is_stopping:
                self.check_finite()
                self.folder.save_checkpoint(progress.step)
            if is_stopping and not self.is_over:
                self.stopper.restore()
                raise SystemExit(f"Stopped after step {progress.step}; the same command goes on from there.")

    def write_entry(self, done: float) -> None:
        """Logs the means since the last entry, and the schedules as they were when the share `done` was done."""
        self.check_finite()
        entry = self.window.flush() | {"learning_rate": self.scheduler.get_last_lr()[0]} | self.stage.schedules(done)
        self.accelerator.log({f"train/{name}": value for name, value in entry.items()}, step=self.progress.step)
        self.log.write(self.progress.step, self.progress.seconds, entry)
        self.bar.set_postfix({name: f"{entry[name]:.3g}" for name in SHOWN if name in entry})

    @torch.no_grad()
    def validate(self, loader: DataLoader) -> None:
        """Validates, logs, and saves the model if it is the best so far."""
        self.check_finite()
        progress, accelerator, model = self.progress, self.accelerator, self.best_of
        model.eval()
        try:
            # Every process computes all of it; the main one's numbers count, so that all agree on what is best.
            metrics: dict[str, float] = broadcast_object_list([self.stage.validate(model, loader)])[0]
        finally:
            model.train()
        accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, step=progress.step)
        self.log.write(progress.step, progress.seconds, {"validation": metrics})
        if accelerator.is_main_process:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self.bar.write(f"step {progress.step}: {shown}")
        if progress.improve(metrics["score"], metrics):
            self.folder.save_model(model, self.stage.processor)
        if self.is_out_of_patience and progress.step < self.total_steps:
            accelerator.print(
                f"Stopped early: no gain in {progress.checks_without_gain} validations (best score "
                f"{progress.best_score:.4f})."
            )

    def finish(self) -> dict[str, float]:
        """Saves the last model if there was no validation. Returns the best validation's metrics, empty without one."""
        self.bar.close()
        self.stopper.restore()
        if self.validation_loader is None:
            self.folder.save_model(self.best_of, self.stage.processor)
        kind = "best" if self.validation_loader else "last"
        self.accelerator.print(f"The {kind} model is in {self.folder.path}")
        for fault in self.stage.find_faults(self.progress.best_metrics):
            self.accelerator.print(f"Warning: {fault}")
        return self.progress.best_metrics


def seed_step(seed: int, epoch: int, batch: int, process: int) -> None:
    """Seeds a step by its place in the run alone, so that a resumed run draws the dropout of an uninterrupted one."""
    state = np.random.SeedSequence((seed, epoch, batch, process)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
