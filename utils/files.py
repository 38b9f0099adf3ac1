"""Atomic writes: a file is there complete, or as it was before, whenever the process or the machine stops."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = ".unfinished"  # suffix of what is still being written


def atomic_write(path: Path, content: str | bytes | Callable[[BinaryIO], Any]) -> None:
    """Writes a file under a temporary name, brings it to the disk and renames it.

    A reader sees the old file or the new one. The folder is synchronised too: without it, the rename itself may be lost
    when the machine goes down.

    Args:
        path: of the file; its folder has to exist.
        content: a text, which is encoded in UTF-8; bytes; or a function that writes to an open binary file.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except Exception:
        with suppress(OSError):  # the error that is raised is the one that counts
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Waits until a file's bytes are on the disk: a rename may get there before them if the machine goes down."""
    with open(path, "r+b" if os.name == "nt" else "rb") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the operating system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writing(what: str, output_dir: str, unfinished: Path | None = None) -> Iterator[None]:
    """Ends the run with the reason if something can't be written.

    PyTorch, safetensors and tokenizers each report a full disk by an error of their own, so any error is caught, and
    the free space is part of the message.

    Args:
        what: is written, for the message.
        output_dir: folder whose disk is meant.
        unfinished: a file or folder to remove then.

    Raises:
        SystemExit: for any error inside of the context.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(output_dir).free / 2**20
        if unfinished is not None and unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        elif unfinished is not None:
            unfinished.unlink(missing_ok=True)
        raise SystemExit(
            f"{what} can't be written to {output_dir}, where {free:,.0f} MiB are free: {error}\n"
            "What was saved before is complete. Free some space; the same command then resumes the run."
        ) from error
