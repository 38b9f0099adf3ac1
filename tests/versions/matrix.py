"""Loads the released checkpoint, and one with an eye, in every environment that is promised: `make test-versions`.

Each environment is a folder of libraries that comes before the installed ones; torch is shared. In each, both
checkpoints are loaded as remote code, encode, take a gradient and are saved; then each reads what all others saved.
All vectors must equal those of the installed libraries to 1e-6 in float32. What is too old must say so in one line.

It needs a package index the first time; the libraries are kept under build/versions (0.4 GB).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file

from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor

ROOT = Path(__file__).parents[2]
LIBRARIES = ROOT / "build" / "versions"
USE = Path(__file__).parent / "use_folders.py"
TOLERANCE = 1e-6

# Name to what comes before the installed libraries. The oldest has the lower bounds of pyproject.toml.
ENVIRONMENTS: dict[str, list[str]] = {
    "5.4": [
        "transformers==5.4.0",
        "huggingface-hub==1.5.0",
        "tokenizers==0.22.0",
        "safetensors==0.5.0",
        "numpy==1.26.0" if sys.version_info < (3, 13) else "numpy==2.1.0",
        "Pillow==11.0.0",
    ],
    "5.10": ["transformers==5.10.1", "huggingface-hub==1.5.0", "tokenizers==0.22.2"],
    "5.17": ["transformers==5.17.0", "huggingface-hub==1.33.0"],
    "5.20": ["transformers==5.20.0", "huggingface-hub==1.33.0"],
    "5.24": ["transformers==5.24.0"],
    "installed": [],
}
TOO_OLD: dict[str, list[str]] = {
    "4.57": ["transformers==4.57.6", "huggingface-hub==0.36.0", "tokenizers==0.22.2"],
    "5.3": ["transformers==5.3.0", "huggingface-hub==1.5.0", "tokenizers==0.22.2"],
}
LOAD = """
import sys
sys.path.insert(0, sys.argv[1])
import transformers
getattr(transformers, sys.argv[3]).from_pretrained(sys.argv[2], trust_remote_code=True)
"""


def install(requirements: list[str]) -> Path:
    """A folder with these libraries and nothing that they need."""
    folder = LIBRARIES / ("_".join(requirements).replace("==", "-") or "none")
    if not folder.exists():
        LIBRARIES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LIBRARIES) as half:
            if requirements:
                pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
                subprocess.run([*pip, "--target", f"{half}/all", *requirements], check=True)
            else:
                Path(half, "all").mkdir()
            Path(half, "all").rename(folder)
    return folder


def start(arguments: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_MODULES_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )


def save_model_with_eye(folder: Path) -> None:
    """A small random one, with the released checkpoint's tokenizer."""
    torch.manual_seed(0)
    processor = AceBertProcessor.from_pretrained(ROOT)
    text = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48}
    patch_size = processor.image_processor.patch_size
    eye = {**text, "patch_size": patch_size, "use_layer_scale": True, "num_register_tokens": 2}
    config = AceBertConfig(
        text_config={**text, "vocab_size": len(processor.tokenizer), "initializer_range": 0.2},
        vision_config={**eye, "initializer_range": 0.2},
        patch_size=patch_size,
        projection_dim=32,
        text_projection=False,
        loss="sigmoid",
    )
    AceBertModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def difference(one: Path, other: Path) -> float:
    first, second = load_file(one / "vectors.safetensors"), load_file(other / "vectors.safetensors")
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def check(folder: Path) -> list[str]:
    """What failed; prints a table of what was run."""
    eye = folder / "eye"
    save_model_with_eye(eye)
    sources = [str(ROOT), str(eye)]
    libraries = {name: str(install(requirements)) for name, requirements in (ENVIRONMENTS | TOO_OLD).items()}
    failed = []

    def use(name: str, target: Path, *arguments: str) -> bool:
        run = start([str(USE), libraries[name], str(target), *arguments], folder / f"modules {name}")
        if run.returncode:
            failed.append(f"{name} can't use the checkpoints, or what another saved:\n{run.stderr[-2000:]}")
        return run.returncode == 0

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        done = list(threads.map(lambda name: use(name, folder / name, "--save", *sources), ENVIRONMENTS))
        if not all(done):
            return failed
        originals = [folder / "installed" / str(number) for number in range(len(sources))]
        saved = [str(folder / name / source.name / "saved") for name in ENVIRONMENTS for source in originals]
        done = list(threads.map(lambda name: use(name, folder / f"{name} again", *saved), ENVIRONMENTS))
        if not all(done):
            return failed
    print("| environment | load, encode, gradient, save: difference | reads what each saved: difference |")
    print("| --- | --- | --- |")
    for name, requirements in ENVIRONMENTS.items():
        first = max(difference(folder / name / original.name, original) for original in originals)
        again = [folder / f"{name} again" / str(number) for number in range(len(saved))]
        second = max(map(difference, again, originals * len(ENVIRONMENTS)))
        print(f"| {', '.join(requirements) or name} | {first:.1e} | {second:.1e} |", flush=True)
        if not max(first, second) <= TOLERANCE:
            failed.append(f"{name} has other vectors: they differ by {max(first, second):.1e}")
    for name, requirements in TOO_OLD.items():
        for auto_class in ("AutoModel", "AutoProcessor"):
            run = start(["-c", LOAD, libraries[name], str(eye), auto_class], folder / f"modules {name}")
            last = run.stderr.strip().splitlines()[-1] if run.returncode else "no error"
            version = requirements[0].partition("==")[2]
            if not ("transformers>=" in last and f" {version} " in last):
                failed.append(f"{auto_class} under {requirements[0]} doesn't say that it is too old, but: {last}")
    return failed


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="acebert-versions-"))
    try:
        failed = check(folder)
    finally:
        shutil.rmtree(folder)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
