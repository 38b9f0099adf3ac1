"""A catalogue's index moves between engines and servers, and a catalogue is backed up and restored."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catalog_products import COUNT, ids
from datasets import Dataset
from qdrant_server import QdrantStandIn

from acebert import commands
from acebert.catalog import ProductCatalog, moving, snapshots
from acebert.catalog.indexes.connection import IndexUnavailableError
from acebert.catalog.moving import move_index
from acebert.catalog.snapshots import save_snapshot
from acebert.commands import build_catalog

Build = Callable[..., ProductCatalog]


def answers(path: Path, **options: Any) -> tuple[list[Any], list[Any], int]:
    with ProductCatalog.load(path, **options) as opened:
        return ids(opened.search(like=105)), sorted(opened.facets("colour").items()), len(opened)


@pytest.fixture
def changed(build: Build, qdrant: QdrantStandIn, request: pytest.FixtureRequest) -> Path:
    """A closed catalogue with changes that aren't merged."""
    index = getattr(request, "param", "edge")
    catalog = build(index=f"{qdrant.url}/first" if index == "server" else index)
    catalog.upsert([{"id": 7, "title": "blue mug", "colour": "blue"}])
    catalog.delete([100])
    catalog.close()
    return catalog.path


@pytest.mark.parametrize("changed", ["edge", "memory", "server"], indirect=True)
@pytest.mark.parametrize("target", ["edge", "memory", "server"])
def test_an_index_moves_without_encoding(
    changed: Path, qdrant: QdrantStandIn, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(changed)
    index = f"{qdrant.url}/second" if target == "server" else target
    assert move_index(changed, index) == COUNT
    assert answers(changed) == before
    with ProductCatalog.load(changed) as opened:
        assert opened.settings.index == index and 7 in opened and 100 not in opened
        assert opened.photo(opened.get(110))
    assert [name for name in qdrant.names() if name.startswith("first")] == []
    assert ("second" in qdrant.names()) == (target == "server")


@pytest.mark.parametrize("changed", ["edge", "server"], indirect=True)
@pytest.mark.parametrize("step", ["fill_index", "_remove_old", "make_edge_index", "write_applied", "rmtree"])
def test_a_move_that_is_stopped_loses_nothing_and_goes_on(
    changed: Path, qdrant: QdrantStandIn, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    before = answers(changed)
    for target in ("edge", f"{qdrant.url}/second"):
        with monkeypatch.context() as patch:
            patch.setattr(shutil if step == "rmtree" else moving, step, killed)
            with contextlib.suppress(KeyboardInterrupt):  # not every move comes by every step
                move_index(changed, target)
        assert answers(changed) == before
        move_index(changed, target)
        assert answers(changed) == before


def test_a_name_moves_from_one_catalogue_to_the_next_while_the_old_is_searched(
    build: Build, qdrant: QdrantStandIn, dataset: Dataset, tmp_path: Path
) -> None:
    """A rolling upgrade: who has the old catalogue open goes on with it until it is closed and its index removed."""
    url = f"{qdrant.url}/products"
    build(path=tmp_path / "old", index=url).close()
    new = build(dataset.select(range(10)), path=tmp_path / "new")
    new.close()
    reader = ProductCatalog.load(tmp_path / "old", read_only=True)
    with pytest.raises(FileExistsError, match="belongs to another: it stands for 'products-"):
        move_index(tmp_path / "new", url)
    assert answers(tmp_path / "new")[2] == 10
    move_index(tmp_path / "new", url, overwrite=True)
    assert qdrant.names()["products"] == f"products-{new.settings.catalog_id[:12]}"
    assert len(reader) == COUNT and answers(tmp_path / "new")[2] == 10
    with ProductCatalog.load(tmp_path / "old") as old:  # its own collection is there still
        assert len(old) == COUNT
    reader.close()
    move_index(tmp_path / "old", "memory")
    assert list(qdrant.names()) == [f"products-{new.settings.catalog_id[:12]}", "products"]


def test_an_old_collection_can_be_kept(changed: Path, qdrant: QdrantStandIn) -> None:
    move_index(changed, f"{qdrant.url}/first")
    move_index(changed, f"{qdrant.url}/second", keep_old=True)
    assert {"first", "second"} <= qdrant.names().keys()
    move_index(changed, f"{qdrant.url}/second", {"shard_number": 3})  # made again with another option
    assert qdrant.bodies("/collections/second-[^/]*$")[-1]["shard_number"] == 3
    assert answers(changed)[2] == COUNT and "second" in qdrant.names()


def test_moves_that_cannot_be(changed: Path, qdrant: QdrantStandIn) -> None:
    with pytest.raises(ValueError, match="index must be 'edge', 'memory' or a server's URL, got 'faiss'"):
        move_index(changed, "faiss")
    with pytest.raises(ValueError, match="index_options are for a server's index"):
        move_index(changed, "edge", {"timeout": 1})
    with pytest.raises(FileNotFoundError, match="holds no catalogue"):
        move_index(changed.parent, "edge")
    with ProductCatalog.load(changed), pytest.raises(RuntimeError, match=r"Another process has .* open for changes"):
        move_index(changed, "memory")
    qdrant.stop()
    with pytest.raises(IndexUnavailableError):
        move_index(changed, f"{qdrant.url}/products", {"timeout": 1, "retries": 0})
    assert answers(changed)[2] == COUNT


@pytest.mark.parametrize("changed", ["edge", "server"], indirect=True)
def test_a_backup_is_loaded_as_it_was(changed: Path, qdrant: QdrantStandIn, tmp_path: Path) -> None:
    with ProductCatalog.load(changed) as opened:
        before = ids(opened.search(like=110))
        assert save_snapshot(changed, tmp_path / "backup") == 2
        opened.delete([110])
        opened.optimize()
    shutil.rmtree(changed)
    shutil.copytree(tmp_path / "backup", changed)
    with ProductCatalog.load(changed) as opened:
        assert ids(opened.search(like=110)) == before and 7 in opened and 100 not in opened
        assert opened.photo(opened.get(110))


@pytest.mark.parametrize("changed", ["server"], indirect=True)
def test_the_servers_snapshot_is_saved_too(changed: Path, qdrant: QdrantStandIn, tmp_path: Path) -> None:
    save_snapshot(changed, tmp_path / "backup", with_index=True)
    assert (tmp_path / "backup" / "index.snapshot").read_bytes() == b"all points" * 1000
    (applied,) = (tmp_path / "backup" / "index").rglob("applied.json")
    assert applied.read_text() == '{"change": 2, "format": 2}'
    assert qdrant.requests[-1][0] == "DELETE" and "/snapshots/" in qdrant.requests[-1][1]


def test_backups_that_cannot_be(changed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Only a server makes snapshots of its index"):
        save_snapshot(changed, tmp_path / "backup", with_index=True)
    with pytest.raises(FileExistsError, match="is there already"):
        save_snapshot(changed, changed)

    def optimized(store: Any, folder: Path) -> None:
        folder.mkdir()
        raise FileNotFoundError

    monkeypatch.setattr(snapshots, "_copy", optimized)
    with pytest.raises(RuntimeError, match="was optimized each of the 3 times"):
        save_snapshot(changed, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_the_commands(build: Build, qdrant: QdrantStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = build()
    catalog.close()
    path = str(catalog.path)
    url = f"{qdrant.url}/products"
    commands.main(["move-index", "--catalog", path, "--index", url, "--index_options", "shard_number=6", "timeout=2.5"])
    assert f"{COUNT} products of {path} are searched by {url} now." in capsys.readouterr().out
    created = qdrant.bodies("/collections/products-[^/]*$")[0]
    assert created["shard_number"] == 6
    commands.main(["snapshot", "--catalog", path, "--output_dir", str(tmp_path / "backup"), "--with_index"])
    assert "with 0 changes since it was merged" in capsys.readouterr().out
    commands.main(["move-index", "--catalog", path, "--index", "edge"])
    assert qdrant.names() == {}
    with pytest.raises(SystemExit, match="acebert move-index: An index option is written name=value"):
        commands.main(["move-index", "--catalog", path, "--index", url, "--index_options", "shards"])
    with pytest.raises(SystemExit, match="acebert move-index: The key isn't taken as a flag"):
        commands.main(["move-index", "--catalog", path, "--index", url, "--index_options", "api_key=secret"])
    with pytest.raises(SystemExit, match=r"acebert snapshot: .* is there already"):
        commands.main(["snapshot", "--catalog", path, "--output_dir", str(tmp_path / "backup")])


def test_build_catalog_takes_a_servers_options(
    model: Any, tiny_processor: Any, catalog_folder: Path, qdrant: QdrantStandIn, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    flags = ["--dataset_name", str(catalog_folder), "--split", "validation", "--output_dir", str(tmp_path / "catalog")]
    flags += ["--model_name_or_path", str(tmp_path / "checkpoint"), "--index", f"{qdrant.url}/products"]
    build_catalog.main([*flags, "--index_options", "shard_number=6", "replication_factor=2", "quantization=scalar"])
    created = qdrant.bodies("/collections/products-[^/]*$")[0]
    assert (created["shard_number"], created["replication_factor"]) == (6, 2)
    assert created["vectors"]["product"]["quantization_config"]["scalar"]["type"] == "int8"
    with ProductCatalog.load(tmp_path / "catalog") as opened:
        assert len(opened) == 16
        assert opened.settings.index_options == {"shard_number": 6, "replication_factor": 2, "quantization": "scalar"}
