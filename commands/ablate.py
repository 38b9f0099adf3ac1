"""Measures what each part of ACE-BERT is worth: arms that differ from a base in one thing, several seeds each.

    acebert ablate --config configs/ablations.yaml --output_dir runs/ablations
    acebert ablate --dataset_name path/to/catalogue --only no_adversary --seeds 0 -- --num_processes 2

Every run is an `accelerate launch` of the training recipe, with its log in its folder; what follows `--` goes
to `accelerate launch`. All arms of one seed are run before the next seed starts. Ctrl-C stops, and the same command
goes on: finished runs are not repeated, the one in flight resumes. Arms whose pre-training has the same settings share
it. After each run `ablations.md`, `ablations.json` and `ablations.png` are written anew from all that is finished.
"""

import io
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import t as student_t
from tqdm.auto import tqdm

from acebert.training.command_line import default_settings, parse_arguments
from acebert.utils.config_file import to_argv
from acebert.utils.files import atomic_write
from acebert.utils.fingerprints import json_sha256
from acebert.utils.markdown import format_mean, table
from acebert.utils.plotting import BLUE, STYLE

ROOT = Path(__file__).parent.parent
BASE = "base"  # the arm that the others are compared with
SECTIONS = ("both", "model", "pretrain", "finetune")
OURS = ("stage", "seed", "output_dir", "overwrite_output_dir", "model_name_or_path")  # flags that the runner sets
METRICS = {
    "title_to_image_recall@10": "Validation: titles find photos. Higher is better.",
    "query_to_product_recall@10": "Validation: queries from templates find products. Higher is better.",
    "modality_gap": "Validation: distance between the mean query vector and the mean product vector, 0 to 2.",
    "domain_accuracy": "Last logged training steps: the domain classifier's; 0.5 is the adversary's aim.",
    "matching_loss": "Last logged training steps. Not comparable with arms whose batches are easier or harder.",
}
Launch = Callable[[list[str], Path], int]


@dataclass(frozen=True)
class Run:
    """One call of the training script.

    Args:
        name: of its folder; ends with a digest of its settings, so that other settings are another run.
        flags: of the training script, but for `output_dir`; `model_name_or_path` is the name of another run.
        settings: all of the script's settings that follow from the flags.
    """

    name: str
    flags: dict[str, Any]
    settings: dict[str, Any]

    @property
    def products(self) -> int:
        """Products that a process sees."""
        batches = self.settings["max_train_steps"] * self.settings["gradient_accumulation_steps"]
        return batches * self.settings["per_device_batch_size"]

    def arguments(self, output_dir: Path) -> list[str]:
        paths = {"output_dir": output_dir / self.name}
        if "model_name_or_path" in self.flags:
            paths["model_name_or_path"] = output_dir / self.flags["model_name_or_path"]
        return to_argv({**self.flags, **paths})


@dataclass(frozen=True)
class Trial:
    """One arm with one seed: its runs in their order, pre-training (if the arm has any) and fine-tuning."""

    arm: str
    seed: int
    runs: tuple[Run, ...]


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


# ----------------------------------------------------------------------------------------------------------------------
# The plan
# ----------------------------------------------------------------------------------------------------------------------


def load_config(path: str | Path) -> dict[str, Any]:
    """Reads `seeds`, `arms` and the four sections of flags.

    Raises:
        SystemExit: for a part that is missing or unknown, or a flag that is not the file's to set; naming it.
    """
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    parts = {"seeds": list, "arms": dict} | dict.fromkeys(SECTIONS, dict)
    if not isinstance(config, dict) or set(config) != set(parts):
        raise SystemExit(f"{path} must hold {', '.join(parts)}, and nothing else.")
    for name, kind in parts.items():
        if not isinstance(config[name], kind):
            raise SystemExit(f"{path}: {name} must be a {kind.__name__}, got {config[name]!r}.")
    if BASE not in config["arms"]:
        raise SystemExit(f"{path} must hold an arm '{BASE}', which the others are compared with.")
    for name, arm in config["arms"].items():
        if not isinstance(arm, dict) or "description" not in arm or not set(arm) <= {"description", *SECTIONS}:
            raise SystemExit(f"{path}: the arm '{name}' must hold a description, and may hold {', '.join(SECTIONS)}.")
    for part in (config, *config["arms"].values()):
        for section in SECTIONS:
            if section == "pretrain" and part.get(section) == "none":
                continue
            flags = part.get(section, {})
            if not isinstance(flags, dict):
                raise SystemExit(f"{path}: {section} must hold `flag: value` lines, got {flags!r}.")
            if set(flags) & set(OURS):
                raise SystemExit(f"{path}: leave {', '.join(sorted(set(flags) & set(OURS)))} out, it is set here.")
    return config


def plan(config: dict[str, Any], seeds: Sequence[int]) -> list[Trial]:
    """All arms with all seeds, seed by seed, so that a campaign that is stopped has whole seeds to compare.

    Raises:
        SystemExit: for flags that the training script does not take, a run without a budget, or two arms that are the
            same.
    """
    trials = []
    for seed in seeds:
        seen: dict[str, str] = {}
        for name, arm in config["arms"].items():
            both, model, pretrain, finetune = ({**config[section], **_changes(arm, section)} for section in SECTIONS)
            runs: tuple[Run, ...] = ()
            if arm.get("pretrain") == "none":
                both |= model  # fine-tuning builds the model
            else:
                runs = (make_run("pretrain", {"stage": "pretrain", "seed": seed, **both, **model, **pretrain}, name),)
                both["model_name_or_path"] = runs[0].name
            runs += (make_run(name, {"stage": "finetune", "seed": seed, **both, **finetune}, name),)
            other = seen.setdefault(runs[-1].name.removeprefix(f"seed{seed}-{name}-"), name)
            if other != name:
                raise SystemExit(f"The arms '{other}' and '{name}' have the same settings: what is '{name}' to change?")
            trials.append(Trial(name, seed, runs))
    return trials


def _changes(arm: dict[str, Any], section: str) -> dict[str, Any]:
    changes = arm.get(section, {})
    return {} if changes == "none" else changes


def make_run(label: str, flags: dict[str, Any], arm: str) -> Run:
    """Checks the flags as the training script will, and names the run by all of its settings that are no defaults."""
    try:
        args = parse_arguments(to_argv({**flags, "output_dir": "unused"}))
    except (SystemExit, ValueError) as error:
        reason = error if isinstance(error, ValueError) else "see above"
        raise SystemExit(f"The arm '{arm}' can't run: the {flags['stage']} flags are wrong ({reason}).") from None
    settings = {name: value for name, value in asdict(args).items() if name != "output_dir"}
    if settings["max_train_steps"] is None:
        raise SystemExit(f"The arm '{arm}' has no max_train_steps to {flags['stage']}: arms compare at a fixed budget.")
    # Of what differs from the defaults, so that a flag which a later version adds leaves finished runs finished.
    defaults = {name: value for flags_of in default_settings().values() for name, value in flags_of.items()}
    changed = {name: value for name, value in settings.items() if value != defaults[name]}
    digest = json_sha256(changed, sort_keys=True)[:12]
    return Run(f"seed{flags['seed']}-{label}-{digest}", flags, settings)


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
    """`accelerate launch train_accelerate.py` with its output appended to a file. Returns its exit status.

    Ctrl-C is passed on, and the training script then saves a checkpoint before it ends. `accelerate launch` itself does
    not wait for that; the output pipe does, which stays open until the last process of the run is gone.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the run has ended.
    """
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *launch_args]
    command = [*launcher, str(ROOT / "train_accelerate.py"), *arguments]
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


# ----------------------------------------------------------------------------------------------------------------------
# The report
# ----------------------------------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its 95 % interval by Student's t with n - 1 degrees of freedom; a single value has no interval."""
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return {"mean": mean, "low": None, "high": None}
    half = float(student_t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def report(trials: Sequence[Trial], descriptions: dict[str, str], output_dir: Path) -> dict[str, Any]:
    """Writes `ablations.json`, `ablations.md` and `ablations.png` from all trials that are finished.

    Args:
        trials: finished or not.
        descriptions: of the arms, in the order of the tables.
        output_dir: holds the runs, and gets the report.

    Returns:
        What is in `ablations.json`: for each arm its trials; for each metric the mean over seeds, and the mean over
        seeds of the difference to the base of the same seed, each as in [`t_interval`].
    """
    arms: dict[str, Any] = {}
    for name, description in descriptions.items():
        done = []
        for trial in trials:
            if trial.arm == name and (metrics := read_metrics(trial.runs[-1], output_dir)) is not None:
                seconds = sum(read_record(run, output_dir)["seconds"] for run in trial.runs)
                products, folder = sum(run.products for run in trial.runs), trial.runs[-1].name
                done.append(
                    {"seed": trial.seed, "folder": folder, "products": products, "seconds": seconds, "metrics": metrics}
                )
        arms[name] = {"description": description, "trials": done, "means": {}, "differences": {}}
    for metric in METRICS:
        of_base = _by_seed(arms[BASE], metric)
        for name, arm in arms.items():
            values = _by_seed(arm, metric)
            paired = {seed: value - of_base[seed] for seed, value in values.items() if seed in of_base}
            if values:
                arm["means"][metric] = t_interval(list(values.values()))
            if paired and name != BASE:
                by_seed = {str(seed): value for seed, value in paired.items()}  # as JSON has it
                arm["differences"][metric] = {**t_interval(list(paired.values())), "by_seed": by_seed}
    output_dir.mkdir(parents=True, exist_ok=True)
    atomic_write(output_dir / "ablations.json", json.dumps({"arms": arms}, indent=2))
    atomic_write(output_dir / "ablations.md", ablations_markdown(arms))
    if any(arm["differences"] for arm in arms.values()):
        plot_differences(arms, output_dir / "ablations.png")
    return {"arms": arms}


def _by_seed(arm: dict[str, Any], metric: str) -> dict[int, float]:
    return {trial["seed"]: trial["metrics"][metric] for trial in arm["trials"] if metric in trial["metrics"]}


def to_words(difference: dict[str, Any]) -> str:
    """What a difference's interval lets one say."""
    if difference["low"] is None:
        return "one seed, no interval"
    if difference["low"] > 0:
        return "higher"
    return "lower" if difference["high"] < 0 else "no difference shown"


def ablations_markdown(arms: dict[str, Any]) -> str:
    """The report's tables."""
    rows = []
    for name, arm in arms.items():
        trials = arm["trials"]
        cells = [name, arm["description"], str(len(trials))]
        if trials:
            minutes = statistics.fmean(trial["seconds"] for trial in trials) / 60
            cells += [f"{trials[0]['products']:,}", f"{minutes:.1f}"]
        else:
            cells += ["", ""]
        rows.append(cells)
    lines = [
        "# Ablations",
        "",
        *table(["arm", "what it is", "seeds", "products seen", "wall time, min"], rows),
        "",
        "Products are those that one process sees. Both columns count a pre-training with every arm that uses it.",
    ]
    for metric, meaning in METRICS.items():
        rows = []
        for name, arm in arms.items():
            if metric in arm["means"]:
                difference = arm["differences"].get(metric)
                compared = [format_mean(difference, "+"), to_words(difference)] if difference else ["", ""]
                rows.append([name, format_mean(arm["means"][metric]), *compared, str(len(_by_seed(arm, metric)))])
        if rows:
            header = ["arm", "mean", f"difference to {BASE}", "", "seeds"]
            lines += ["", f"## {metric}", "", meaning, "", *table(header, rows)]
    compared = sum(d["low"] is not None for arm in arms.values() for d in arm["differences"].values())
    lines += [
        "",
        "In brackets are 95 % t-intervals over seeds; differences are paired, each seed with the base of the same "
        "seed. Few seeds make wide intervals (with 3, the half width is 2.5 standard deviations): *no difference "
        "shown* means that these runs can't tell the arm from the base, not that the two are equal. The intervals are "
        "about other seeds, not about other catalogues or longer training. Where there is no difference at all, one "
        f"interval in twenty leaves out 0 by chance, and this report has {compared}.",
        "",
    ]
    return "\n".join(lines)


def plot_differences(arms: dict[str, Any], path: Path) -> None:
    """Differences to the base with their intervals, a panel for each metric; a dot is one seed."""
    metrics = [metric for metric in METRICS if any(metric in arm["differences"] for arm in arms.values())]
    names = [name for name, arm in arms.items() if arm["differences"]]
    with rc_context(STYLE):
        figure = Figure(figsize=(1.5 + 3 * len(metrics), 1.4 + 0.38 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for ax, metric in zip(panels, metrics, strict=True):
            for place, name in enumerate(names):
                difference = arms[name]["differences"].get(metric)
                if difference is None:
                    continue
                colour = BLUE if to_words(difference) in ("higher", "lower") else "0.6"
                if difference["low"] is not None:
                    ax.plot([difference["low"], difference["high"]], [place, place], color=colour, lw=2)
                ax.plot(difference["mean"], place, "o", color=colour)
                seeds = list(difference["by_seed"].values())
                ax.plot(seeds, [place + 0.25] * len(seeds), ".", color="0.6", ms=3)
            ax.axvline(0, color="black", lw=1)
            ax.set_title(metric, fontsize=10)
            ax.grid(axis="x", color="#DDDDDD")
            ax.locator_params(axis="x", nbins=5)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        figure.supxlabel(f"difference to {BASE}, 95 % t-interval over seeds; blue where it leaves out 0", fontsize=10)
        figure.savefig(path, dpi=150, facecolor="white")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    main()
