"""Measures what each part of ACE-BERT is worth: arms that differ from a base in one thing, several seeds each.

    acebert ablate --config configs/ablations.yaml --output_dir runs/ablations
    acebert ablate --dataset_name path/to/catalogue --only no_adversary --seeds 0 -- --num_processes 2

Every run is an `acebert train` with its log in its folder; what follows `--` goes to `accelerate launch`. All arms of
one seed are run before the next seed starts. Ctrl-C stops, and the same command goes on: finished runs are not
repeated, the one in flight resumes. Arms whose pre-training has the same settings share it. After each run
`ablations.md`, `ablations.json` and `ablations.png` are written anew from all that is finished.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from acebert.evaluation.campaign_report import campaign_markdown, compare_arms, plot_differences
from acebert.training.campaign import BASE, Run, Trial, load_config, plan
from acebert.utils.files import atomic_write

ROOT = Path(__file__).parent.parent
Launch = Callable[[list[str], Path], int]


def main(argv: list[str] | None = None, launch: Launch | None = None) -> dict[str, Any]:
    """Runs what is not finished yet and reports.

    Args:
        argv: flags; those of the command line by default.
        launch: calls the training script with flags, its output to a file, and returns its exit status; by default
            [`launch_training`].

    Returns:
        The report, as in `ablations.json`.

    Raises:
        SystemExit: for bad settings, before anything is run; after Ctrl-C; or at the end, if a run failed.
    """
    parser = ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default=ROOT / "configs/ablations.yaml", help="YAML file of flags, seeds and arms.")
    parser.add_argument("--dataset_name", nargs="+", help="Catalogues to train on, in place of the file's.")
    parser.add_argument("--backbone", help="Pre-trained BERT, in place of the file's.")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/ablations"), help="Folder of runs and report.")
    parser.add_argument(
        "--only", nargs="+", metavar="ARM", help="Run these arms; the report has all that are finished."
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="Run these seeds, which need not be the file's.")
    parser.add_argument("launch_args", nargs="*", help="After `--`: flags of accelerate launch.")
    args = parser.parse_args(argv)

    config = load_config(args.config)
    if args.dataset_name:
        config["both"]["dataset_name"] = args.dataset_name
    if args.backbone:
        config["model"]["backbone"] = args.backbone
    unknown = sorted(set(args.only or []) - set(config["arms"]))
    if unknown:
        parser.error(f"--only {' '.join(unknown)}: the arms of {args.config} are {', '.join(config['arms'])}.")
    seeds = args.seeds or config["seeds"]
    trials = plan(config, sorted({*config["seeds"], *seeds}))
    chosen = [trial for trial in trials if trial.arm in (args.only or config["arms"]) and trial.seed in seeds]

    launch = launch or partial(launch_training, launch_args=args.launch_args)
    descriptions = {name: arm["description"] for name, arm in config["arms"].items()}
    try:
        failed = run_all(chosen, args.output_dir, launch, lambda: report(trials, descriptions, args.output_dir))
    except KeyboardInterrupt:
        raise SystemExit("Stopped; the same command goes on from there.") from None
    if failed:
        raise SystemExit(f"{len(failed)} runs failed, which the same command tries again: {', '.join(failed)}.")
    result = report(trials, descriptions, args.output_dir)
    print(f"The report is in {args.output_dir / 'ablations.md'}")
    return result


def report(trials: Sequence[Trial], descriptions: dict[str, str], output_dir: Path) -> dict[str, Any]:
    """Writes `ablations.json`, `ablations.md` and `ablations.png` from all trials that are finished.

    Args:
        trials: finished or not.
        descriptions: of the arms, in the order of the tables.
        output_dir: holds the runs, and gets the report.

    Returns:
        What is in `ablations.json`: the arms of [`compare_arms`].
    """
    finished: dict[str, list[dict[str, Any]]] = {name: [] for name in descriptions}
    for trial in trials:
        if (metrics := read_metrics(trial.runs[-1], output_dir)) is not None:
            seconds = sum(read_record(run, output_dir)["seconds"] for run in trial.runs)
            products, folder = sum(run.products for run in trial.runs), trial.runs[-1].name
            finished[trial.arm].append(
                {"seed": trial.seed, "folder": folder, "products": products, "seconds": seconds, "metrics": metrics}
            )
    found = {name: {"description": text, "trials": finished[name]} for name, text in descriptions.items()}
    arms = compare_arms(found, BASE)
    output_dir.mkdir(parents=True, exist_ok=True)
    atomic_write(output_dir / "ablations.json", json.dumps({"arms": arms}, indent=2))
    atomic_write(output_dir / "ablations.md", campaign_markdown(arms, BASE))
    if any(arm["differences"] for arm in arms.values()):
        plot_differences(arms, BASE, output_dir / "ablations.png")
    return {"arms": arms}


# ----------------------------------------------------------------------------------------------------------------------
# The runs
# ----------------------------------------------------------------------------------------------------------------------


def run_all(trials: Sequence[Trial], output_dir: Path, launch: Launch, after_each: Callable[[], Any]) -> list[str]:
    """Runs what is not finished, each run once. A failure stops only what builds on it. Returns what failed."""
    pending = list_pending(trials, output_dir)
    failed: list[str] = []
    # Counted in products, since runs differ in length and the time left is to be right.
    total = sum(run.products for run in pending)
    with tqdm(total=total, unit="product", unit_scale=True, disable=not pending) as bar:
        for number, run in enumerate(pending, start=1):
            bar.set_description(f"{number}/{len(pending)} {run.name}")
            if run.flags.get("model_name_or_path") in failed:
                failed.append(run.name)
                bar.write(f"{run.name} is left out, since its pre-training failed.")
            elif not execute(run, output_dir, launch):
                failed.append(run.name)
                log = output_dir / run.name / "train.log"
                tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
                bar.write(f"{run.name} failed. The end of {log}:\n{tail}")
            bar.update(run.products)
            after_each()
    return failed


def list_pending(trials: Sequence[Trial], output_dir: Path) -> list[Run]:
    """The runs that unfinished trials need, each once.

    Finished trials are known by their `run.json` files alone, so that a campaign can go on elsewhere from those; a
    pre-training whose weights stayed behind is then run again.
    """
    pending: dict[str, Run] = {}
    for trial in trials:
        if read_metrics(trial.runs[-1], output_dir) is None:
            for run in trial.runs:
                weights = output_dir / run.name / "model.safetensors"
                if read_metrics(run, output_dir) is None or not weights.exists():
                    pending[run.name] = run
    return list(pending.values())


def execute(run: Run, output_dir: Path, launch: Launch) -> bool:
    """Runs or resumes one run. Returns whether it is finished.

    Whatever comes of it, `run.json` in its folder holds the settings and the time that they have taken so far, and once
    the run is finished its metrics.
    """
    folder = output_dir / run.name
    folder.mkdir(parents=True, exist_ok=True)
    record = {"settings": run.settings, "seconds": read_record(run, output_dir).get("seconds", 0.0)}
    start = time.perf_counter()
    status = None
    try:
        status = launch(run.arguments(output_dir), folder / "train.log")
    finally:
        record["seconds"] += time.perf_counter() - start
        if status == 0:
            record["metrics"] = last_metrics(folder / "train_log.jsonl")
        atomic_write(folder / "run.json", json.dumps(record, indent=2))
    if status == 0:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # three times the model's size, for resuming alone
    return status == 0


def launch_training(arguments: list[str], log: Path, launch_args: Sequence[str] = ()) -> int:
    """`acebert train` with its output appended to a file. Returns its exit status.

    Ctrl-C is passed on, and the training script then saves a checkpoint before it ends. The output pipe stays open
    until the last process of the run is gone.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the run has ended.
    """
    command = [sys.executable, "-m", "acebert.commands.train", *arguments, "--", *launch_args]
    stopped = False
    with (
        open(log, "ab") as file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        assert isinstance(process.stdout, io.BufferedReader)  # as for every pipe
        while True:
            try:
                while output := process.stdout.read1():
                    file.write(output)
                    file.flush()
                break
            except KeyboardInterrupt:
                stopped = True
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
    if stopped:
        raise KeyboardInterrupt
    return process.returncode


def last_metrics(log: Path) -> dict[str, float]:
    """The last validation's metrics, and what the last training entry tells of the adversary and the matching."""
    metrics: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        of_training = {name: entry[name] for name in ("domain_accuracy", "matching_loss") if name in entry}
        metrics |= entry.get("validation", of_training)
    return metrics


def read_record(run: Run, output_dir: Path) -> dict[str, Any]:
    file = output_dir / run.name / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def read_metrics(run: Run, output_dir: Path) -> dict[str, float] | None:
    """A finished run's metrics, None for another."""
    return read_record(run, output_dir).get("metrics")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    main()
