"""`acebert serve` as users start it: two worker processes, one catalogue, and a stop that answers what was asked."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from helpers import free_port

from acebert import AceBertModel, AceBertProcessor, ProductCatalog
from acebert.commands import serve
from acebert.serving.settings import Settings

KEY = "to write"


@pytest.fixture
def flags(tiny_config: Callable, tiny_processor: AceBertProcessor, catalog_folder: Path, tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    model = AceBertModel(tiny_config())
    model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    products = load_dataset(str(catalog_folder), split="train")
    ProductCatalog.build(model, tiny_processor, products, tmp_path / "catalog").close()
    return [str(tmp_path / "catalog"), "--model_name_or_path", str(tmp_path / "model")]


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "X-API-Key": KEY})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"{}")


@pytest.fixture
def service(flags: list[str], tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    port = free_port()
    command = [sys.executable, "-m", "acebert", "serve", *flags, "--workers", "2", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ACEBERT_WRITE_KEY": KEY}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    while True:
        try:
            ask(f"{url}/ready")
            break
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
    yield url, process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the workers, too
    process.wait()


@pytest.mark.slow
def test_two_workers_see_each_other_s_changes_and_stop_gracefully(
    service: tuple[str, subprocess.Popen], flags: list[str]
) -> None:
    url, process = service

    def change(number: int) -> bool:
        """Whether a search finds a product as soon as its change has been answered, whichever worker answers."""
        product = {"id": number, "title": f"mug {number}", "attributes": {"colour": "blue"}}
        assert ask(f"{url}/v1/products/upsert", {"products": [product]}) == {"changed": 1}
        found = ask(f"{url}/v1/search", {"text": "blue mug", "top_k": 200})
        return number in {hit["id"] for hit in found["hits"]}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(change, range(1, 41)))
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        metrics = answer.read().decode()
    assert 'acebert_requests_total{route="/v1/products/upsert",status="200"} 40.0' in metrics  # of both workers
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, f"{url}/v1/search", {"text": "mug"}) for _ in range(4)]
        time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        refused = sum(isinstance(each.exception(), urllib.error.URLError | ConnectionError) for each in answers)
        assert all(each.exception() or len(each.result()["hits"]) == 10 for each in answers) and refused < 4
    assert process.wait(60) in (0, -signal.SIGTERM)
    with ProductCatalog.load(flags[0]) as catalog:
        assert len(catalog) == 64 + 40


def test_a_single_worker_has_the_flags_of_its_own_process(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no process of its own: what parsing the flags did to the settings' class is still there."""
    read: list[Settings] = []
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(serve.uvicorn, "run", lambda *_, **__: read.append(Settings.from_environment()))
    serve.main([*flags, "--allow_origins", "https://shop.example", "--max_top_k", "7"])
    (settings,) = read
    assert (settings.catalog, settings.revision, settings.max_top_k) == (flags[0], None, 7)
    assert settings.allow_origins == ["https://shop.example"]


def test_wrong_flags_are_named_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="holds no catalogue"):
        serve.main([str(tmp_path)])
    with pytest.raises(SystemExit, match="--workers must be at least 1, got 0"):
        serve.main([str(tmp_path), "--workers", "0"])
    with pytest.raises(SystemExit):
        serve.main(["--workers", "2"])
    assert "--catalog" in capsys.readouterr().err
