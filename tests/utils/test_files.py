"""Atomic writes: what is there when a write fails or stops at any call, and what is left behind."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from acebert.utils.files import UNFINISHED, atomic_write, writing


@pytest.mark.parametrize("content", ["Röck", "Röck".encode(), lambda file: file.write("Röck".encode())])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("a much longer text than the new one")
    atomic_write(file, content)
    assert file.read_text(encoding="utf-8") == "Röck" and list(tmp_path.iterdir()) == [file]


def test_file_and_folder_are_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def spy(name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def called(*arguments: Any) -> Any:
            is_folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{arguments[0]}")
            calls.append(f"{name} folder" if is_folder else name)
            return function(*arguments)

        return called

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, spy(name))
    atomic_write(tmp_path / "a", b"x")
    assert calls == ["fsync", "replace", "fsync folder"]


def fail(file: BinaryIO) -> None:
    file.write(b"half")
    raise ValueError("no more")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(b"old")
    with pytest.raises(ValueError, match="no more"):
        atomic_write(file, fail)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_killed_write_leaves_the_old_file_and_the_next_one_clears_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    file = tmp_path / "a"
    file.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", kill)
        with pytest.raises(Killed):
            atomic_write(file, b"new")
    assert file.read_bytes() == b"old" and (tmp_path / f"a{UNFINISHED}").exists()
    atomic_write(file, b"new")
    assert file.read_bytes() == b"new" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_can_t_be_written_ends_the_run_with_the_reason(is_folder: bool, tmp_path: Path) -> None:
    unfinished = tmp_path / "model"
    message = r"The model can't be written to .* MiB are free: disk full\n.*resumes the run"
    with pytest.raises(SystemExit, match=message), writing("The model", str(tmp_path), unfinished):
        unfinished.mkdir() if is_folder else unfinished.write_bytes(b"half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
