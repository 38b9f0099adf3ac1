"""The examples run as they stand."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from fastapi.testclient import TestClient

import acebert
from acebert import AceBertModel, AceBertProcessor, ProductCatalog

EXAMPLES = Path(acebert.__file__).parent / "examples"


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quick_start_finds_what_is_asked_for(tmp_path: Path) -> None:
    """With the released checkpoint."""
    found = run(str(EXAMPLES / "quick_start.py"), str(EXAMPLES.parent), cwd=tmp_path).splitlines()
    assert found[0].startswith("t-shirt with stripes: Striped cotton t-shirt (")
    assert found[2].startswith("men's belt: Leather belt for men (")
    assert len(found) == 3


def test_your_catalogue_goes_all_the_way(backbone: str, tmp_path: Path) -> None:
    flags = ["--backbone", backbone, "--max_train_steps", "2", "--output_dir", str(tmp_path / "shop")]
    hits = run(str(EXAMPLES / "your_catalogue.py"), *flags, cwd=tmp_path).splitlines()[-5:]
    assert all(re.fullmatch(r"-?[01]\.\d\d \S.* \(\S.* \S.*\)", hit) for hit in hits) and len(hits) == 5
    assert json.loads((tmp_path / "shop" / "model" / "config.json").read_text())["model_type"] == "acebert"


@pytest.fixture
def service(
    tiny_config: Callable,
    tiny_processor: AceBertProcessor,
    catalog_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> TestClient:
    torch.manual_seed(0)
    AceBertModel(tiny_config()).save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    products = load_dataset(str(catalog_folder), split="validation")
    model = AceBertModel.from_pretrained(tmp_path / "model")
    ProductCatalog.build(model, tiny_processor, products, tmp_path / "catalog").close()
    monkeypatch.setenv("MODEL", str(tmp_path / "model"))
    monkeypatch.setenv("CATALOG", str(tmp_path / "catalog"))
    spec = util.spec_from_file_location("serve_with_fastapi", EXAMPLES / "serve_with_fastapi.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return TestClient(module.app)


def test_the_service_searches(service: TestClient) -> None:
    with service:
        hits = service.get("/search", params={"query": "red shoe", "top_k": 3}).json()
        assert len(hits) == 3 and hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]
        similar = service.get(f"/similar/{hits[0]['id']}", params={"top_k": 2}).json()
        assert len(similar) == 2 and hits[0]["id"] not in [hit["id"] for hit in similar]
        assert service.get("/similar/none").status_code == 404
        assert service.get("/search", params={"query": " "}).status_code == 422
        assert service.get("/search", params={"query": "shoe", "top_k": 0}).status_code == 422
