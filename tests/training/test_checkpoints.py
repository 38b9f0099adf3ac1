"""Checkpoints, settings and the model's folder: kills, damage, full disks, other versions."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers import Killed

from acebert.training import checkpoints
from acebert.training.arguments import FinetuningArguments
from acebert.training.checkpoints import RunFolder


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
