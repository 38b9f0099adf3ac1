"""The saved folder as a stranger loads it: a fresh process, another folder, the package not importable, no network."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import draw
from safetensors.torch import load_file, save_file

from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertForPreTraining, AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor

COMPLETE = {
    "config.json",
    "model.safetensors",
    "configuration_acebert.py",
    "image_processing_acebert.py",
    "losses_acebert.py",
    "modeling_acebert.py",
    "modules.json",
    "processing_acebert.py",
    "processor_config.json",
    "sentence_transformers_acebert.py",
    "tokenizer.json",
    "tokenizer_config.json",
    "vision_acebert.py",
}

# Run with -I: neither the working directory nor PYTHONPATH is on the path. The editable install's finder is taken off
# it too, and so is sentence-transformers, whose module the folder holds: nobody needs the library for the Auto classes.
STRANGER = """
import importlib.util, json, sys
sys.modules["sentence_transformers"] = None
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("acebert") is None
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining, AutoProcessor
source, photo, target = sys.argv[1:]
config = AutoConfig.from_pretrained(source, trust_remote_code=True)
model = AutoModel.from_pretrained(source, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
image_processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=True)
classes = [config, model, processor, image_processor]
if config.vision_config is None:
    classes.append(AutoModelForPreTraining.from_pretrained(source, trust_remote_code=True))
photo = Image.open(photo)
queries = processor(text=["red shirt"], return_tensors="pt")
products = processor(text=["the shirt", None], images=[photo, photo], return_tensors="pt")
alone = image_processor([photo], return_tensors="pt")
save_file({
    "query": model.get_text_features(**queries).pooler_output.detach(),
    "product": model.get_product_features(**products).pooler_output.detach(),
    "image": model.get_image_features(**alone).pooler_output.detach(),
}, target + "/vectors.safetensors")
model.save_pretrained(target + "/again")
processor.save_pretrained(target + "/again")
classes = [type(x).__name__ for x in classes]
print(json.dumps({"classes": classes, "training": model.training, "dtype": str(model.dtype)}))
"""


EYE = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40, "patch_size": 8}


@pytest.fixture(params=[None, EYE], ids=["one stream", "eye"])
def saved(
    tiny_config: Callable[..., AceBertConfig],
    tiny_processor: AceBertProcessor,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Path:
    folder = tmp_path / "ace-bert-v1.0"
    AceBertForRetrieval(tiny_config(vision_config=request.param)).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


def load_as_stranger(source: str, tmp_path: Path, **environment: str) -> tuple[dict, dict[str, torch.Tensor]]:
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    draw("shirt", "red", 0).save(tmp_path / "photo.png")
    result = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, source, str(tmp_path / "photo.png"), str(tmp_path / "elsewhere")],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), load_file(tmp_path / "elsewhere" / "vectors.safetensors")


def vectors_here(folder: Path, processor: AceBertProcessor) -> dict[str, torch.Tensor]:
    model, photo = AceBertModel.from_pretrained(folder), draw("shirt", "red", 0)
    products = processor(text=["the shirt", None], images=[photo, photo], return_tensors="pt")
    return {
        "query": model.get_text_features(**processor(text=["red shirt"], return_tensors="pt")).pooler_output,
        "product": model.get_product_features(**products).pooler_output,
        "image": model.get_image_features(**processor(images=[photo], return_tensors="pt")).pooler_output,
    }


def classes_of(folder: Path) -> list[str]:
    classes = ["AceBertConfig", "AceBertModel", "AceBertProcessor", "AceBertImageProcessor"]
    one_stream = AceBertConfig.from_pretrained(folder).vision_config is None
    return [*classes, "AceBertForPreTraining"] if one_stream else classes


def test_folder(saved: Path, tiny_processor: AceBertProcessor, tmp_path: Path) -> None:
    assert set(os.listdir(saved)) >= COMPLETE
    first, classes = vectors_here(saved, tiny_processor), classes_of(saved)
    moved = tmp_path / "moved"
    saved.rename(moved)
    for source in (moved, tmp_path / "elsewhere" / "again"):  # and once more, from what the stranger saved
        report, vectors = load_as_stranger(str(source), tmp_path)
        assert report["classes"] == classes
        expected = vectors_here(source, tiny_processor)
        assert all(torch.equal(vectors[name], expected[name]) for name in expected)
        # Where weights lie in a file decides which of its kernels a matrix product takes, so not bit for bit.
        assert all(torch.allclose(vectors[name], first[name], atol=1e-6) for name in first)
        assert set(os.listdir(tmp_path / "elsewhere" / "again")) >= COMPLETE


def test_cache_laid_out_as_the_hub_client_does(saved: Path, tiny_processor: AceBertProcessor, tmp_path: Path) -> None:
    expected = vectors_here(saved, tiny_processor)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hf" / "hub" / "models--acme--acebert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(saved, repository / "snapshots" / commit)
    report, vectors = load_as_stranger("acme/acebert", tmp_path)
    assert report["classes"] == classes_of(saved)
    assert all(torch.equal(vectors[name], expected[name]) for name in expected)
    again = tmp_path / "elsewhere" / "again"
    assert set(os.listdir(again)) >= COMPLETE
    auto_map = json.loads((again / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_acebert.AceBertModel"  # its own code, not a repository's
    assert load_as_stranger(str(again), tmp_path)[0]["classes"] == classes_of(saved)


def test_half_precision_checkpoints_load_as_such(saved: Path, tmp_path: Path) -> None:
    state = {name: value.to(torch.bfloat16) for name, value in load_file(saved / "model.safetensors").items()}
    save_file(state, saved / "model.safetensors", {"format": "pt"})
    config = json.loads((saved / "config.json").read_text()) | {"dtype": "bfloat16"}
    (saved / "config.json").write_text(json.dumps(config))
    report, vectors = load_as_stranger(str(saved), tmp_path)
    assert report["dtype"] == "torch.bfloat16"
    assert vectors["product"].isfinite().all()


def test_every_class_saves_a_folder_that_all_auto_classes_read(
    tiny_config: Callable[..., AceBertConfig], tmp_path: Path
) -> None:
    for model_class in (AceBertModel, AceBertForPreTraining, AceBertForRetrieval):
        model_class(tiny_config()).save_pretrained(tmp_path / model_class.__name__)
        auto_map = json.loads((tmp_path / model_class.__name__ / "config.json").read_text())["auto_map"]
        assert auto_map == {
            "AutoConfig": "configuration_acebert.AceBertConfig",
            "AutoModel": "modeling_acebert.AceBertModel",
            "AutoModelForPreTraining": "modeling_acebert.AceBertForPreTraining",
        }
    AceBertModel(tiny_config(vision_config=EYE)).save_pretrained(tmp_path / "eye")
    auto_map = json.loads((tmp_path / "eye" / "config.json").read_text())["auto_map"]
    assert auto_map.keys() == {"AutoConfig", "AutoModel"}
