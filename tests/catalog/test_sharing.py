"""One catalogue that several processes search and change at once. Here they are objects, each with its own lock."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from catalog_products import COUNT, ids
from filelock import FileLock

from acebert.catalog import CatalogBusyError, ProductCatalog, live_index
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor

Load = Callable[..., ProductCatalog]


@pytest.fixture
def load(model: AceBertModel, tiny_processor: AceBertProcessor, tmp_path: Path) -> Iterator[Load]:
    with ExitStack() as opened:

        def call(**options: bool) -> ProductCatalog:
            options = options or {"shared": True}
            return opened.enter_context(ProductCatalog.load(tmp_path / "catalog", model, tiny_processor, **options))

        yield call


@pytest.mark.parametrize("index", ["edge", "memory", "server"])
def test_each_sees_what_another_changed(index: str, build: Load, load: Load, request: pytest.FixtureRequest) -> None:
    build(index=request.getfixturevalue("server") if index == "server" else index).close()
    one, other = load(), load()
    one.upsert([{"id": 1, "title": "blue mug"}])
    other.refresh()
    assert len(other) == COUNT + 1 and other.get(1).title == "blue mug"
    assert 1 in ids(other.search("blue mug", using="words"))
    other.update_attributes({1: {"price": 3.0}})
    other.upsert([{"id": 2, "title": "red mug"}])
    one.delete([100])  # sees the changes before its own
    assert len(one) == COUNT + 1 and one.get(1).attributes["price"] == 3.0
    other.refresh()
    assert 100 not in other and len(other) == COUNT + 1
    one.close()
    other.close()
    alone = load(read_only=False)
    assert len(alone) == COUNT + 1 and 100 not in alone and alone.get(2).title == "red mug"


def test_changes_at_once_are_all_kept(build: Load, load: Load) -> None:
    build().close()
    catalogs = [load() for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda i: catalogs[i % 3].upsert([{"id": i, "title": f"mug {i}"}]), range(30)))
    for catalog in catalogs:
        catalog.refresh()
        assert len(catalog) == COUNT + 30
    assert [number for number, _ in catalogs[0]._store.changes(0)] == list(range(1, 31))


def test_a_merge_in_between_is_noticed(build: Load, load: Load) -> None:
    build().close()
    shared = load()
    shared.upsert([{"id": 1, "title": "blue mug"}])
    with load(read_only=False) as alone:
        alone.optimize()
        alone.delete([101])
    shared.refresh()
    assert len(shared) == COUNT and 1 in shared and 101 not in shared
    shared.upsert([{"id": 2, "title": "red mug"}])
    assert shared.photo(shared.get(102)) is not None
    shared.close()
    with load(read_only=False) as alone:
        assert len(alone) == COUNT + 1 and 2 in alone


def test_who_has_it_alone_keeps_others_from_changing_it(
    build: Load, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "SHARED_WAIT", 0.05)
    build().close()
    shared = load()
    with FileLock(shared.path / "lock", thread_local=False):
        with pytest.raises(CatalogBusyError, match=r"has kept .* from being changed for 0\.05 s"):
            shared.upsert([{"id": 1, "title": "blue mug"}])
        assert len(shared.search("shirt")) == 10
    assert shared.upsert([{"id": 1, "title": "blue mug"}]) == 1


def test_what_a_shared_catalogue_can_t(build: Load, load: Load) -> None:
    build().close()
    with pytest.raises(ValueError, match="not both"):
        load(shared=True, read_only=True)
    shared = load()
    with pytest.raises(RuntimeError, match="can't be optimized"):
        shared.optimize()
    shared.close()
    with pytest.raises(RuntimeError, match="closed"):
        shared.delete([1])
