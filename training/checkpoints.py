"""Checkpoints and model folders that are whole or not there, whenever a run is killed.

Everything is written beside, under a name that ends in `.unfinished`, brought to the disk, and renamed. A checkpoint
lists its files with sizes and SHA-256, so that damage is found before anything is loaded.
"""

import filecmp
import json
import os
import pickle
import platform
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from acebert import __version__
from acebert.utils.files import UNFINISHED, atomic_write, sync_file, sync_folder, writing
from acebert.utils.fingerprints import file_sha256

MANIFEST = "manifest.json"
VERSIONS = "versions.json"
# What they do decides what a checkpoint holds, and the bits of every step.
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "pillow")


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ----------------------------------------------------------------------------------------------------------------------


def checkpoints_of(output_dir: str) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(Path(output_dir, "checkpoints").glob("step_*[0-9]"), key=lambda path: int(path.name[5:]))


def save_checkpoint(accelerator: Accelerator, output_dir: str, step: int, total_limit: int) -> None:
    """Saves the run's state as `checkpoints/step_N`, then removes all but the newest `total_limit` checkpoints.

    Raises:
        SystemExit: if it can't be written. The checkpoints before are still there.
    """
    folder = Path(output_dir, "checkpoints", f"step_{step}")
    unfinished = folder.with_name(folder.name + UNFINISHED)
    what = f"The checkpoint of step {step}"
    with writing(what, output_dir, unfinished):
        accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with writing(what, output_dir, unfinished):
            (unfinished / VERSIONS).write_text(json.dumps(installed_versions(), indent=2), encoding="utf-8")
            write_manifest(unfinished)
            os.replace(unfinished, folder)
            sync_folder(folder.parent)
        for old in checkpoints_of(output_dir)[:-total_limit]:
            leaving = old.with_name(old.name + UNFINISHED)  # no longer a checkpoint, before its first file goes
            os.replace(old, leaving)
            shutil.rmtree(leaving)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, output_dir: str) -> None:
    """Loads the newest whole checkpoint, if there are checkpoints; all processes load what the main one found.

    Raises:
        SystemExit: if there are checkpoints but all are damaged, or if one that other versions wrote can't be loaded.
    """
    found = [find_whole(output_dir) if accelerator.is_main_process else None]
    folder = broadcast_object_list(found)[0]
    if not folder:
        return
    refuse_code(Path(folder))
    accelerator.print(f"Going on from {folder}.")
    others = find_other_versions(Path(folder))
    if others:
        accelerator.print(f"Warning: it was written by {others}. The run may end with other bits than it would have.")
    try:
        accelerator.load_state(str(folder))
    except Exception as error:  # the files are whole; what doesn't fit is an error of any kind
        if not others:
            raise
        raise SystemExit(
            f"{folder} can't be loaded: {error}\nIt was written by {others}. {remedy_of_versions(output_dir)}"
        ) from error


def installed_versions() -> dict[str, str]:
    """Of this package, of Python, and of the packages that a run's bits depend on."""
    versions = {"acebert": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # another may stand in for it, as pillow-simd for Pillow
            versions[name] = version(name)
    return versions


def find_other_versions(folder: Path) -> str | None:
    """The versions that wrote a checkpoint where they aren't those installed, both in words; None where they are."""
    try:
        before: dict[str, str] = json.loads((folder / VERSIONS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return "an earlier version of acebert, which recorded none"
    now = installed_versions()
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)} (now {now.get(name)})" for name in changed) or None


def remedy_of_versions(output_dir: str) -> str:
    return (
        "Install the versions that the run was begun with to go on, or start from its model so far "
        f"(--model_name_or_path {output_dir}) in another --output_dir."
    )


def refuse_code(folder: Path) -> None:
    """Ends the run if a checkpoint holds more than tensors and plain values, and so could run code when it is loaded.

    accelerate 1.15 loads all else of a checkpoint with `weights_only=True`, but not the states of the objects that a
    script registers (`accelerate.checkpointing.load_custom_state`).
    """
    for file in sorted(folder.glob("custom_checkpoint_*.pkl")):
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise SystemExit(
                f"{file} holds more than tensors and plain values, which no run of this script writes. It is not "
                "loaded, for it could run code: remove the checkpoint, or --overwrite_output_dir starts the run over."
            ) from error


def find_whole(output_dir: str) -> Path | None:
    """The newest whole checkpoint. Damaged ones are named and set aside, and what a killed run left half is removed."""
    for left in (*Path(output_dir).glob(f"*{UNFINISHED}"), *Path(output_dir, "checkpoints").glob(f"*{UNFINISHED}")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    faults: dict[Path, str] = {}
    for folder in reversed(checkpoints_of(output_dir)):
        fault = find_fault(folder)
        if fault is None:
            break
        faults[folder] = fault
    else:
        if faults:
            named = "; ".join(f"{path}: {fault}" for path, fault in faults.items())
            raise SystemExit(f"No checkpoint is whole ({named}). --overwrite_output_dir starts the run over.")
        return None
    for damaged, fault in faults.items():
        aside = damaged.with_name(damaged.name + ".damaged")
        print(f"Skipped the checkpoint {damaged}: {fault}. It is kept as {aside.name}.")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(damaged, aside)
    return folder


def write_manifest(folder: Path) -> None:
    """Brings a checkpoint's files to the disk and lists them with size and SHA-256."""
    entries = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync_file(file)
        entries[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    atomic_write(folder / MANIFEST, json.dumps(entries, indent=2))


def find_fault(folder: Path) -> str | None:
    """What differs between a checkpoint and its manifest, in words; None if nothing does."""
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except ValueError as error:
        return f"{MANIFEST} can't be read ({error})"
    for name, entry in entries.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{name} has {file.stat().st_size} bytes in place of {entry['bytes']}"
        if file_sha256(file) != entry["sha256"]:
            return f"the bytes of {name} have changed"
    return None


# ----------------------------------------------------------------------------------------------------------------------
# The model's folder
# ----------------------------------------------------------------------------------------------------------------------


def replace_model(unfinished: Path, folder: Path) -> None:
    """Moves a saved model's files to the folder that holds the one before, and removes `unfinished`.

    The weights go last, in one rename. Where a file beside them is another than before, the old weights leave first:
    a configuration never stands beside another model's weights, however the run ends.
    """
    weights = sorted(unfinished.glob("*.safetensors"))
    others = [file for file in sorted(unfinished.iterdir()) if file not in weights]
    same = [(folder / file.name).is_file() and filecmp.cmp(file, folder / file.name, shallow=False) for file in others]
    for file in (*others, *weights):  # all before the old weights leave: here a full disk may show
        sync_file(file)
    if not all(same):
        for old in folder.glob("*.safetensors"):
            old.unlink()
    for file in (*others, *weights):
        os.replace(file, folder / file.name)
    sync_folder(folder)
    unfinished.rmdir()
