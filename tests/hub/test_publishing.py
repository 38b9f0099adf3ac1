"""Publishing to a Hub on this machine, and loading from it as a stranger does."""

import ast
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from datasets import load_dataset
from gradio_client import Client
from helpers import draw
from hub_server import Account, Hub
from huggingface_hub import HfApi, ModelCard, constants
from safetensors.torch import load_file

import acebert
from acebert import evaluate_accelerate, train_accelerate
from acebert.catalog.product_catalog import ProductCatalog
from acebert.commands import publish
from acebert.configuration_acebert import AceBertConfig
from acebert.hub import publishing
from acebert.hub.model_card import Power, Stage, is_edited, read_stages, write_card
from acebert.hub.publishing import (
    Published,
    PublishError,
    catalog_files,
    model_files,
    open_repository,
    publish_catalog,
    publish_model,
    publish_space,
    space_files,
)
from acebert.modeling_acebert import AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.space import app
from acebert.training.command_line import default_settings
from acebert.utils.fingerprints import weights_sha256

ROOT = Path(acebert.__file__).parent
CODE = {
    "configuration_acebert.py",
    "image_processing_acebert.py",
    "losses_acebert.py",
    "modeling_acebert.py",
    "processing_acebert.py",
    "sentence_transformers_acebert.py",
    "vision_acebert.py",
}
SETTINGS = {"config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "modules.json"}
ACCOUNTS = {
    "hf_alice": Account("alice", organizations=("shop",)),
    "hf_reader": Account("alice", role="read"),
    "hf_bob": Account("bob"),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub(tmp_path / "hub", ACCOUNTS) as server:
        yield server


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def save(tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor) -> Callable[..., Path]:
    """Writes the folder of a run, with what doesn't belong on the Hub in it."""

    def make(folder: Path, seed: int = 0, shard_size: str = "5GB") -> Path:
        torch.manual_seed(seed)
        AceBertForRetrieval(tiny_config()).save_pretrained(folder, max_shard_size=shard_size)
        tiny_processor.save_pretrained(folder)
        settings = default_settings()["finetune"] | {
            "stage": "finetune",
            "backbone": str(folder / "private" / "bert-tiny"),
            "dataset_name": ["acme/shoes", "/home/alice/secret/catalogue.csv"],
            "query_templates": ["{colour} {kind}"],
            "output_dir": str(folder),
            "learning_rate": 4e-4,
            "train_data": "64 products, SHA-256 0123",  # a record that is no flag
        }
        settings = {name: value for name, value in settings.items() if "hub" not in name}
        (folder / "training_args.json").write_text(json.dumps(settings))
        log = [
            {"step": 10, "seconds": 1800.0, "loss": 3.0},
            {"step": 10, "seconds": 1800.0, "validation": {"query_to_product_recall@10": 0.75, "score": 0.75}},
            {"step": 20, "seconds": 3600.0, "validation": {"query_to_product_recall@10": 0.5, "score": 0.5}},
        ]
        (folder / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        for name in ("checkpoints/step_20/optimizer.bin", ".env", "tests/test.py", "runs/x.txt", "pytorch_model.bin"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("hf_secret")
        return folder

    return make


@pytest.fixture
def run(save: Callable[..., Path], tmp_path: Path) -> Path:
    return save(tmp_path / "run")


def send(api: HfApi, folder: Path, name: str = "acebert", private: bool | None = None, **options: Any) -> Published:
    repo_id = open_repository(api, name, "model", private)
    card = partial(write_card, repo_id, read_stages(folder), None)
    return publish_model(api, folder, repo_id, lambda revision: card(revision=revision), **options)


def environment(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    """Of a process that knows this Hub alone, and has nothing in its cache."""
    changes = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    return {**os.environ, **changes, "HF_HUB_DISABLE_XET": "1", **more}


def tree(hub: Hub, name: str = "alice/acebert", revision: str = "main", kind: str = "models") -> set[str]:
    return set(hub.repository(name, kind).files(revision)) - {".gitattributes"}


def log_of(hub: Hub, name: str = "alice/acebert") -> list[str]:
    repository = hub.repository(name)
    return [repository.read(commit)["title"] for commit in repository.history()]


# ----------------------------------------------------------------------------------------------------------------------
# What goes up
# ----------------------------------------------------------------------------------------------------------------------


def test_what_a_user_needs_goes_up_and_nothing_else(hub: Hub, api: HfApi, run: Path) -> None:
    published = send(api, run)
    assert tree(hub) == CODE | SETTINGS | {"model.safetensors", "LICENSE", "README.md"}
    assert all(hub.content("alice/acebert", name) == (run / name).read_bytes() for name in tree(hub) - {"LICENSE"})
    assert not any(b"hf_secret" in file.read_bytes() for file in (hub.folder / "objects").iterdir())
    assert f'name, revision = "alice/acebert", "{published.revision}"' in (run / "README.md").read_text()
    assert hub.repository("alice/acebert").files()["model.safetensors"]["lfs"]  # by LFS


def test_the_released_checkpoint_goes_up_without_the_repository_around_it() -> None:
    assert set(model_files(ROOT)) == CODE | SETTINGS | {"model.safetensors", "LICENSE"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "isn't that of an ACE-BERT"),
        (lambda folder: (folder / "model.safetensors").unlink(), "only safetensors are published"),
        (lambda folder: os.truncate(folder / "model.safetensors", 9000), "model.safetensors is damaged"),
        (lambda folder: (folder / "modeling_acebert.py").unlink(), "modeling_acebert.py is missing"),
        (
            lambda folder: (folder / "modules.json").write_text('[{"path": "1_Dense", "type": "x.Dense"}]'),
            r"names more modules of sentence-transformers \(1_Dense\)",
        ),
    ],
)
def test_half_a_checkpoint_is_refused(spoil: Callable[[Path], None], message: str, run: Path) -> None:
    spoil(run)
    with pytest.raises(ValueError, match=message):
        model_files(run)


def test_the_same_again_makes_no_commit(hub: Hub, api: HfApi, run: Path) -> None:
    first = send(api, run)
    assert send(api, run) == first
    assert log_of(hub) == ["Write the card", "Publish the model", "initial commit"]


def test_shards_of_an_earlier_publication_go(hub: Hub, api: HfApi, save: Callable[..., Path], tmp_path: Path) -> None:
    old = send(api, save(tmp_path / "sharded", shard_size="30KB"))
    shards = {name for name in tree(hub) if name.endswith(".safetensors")}
    assert len(shards) > 2 and "model.safetensors.index.json" in tree(hub)
    send(api, save(tmp_path / "whole", seed=1))
    assert {name for name in tree(hub) if "safetensors" in name} == {"model.safetensors"}
    assert shards < tree(hub, revision=old.revision)


def test_a_tag_stands_for_one_commit(hub: Hub, api: HfApi, save: Callable[..., Path], tmp_path: Path) -> None:
    for _ in range(2):  # again is fine
        published = send(api, save(tmp_path / "one"), tag="v1")
    assert hub.repository("alice/acebert").resolve("v1") == published.revision
    with pytest.raises(PublishError, match="a tag v1 at another commit"):
        send(api, save(tmp_path / "two", seed=1), tag="v1")


def test_an_interrupted_upload_goes_on(
    hub: Hub, api: HfApi, save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between the client's tries
    folder = save(tmp_path / "run", shard_size="30KB")
    lost: list[str] = []

    def drop(oid: str) -> None:
        if len(hub.received) > 2 or oid in lost:
            lost.append(oid)
            raise ConnectionError

    hub.halfway = drop
    with pytest.raises(PublishError, match=r"connection to .* failed .* run the command again"):
        send(api, folder)
    assert "config.json" not in tree(hub)  # nothing by halves
    arrived = {oid: count for oid, count in hub.received.items() if oid not in lost}
    assert arrived and lost

    hub.halfway = None
    send(api, folder)
    assert all(hub.received[oid] == count for oid, count in arrived.items())
    shards = [name for name in tree(hub) if name.endswith(".safetensors")]
    assert all(hub.content("alice/acebert", name) == (folder / name).read_bytes() for name in shards)


# ----------------------------------------------------------------------------------------------------------------------
# Loading it
# ----------------------------------------------------------------------------------------------------------------------

# With -I neither the working directory nor PYTHONPATH is on the path, and the editable install's finder is taken off.
STRANGER = """
import importlib.util, os, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("acebert") is None
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor
photo, target, *sources = sys.argv[1:]
found = {}
for source in sources:
    name, revision, token = source.split(",")
    options = {"revision": revision or None, "token": token or False, "trust_remote_code": True}
    try:
        model, processor = AutoModel.from_pretrained(name, **options), AutoProcessor.from_pretrained(name, **options)
    except OSError as error:
        print(f"{source}: {error}")
        continue
    products = processor(text=["the shirt", None], images=[None, Image.open(photo)], return_tensors="pt")
    queries = processor(text=["red shirt"], return_tensors="pt")
    found[source + " query"] = model.get_text_features(**queries).pooler_output
    found[source + " products"] = model.get_product_features(**products).pooler_output
save_file({name: vectors.detach().clone() for name, vectors in found.items()}, target)
"""


@pytest.mark.slow
def test_a_stranger_loads_each_revision_and_what_is_private_with_a_token(
    hub: Hub, api: HfApi, save: Callable[..., Path], tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    folders = {"old": save(tmp_path / "old"), "new": save(tmp_path / "new", seed=1, shard_size="30KB")}
    old = send(api, folders["old"]).revision
    new = send(api, folders["new"]).revision
    hidden = send(api, folders["new"], "hidden", private=True).revision
    assert old != new
    draw("shirt", "red", 0).save(tmp_path / "photo.png")
    sources = {
        f"alice/acebert,{old},": "old",
        f"alice/acebert,{new},": "new",
        "alice/acebert,,": "new",
        f"alice/hidden,{hidden},hf_alice": "new",
        f"alice/hidden,{hidden},": None,
        "alice/hidden,,hf_bob": None,
    }
    command = [sys.executable, "-I", "-c", STRANGER, tmp_path / "photo.png", tmp_path / "vectors.safetensors", *sources]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(hub, tmp_path), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr

    vectors, photo = load_file(tmp_path / "vectors.safetensors"), draw("shirt", "red", 0)
    queries = tiny_processor(text=["red shirt"], return_tensors="pt")
    products = tiny_processor(text=["the shirt", None], images=[None, photo], return_tensors="pt")
    for source, name in sources.items():
        if name is None:
            assert source + " query" not in vectors
            assert re.search(rf"{re.escape(source)}: .*private", done.stdout, re.DOTALL)
            continue
        model = AceBertModel.from_pretrained(folders[name])
        assert torch.equal(vectors[source + " query"], model.get_text_features(**queries).pooler_output)
        assert torch.equal(vectors[source + " products"], model.get_product_features(**products).pooler_output)


# ----------------------------------------------------------------------------------------------------------------------
# What stands in the way
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        (None, "acebert", r"no token .* `hf auth login`"),
        ("hf_wrong", "acebert", r"doesn't know the token .* HF_TOKEN"),
        ("hf_reader", "acebert", r"may not write to alice/acebert .* role 'write'"),
        ("hf_alice", "bob/acebert", r"may not write to bob/acebert .* a name of your own"),
        ("hf_bob", "alice/there", r"may not write to alice/there"),
        ("hf_alice", "a/b/c", r"a/b/c can't be published"),
    ],
)
def test_who_may_not_write_is_told_before_anything_is_sent(
    token: str | None, name: str, message: str, hub: Hub, api: HfApi
) -> None:
    api.create_repo("alice/there")
    before = {path for path in hub.folder.rglob("*")}
    with pytest.raises(PublishError, match=message):
        open_repository(HfApi(endpoint=hub.url, token=token), name, "model")
    assert {path for path in hub.folder.rglob("*")} == before


def test_an_organization_s_repository(hub: Hub, api: HfApi, run: Path) -> None:
    assert send(api, run, "shop/search").repo_id == "shop/search"
    assert "model.safetensors" in tree(hub, "shop/search")


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("model", "config.json", b'{"model_type": "bert"}'),
        ("space", "app.py", b"print()"),
        ("dataset", "train.csv", b"a,b"),
    ],
)
def test_what_is_something_else_is_left_alone(kind: str, file: str, content: bytes, api: HfApi) -> None:
    options = {"space_sdk": "gradio"} if kind == "space" else {}
    api.create_repo("alice/taken", repo_type=kind, **options)
    api.upload_file(path_or_fileobj=content, path_in_repo=file, repo_id="alice/taken", repo_type=kind)
    with pytest.raises(PublishError, match=rf"alice/taken exists and holds something else \({file}\): choose another"):
        open_repository(api, "taken", kind)


def test_a_public_repository_isn_t_taken_for_a_private_one(api: HfApi) -> None:
    open_repository(api, "acebert", "model")
    with pytest.raises(PublishError, match=r"exists and is public, but was to be private: .*/alice/acebert/settings"):
        open_repository(api, "acebert", "model", private=True)
    assert open_repository(api, "acebert", "model") == "alice/acebert"


def test_offline_and_out_of_reach(hub: Hub, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = HfApi(endpoint="http://127.0.0.1:9", token="hf_alice")
    with pytest.raises(PublishError, match=r"connection to http://127.0.0.1:9 failed"):
        open_repository(unreachable, "acebert", "model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match=r"HF_HUB_OFFLINE is set, .* unset it"):
        open_repository(api, "acebert", "model")


def test_an_endpoint_without_xet_storage(api: HfApi, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(PublishError, match=r"without Xet storage needs HF_HUB_DISABLE_XET=1"):
        send(api, run)


def test_a_commit_by_someone_else_in_between_is_kept(
    hub: Hub, api: HfApi, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_commit = HfApi.create_commit

    def after_another(self: HfApi, *args: Any, **options: Any) -> Any:
        monkeypatch.setattr(HfApi, "create_commit", create_commit)
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="NOTES.md", repo_id="alice/acebert")
        return create_commit(self, *args, **options)

    open_repository(api, "acebert", "model")
    monkeypatch.setattr(HfApi, "create_commit", after_another)
    with pytest.raises(PublishError, match="changed by someone else just now"):
        send(api, run)
    send(api, run)
    assert hub.content("alice/acebert", "NOTES.md") == b"theirs"


# ----------------------------------------------------------------------------------------------------------------------
# The card
# ----------------------------------------------------------------------------------------------------------------------


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def report_of(weights: str) -> dict[str, Any]:
    systems = [
        {"system": "ACE-BERT", "note": "", "metrics": {"ndcg@10": interval(0.8), "recall@10": interval(0.6)}},
        {"system": "BM25", "note": "", "metrics": {"ndcg@10": interval(0.5), "recall@10": interval(0.4)}},
        {"system": "late fusion", "note": "doesn't apply", "metrics": {}},
    ]
    task = {"task": "shopper", "num_queries": 500, "main_metric": "ndcg@10", "systems": systems}
    task["lead"] = [{"system": "BM25", **interval(0.3), "p": 0.001, "p_holm": 0.001}]
    return {
        "model": {"name": "runs/mine", "revision": None, "weights_sha256": weights},
        "dataset": {"name": "acme/shoes", "split": "validation", "num_products": 4407, "sha256": "1" * 64},
        "tasks": [task, {**task, "task": "hidden", "lead": []}],
        "arguments": {"bootstrap_resamples": 1000},
    }


def test_the_card_tells_the_run(run: Path) -> None:
    power = Power("two cores", watts=100, carbon_intensity=400)
    text = write_card(
        "alice/search",
        read_stages(run),
        report_of("0" * 64),
        revision="f" * 40,
        flags=default_settings(),
        power=power,
    )
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.datasets) == ("apache-2.0", "transformers", ["acme/shoes"])
    assert data.base_model is None  # a folder of the machine
    assert data["co2_eq_emissions"]["emissions"] == 40.0  # 1 h x 0.1 kW x 400 g/kWh
    results = {(r.dataset_config, r.metric_type): r for r in data.eval_results}
    assert len(results) == 4
    ndcg = results["shopper", "ndcg@10"]
    assert (ndcg.metric_value, ndcg.dataset_type, ndcg.dataset_split) == (0.8, "acme/shoes", "validation")
    assert ndcg.metric_args == {"confidence_interval": [0.75, 0.85], "confidence_level": 0.95, "num_queries": 500}

    assert "| shopper | 500 | ndcg@10 | **0.800** [0.750, 0.850] | BM25: 0.500 | +0.300 [+0.250, +0.350] |" in text
    assert "query_to_product_recall@10 0.750" in text  # of the best validation, not of the last
    assert "finetune: 20 steps in 1.00 h" in text and "about 40 g of CO2" in text and "two cores" in text
    assert "`{colour} {kind}`" in text and "synthetic" in text
    assert "2112.07209" in text and "APWeb-WAIM" in text
    assert 'name, revision = "alice/search", "' + "f" * 40 in text
    command = text.split("```bash\n")[1].split("```")[0]
    assert "--stage finetune" in command and "--learning_rate 0.0004" in command
    assert "--dataset_name acme/shoes catalogue.csv" in command and "--query_templates '{colour} {kind}'" in command
    assert "weight_decay" not in command  # a default
    assert "train_data" not in command and "(64 products, SHA-256 0123)" in text
    assert "/home/alice" not in text and str(run) not in text
    assert not is_edited(text)


def test_what_isn_t_known_is_said_not_made_up(run: Path) -> None:
    text = write_card("alice/search", read_stages(run), None)
    assert "co2_eq_emissions" not in text and "Emissions: not estimated" in text
    assert "model-index" not in text and "Not measured yet" in text
    assert "Hardware: not recorded" in text
    assert "no record of its training" in write_card("alice/search", [], None)
    with pytest.raises(ValueError, match="both --power_watts and --carbon_intensity"):
        Power(watts=100)
    with pytest.raises(ValueError, match="--power_watts must be positive, got -1"):
        Power(watts=-1, carbon_intensity=400)


def test_the_stage_before_is_told_too(save: Callable[..., Path], tmp_path: Path) -> None:
    first, second = save(tmp_path / "pretrained"), save(tmp_path / "finetuned")
    for folder, changes in ((first, {"stage": "pretrain"}), (second, {"model_name_or_path": str(first)})):
        settings = json.loads((folder / "training_args.json").read_text())
        (folder / "training_args.json").write_text(json.dumps(settings | changes))
    stages = read_stages(second)
    assert [stage.settings["stage"] for stage in stages] == ["pretrain", "finetune"]
    assert isinstance(stages[0], Stage) and stages[0].steps == 20
    text = write_card("alice/search", stages, None, power=Power(None, 100, 400))
    assert "| setting | pretrain | finetune |" in text and "about 80 g" in text


def test_folders_that_are_gone_are_no_ids_on_the_hub(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "shoes").mkdir(parents=True)  # the name of a dataset on the Hub, too
    settings = json.loads((run / "training_args.json").read_text())
    settings |= {"backbone": "berts/tiny", "dataset_name": ["acme/shoes", "secret/shop"]}
    settings |= {"places": {"berts/tiny": "/home/alice/berts/tiny", "secret/shop": "/home/alice/secret/shop"}}
    (run / "training_args.json").write_text(json.dumps(settings))
    report = report_of("0" * 64)
    report["dataset"] |= {"name": "secret/test", "local": True}
    text = write_card("alice/search", read_stages(run), report, flags=default_settings())
    data = ModelCard(text).data
    assert data.base_model is None and data.datasets == ["acme/shoes"]
    assert {result.dataset_type for result in data.eval_results} == {"test"}
    assert "--dataset_name acme/shoes shop" in text and "(`test`)" in text
    assert "secret" not in text and "/home/alice" not in text
    report["dataset"] |= {"name": "acme/shoes", "local": False}
    text = write_card("alice/search", read_stages(run), report)
    assert {result.dataset_type for result in ModelCard(text).data.eval_results} == {"acme/shoes"}
    # Versions that recorded no places: what is there now is a folder.
    settings.pop("places")
    (run / "training_args.json").write_text(json.dumps(settings | {"dataset_name": ["acme/shoes", "acme/bags"]}))
    assert ModelCard(write_card("alice/search", read_stages(run), None)).data.datasets == ["acme/bags"]


def test_a_card_edited_here_is_published_as_it_is(hub: Hub, api: HfApi, run: Path) -> None:
    send(api, run)
    edited = (run / "README.md").read_text().replace("## Limits", "## What to beware of")
    (run / "README.md").write_text(edited)
    send(api, run)
    assert hub.content("alice/acebert", "README.md").decode() == edited == (run / "README.md").read_text()
    again = edited.replace("## What to beware of", "## Beware")
    (run / "README.md").write_text(again)
    send(api, run)
    assert hub.content("alice/acebert", "README.md").decode() == again == (run / "README.md").read_text()
    (run / "README.md").unlink()  # as in the folder of another run
    send(api, run)
    assert hub.content("alice/acebert", "README.md").decode() == again == (run / "README.md").read_text()
    send(api, run, overwrite_card=True)
    assert b"## Limits" in hub.content("alice/acebert", "README.md")


def test_pictures_that_a_card_shows_go_with_it(hub: Hub, api: HfApi, run: Path) -> None:
    for name in ("plots/loss.png", "hidden.png"):
        (run / name).parent.mkdir(exist_ok=True)
        draw("shirt", "red", 0).save(run / name)
    draw("shirt", "red", 0).save(run.parent / "outside.png")
    shown = "plots/loss.png", "../outside.png", str(run.parent / "outside.png"), "missing.png", "https://x.org/a.png"
    (run / "README.md").write_text("".join(f"![a picture]({name})\n" for name in shown))
    send(api, run)
    assert {name for name in tree(hub) if name.endswith(".png")} == {"plots/loss.png"}


def test_a_card_edited_on_the_hub_is_kept(hub: Hub, api: HfApi, save: Callable[..., Path], tmp_path: Path) -> None:
    send(api, save(tmp_path / "one"))
    theirs = b"---\nlicense: mit\n---\n\n# Ours\n"
    api.upload_file(path_or_fileobj=theirs, path_in_repo="README.md", repo_id="alice/acebert")
    send(api, save(tmp_path / "two", seed=1))
    assert hub.content("alice/acebert", "README.md") == theirs == (tmp_path / "two" / "README.md").read_bytes()
    assert hub.content("alice/acebert", "model.safetensors") == (tmp_path / "two" / "model.safetensors").read_bytes()
    (tmp_path / "two" / "README.md").write_text("# Mine\n")
    send(api, tmp_path / "two")
    assert hub.content("alice/acebert", "README.md") == theirs
    assert (tmp_path / "two" / "README.md").read_text() == "# Mine\n"
    send(api, tmp_path / "two", overwrite_card=True)
    assert b"## Limits" in hub.content("alice/acebert", "README.md")


# ----------------------------------------------------------------------------------------------------------------------
# The Space and its catalogue
# ----------------------------------------------------------------------------------------------------------------------

MODEL = Published("alice/acebert", "a" * 40)


@pytest.fixture
def catalog_of_another(tmp_path: Path) -> Path:
    """The files of a catalogue, without products."""
    folder = tmp_path / "catalog"
    for name in ("products/00000/part-00000.parquet", "changes/00001.parquet", "index/00000/points", "lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"PAR1" + name.encode())
    (folder / "README.md").write_text("---\nconfigs: []\n---\n")
    made_by = {"name": "/home/alice/run", "revision": None, "product_weights_sha256": "1" * 64}
    settings = {"model": made_by, "index": "http://10.0.0.7:6333/products", "dim": 16}
    (folder / "catalog.json").write_text(json.dumps(settings))
    return folder


def test_the_space_holds_what_it_imports_and_the_model_s_commit(hub: Hub, api: HfApi) -> None:
    open_repository(api, "search", "space")
    publish_space(api, "alice/search", MODEL, Published("alice/products", "b" * 40), {"examples": "red shoes"})
    files = tree(hub, "alice/search", kind="spaces")
    content = partial(hub.content, "alice/search", kind="spaces")
    assert json.loads(content("settings.json")) == {
        "model_name_or_path": "alice/acebert",
        "revision": "a" * 40,
        "examples": "red shoes",
        "catalog": "alice/products",
        "catalog_revision": "b" * 40,
    }
    card = ModelCard(content("README.md").decode()).data
    assert (card["models"], card["datasets"], card["sdk"]) == (["alice/acebert"], ["alice/products"], "gradio")
    requirements = [line for line in content("requirements.txt").decode().splitlines() if not line.startswith("#")]
    assert requirements and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in requirements)
    space = ROOT / "space"
    own = {
        path for path in space.rglob("*") if path.suffix in (".py", ".css", ".js", ".html") and path.name != "app.py"
    }
    assert len(own) > 40 and (space / "templates" / "card.html") in own
    assert files >= {f"acebert/space/{path.relative_to(space).as_posix()}" for path in own} | {"app.py"}
    assert "acebert/space/app.py" not in files
    assert files >= {
        "acebert/__init__.py",
        "acebert/catalog/product_catalog.py",
        "acebert/catalog/wordnet.txt.gz",
        "LICENSE",
    }
    assert not files & {"acebert/train_accelerate.py", "acebert/conftest.py", "acebert/hub/publishing.py"}
    assert not any("__pycache__" in name or name.startswith("tests") for name in files)


def test_every_module_that_the_space_imports_is_there(tmp_path: Path) -> None:
    files = space_files(MODEL)
    for name, file in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    trees = [ast.parse((tmp_path / name).read_text(encoding="utf-8")) for name in files if name.endswith(".py")]
    imported = {
        node.module
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("acebert.")
    }
    modules = [tmp_path.joinpath(*name.split(".")) for name in imported]
    assert all(path.with_suffix(".py").is_file() or (path / "__init__.py").is_file() for path in modules)
    assert len(modules) > 20


def test_the_app_brings_the_same_parts_of_the_package_as_the_publication() -> None:
    """The app can't import the list: it has to work before the package is there."""
    assert (app.PACKAGE_PARTS, app.SPACE_PARTS) == (publishing.PACKAGE_PARTS, publishing.SPACE_PARTS)


def test_what_was_changed_on_the_space_s_page_stays(hub: Hub, api: HfApi) -> None:
    open_repository(api, "search", "space")
    publish_space(api, "alice/search", MODEL)
    readme = hub.content("alice/search", "README.md", kind="spaces").decode()
    theirs = readme.replace("title: ACE-BERT product search", "title: Our shop").replace("gradio\n", "docker\n", 1)
    assert theirs != readme
    api.upload_file(
        path_or_fileobj=theirs.encode(), path_in_repo="README.md", repo_id="alice/search", repo_type="space"
    )
    publish_space(api, "alice/search", Published("alice/acebert", "c" * 40), settings={"catalog": "acme/shoes"})
    card = ModelCard(hub.content("alice/search", "README.md", kind="spaces").decode()).data
    assert (card["title"], card["sdk"], card["datasets"]) == ("Our shop", "gradio", ["acme/shoes"])


def test_a_catalogue_goes_up_without_its_index_and_its_maker_s_paths(
    hub: Hub, api: HfApi, catalog_of_another: Path
) -> None:
    open_repository(api, "products", "dataset")
    publish_catalog(api, catalog_of_another, "alice/products", MODEL)
    assert tree(hub, "alice/products", kind="datasets") == {
        "README.md",
        "catalog.json",
        "changes/00001.parquet",
        "products/00000/part-00000.parquet",
    }
    settings = json.loads(hub.content("alice/products", "catalog.json", kind="datasets"))
    assert (settings["model"]["name"], settings["model"]["revision"]) == (MODEL.repo_id, MODEL.revision)
    assert settings["model"]["product_weights_sha256"] == "1" * 64 and settings["index"] == "memory"

    (catalog_of_another / "products" / "00000").rename(catalog_of_another / "products" / "00001")
    publish_catalog(api, catalog_of_another, "alice/products", MODEL)
    products = [name for name in tree(hub, "alice/products", kind="datasets") if name.startswith("products")]
    assert products == ["products/00001/part-00000.parquet"]  # the old ones would be read, too
    (catalog_of_another / "building.json").touch()
    with pytest.raises(ValueError, match="no finished catalogue"):
        catalog_files(catalog_of_another)


# ----------------------------------------------------------------------------------------------------------------------
# The commands
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def as_alice(api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "HfApi", lambda: api)
    monkeypatch.setattr(train_accelerate, "HfApi", lambda: api)


def test_one_command_publishes_model_and_space(as_alice: None, hub: Hub, api: HfApi, run: Path, tmp_path: Path) -> None:
    weights = weights_sha256(AceBertModel.from_pretrained(run))
    (tmp_path / "report.json").write_text(json.dumps(report_of(weights)))
    arguments = ["--model_dir", str(run), "--repo_id", "acebert", "--report", str(tmp_path)]
    publish.main([*arguments, "--space_id", "search", "--tag", "v1", "--space_settings", "title_column=name"])
    card = ModelCard(hub.content("alice/acebert", "README.md").decode())
    assert {result.metric_value for result in card.data.eval_results} == {0.8, 0.6}
    settings = json.loads(hub.content("alice/search", "settings.json", kind="spaces"))
    commit = hub.repository("alice/acebert").resolve("v1")
    assert settings == {"model_name_or_path": "alice/acebert", "revision": commit, "title_column": "name"}

    api.create_repo("alice/shoes", repo_type="dataset")
    publish.main([*arguments, "--space_id", "search", "--catalog", "alice/shoes"])
    settings = json.loads(hub.content("alice/search", "settings.json", kind="spaces"))
    shoes = hub.repository("alice/shoes", "datasets").resolve("main")
    assert (settings["catalog"], settings["catalog_revision"]) == ("alice/shoes", shoes)


def test_the_query_encoder_goes_with_it_and_loads_as_the_card_says(
    as_alice: None, hub: Hub, run: Path, tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    arguments = ["--model_dir", str(run), "--repo_id", "acebert"]
    publish.main([*arguments, "--query_encoder"])
    card = hub.content("alice/acebert", "README.md").decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card.split("### Queries alone")[1], re.DOTALL)
    found: dict[str, Any] = {}
    with mock.patch.dict(os.environ, {"HF_ENDPOINT": hub.url}):
        exec(snippet.replace("snapshot_download(", f"snapshot_download(endpoint={hub.url!r}, repo_id="), found)
    assert not list(Path(found["folder"]).rglob("*.py"))
    queries = tiny_processor(text=["striped red t-shirt"], return_tensors="pt")
    with torch.no_grad():
        expected = AceBertModel.from_pretrained(run).get_text_features(**queries).pooler_output
    assert np.abs(found["query_vectors"] - expected.numpy()).max() <= 1e-6

    publish.main(arguments)  # beside other weights it would be another model's
    assert not [name for name in tree(hub) if name.startswith("query/")]
    assert "SentenceTransformer" not in hub.content("alice/acebert", "README.md").decode()


def test_a_dry_run_lists_the_files_and_asks_nobody(
    as_alice: None, hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish.main(["--model_dir", str(run), "--repo_id", "acebert", "--space_id", "search", "--dry_run"])
    listed = capsys.readouterr().out
    size = (run / "model.safetensors").stat().st_size
    assert re.search(rf"{size:,}  model\.safetensors\n", listed)
    assert "README.md" in listed and "settings.json" in listed and "acebert/catalog/product_catalog.py" in listed
    assert ".env" not in listed and "checkpoints" not in listed
    assert not hub.requests and not (run / "README.md").exists()


def test_a_card_to_read_first(as_alice: None, hub: Hub, run: Path) -> None:
    arguments = ["--model_dir", str(run), "--repo_id", "acebert", "--card_only"]
    publish.main(arguments)
    assert not hub.requests and "# acebert" in (run / "README.md").read_text()
    (run / "README.md").write_text("mine")
    with pytest.raises(SystemExit, match="edited by hand: --overwrite_card"):
        publish.main(arguments)
    assert (run / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--report", "nowhere.json"], "--report nowhere.json is no file"),
        (["--report", __file__], r"--report .*test_publishing\.py can't be read \(Extra data"),
        (["--space_settings", "port=1"], "takes name=value with the names split"),
        (["--catalog", "acme/shoes"], "add --space_id"),
        (["--space_id", "search", "--catalog", "acme/missing"], "neither a folder here nor a dataset on http"),
        (
            ["--space_id", "search", "--catalog", "build/my/catlog"],
            "build/my/catlog is neither a folder here nor the name",
        ),
        (["--space_id", "search", "--catalog_id", "c"], "--catalog_id names the repository of a catalogue's folder"),
        (["--space_id", "taken"], "alice/taken exists and holds something else"),
        (["--space_id", "a/b/c"], "a/b/c can't be published"),
        (["--power_watts", "100"], "both --power_watts and --carbon_intensity"),
    ],
)
def test_wrong_flags_are_named(
    changes: list[str], message: str, as_alice: None, hub: Hub, api: HfApi, run: Path
) -> None:
    api.create_repo("alice/taken", repo_type="space", space_sdk="gradio")
    api.upload_file(path_or_fileobj=b"print()", path_in_repo="app.py", repo_id="alice/taken", repo_type="space")
    before = {path for path in hub.folder.rglob("*")}
    with pytest.raises(SystemExit, match=message):
        publish.main(["--model_dir", str(run), "--repo_id", "acebert", *changes])
    assert {path for path in hub.folder.rglob("*")} == before  # nothing was made


def test_a_report_or_a_catalogue_of_other_weights_is_refused(
    as_alice: None, hub: Hub, run: Path, tmp_path: Path, catalog_of_another: Path
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report_of("0" * 64)))
    arguments = ["--model_dir", str(run), "--repo_id", "acebert"]
    with pytest.raises(SystemExit, match="--report was made with runs/mine, whose weights"):
        publish.main([*arguments, "--report", str(tmp_path)])
    with pytest.raises(SystemExit, match="--catalog was made with /home/alice/run, whose weights"):
        publish.main([*arguments, "--space_id", "search", "--catalog", str(catalog_of_another)])
    assert not hub.requests


def training(backbone: str, catalog_folder: Path, output_dir: Path) -> list[str]:
    flags = {
        "stage": "finetune",
        "backbone": backbone,
        "dataset_name": catalog_folder,
        "output_dir": output_dir,
        "validation_split": "validation",
        "query_templates": "{colour} {kind}",
        "patch_size": 8,
        "max_num_patches": 12,
        "projection_dim": 16,
        "per_device_batch_size": 16,
        "max_train_steps": 2,
        "dataloader_num_workers": 0,
        "mixed_precision": "no",
    }
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def test_training_publishes_its_best_model(
    as_alice: None, hub: Hub, backbone: str, catalog_folder: Path, tmp_path: Path
) -> None:
    arguments = training(backbone, catalog_folder, tmp_path / "shoe-search")
    train_accelerate.main([*arguments, "--push_to_hub", "--hub_private_repo"])
    assert tree(hub, "alice/shoe-search") == CODE | SETTINGS | {"model.safetensors", "LICENSE", "README.md"}
    assert hub.repository("alice/shoe-search").settings["private"]
    card = hub.content("alice/shoe-search", "README.md").decode()
    assert "finetune: 2 steps" in card and "query_to_product_recall@10" in card and str(tmp_path) not in card


def test_training_without_a_token_ends_before_it_begins(
    hub: Hub, backbone: str, catalog_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_accelerate, "HfApi", lambda: HfApi(endpoint=hub.url))
    with pytest.raises(SystemExit, match=r"--push_to_hub: There is no token .* `hf auth login`"):
        train_accelerate.main([*training(backbone, catalog_folder, tmp_path / "run"), "--push_to_hub"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_killed_command_goes_on(hub: Hub, save: Callable[..., Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "run", shard_size="30KB")
    command = [sys.executable, "-m", "acebert", "publish", "--model_dir", folder, "--repo_id", "acebert"]
    reached, killed = threading.Event(), threading.Event()

    def wait(oid: str) -> None:
        if len(hub.received) > 2:
            reached.set()
            killed.wait(120)
            raise ConnectionError

    hub.halfway = wait
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(hub, tmp_path, HF_TOKEN="hf_alice"))
    assert reached.wait(120)
    process.kill()
    process.wait()
    killed.set()
    hub.halfway = None
    arrived = {oid: count for oid, count in hub.received.items() if (hub.folder / "objects" / oid).exists()}
    assert arrived and "config.json" not in tree(hub)

    subprocess.run(command, cwd=tmp_path, env=environment(hub, tmp_path, HF_TOKEN="hf_alice"), check=True, timeout=300)
    assert all(hub.received[oid] == count for oid, count in arrived.items())
    shards = [name for name in tree(hub) if name.endswith(".safetensors")]
    assert len(shards) > len(arrived)
    assert all(hub.content("alice/acebert", name) == (folder / name).read_bytes() for name in shards)


# As `python app.py` in a Space, where the package is not installed.
SPACE = """
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, ".")
sys.argv = ["app.py", "--port", sys.argv[1]]
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_published_space_searches_its_catalogue_with_its_model(
    as_alice: None, hub: Hub, api: HfApi, run: Path, catalog_folder: Path, tmp_path: Path, unused_tcp_port: int
) -> None:
    evaluated = ["--dataset_name", str(catalog_folder), "--title_column", "title", "--attribute_columns", "kind"]
    options = ["--text_baselines", "none", "--no_plots", "--output_dir", str(tmp_path / "evaluation")]
    evaluate_accelerate.main(["--model_name_or_path", str(run), *evaluated, *options])
    model = AceBertModel.from_pretrained(run, dtype=torch.float32)
    processor = AceBertProcessor.from_pretrained(run)
    products = load_dataset(str(catalog_folder), split="train")
    catalog = ProductCatalog.build(model, processor, products, tmp_path / "catalog", title_column="title")
    expected = [hit.id for hit in catalog.search("red shirt", top_k=5)]
    catalog.close()
    arguments = ["--model_dir", str(run), "--repo_id", "acebert", "--report", str(tmp_path / "evaluation")]
    publish.main([*arguments, "--space_id", "search", "--catalog", str(tmp_path / "catalog")])
    card = ModelCard(hub.content("alice/acebert", "README.md").decode())
    assert {result.dataset_config for result in card.data.eval_results} == {"kind-to-product"}

    api.snapshot_download("alice/search", repo_type="space", local_dir=tmp_path / "space")
    with (tmp_path / "space.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SPACE, str(unused_tcp_port)],
            cwd=tmp_path / "space",
            env=environment(hub, tmp_path),
            stdout=log,
            stderr=log,
        )
    try:
        hits = ask(unused_tcp_port, process)
    finally:
        process.terminate()
        process.wait()
    assert [hit["id"] for hit in hits] == expected, (tmp_path / "space.log").read_text()
    revision = json.loads((tmp_path / "space" / "settings.json").read_text())["revision"]
    assert (tmp_path / "home" / "hub" / "models--alice--acebert" / "snapshots" / revision).is_dir()


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def ask(port: int, space: subprocess.Popen) -> list[dict[str, Any]]:
    """Searches a Space once it listens; nothing where it ended before."""
    while space.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                client = Client(f"http://127.0.0.1:{port}", verbose=False)
                return client.predict(query="red shirt", count=5, api_name="/search")
        time.sleep(0.2)
    return []
