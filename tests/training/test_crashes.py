"""What a training run survives: kills, signals, damaged checkpoints, a full disk, NaN, and processes that die."""

import errno
import json
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, Image, Value, load_dataset
from helpers import FORKS, assert_same_weights, free_port, product_rows, read_log, without_times

from acebert import train_accelerate as script
from acebert.data.columns import Columns
from acebert.data.pairs import PairDataset
from acebert.data.sources import load_products
from acebert.training import checkpoints
from acebert.training.arguments import FinetuningArguments
from acebert.training.checkpoints import RunFolder
from acebert.training.log import TrainLog
from acebert.training.signals import Stopper
from acebert.training.stages.finetune import Finetuning
from acebert.utils.fingerprints import products_sha256

ROOT = Path(script.__file__).parent

# All that a run can draw and remember: moving average, hard negatives, dropout (the backbone's), augmentation.
EVERYTHING = {
    "mine_hard_negatives_every": 1,
    "hard_negatives": 2,
    "ema_decay": 0.9,
    "drop_patch_probability": 0.3,
    "crop_probability": 0.5,
}


class Killed(BaseException):
    """Stands for kill -9: no handler of errors sees it."""


class KillAt:
    """Kills at the n-th call of any function that writes: before it, or after half of what `torch.save` writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int):
        self.calls, self.n, self.killed = 0, n, False
        functions = [(os, name) for name in ("replace", "rename", "fsync", "unlink", "rmdir", "makedirs")]
        for module, name in (*functions, (torch, "save"), (Path, "write_text")):
            monkeypatch.setattr(module, name, self.wrap(getattr(module, name), name))

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.n:
                self.killed = True
                if name == "save":
                    Path(args[1]).write_bytes(b"PK half a file")
                raise Killed
            return function(*args, **kwargs)

        return wrapped


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ----------------------------------------------------------------------------------------------------------------------


class Counter:
    """A model whose one weight is the number of its step, and its checkpoints."""

    def __init__(self, folder: Path):
        self.folder = str(folder)
        self.accelerator = Accelerator(cpu=True, mixed_precision="no")
        model = torch.nn.Linear(1, 1, bias=False)
        self.model, self.optimizer = self.accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
        self.set(-1)

    def set(self, step: int) -> None:
        with torch.no_grad():
            self.model.weight.fill_(step)

    def save(self, step: int, total_limit: int = 2) -> None:
        self.set(step)
        RunFolder(self.folder, self.accelerator, total_limit).save_checkpoint(step)

    def resumed_step(self) -> int:
        self.set(-1)
        RunFolder(self.folder, self.accelerator).resume()
        return int(self.model.weight.item())

    def steps(self) -> list[int]:
        return [int(path.name[5:]) for path in checkpoints.checkpoints_of(self.folder)]


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


@pytest.mark.parametrize("total_limit", [1, 2])
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_checkpoint(
    total_limit: int, counter: Counter, tmp_path: Path
) -> None:
    outcomes = []
    for n in range(1, 200):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        for step in (2, 4):
            counter.save(step, total_limit)
        with pytest.MonkeyPatch.context() as patch:
            kill = KillAt(patch, n)
            with suppress(Killed):
                counter.save(6, total_limit)
        if not kill.killed:
            break
        outcomes.append(counter.resumed_step())
        for step in (6, 8):  # the same command again goes on from there
            if step > outcomes[-1]:
                counter.save(step, total_limit)
        assert counter.steps() == [6, 8][-total_limit:] and counter.resumed_step() == 8
        assert [path.name for path in tmp_path.rglob("*.unfinished")] == []
    assert not kill.killed and outcomes == sorted(outcomes) and set(outcomes) == {4, 6} and len(outcomes) > 10


def remove(folder: Path) -> None:
    (folder / "optimizer.bin").unlink()


def truncate(folder: Path) -> None:
    os.truncate(folder / "optimizer.bin", (folder / "optimizer.bin").stat().st_size - 1)


def change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def truncate_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 100)


DAMAGES = [
    (remove, "optimizer.bin is missing"),
    (truncate, "optimizer.bin has "),
    (change_a_byte, "the bytes of model.safetensors have changed"),
    (remove_manifest, "manifest.json is missing"),
    (truncate_manifest, "manifest.json can't be read"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_checkpoint_is_named_and_skipped(
    damage: Callable[[Path], None], message: str, counter: Counter, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (2, 4, 5):
        counter.save(step, total_limit=3)
    for step in (4, 5):
        damage(Path(counter.folder, "checkpoints", f"step_{step}"))
    assert counter.resumed_step() == 2
    out = capsys.readouterr().out
    for step in (4, 5):
        assert f"Skipped the checkpoint {counter.folder}/checkpoints/step_{step}: {message}" in out
        assert Path(counter.folder, "checkpoints", f"step_{step}.damaged").is_dir()
    counter.save(4, total_limit=1)
    assert counter.steps() == [4] and counter.resumed_step() == 4


def test_a_run_without_a_whole_checkpoint_does_not_start_over_silently(counter: Counter) -> None:
    counter.save(2)
    remove(Path(counter.folder, "checkpoints", "step_2"))
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"No checkpoint is whole.*step_2: optimizer.bin.*--overwrite_output_dir"):
            counter.resumed_step()


@pytest.mark.parametrize("module", [torch, checkpoints])
def test_a_full_disk_leaves_the_checkpoint_before_whole(
    module: Any, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter.save(2)

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "save" if module is torch else "sync_file", fail)
    with pytest.raises(SystemExit, match=r"checkpoint of step 4 can't be written.*MiB are free.*No space left"):
        counter.save(4)
    monkeypatch.undo()
    assert os.listdir(Path(counter.folder, "checkpoints")) == ["step_2"]
    assert counter.resumed_step() == 2


# ----------------------------------------------------------------------------------------------------------------------
# The model's folder
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new_config", ["same", "other"])
def test_weights_never_stand_beside_another_models_configuration(new_config: str, tmp_path: Path) -> None:
    files = {"config.json": "same", "tokenizer.json": "tokens", "model.safetensors": "old weights"}
    new = {**files, "config.json": new_config, "model.safetensors": "new weights"}
    seen = []
    for n in range(1, 50):
        folder, unfinished = tmp_path / f"model{n}", tmp_path / f"model{n}" / "model.unfinished"
        unfinished.mkdir(parents=True)
        for place, contents in ((folder, files), (unfinished, new)):
            for name, content in contents.items():
                (place / name).write_text(content)
        with pytest.MonkeyPatch.context() as patch:
            kill = KillAt(patch, n)
            with suppress(Killed):
                checkpoints.replace_model(unfinished, folder)
        found = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
        if "model.safetensors" in found:
            assert found in (files, new)
        seen.append("model.safetensors" in found)
        if not kill.killed:
            break
    assert not kill.killed and found == new and not unfinished.exists()
    assert all(seen) == (new_config == "same")  # the same configuration: the model is there at every moment


# ----------------------------------------------------------------------------------------------------------------------
# Whole runs
# ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def call_at(target: Any, name: str, n: int, action: Callable[[], None]) -> Iterator[None]:
    """Does `action` before the n-th call of a function."""
    function, calls = getattr(target, name), iter(range(1, 10**6))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == n:
            action()
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, wrapped)
        yield


def kill() -> None:
    raise Killed


def test_a_run_that_is_killed_and_stopped_ends_with_the_same_bits(
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validate = Finetuning.validate

    def improve(*args: Any) -> dict[str, float]:  # the gap falls all the time: every validation saves a better model
        metrics = validate(*args)
        return metrics | {"score": -metrics["modality_gap"]}

    monkeypatch.setattr(Finetuning, "validate", improve)
    changes = {**EVERYTHING, "max_train_steps": 10, "eval_steps": 2}  # 4 batches an epoch
    script.main(flags(output="unbroken", **changes))
    arguments = flags(**changes)
    with call_at(Finetuning, "backward", 4, kill), pytest.raises(Killed):  # while stepping
        script.main(arguments)
    with open(tmp_path / "run" / "train_log.jsonl", "a") as file:
        file.write('{"step": 4, "sec')  # as a kill amid a write leaves it
    with call_at(checkpoints, "write_manifest", 2, kill), pytest.raises(Killed):  # while step 6 is being saved
        script.main(arguments)
    assert (tmp_path / "run" / "checkpoints" / "step_6.unfinished").is_dir()
    with call_at(checkpoints, "replace_model", 1, kill), pytest.raises(Killed):  # while the best model is being saved
        script.main(arguments)
    stop = call_at(Finetuning, "backward", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with stop, pytest.raises(SystemExit, match="Stopped after step 7; the same command goes on from there"):
        script.main(arguments)
    assert "A checkpoint follows after this step" in capfd.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "step_7").is_dir()
    script.main(arguments)
    out = capfd.readouterr().out
    assert f"Resuming from {tmp_path}/run/checkpoints/step_7." in out
    for folder in (".", "checkpoints/step_10"):  # the moving average, and what it is of
        assert_same_weights(tmp_path / "unbroken" / folder, tmp_path / "run" / folder)
    assert without_times(read_log(tmp_path / "unbroken")) == without_times(read_log(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").rglob("*.unfinished")] == []


def test_a_half_written_or_later_entry_leaves_the_log(tmp_path: Path) -> None:
    log = TrainLog(tmp_path, SimpleNamespace(is_main_process=True))
    log.rewind(2)  # nothing there yet
    entries = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 2, 3)]
    (tmp_path / "train_log.jsonl").write_text("".join(entries) + '{"step": 2')
    log.rewind(2)
    assert (tmp_path / "train_log.jsonl").read_text() == "".join(entries[:3])


def test_the_end_of_the_launcher_asks_for_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = SimpleNamespace(num_processes=1)
    monkeypatch.delenv("ACCELERATE_DYNAMO_MODE", raising=False)
    alone = Stopper()
    alone.restore()
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "default")
    launched = Stopper()
    launched.restore()
    assert not alone.asked(accelerator) and not launched.asked(accelerator)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launched.asked(accelerator) and not alone.asked(accelerator)  # `nohup python train_accelerate.py &` goes on


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_nan_ends_the_run_with_step_rate_and_products(
    what: str, flags: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with the last batch of an epoch, and nothing is logged or saved before the next epoch's order counts."""
    backward, batches = Finetuning.backward, []

    def poisoned(
        stage: Finetuning, model: torch.nn.Module, batch: dict[str, Any], *args: Any
    ) -> dict[str, torch.Tensor]:
        values = backward(stage, model, batch, *args)
        batches.append(batch["product_ids"].tolist())
        if len(batches) == 4 and what == "loss":
            values["loss"] = values["loss"] * torch.nan
        elif len(batches) == 4:
            next(model.parameters()).grad.fill_(torch.inf)
        return values

    monkeypatch.setattr(Finetuning, "backward", poisoned)
    rare = {"logging_steps": 50, "eval_steps": 50, "checkpointing_steps": 3}
    with pytest.raises(SystemExit) as error:
        script.main(flags(**rare, max_train_steps=10))
    is_what = "loss is nan" if what == "loss" else "gradient's norm is"
    assert is_what in str(error.value) and "at step 4, learning rate 0.00014." in str(error.value)
    ids = json.loads(str(error.value).split("Products of the batch: ")[1].split("]")[0] + "]")
    assert [product_id - 100 for product_id in ids] == batches[3] and len(batches) == 4  # ids begin at 100
    assert [path.name for path in checkpoints.checkpoints_of(str(tmp_path / "run"))] == ["step_3"]
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_nan_at_the_step_of_a_checkpoint_is_not_saved(
    flags: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_losses, calls = Finetuning.compute_losses, iter(range(1, 100))

    def poisoned(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        values = compute_losses(*args, **kwargs)
        return values | {"loss": values["loss"] * (torch.inf if next(calls) == 4 else 1)}

    monkeypatch.setattr(Finetuning, "compute_losses", poisoned)
    with pytest.raises(SystemExit, match="loss is inf at step 2, "):  # two batches a step
        script.main(flags("finetune", gradient_accumulation_steps=2, logging_steps=9, eval_steps=2))
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the reader has to inherit what is patched here")
def test_a_killed_reader_of_data_ends_the_run_with_a_remedy(
    flags: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PairDataset.__getitem__

    def dies(self: PairDataset, row: int) -> dict[str, Any]:
        if torch.utils.data.get_worker_info() is not None and self.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, row)

    monkeypatch.setattr(PairDataset, "__getitem__", dies)
    with pytest.raises(
        SystemExit, match=r"A process that reads data is gone.*(?s:.)*--dataloader_num_workers.*the same command"
    ):
        script.main(flags(dataloader_num_workers=1, max_train_steps=8, eval_steps=100))


HANGING = """
import ctypes
from torch.utils.data import DataLoader
from acebert.training.signals import explain_lost_processes
from acebert.data.workers import worker_options

class Hanging(list):
    def __getitem__(self, row):
        lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
        while True:  # the second time it waits for itself, where Python handles no signal
            library.pthread_mutex_lock(lock)

with explain_lost_processes():
    next(iter(DataLoader(Hanging([0]), **{**worker_options(1), "timeout": 1})))
"""


@pytest.mark.parametrize("end", ["", "raise KeyboardInterrupt"])
def test_a_reader_that_is_left_does_not_hold_up_the_end(end: str) -> None:
    code = f"""
from torch.utils.data import DataLoader
from acebert.data.workers import worker_options
batches = iter(DataLoader(range(100), **worker_options(1)))
next(batches)
{end}
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ("KeyboardInterrupt" in run.stderr) == bool(end) == (run.returncode != 0), run.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="takes a lock of glibc twice")
def test_a_reader_that_hangs_in_a_library_does_not_hold_up_the_end() -> None:
    run = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and run.stderr.startswith("A process that reads data is gone or hangs"), run.stderr


def rewrite_versions(folder: Path, versions: dict[str, str] | None) -> None:
    for name in ("versions.json", "manifest.json"):
        (folder / name).unlink(missing_ok=True)
    if versions is not None:
        (folder / "versions.json").write_text(json.dumps(versions))
    checkpoints.write_manifest(folder)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_checkpoint_of_other_versions_goes_on_with_a_warning_or_says_whose_it_is(
    recorded: bool, counter: Counter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counter.save(2)
    assert counter.resumed_step() == 2 and "Warning" not in capsys.readouterr().out
    now = checkpoints.installed_versions()
    assert {"acebert", "torch", "transformers", "accelerate"} < set(now)
    folder = Path(counter.folder, "checkpoints", "step_2")
    rewrite_versions(folder, now | {"torch": "2.5.1"} if recorded else None)
    named = rf"torch 2\.5\.1 \(now {re.escape(now['torch'])}\)" if recorded else "which recorded none"
    assert counter.resumed_step() == 2
    assert re.search(rf"Warning: it was written by .*{named}", capsys.readouterr().out)

    def fail(folder: str) -> None:
        raise KeyError("exp_avg")

    monkeypatch.setattr(counter.accelerator, "load_state", fail)
    with pytest.raises(
        SystemExit, match=rf"step_2 can't be loaded: 'exp_avg'\nIt was written by .*{named}.*Install the"
    ):
        counter.resumed_step()
    rewrite_versions(folder, now)
    with pytest.raises(KeyError):  # no other version explains it
        counter.resumed_step()


@pytest.mark.parametrize(
    ("then", "error"),
    [
        (lambda now: {k: v for k, v in now.items() if k != "crop_probability"}, None),
        (lambda now: {**now, "crop_probability": 0.5}, r"'crop_probability': \(0\.5, 0\.0\).*torch 2\.5\.1 \(now"),
        (lambda now: {k: v for k, v in now.items() if k != "seed"}, r"'seed': \(None, 7\).*torch 2\.5\.1 \(now"),
        (lambda now: {**now, "gone": 1}, r"'gone': \(1, None\).*torch 2\.5\.1 \(now"),
        (lambda now: {k: v for k, v in now.items() if k != "places"}, None),
    ],
    ids=[
        "new flag at its default",
        "changed",
        "new flag with another value",
        "flag that is gone",
        "no record of places",
    ],
)
def test_settings_of_another_version(
    then: Callable[[dict[str, Any]], dict[str, Any]],
    error: str | None,
    counter: Counter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    given = {"stage": "finetune", "backbone": "acme/bert", "dataset_name": ["shop"], "output_dir": "run", "seed": 7}
    args, fingerprints = FinetuningArguments(**given), {"train_data": "64 products"}
    folder = RunFolder.open(args, counter.accelerator, fingerprints)
    file = tmp_path / "run" / "training_args.json"
    written = json.loads(file.read_text())
    assert written["places"] == {"shop": str(tmp_path / "shop"), "run": str(tmp_path / "run")}

    folder.save_checkpoint(2)
    rewrite_versions(tmp_path / "run/checkpoints/step_2", checkpoints.installed_versions() | {"torch": "2.5.1"})
    file.write_text(json.dumps(then(written)))
    if error:
        with pytest.raises(SystemExit, match=f"(?s){error}"):
            RunFolder.open(args, counter.accelerator, fingerprints)
        assert json.loads(file.read_text()) == then(written)
    else:
        capsys.readouterr()
        RunFolder.open(args, counter.accelerator, fingerprints)
        assert json.loads(file.read_text()) == written
        told = "crop_probability" not in then(written)
        assert ("taken to have had {'crop_probability': 0.0}" in capsys.readouterr().out) == told
        (tmp_path / "shop").rmdir()  # which makes it no Hub id
        RunFolder.open(args, counter.accelerator, fingerprints)
        assert json.loads(file.read_text()) == written


def test_a_package_that_another_stands_in_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PACKAGES", ("torch", "no-such-package"))
    assert list(checkpoints.installed_versions()) == ["acebert", "python", "torch"]


def write_catalog(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    texts = {name: Value("string") for name in ("title", "kind", "colour", "gender", "hot_query")}
    features = Features(texts | {"id": Value("int64"), "image": Image()})
    Dataset.from_list(rows, features=features).to_parquet(folder / "train.parquet")
    return folder


def test_changed_data_does_not_resume(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    rows = product_rows(40)
    arguments = flags(
        dataset_name=write_catalog(tmp_path / "shop", rows), validation_split=None, max_train_steps=2, eval_steps=2
    )
    script.main(arguments)
    write_catalog(tmp_path / "shop", [*rows[:7], {**rows[7], "title": "another title"}, *rows[8:]])
    with pytest.raises(SystemExit, match=r"other settings or data.*train_data.*40 products, SHA-256.*overwrite_output"):
        script.main(arguments)
    write_catalog(tmp_path / "shop", rows)
    script.main(arguments)


def test_fingerprint_of_products(tmp_path: Path) -> None:
    rows = product_rows(12)
    columns = Columns(attributes=["colour"])

    def fingerprint(name: str, rows: list[dict[str, Any]]) -> str:
        return products_sha256(load_products([str(write_catalog(tmp_path / name, rows))], "train", columns))

    assert fingerprint("one", rows) == fingerprint("two", rows)
    others = [{**rows[3], "title": "other"}, {**rows[3], "colour": "pink"}, {**rows[3], "image": None}]
    others += [{**rows[3], "id": 99}, {**rows[3], "image": rows[0]["image"].resize((9, 9))}]
    changed = [[*rows[:3], row, *rows[4:]] for row in others] + [rows[:-1], rows[::-1]]
    found = {fingerprint(f"changed{i}", other) for i, other in enumerate([rows, *changed])}
    assert len(found) == 1 + len(changed)
    products = load_products([str(tmp_path / "one")], "train", columns)
    chosen = [products_sha256(products.select(rows)) for rows in ([0, 2, 5], [0, 3, 5], [0, 2, 5])]
    assert chosen[0] == chosen[2] and len({*chosen, products_sha256(products)}) == 3
    paths = tmp_path / "paths.csv"
    paths.write_text("id,title,colour,image\n1,a,red,photos/1.png\n2,b,red,\n")
    before = products_sha256(load_products([str(paths)], "train", columns))
    paths.write_text("id,title,colour,image\n1,a,red,photos/2.png\n2,b,red,\n")
    assert load_dataset("csv", data_files=str(paths))["train"]["image"][0] == "photos/2.png"
    assert products_sha256(load_products([str(paths)], "train", columns)) != before


# ----------------------------------------------------------------------------------------------------------------------
# As processes
# ----------------------------------------------------------------------------------------------------------------------


def train_with_forked_workers(arguments: list[str]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # the fork of a server would start a server for its workers
    script.main(arguments)


@pytest.mark.slow
def test_kills_at_random_moments_change_no_bit(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    changes = {
        **EVERYTHING,
        "max_train_steps": 20,
        "eval_steps": 2,
        "checkpointing_steps": 1,
        "dataloader_num_workers": 1,
    }

    def start(output: str) -> Any:
        process = FORKS.Process(target=train_with_forked_workers, args=(flags(output=output, **changes),))
        process.start()
        return process

    start("warm").join(600)  # with the server's imports
    begin = time.monotonic()
    start("unbroken").join(600)
    seconds = time.monotonic() - begin
    moments, killed, steps = random.Random(0), 0, set()
    while killed < 8:
        process = start("run")
        process.join(moments.uniform(0.2, 0.6) * seconds)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        killed += 1
        steps |= {path.name for path in checkpoints.checkpoints_of(str(tmp_path / "run"))}
    last = start("run")
    last.join(600)
    assert last.exitcode == 0 and killed >= 2 and len(steps) >= 2
    for folder in (".", "checkpoints/step_20"):
        assert_same_weights(tmp_path / "unbroken" / folder, tmp_path / "run" / folder)
    assert without_times(read_log(tmp_path / "unbroken")) == without_times(read_log(tmp_path / "run"))


def wait_for_step(folder: Path, step: int, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    # The last line may still be half written.
    log = folder / "train_log.jsonl"
    while not log.exists() or all(entry["step"] < step for entry in map(json.loads, log.read_text().split("\n")[:-1])):
        assert time.monotonic() < deadline, f"no step {step} in {seconds} s"
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_one_of_two_processes_dies_and_signals_reach_both(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    changes = {
        "max_train_steps": 120,
        "per_device_batch_size": 8,
        "checkpointing_steps": 5,
        "dataloader_num_workers": 1,
    }

    def start(output: str) -> subprocess.Popen:
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
        command = [*launch, str(free_port()), str(ROOT / "train_accelerate.py"), *flags(output=output, **changes)]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    unbroken = start("unbroken")
    assert unbroken.communicate(timeout=600) and unbroken.returncode == 0

    broken = start("run")
    wait_for_step(tmp_path / "run", 8)
    os.kill(children_of(broken.pid)[1], signal.SIGKILL)
    _, stderr = broken.communicate(timeout=120)  # it doesn't wait for the dead one
    assert broken.returncode != 0 and "Signal 9 (SIGKILL)" in stderr

    stopped = start("run")
    wait_for_step(tmp_path / "run", 12)
    stopped.send_signal(signal.SIGTERM)
    _, stderr = stopped.communicate(timeout=120)
    assert "the same command goes on from there" in stderr
    (number,) = set(re.findall(r"Stopped after step (\d+)", stderr))
    assert (tmp_path / "run" / "checkpoints" / f"step_{number}").is_dir()

    again = start("run")
    stdout, stderr = again.communicate(timeout=600)
    assert again.returncode == 0, stderr
    assert f"Resuming from {tmp_path}/run/checkpoints/step_{number}." in stdout
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")
    alone = subprocess.run(
        [sys.executable, str(ROOT / "train_accelerate.py"), *flags(**changes)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert alone.returncode == 1 and "'num_processes': (2, 1)" in alone.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a small disk needs Linux's user namespaces")
def test_a_disk_that_is_really_full(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    """On a file system that holds a checkpoint and a half; then it grows, and the same command goes on."""
    changes = {"output": "disk/run", "validation_split": None, "validation_share": 0, "max_train_steps": 6}
    script.main(flags(**{**changes, "output": "unbroken"}))
    size = sum(file.stat().st_size for file in (tmp_path / "unbroken" / "checkpoints" / "step_6").iterdir()) // 1024
    arguments = flags(**changes, checkpoints_total_limit=1)
    command = shlex.join([sys.executable, str(ROOT / "train_accelerate.py"), *arguments])
    (tmp_path / "disk").mkdir()
    steps = f"""
        mount -t tmpfs -o size={int(1.5 * size)}k none {tmp_path}/disk || exit 99
        cd {tmp_path}
        {command} 2> stderr
        echo $? > status
        ls disk/run/checkpoints > left
        mount -o remount,size={9 * size}k disk
        {command} > stdout && cp -r disk/run run
    """
    result = subprocess.run(["unshare", "-rm", "sh", "-c", steps], capture_output=True, text=True, timeout=600)
    if result.returncode == 99 or "unshare" in result.stderr:
        pytest.skip(f"no user namespace here: {result.stderr}")
    assert result.returncode == 0, result.stderr
    stderr = (tmp_path / "stderr").read_text()
    assert "The checkpoint of step 4 can't be written" in stderr and "Make room" in stderr
    assert (tmp_path / "status").read_text() == "1\n" and (tmp_path / "left").read_text() == "step_2\n"
    assert "Resuming from" in (tmp_path / "stdout").read_text()
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")
