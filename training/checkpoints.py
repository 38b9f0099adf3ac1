"""The folder of a run: settings, checkpoints and best model, each complete or absent whenever the run is killed.

Everything is written atomically: beside its place, under a name that ends in `.unfinished`, then flushed to the disk
and renamed. A checkpoint has a manifest of its files with sizes and SHA-256, so that damage is found before anything is
loaded.
"""

import copy
import filecmp
import json
import os
import pickle
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from acebert import __version__
from acebert.processing_acebert import AceBertProcessor
from acebert.training.arguments import RECORD, TrainingArguments, find_places, read_record
from acebert.training.loading import Model
from acebert.utils.arguments import defaults_of
from acebert.utils.files import UNFINISHED, atomic_write, sync_file, sync_folder, writing
from acebert.utils.fingerprints import file_sha256

MANIFEST = "manifest.json"
VERSIONS = "versions.json"
# What they do decides what a checkpoint holds, and the bits of every step.
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "pillow")
# Settings that a run may go on with whatever they were before.
FREE = ("overwrite_output_dir", "dataloader_num_workers", "logging_steps", "checkpointing_steps")
FREE += ("checkpoints_total_limit", "report_to", "push_to_hub", "hub_private_repo", "hub_model_id", "places", "reasons")


class RunFolder:
    """`--output_dir`: where the loop resumes from, and saves to.

    Args:
        path: of the folder.
        accelerator: says which process writes.
        checkpoints_total_limit: newest checkpoints to keep.
        save_dtype: of the saved model.
        settings: all that decides what the run computes.
    """

    def __init__(
        self,
        path: str | Path,
        accelerator: Accelerator,
        checkpoints_total_limit: int = 2,
        save_dtype: torch.dtype = torch.float32,
        settings: Mapping[str, Any] | None = None,
    ):
        self.path, self.accelerator = Path(path), accelerator
        self.checkpoints_total_limit, self.save_dtype = checkpoints_total_limit, save_dtype
        self.settings = dict(settings or {})

    @classmethod
    def open(cls, args: TrainingArguments, accelerator: Accelerator, fingerprints: Mapping[str, str]) -> "RunFolder":
        """Makes the folder of a run and records its settings.

        Args:
            args: flags.
            accelerator: its precision and number of processes are settings, too.
            fingerprints: of the data.

        Raises:
            SystemExit: if the folder holds checkpoints of a run with other settings or data, naming them.
        """
        settings = {**asdict(args), **fingerprints, "mixed_precision": accelerator.mixed_precision}
        settings["num_processes"] = accelerator.num_processes
        if accelerator.is_main_process:
            record_settings(settings, args)
        accelerator.wait_for_everyone()
        dtype = getattr(torch, args.save_dtype)
        return cls(args.output_dir, accelerator, args.checkpoints_total_limit, dtype, settings)

    def resume(self) -> None:
        """Loads the newest undamaged checkpoint, if there are checkpoints; all processes load what the main one found.

        Raises:
            SystemExit: if there are checkpoints but all are damaged, or if one that other versions wrote can't be
                loaded.
        """
        accelerator = self.accelerator
        found = [find_whole(self.path) if accelerator.is_main_process else None]
        folder = broadcast_object_list(found)[0]
        if not folder:
            return
        refuse_code(folder)
        accelerator.print(f"Resuming from {folder}.")
        others = find_other_versions(folder)
        if others:
            accelerator.print(
                f"Warning: it was written by {others}. The run may end with other bits than it would have."
            )
        try:
            accelerator.load_state(str(folder))
        except Exception as error:  # the files are undamaged; what doesn't fit is an error of any kind
            if not others:
                raise
            raise SystemExit(
                f"{folder} can't be loaded: {error}\nIt was written by {others}. {remedy_of_versions(self.path)}"
            ) from error

    def save_checkpoint(self, step: int) -> None:
        """Saves the run's state as `checkpoints/step_N`, then removes all but the newest checkpoints.

        Raises:
            SystemExit: if it can't be written. The checkpoints before are still there.
        """
        accelerator = self.accelerator
        folder = self.path / "checkpoints" / f"step_{step}"
        unfinished = folder.with_name(folder.name + UNFINISHED)
        what = f"The checkpoint of step {step}"
        with writing(what, str(self.path), unfinished):
            accelerator.save_state(str(unfinished))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            with writing(what, str(self.path), unfinished):
                (unfinished / VERSIONS).write_text(json.dumps(installed_versions(), indent=2), encoding="utf-8")
                write_manifest(unfinished)
                os.replace(unfinished, folder)
                sync_folder(folder.parent)
            for old in checkpoints_of(self.path)[: -self.checkpoints_total_limit]:
                leaving = old.with_name(old.name + UNFINISHED)  # no longer a checkpoint, before its first file goes
                os.replace(old, leaving)
                shutil.rmtree(leaving)
        accelerator.wait_for_everyone()

    def save_model(self, model: Model, processor: AceBertProcessor) -> None:
        """Replaces the model in the folder, which is a complete Hub folder, by this one.

        Raises:
            SystemExit: if it can't be written. The model before is still there.
        """
        if self.accelerator.is_main_process:
            # A copy of the whole model, not of its tensors one by one, keeps tied weights tied: they are saved once.
            saved = copy.deepcopy(model).to("cpu", self.save_dtype)
            saved.config.text_config.dtype = saved.config.query_config.dtype = self.save_dtype
            unfinished = self.path / f"model{UNFINISHED}"
            with writing("The model", str(self.path), unfinished):
                saved.save_pretrained(unfinished)
                processor.save_pretrained(unfinished)
                replace_model(unfinished, self.path)
        self.accelerator.wait_for_everyone()


# ----------------------------------------------------------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------------------------------------------------------


def record_settings(settings: Mapping[str, Any], args: TrainingArguments) -> None:
    """Writes `training_args.json`, for the main process.

    Args:
        settings: all that decides what the run computes.
        args: names the folder, says whether to start over, and has the defaults of flags that an earlier version lacks.

    Raises:
        SystemExit: if a run in the folder had other settings, naming them.
    """
    folder = Path(args.output_dir)
    settings = {name: value for name, value in settings.items() if name not in FREE}
    places: dict[str, str] = {}  # a run that goes on keeps what was a folder when it began
    if args.overwrite_output_dir:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / "train_log.jsonl").unlink(missing_ok=True)
    elif record := read_record(args):
        places = record.get("places", {})
        before = {name: value for name, value in record.items() if name not in FREE}
        # Flags of a later version do nothing by default; its other records have nothing to differ from.
        defaults = defaults_of(type(args))
        new = {k: v for k, v in settings.items() if k not in before and v == defaults.get(k, v)}
        known = {**before, **settings}.keys() - new.keys()
        changed = {k: (before.get(k), settings.get(k)) for k in sorted(known) if before.get(k) != settings.get(k)}
        if changed:
            checkpoints = checkpoints_of(args.output_dir)
            others = find_other_versions(checkpoints[-1]) if checkpoints else None
            raise SystemExit(
                f"{folder} holds a run with other settings or data (then, now): {changed}. Restore them to resume it, "
                "use another --output_dir, or start over with --overwrite_output_dir."
                + (f"\nIt was written by {others}. {remedy_of_versions(args.output_dir)}" if others else "")
            )
        if new:
            print(f"Warning: {folder} holds a run that recorded less. It is taken to have had {new}.")
    folder.mkdir(parents=True, exist_ok=True)
    notes = {"places": places | find_places(settings), "reasons": args.reasons}
    atomic_write(folder / RECORD, json.dumps({**settings, **notes}, indent=2))


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ----------------------------------------------------------------------------------------------------------------------


def checkpoints_of(output_dir: str | Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(Path(output_dir, "checkpoints").glob("step_*[0-9]"), key=lambda path: int(path.name[5:]))


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


def remedy_of_versions(output_dir: str | Path) -> str:
    return (
        "Install the versions that the run was started with to resume it, or start from its best model "
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


def find_whole(output_dir: Path) -> Path | None:
    """The newest undamaged checkpoint. Damaged ones are named and set aside; what a killed run left is removed."""
    for left in (*output_dir.glob(f"*{UNFINISHED}"), *(output_dir / "checkpoints").glob(f"*{UNFINISHED}")):
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
