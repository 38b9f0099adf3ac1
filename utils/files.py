"""Files that are whole or not there."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished"


# ----------------------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def writing(what: str, output_dir: str, unfinished: Path) -> Iterator[None]:
    """Ends the run with the reason if `what` can't be written, and leaves nothing half written.

    PyTorch, safetensors and tokenizers report a full disk each by an error of its own kind, so any is caught, and the
    free space is part of the message.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(output_dir).free / 2**20
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)
        raise SystemExit(
            f"{what} can't be written to {output_dir}, where {free:,.0f} MiB are free: {error}\n"
            "What was saved before is whole. Make room; the same command then goes on from there."
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Writes a text beside and renames, so that the file is always whole."""
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_text(text, encoding="utf-8")
    flush(unfinished)
    os.replace(unfinished, path)


def flush(path: Path) -> None:
    """Waits until a file's bytes are on the disk: a rename may get there before them if the machine goes down."""
    with open(path, "r+b" if os.name == "nt" else "rb") as file:  # Windows flushes only what is open to write
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
