"""Brings the tests of the installed transformers, which only its source distribution holds: `python fetch.py <folder>`.

They are unpacked into `<folder>/transformers-<version>/tests`, outside of what is published, and stay there.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers


def fetch(folder: Path) -> Path:
    """The unpacked source distribution's folder.

    Raises:
        RuntimeError: the package index has no source distribution of this version, or can't be reached.
    """
    name = f"transformers-{transformers.__version__}"
    if not (folder / name / "tests").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as download:
            requirement = f"transformers=={transformers.__version__}"
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "transformers"]
            if subprocess.run([*command, "-d", download, requirement]).returncode:
                raise RuntimeError(f"The source distribution of {requirement} could not be downloaded: see above.")
            with tarfile.open(next(Path(download).glob("*.tar.gz"))) as archive:
                members = [member for member in archive if member.name.startswith(f"{name}/tests/")]
                archive.extractall(folder, members, filter="data")
            (folder / name / "tests" / "__init__.py").touch()  # left out too; makes the folder the package `tests`
    return folder / name


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
