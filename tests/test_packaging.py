"""The wheel: what it holds, and that all of it works where the repository isn't."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.metadata import parse_email

import acebert
from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor

ROOT = Path(acebert.__file__).parent
PARTS = sorted(path.parent for path in ROOT.glob("*/__init__.py"))
UNPACKAGED = (".*", "build", "dist", "outputs", "runs", "*.egg-info", "model.safetensors")

# Run with -I, so that neither the working directory nor PYTHONPATH is on the path, and without the editable install:
# `acebert` is what was installed, and the libraries are those of this environment.
USE = """
import importlib.util, pkgutil, sys
place, checkpoint = sys.argv[1:]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
if importlib.util.find_spec("acebert") is None:
    sys.path.insert(0, place)
import acebert
assert acebert.__file__.startswith(place), acebert.__file__

names = [module.name for module in pkgutil.walk_packages(acebert.__path__, "acebert.")]
for name in names:
    module = importlib.import_module(name)
    assert module.__file__.startswith(place), module.__file__
print(len(names), "modules")

import evaluate
from acebert.commands import main
from acebert.commands.ablate import load_config
metric = evaluate.load(acebert.__path__[0] + "/metrics/retrieval")
scores = metric.compute(predictions=[["a", "b"]], references=[{"ids": ["b"], "grades": [1]}], k=[1, 2])
assert (scores["recall@1"], scores["recall@2"]) == (0, 1), scores
assert "base" in load_config(acebert.__path__[0] + "/configs/ablations.yaml")["arms"]
main(["publish", "--model_dir", checkpoint, "--repo_id", "you/search", "--space_id", "you/space", "--dry_run"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*UNPACKAGED))
    (folder / "source" / "model.safetensors").write_bytes(b"weights")
    (folder / "source" / "commands" / "__pycache__").mkdir(exist_ok=True)
    (folder / "source" / "space" / "__pycache__").mkdir(exist_ok=True)
    for part in ("commands", "space"):
        (folder / "source" / part / "__pycache__" / "left.cpython-311.pyc").touch()
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", build], cwd=folder / "source", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def checkpoint(tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor, tmp_path: Path) -> Path:
    AceBertForRetrieval(tiny_config()).save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def check_listing(text: str) -> None:
    """That `acebert publish --dry_run` found the model, the Space and the licence."""
    for name in ("model.safetensors", "LICENSE", "app.py", "acebert/space/static/", "acebert/catalog/__init__.py"):
        assert name in text, text


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    modules = [*ROOT.glob("*.py"), *(path for part in PARTS for path in part.rglob("*.py"))]
    more = [*(ROOT / "configs").iterdir(), *(ROOT / "space").rglob("*"), *(ROOT / "metrics").rglob("*.md")]
    more += [ROOT / name for name in ("LICENSE", "NOTICE", "py.typed", "catalog/wordnet.txt.gz")]
    expected = {path.relative_to(ROOT) for path in {*modules, *more} if path.is_file() and path.suffix != ".pyc"}
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.relative_to("acebert") for name in names if name.parts[0] == "acebert"} == expected
    assert {name.parts[0] for name in names} == {"acebert", f"acebert-{acebert.__version__}.dist-info"}
    assert wheel.stat().st_size < 1_000_000


def test_the_metadata_is_sane(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = f"acebert-{acebert.__version__}.dist-info"
    metadata, unknown = parse_email(archive.read(f"{info}/METADATA"))
    assert not unknown and metadata["version"] == acebert.__version__ == wheel.name.split("-")[1]
    assert {"catalog", "dev", "evaluate", "onnx", "space", "train"} <= set(metadata["provides_extra"])
    assert archive.read(f"{info}/entry_points.txt").decode() == "[console_scripts]\nacebert = acebert.commands:main\n"
    assert f"{info}/licenses/LICENSE" in archive.namelist()


def test_everything_works_from_the_wheel(wheel: Path, checkpoint: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-I", "-c", USE, tmp_path / "installed", checkpoint],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_listing(done.stdout)


@pytest.mark.slow
def test_pip_installs_a_clone_and_the_command_works(checkpoint: Path, tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("This folder is no clone.")
    commit = subprocess.check_output(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True).strip()
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python, env = binaries / "python", {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    # The libraries of this environment, as torch alone takes minutes to install; and its setuptools, where venv brought
    # an older one.
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "--quiet", "setuptools"], check=True, env=env)
    (packages,) = (tmp_path / "venv").rglob("site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n")
    requirement = f"git+file://{tmp_path / 'clone'}@{commit}"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--quiet"]
    subprocess.run([python, "-m", "pip", "install", *options, requirement], check=True, cwd=tmp_path, env=env)

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    check_listing(run(python, "-I", "-c", USE, packages, checkpoint))
    assert run(binaries / "acebert", "--version") == f"acebert {acebert.__version__}\n"
    catalog = ["--output_dir", "sample", "--num_products", "20"]
    assert "The sample catalogue is in sample" in run(binaries / "acebert", "sample-catalog", *catalog)
    columns = ["--title_column", "productDisplayName", "--attribute_columns", "articleType"]
    options = ["--model_name_or_path", str(checkpoint), "--output_dir", "built", "--index", "memory"]
    built = run(binaries / "acebert", "build-catalog", "--dataset_name", "sample", *columns, *options)
    assert "products are in built." in built
