"""The ablation runner: its plan, what is run and what isn't, failures, statistics, and the report."""

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import acebert
from acebert import train_accelerate
from acebert.commands import ablate as script
from acebert.data.collators import CPU_CHUNK
from acebert.evaluation.campaign_report import t_interval
from acebert.training.checkpoints import checkpoints_of
from acebert.training.command_line import default_settings

ROOT = Path(acebert.__file__).parent
METRICS = {"title_to_image_recall@10", "query_to_product_recall@10", "modality_gap", "domain_accuracy", "matching_loss"}
WITHOUT_ADVERSARY = METRICS - {"domain_accuracy"}


@pytest.fixture
def config(backbone: str, catalog_folder: Path) -> dict[str, Any]:
    """A campaign of seconds: the base and an arm that shares its pre-training."""
    return {
        "seeds": [0, 1],
        "both": {
            "dataset_name": str(catalog_folder),
            "validation_split": "validation",
            "query_templates": ["{colour} {kind}", "{gender} {kind}"],
            "per_device_batch_size": 16,
            "dataloader_num_workers": 0,
            "mixed_precision": "no",
            "logging_steps": 1,
            "eval_steps": 1000,  # at the end alone: an earlier best model may be the same for all arms
        },
        "model": {"backbone": backbone, "patch_size": 8, "max_num_patches": 12, "projection_dim": 16},
        "pretrain": {"max_train_steps": 1},
        "finetune": {"max_train_steps": 2, "adversarial_strength": 0.1},
        "arms": {
            "base": {"description": "all parts"},
            "no_adversary": {"description": "no reversed gradient", "finetune": {"adversarial_strength": 0}},
        },
    }


@pytest.fixture
def flags(tmp_path: Path) -> Callable[[dict[str, Any]], list[str]]:
    """Writes the campaign's file. Returns the flags that run it."""

    def make(config: dict[str, Any]) -> list[str]:
        (tmp_path / "ablations.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return ["--config", str(tmp_path / "ablations.yaml"), "--output_dir", str(tmp_path / "runs")]

    return make


class InProcess:
    """Launches runs in this process, counts them, and breaks those whose folder's name holds a given word."""

    def __init__(self, broken: str = "no run"):
        self.broken, self.launched = broken, []

    def __call__(self, arguments: list[str], log: Path) -> int:
        self.launched.append(log.parent.name)
        try:
            if self.broken in log.parent.name:
                raise RuntimeError("out of luck")
            train_accelerate.main(arguments)
        except Exception:
            log.write_text(traceback.format_exc())
            return 1
        return 0

    def labels(self) -> list[str]:
        return [name.rpartition("-")[0] for name in self.launched]


def fake_launch(values: dict[str, float]) -> script.Launch:
    """Writes the log of a run that ended with such a title-to-image recall, by the run's folder without its digest."""

    def launch(arguments: list[str], log: Path) -> int:
        recall = values.get(log.parent.name.rpartition("-")[0], 0.0)
        entries = [
            {"step": 1, "validation": {"title_to_image_recall@10": -1.0}},
            {"step": 2, "domain_accuracy": 0.7, "matching_loss": 3.0},
            {"step": 2, "validation": {"title_to_image_recall@10": recall}},
        ]
        (log.parent / "train_log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return 0

    return launch


# ----------------------------------------------------------------------------------------------------------------------
# The plan
# ----------------------------------------------------------------------------------------------------------------------


def test_the_projects_own_campaign() -> None:
    """Every arm's flags are taken by the training script, and all arms see as many products."""
    config = script.load_config(ROOT / "configs" / "ablations.yaml")
    trials = script.plan(config, config["seeds"])
    assert [trial.seed for trial in trials] == sorted(trial.seed for trial in trials)
    assert len(trials) == 11 * 3 and trials[0].arm == script.BASE
    assert {sum(run.products for run in trial.runs) for trial in trials} == {12_288}
    runs = {run.name: run for trial in trials for run in trial.runs}
    assert len(runs) == 33 + 6 * 3  # as many pre-trainings as ways to pre-train

    def changed(arm: str, stage: int) -> set[str]:
        base, other = (next(t for t in trials if t.arm == name).runs[stage].settings for name in (script.BASE, arm))
        return {name for name in base if base[name] != other[name]}

    assert changed("no_adversary", -1) == {"adversarial_strength"}
    assert changed("no_hard_negatives", -1) == {"mine_hard_negatives_every"}
    assert changed("shared_encoders", 0) == {"share_encoders", "query_layers"}
    assert changed("no_background_removal", 0) == {"crop_to_object"}
    assert changed("no_hot_queries", 0) == {"query_templates"}
    assert changed("no_hot_queries", -1) == {"model_name_or_path"}


def test_the_recorded_runs_are_the_whole_campaign(tmp_path: Path) -> None:
    """With three seeds of every arm; the report beside them is what they give."""
    config = script.load_config(ROOT / "configs" / "ablations.yaml")
    config["both"]["dataset_name"], config["model"]["backbone"] = ["runs/fashion"], "runs/minilm"
    trials = script.plan(config, config["seeds"])
    records = ROOT / "docs" / "results" / "ablations"
    recorded = {file.parent.name: json.loads(file.read_text()) for file in records.glob("*/run.json")}
    planned = {run.name: run.settings for trial in trials for run in trial.runs}
    assert set(recorded) == set(planned)
    for name, record in recorded.items():
        # A record holds the flags of all stages, and two that are gone: those of others have their defaults. A CPU's
        # micro-batches had the size that they have now where no flag says otherwise.
        defaults = default_settings()
        gone = {"find_learning_rate": None, "num_workers": 1}
        assert planned[name].get("chunk_size") is None
        now = ChainMap({"chunk_size": CPU_CHUNK}, planned[name], gone, defaults["finetune"], *defaults.values())
        assert {key: now[key] for key in record["settings"]} == record["settings"]
    shutil.copytree(records, tmp_path / "records")
    descriptions = {name: arm["description"] for name, arm in config["arms"].items()}
    report = script.report(trials, descriptions, tmp_path / "records")
    assert [len(arm["trials"]) for arm in report["arms"].values()] == [3] * 11
    assert json.loads((records / "ablations.json").read_text()) == json.loads(json.dumps(report))


def test_an_arm_without_pretraining_builds_its_model_in_finetuning(config: dict[str, Any]) -> None:
    config["arms"]["no_pretraining"] = {"description": "straight", "pretrain": "none", "model": {"patch_size": 16}}
    _, _, trial = script.plan(config, [3])
    (run,) = trial.runs
    assert (run.settings["backbone"], run.settings["patch_size"]) == (config["model"]["backbone"], 16)
    assert run.settings["model_name_or_path"] is None and run.settings["seed"] == 3


def test_runs_are_named_by_their_settings(config: dict[str, Any]) -> None:
    def names(config: dict[str, Any]) -> list[str]:
        return [run.name for run in script.plan(config, [0])[0].runs]

    before = names(config)
    spelled_out = copy.deepcopy(config)
    spelled_out["finetune"]["max_grad_norm"] = 1.0  # the default
    assert names(spelled_out) == before
    config["pretrain"]["mlm_probability"] = 0.3
    changed = names(config)
    assert changed[0] != before[0] and changed[1] != before[1]  # fine-tuning starts from other weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"other": {"description": "x"}}}, "must hold an arm 'base'"),
        ({"extra": {}}, "and nothing else"),
        ({"seeds": 3}, "seeds must be a list, got 3"),
        ({"arms": {"base": {}}}, "arm 'base' must hold a description"),
        ({"arms": {"base": {"description": "x", "tune": {}}}}, "arm 'base' must hold a description"),
        ({"arms": {"base": {"description": "x", "model": "none"}}}, "model must hold `flag: value` lines, got 'none'"),
        ({"finetune": {"seed": 1}}, "leave seed out"),
        ({"finetune": {"max_train_steps": 2, "learning_rat": 1}}, "arm 'base' can't run: the finetune flags"),
        ({"pretrain": {"max_train_steps": 0}}, "arm 'base' can't run: the pretrain flags"),
        ({"pretrain": {}}, "no max_train_steps to pretrain"),
        (
            {"arms": {"base": {"description": "x"}, "twin": {"description": "y", "finetune": {"label_smoothing": 0}}}},
            "'base' and 'twin' have the same settings",
        ),
    ],
)
def test_bad_campaigns_fail_before_anything_runs(
    changes: dict[str, Any], message: str, config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    launch = InProcess()
    with pytest.raises(SystemExit, match=message):
        script.main(flags({**config, **changes}), launch)
    assert not launch.launched and not (tmp_path / "runs").exists()


def test_unknown_arm(
    config: dict[str, Any], flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main([*flags(config), "--only", "no_adversry"])
    assert "--only no_adversry: the arms of" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------------
# The runs
# ----------------------------------------------------------------------------------------------------------------------


def test_two_arms_with_two_seeds(config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path) -> None:
    launch = InProcess()
    arms = script.main(flags(config), launch)["arms"]
    assert launch.labels() == [
        *("seed0-pretrain", "seed0-base", "seed0-no_adversary"),  # one pre-training for both arms
        *("seed1-pretrain", "seed1-base", "seed1-no_adversary"),
    ]
    for arm in arms.values():
        assert [trial["seed"] for trial in arm["trials"]] == [0, 1]
        assert all(trial["products"] == 3 * 16 and trial["seconds"] > 0 for trial in arm["trials"])
    assert set(arms["base"]["means"]) == METRICS and not arms["base"]["differences"]
    assert set(arms["no_adversary"]["means"]) == set(arms["no_adversary"]["differences"]) == WITHOUT_ADVERSARY
    assert arms["base"]["trials"][0]["metrics"] != arms["base"]["trials"][1]["metrics"]  # the seed counts
    for trial in arms["no_adversary"]["trials"]:
        settings = json.loads((tmp_path / "runs" / trial["folder"] / "training_args.json").read_text())
        assert (settings["adversarial_strength"], settings["seed"]) == (0.0, trial["seed"])
        assert f"seed{trial['seed']}-pretrain-" in settings["model_name_or_path"]
    assert not list((tmp_path / "runs").glob("*/checkpoints"))  # of no use any more
    assert json.loads((tmp_path / "runs" / "ablations.json").read_text())["arms"].keys() == arms.keys()
    assert (tmp_path / "runs" / "ablations.png").read_bytes().startswith(b"\x89PNG")

    again = InProcess()
    assert script.main(flags(config), again)["arms"] == arms
    assert again.launched == []
    config["arms"]["no_adversary"]["finetune"]["learning_rate"] = 1e-3
    script.main(flags(config), again)
    assert again.labels() == ["seed0-no_adversary", "seed1-no_adversary"]


def test_a_failure_is_told_the_others_go_on_and_the_same_command_mends_it(
    config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = InProcess(broken="seed0-base")
    with pytest.raises(SystemExit, match="1 runs failed, which the same command tries again: seed0-base-"):
        script.main(flags(config), launch)
    assert len(launch.launched) == 6
    assert "RuntimeError: out of luck" in capsys.readouterr().out
    arms = json.loads((tmp_path / "runs" / "ablations.json").read_text())["arms"]
    assert [len(arm["trials"]) for arm in arms.values()] == [1, 2]
    assert list(arms["no_adversary"]["differences"]["modality_gap"]["by_seed"]) == ["1"]  # seed 0 has no base

    again = InProcess()
    arms = script.main(flags(config), again)["arms"]
    assert again.labels() == ["seed0-base"]
    assert set(arms["no_adversary"]["differences"]["modality_gap"]["by_seed"]) == {"0", "1"}


def test_what_builds_on_a_failed_pretraining_is_left_out(
    config: dict[str, Any], flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    config["arms"]["no_pretraining"] = {"description": "straight", "pretrain": "none"}
    launch = InProcess(broken="pretrain-")
    with pytest.raises(SystemExit, match="3 runs failed"):
        script.main([*flags(config), "--seeds", "1"], launch)
    assert launch.labels() == ["seed1-pretrain", "seed1-no_pretraining"]
    assert "is left out, since its pre-training failed" in capsys.readouterr().out


def test_records_alone_carry_a_campaign_elsewhere(
    config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    before = script.main([*flags(config), "--seeds", "0", "--only", "base"], InProcess())["arms"]["base"]
    for file in (tmp_path / "runs").rglob("*"):
        if file.is_file() and file.name != "run.json":
            file.unlink()
    nothing = InProcess()
    assert script.main([*flags(config), "--seeds", "0", "--only", "base"], nothing)["arms"]["base"] == before
    assert not nothing.launched
    again = InProcess()
    arms = script.main([*flags(config), "--seeds", "0"], again)["arms"]
    assert again.labels() == ["seed0-pretrain", "seed0-no_adversary"]  # the arm needs the weights
    assert arms["base"]["trials"][0]["metrics"] == before["trials"][0]["metrics"]


def test_a_stopped_run_resumes_and_its_time_adds_up(
    config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    config["finetune"] |= {"max_train_steps": 4, "checkpointing_steps": 2}
    seconds: list[float] = []

    def stop_in_finetuning(arguments: list[str], log: Path) -> int:
        status = InProcess()(arguments, log)
        if "base" in log.parent.name:
            (log.parent / "checkpoints" / "step_4").rename(log.parent / "checkpoints" / "gone")
            raise KeyboardInterrupt
        return status

    with pytest.raises(SystemExit, match="the same command goes on"):
        script.main([*flags(config), "--only", "base", "--seeds", "0"], stop_in_finetuning)
    (file,) = (tmp_path / "runs").glob("seed0-base-*/run.json")
    record = json.loads(file.read_text())
    assert "metrics" not in record
    seconds.append(record["seconds"])

    launch = InProcess()
    arms = script.main([*flags(config), "--only", "base", "--seeds", "0"], launch)["arms"]
    assert launch.labels() == ["seed0-base"]
    steps = [json.loads(line)["step"] for line in (file.parent / "train_log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4]  # as of a run that nobody stopped; twice where there is a validation
    assert json.loads(file.read_text())["seconds"] > seconds[0] > 0
    assert len(arms["base"]["trials"]) == 1 and not arms["no_adversary"]["trials"]


def test_only_and_seeds_choose_what_runs_and_the_report_has_all(
    config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    script.main([*flags(config), "--only", "base"], fake_launch({}))
    arms = script.main([*flags(config), "--only", "no_adversary", "--seeds", "1", "7"], fake_launch({}))["arms"]
    assert [trial["seed"] for trial in arms["base"]["trials"]] == [0, 1]
    assert [trial["seed"] for trial in arms["no_adversary"]["trials"]] == [1, 7]
    assert set(arms["no_adversary"]["differences"]["matching_loss"]["by_seed"]) == {"1"}


def test_command_line_wins_over_the_file_and_the_rest_goes_to_accelerate(
    config: dict[str, Any], flags: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def launch(arguments: list[str], log: Path, launch_args: list[str]) -> int:
        seen.append((arguments, launch_args))
        return fake_launch({})(arguments, log)

    monkeypatch.setattr(script, "launch_training", launch)
    options = ["--backbone", "other/bert", "--dataset_name", "one.csv", "two.csv", "--only", "base", "--seeds", "0"]
    script.main([*flags(config), *options, "--", "--num_processes", "2"])
    pretraining, finetuning = seen
    assert pretraining[1] == finetuning[1] == ["--num_processes", "2"]
    place = pretraining[0].index("--dataset_name")
    assert pretraining[0][place : place + 3] == ["--dataset_name", "one.csv", "two.csv"]
    assert pretraining[0][pretraining[0].index("--backbone") + 1] == "other/bert"
    assert "--backbone" not in finetuning[0]  # it goes on from the pre-training


# ----------------------------------------------------------------------------------------------------------------------
# The report
# ----------------------------------------------------------------------------------------------------------------------


def test_differences_are_paired_by_seed(
    config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The base differs much from seed to seed, the arm from the base hardly: only pairs show that it is better."""
    config["seeds"] = [0, 1, 2]
    config["arms"]["unclear"] = {"description": "noise", "finetune": {"label_smoothing": 0.1}}
    config["arms"]["started"] = {"description": "one seed so far", "finetune": {"label_smoothing": 0.2}}
    base, gains, noise = (0.2, 0.5, 0.8), (0.04, 0.05, 0.06), (0.1, -0.1, 0.06)
    values = {}
    for seed in range(3):
        values[f"seed{seed}-base"] = base[seed]
        values[f"seed{seed}-no_adversary"] = base[seed] + gains[seed]
        values[f"seed{seed}-unclear"] = base[seed] + noise[seed]
    script.main([*flags(config), "--only", "started", "--seeds", "0"], fake_launch({"seed0-started": 0.25}))
    arms = script.main([*flags(config), "--only", "base", "no_adversary", "unclear"], fake_launch(values))["arms"]

    metric = "title_to_image_recall@10"
    half = 4.302653 * 0.01 / 3**0.5
    difference = arms["no_adversary"]["differences"][metric]
    assert difference["by_seed"] == pytest.approx({str(seed): gain for seed, gain in enumerate(gains)})
    assert (difference["low"], difference["high"]) == pytest.approx((0.05 - half, 0.05 + half))
    assert arms["no_adversary"]["means"][metric] == pytest.approx(t_interval([0.24, 0.55, 0.86]))
    assert arms["base"]["trials"][0]["metrics"]["domain_accuracy"] == 0.7

    table = (tmp_path / "runs" / "ablations.md").read_text()
    rows = [line for line in table.split(f"## {metric}")[1].split("##")[0].splitlines() if line.startswith("| ")]
    assert rows[2].startswith("| base | 0.500 [-0.245, 1.245] |  |  | 3 |")
    assert rows[3] == "| no_adversary | 0.550 [-0.220, 1.320] | +0.050 [+0.025, +0.075] | higher | 3 |"
    assert rows[4].endswith("| no difference shown | 3 |")
    assert rows[5] == "| started | 0.250 | +0.050 | one seed, no interval | 1 |"
    assert "| base | all parts | 3 | 48 | 0.0 |" in table
    assert "with 3, the half width is 2.5 standard deviations" in table
    assert "## query_to_product_recall@10" not in table  # no run has it


# ----------------------------------------------------------------------------------------------------------------------
# As a command
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_arm_of_the_projects_campaign_trains(
    config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    arms = script.load_config(ROOT / "configs" / "ablations.yaml")["arms"]
    del arms["shared_encoders"]["model"]["query_layers"]  # a flag that the tiny base has not
    config["finetune"] |= {"mine_hard_negatives_every": 1, "crop_probability": 0.5, "drop_patch_probability": 0.25}
    config["finetune"]["max_train_steps"] = 5  # four are an epoch, before which nothing is mined
    arms = script.main([*flags({**config, "arms": arms}), "--seeds", "0"], InProcess())["arms"]
    for name, arm in arms.items():
        measured = WITHOUT_ADVERSARY if name == "no_adversary" else METRICS
        assert len(arm["trials"]) == 1 and set(arm["means"]) == measured, name
    # Each arm changes something. Weights show it; the loss, one number after five steps, may be rounded to another's.
    models = [tmp_path / "runs" / arm["trials"][0]["folder"] / "model.safetensors" for arm in arms.values()]
    assert len({hashlib.sha256(model.read_bytes()).digest() for model in models}) == len(arms)


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(
    config: dict[str, Any], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    config["arms"]["base"]["pretrain"] = "none"  # one launch less
    config["finetune"] |= {"max_train_steps": 60, "checkpointing_steps": 1000, "dataloader_num_workers": 1}
    arguments = [*flags(config), "--only", "base", "--seeds", "0", "--", "--num_processes", "1"]
    command = [sys.executable, "-m", script.__name__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 480
    while not list((tmp_path / "runs").glob("*-base-*/train_log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1 and "Stopped; the same command goes on from there." in stderr
    (folder,) = (tmp_path / "runs").glob("*-base-*")
    (checkpoint,) = checkpoints_of(str(folder))  # whole, though nobody waits for the trainer but us
    assert int(checkpoint.name[5:]) < 60

    result = subprocess.run(command, capture_output=True, text=True, timeout=480)
    assert result.returncode == 0, result.stderr
    assert f"Resuming from {checkpoint}" in (folder / "train.log").read_text()
    (trial,) = json.loads((tmp_path / "runs" / "ablations.json").read_text())["arms"]["base"]["trials"]
    assert set(trial["metrics"]) > METRICS
