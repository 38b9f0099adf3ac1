"""A catalogue whose index is on a Qdrant server, while server, collection or network are not as they should be."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catalog_products import COUNT, ids
from datasets import Dataset
from qdrant_client import models
from qdrant_server import QdrantStandIn

from acebert.catalog import ProductCatalog, live_index, opening
from acebert.catalog import build as building
from acebert.catalog.indexes.connection import IndexUnavailableError
from acebert.catalog.live_index import ChangeKeptError

QUICK = {"timeout": 1, "retries": 1, "grpc": False}
Build = Callable[..., ProductCatalog]


@pytest.fixture
def url(qdrant: QdrantStandIn) -> str:
    return f"{qdrant.url}/products"


@pytest.fixture
def never_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*args: Any) -> None:
        raise AssertionError("products were encoded before the server was asked")

    monkeypatch.setattr(building, "write_parts", encode)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    for module in (opening, live_index, building):
        monkeypatch.setattr(module.logger, "warning", told.append)
    return told


def wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def only_collection(qdrant: QdrantStandIn) -> str:
    (name,) = [name for name, target in qdrant.names().items() if target is None]
    return name


# ----------------------------------------------------------------------------------------------------------------------
# Before the first photo is read
# ----------------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_down_is_told_before_anything_is_encoded(
    build: Build, qdrant: QdrantStandIn, url: str, tmp_path: Path, never_encodes: None
) -> None:
    qdrant.stop()
    with pytest.raises(IndexUnavailableError, match=f"{qdrant.url}, asked to tell its version: it can't be reached"):
        build(index=url, index_options=QUICK)
    assert not (tmp_path / "catalog").exists()


def test_so_are_a_missing_key_and_an_old_server(
    build: Build, qdrant: QdrantStandIn, url: str, never_encodes: None
) -> None:
    qdrant.key = "secret"
    with pytest.raises(PermissionError, match="it needs a key"):
        build(index=url)
    qdrant.version = "1.12.0"
    with pytest.raises(RuntimeError, match=r"is version 1\.12\.0, and at least 1\.16 is needed"):
        build(index=url, index_options={"api_key": "secret"})


def test_so_is_a_name_that_belongs_to_another(
    build: Build, qdrant: QdrantStandIn, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(index=url)
    name = only_collection(qdrant)
    monkeypatch.setattr(building, "write_parts", None)
    for settings in ({}, {"overwrite": True}):  # overwrite is of what is in the folder
        with pytest.raises(FileExistsError, match=f"'products' on .* belongs to another: it stands for '{name}'"):
            build(index=url, path=tmp_path / "second", **settings)
    assert not (tmp_path / "second").exists()
    vectors = {"product": models.VectorParams(size=3, distance=models.Distance.DOT)}
    qdrant.do(lambda store: store.create_collection("mine", vectors))
    with pytest.raises(FileExistsError, match="belongs to another: it is a collection that no catalogue made"):
        build(index=f"{qdrant.url}/mine", path=tmp_path / "second")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"index": "http://user:word@localhost/a"}, "user or password"),
        ({"index": "http://localhost/a?b=c"}, "'b=c', which has no meaning"),
        ({"index": "http://localhost/a", "index_options": {"shards": 2}}, "Unknown index option 'shards'"),
        ({"index_options": {"timeout": 2}}, "index_options are for a server's index, and index is 'edge'"),
    ],
)
def test_so_are_wrong_settings(build: Build, never_encodes: None, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_when_the_server_goes_down_meanwhile_what_was_encoded_stays(
    build: Build, qdrant: QdrantStandIn, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts = building.write_parts

    def then_stop(*args: Any) -> None:
        write_parts(*args)
        qdrant.stop()

    with monkeypatch.context() as patch, pytest.raises(IndexUnavailableError):
        patch.setattr(building, "write_parts", then_stop)
        build(index=url, index_options=QUICK)
    qdrant.start()
    with ProductCatalog.load(tmp_path / "catalog") as opened:
        assert len(opened) == COUNT and qdrant.names()["products"] == only_collection(qdrant)


# ----------------------------------------------------------------------------------------------------------------------
# Replacing
# ----------------------------------------------------------------------------------------------------------------------


def test_overwriting_leaves_the_old_catalogue_in_use_until_the_new_one_is_complete(
    build: Build, qdrant: QdrantStandIn, url: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(index=url).close()
    old = only_collection(qdrant)
    reader = ProductCatalog.load(tmp_path / "catalog", read_only=True)
    expected = ids(reader.search(like=100))
    fill_index, seen = opening.fill_index, []

    def fill_and_look(*args: Any) -> None:
        seen.append((qdrant.names()["products"], ids(reader.search(like=100)), reader.photo(reader.get(100))))
        fill_index(*args)

    monkeypatch.setattr(opening, "fill_index", fill_and_look)
    fewer = build(dataset.select(range(10)), index=url, overwrite=True)
    assert seen == [(old, expected, seen[0][2])] and seen[0][2]
    assert len(fewer) == 10 and fewer.path == tmp_path / "catalog"
    new = only_collection(qdrant)
    assert new != old and qdrant.names()["products"] == new
    assert [path.name for path in tmp_path.iterdir()] == ["catalog"]
    with pytest.raises(FileNotFoundError, match=f"asked to count in '{old}': it isn't there"):
        len(reader)
    reader.close()


@pytest.mark.parametrize("where", ["write_parts", "_make_index", "finish_replacing", "_remove_index"])
@pytest.mark.parametrize("index", ["server", "edge"])
def test_a_replacement_that_is_stopped_leaves_the_old_one_and_goes_on(
    build: Build,
    qdrant: QdrantStandIn,
    url: str,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    index: str,
) -> None:
    index = url if index == "server" else index
    build(index=index).close()
    real, calls = getattr(building, where), []

    def killed(*args: Any) -> Any:
        calls.append(1)
        if where == "finish_replacing" and len(calls) == 1:  # it looks for what an earlier call left first
            return real(*args)
        raise KeyboardInterrupt

    fewer = dataset.select(range(10))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, where, killed)
        build(fewer, index=index, overwrite=True)
    with ProductCatalog.load(tmp_path / "catalog") as opened:
        assert len(opened) == (10 if where == "_remove_index" else COUNT)
        assert ids(opened.search(like=100))
    again = build(fewer, index=index, overwrite=True)
    assert len(again) == 10 and [path.name for path in tmp_path.iterdir()] == ["catalog"]
    if index == url:
        assert qdrant.names()["products"] in qdrant.names()


def test_a_kill_between_the_two_renames_is_made_good(build: Build, tmp_path: Path) -> None:
    build().close()
    (tmp_path / "catalog").rename(tmp_path / "catalog.replacement")
    with ProductCatalog.load(tmp_path / "catalog") as opened:
        assert len(opened) == COUNT


def test_a_catalogue_that_is_being_changed_is_not_replaced(build: Build, never_encodes: None, monkeypatch: Any) -> None:
    monkeypatch.undo()
    catalog = build()
    with pytest.raises(RuntimeError, match=r"has .*catalog open for changes: close it there before replacing it"):
        build(overwrite=True)
    assert len(catalog) == COUNT


def test_from_a_server_to_the_embedded_index(build: Build, qdrant: QdrantStandIn, url: str) -> None:
    build(index=url).close()
    assert len(build(overwrite=True)) == COUNT and qdrant.names() == {}


# ----------------------------------------------------------------------------------------------------------------------
# Opening
# ----------------------------------------------------------------------------------------------------------------------


def test_a_server_that_lost_its_disk_is_filled_again(
    build: Build, qdrant: QdrantStandIn, url: str, warned: list[str], tmp_path: Path
) -> None:
    catalog = build(index=url)
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    catalog.delete([100])
    expected = ids(catalog.search("blue mug", top_k=COUNT))
    catalog.close()
    qdrant.lose_disk()
    with pytest.raises(ValueError, match="lacks this catalogue still: load it without read_only first"):
        ProductCatalog.load(catalog.path, read_only=True)
    encoder = catalog._encoder
    with ProductCatalog.load(catalog.path, encoder.model, encoder.processor) as opened:
        assert ids(opened.search("blue mug", top_k=COUNT)) == expected and 7 in opened and 100 not in opened
    assert len(warned) == 1 and "it lost its disk, or the collection was removed. It is filled again from" in warned[0]
    assert qdrant.names()["products"] == only_collection(qdrant)


@pytest.mark.parametrize("change", ["fewer", "more"])
def test_a_collection_with_other_products_is_filled_again(
    build: Build, qdrant: QdrantStandIn, url: str, warned: list[str], change: str
) -> None:
    """As one that was restored from an older snapshot."""
    catalog = build(index=url)
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    catalog.close()
    name = only_collection(qdrant)
    if change == "fewer":
        points = qdrant.do(lambda store: store.scroll(name, limit=5))[0]
        qdrant.do(lambda store: store.delete(name, [point.id for point in points]))
    else:
        point = models.PointStruct(id=5, vector={"product": [1.0] * 16}, payload={})
        qdrant.do(lambda store: store.upsert(name, [point]))
    with ProductCatalog.load(catalog.path) as opened:
        assert len(opened) == COUNT + 1 and 7 in opened and opened.photo(opened.get(100))
    assert len(warned) == 1 and f"has {COUNT - 4 if change == 'fewer' else COUNT + 2} products" in warned[0]


def test_a_collection_that_another_made_is_refused(build: Build, qdrant: QdrantStandIn, url: str) -> None:
    catalog = build(index=url)
    catalog.close()
    name = only_collection(qdrant)
    vectors = {"product": models.VectorParams(size=16, distance=models.Distance.DOT)}
    qdrant.do(lambda store: (store.delete_collection(name), store.create_collection(name, vectors)))
    with pytest.raises(ValueError, match=f"'{name}' on .* isn't this index's: ") as caught:
        ProductCatalog.load(catalog.path)
    for part in ("compared by Dot", "no vectors 'title'", "no sparse vectors 'words'", "no catalogue made it"):
        assert part in str(caught.value)


def test_the_metadata_say_whose_a_collection_is(build: Build, qdrant: QdrantStandIn, url: str) -> None:
    catalog = build(index=url)
    name = only_collection(qdrant)
    owner = qdrant.do(lambda store: store.get_collection(name)).config.metadata["acebert"]
    settings = catalog.settings
    assert owner["catalog"] == settings.catalog_id and name == f"products-{settings.catalog_id[:12]}"
    assert owner["product_weights_sha256"] == settings.model["product_weights_sha256"]
    assert owner["attributes"] == catalog.attributes and owner["dim"] == 16 and owner["format"] == 1


def test_options_are_kept_but_for_the_key(build: Build, qdrant: QdrantStandIn, url: str, tmp_path: Path) -> None:
    qdrant.key = "secret"
    options = {"shard_number": 3, "hnsw_ef": 64, "timeout": 3, "api_key": "secret", "grpc": False}
    build(index=url, index_options=options).close()
    assert "secret" not in (tmp_path / "catalog" / "catalog.json").read_text()
    with pytest.raises(PermissionError, match="needs a key"):
        ProductCatalog.load(tmp_path / "catalog")
    with ProductCatalog.load(tmp_path / "catalog", index_options={"api_key": "secret", "retries": 0}) as opened:
        assert len(opened) == COUNT
        used = opened._index.server.options
        assert (used.shard_number, used.hnsw_ef, used.timeout, used.retries) == (3, 64, 3, 0)
    with pytest.raises(ValueError, match="Unknown index option 'key'"):
        ProductCatalog.load(tmp_path / "catalog", index_options={"key": "secret"})


def test_a_catalogue_from_before_there_were_ids_gets_one(build: Build, qdrant: QdrantStandIn, url: str) -> None:
    catalog = build(index="memory")
    catalog.close()
    file = catalog.path / "catalog.json"
    text = file.read_text().replace(f'"catalog_id": "{catalog.settings.catalog_id}"', '"catalog_id": ""')
    file.write_text(text.replace('"index": "memory"', f'"index": "{url}"'))
    with ProductCatalog.load(catalog.path) as opened:
        assert len(opened) == COUNT and only_collection(qdrant) == f"products-{opened.settings.catalog_id[:12]}"


# ----------------------------------------------------------------------------------------------------------------------
# Changing
# ----------------------------------------------------------------------------------------------------------------------


def test_changes_while_the_server_is_down_are_kept_and_applied_in_order_when_it_is_back(
    build: Build, qdrant: QdrantStandIn, url: str
) -> None:
    catalog = build(index=url, index_options=QUICK)
    qdrant.stop()
    with pytest.raises(ChangeKeptError, match=r"kept in .*catalog, the 1\. of those .* as soon as the server .* again"):
        catalog.upsert([{"id": 7, "title": "blue mug"}])
    with pytest.raises(ChangeKeptError, match=r"the 2\. of those that wait .*Don't repeat it.*can't be reached"):
        catalog.upsert([{"id": 7, "title": "red mug"}, {"id": 8, "title": "red bag"}])
    with pytest.raises(ChangeKeptError, match=r"the 3\. of those"):
        catalog.delete([8, 100])
    with pytest.raises(IndexUnavailableError, match="No attribute was changed") as caught:
        catalog.update_attributes({7: {"price": 1}})
    assert not isinstance(caught.value, ChangeKeptError)
    qdrant.start()
    wait_until(lambda: 7 in catalog and 100 not in catalog)  # nobody calls anything but reads
    assert catalog.get(7).title == "red mug" and 8 not in catalog and len(catalog) == COUNT
    catalog.update_attributes({7: {"price": 1}})
    assert catalog.get(7).attributes == {"price": 1}


def test_the_next_change_applies_those_that_wait_first(
    build: Build, qdrant: QdrantStandIn, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "CATCH_UP_EVERY", 60)
    catalog = build(index=url, index_options=QUICK)
    qdrant.stop()
    with pytest.raises(ChangeKeptError):
        catalog.upsert([{"id": 7, "title": "blue mug"}])
    qdrant.start()
    assert catalog.delete([7]) == 1 and 7 not in catalog and len(catalog) == COUNT


def test_changes_that_wait_are_applied_at_the_next_load(build: Build, qdrant: QdrantStandIn, url: str) -> None:
    catalog = build(index=url, index_options=QUICK)
    qdrant.stop()
    with pytest.raises(ChangeKeptError):
        catalog.upsert([{"id": 7, "title": "blue mug"}])
    catalog.close()
    with pytest.raises(IndexUnavailableError):
        ProductCatalog.load(catalog.path)
    qdrant.start()
    with ProductCatalog.load(catalog.path) as opened:
        assert 7 in opened


def test_a_short_restart_is_not_noticed(build: Build, qdrant: QdrantStandIn, url: str) -> None:
    catalog = build(index=url, index_options={"grpc": False})
    qdrant.stop()
    threading.Timer(1.0, qdrant.start).start()
    assert catalog.upsert([{"id": 7, "title": "blue mug"}]) == 1
    assert 7 in catalog


def test_an_optimization_that_the_server_breaks_is_made_good(
    build: Build, qdrant: QdrantStandIn, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = build(index=url, index_options=QUICK)
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    monkeypatch.setattr(live_index, "run_child", _merge_here)
    qdrant.fail(500, times=2, path="/points")
    with pytest.raises(IndexUnavailableError):
        catalog.optimize()
    catalog.close()  # the index may know photos by files that were never switched to
    with ProductCatalog.load(catalog.path) as opened:
        assert len(opened) == COUNT + 1 and opened.photo(opened.get(100))


def _merge_here(path: Path, generation: int, upto: int) -> None:
    live_index.ProductStore(path).merge(upto, generation)


# ----------------------------------------------------------------------------------------------------------------------
# What a search costs
# ----------------------------------------------------------------------------------------------------------------------


def test_a_search_makes_few_requests(build: Build, qdrant: QdrantStandIn, url: str, rows: list[dict[str, Any]]) -> None:
    """However many words a query has, and however many groups its page."""
    catalog = build(index=url, index_options=QUICK)
    text = f"{rows[0]['title']} with words of all kinds in it"

    def requests(**options: Any) -> list[str]:
        qdrant.requests.clear()
        catalog.search(text, **options)
        return [path.split("/", 3)[3] for _, path, _ in qdrant.requests]

    requests()  # what the catalogue holds is read, for a minute
    for options in ({}, {"filters": {"colour": "red"}}):
        asked = requests(**options)
        assert asked.count("points/query/batch") <= 3 and asked.count("points/count") <= 5 and len(asked) <= 8, asked
    assert len(requests(group_by="colour")) <= 10
    qdrant.requests.clear()
    catalog.upsert([{"id": 900, "title": "Zorvex"}])
    assert catalog.search("zorvex")[0].id == 900  # a word that nobody had is looked for each time
