"""What a training run survives: kills, signals, damaged checkpoints, a full disk, NaN, and processes that die."""

import json
import multiprocessing
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Image, Value, load_dataset
from helpers import FORKS, Killed, assert_same_weights, free_port, product_rows, read_log, without_times

from acebert import train_accelerate as script
from acebert.data.columns import Columns
from acebert.data.pairs import PairDataset
from acebert.data.sources import load_products
from acebert.training import checkpoints
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
        script.main(flags(**rare, max_train_steps=10, learning_rate=2e-4, warmup_ratio=0))
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
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png"):
        rows[0]["image"].save(tmp_path / "photos" / name)
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
    assert "The checkpoint of step 4 can't be written" in stderr and "Free some space" in stderr
    assert (tmp_path / "status").read_text() == "1\n" and (tmp_path / "left").read_text() == "step_2\n"
    assert "Resuming from" in (tmp_path / "stdout").read_text()
    assert_same_weights(tmp_path / "unbroken", tmp_path / "run")
