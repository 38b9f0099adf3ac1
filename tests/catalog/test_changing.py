"""A catalogue changes while it is searched, and survives what may happen meanwhile."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from catalog_products import COUNT, ids, reopen
from helpers import draw

from acebert.catalog import ProductCatalog, live_index
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor


def test_changes_are_found_at_once_and_after_a_kill(catalog: ProductCatalog) -> None:
    assert catalog.upsert([{"id": 7, "title": "blue mug", "image": draw("mug", "blue", 0), "price": 3}]) == 1
    assert catalog.upsert([{"id": 100, "title": "green bag", "gender": "women"}]) == 1
    assert catalog.delete([101, 101, 999]) == 1
    catalog.update_attributes({102: {"price": 99.5, "gender": None}, 7: {"colour": "blue"}})

    def check(opened: ProductCatalog) -> None:
        assert len(opened) == COUNT
        assert opened.get(7).attributes == {"price": 3.0, "colour": "blue"}
        assert opened.get(100).title == "green bag" and opened.get(100).attributes == {"gender": "women"}
        assert opened.photo(opened.get(100)) is None and opened.photo(opened.get(7))
        assert 101 not in opened
        assert opened.get(102).attributes["price"] == 99.5 and "gender" not in opened.get(102).attributes
        assert ids(opened.search("mug", filters={"price": (99, 100)})) == [102]
        assert ids(opened.search("blue mug", draw("mug", "blue", 0), top_k=COUNT, filters={"price": 3})) == [7]

    check(catalog)
    with reopen(catalog) as again:
        check(again)


def test_a_change_that_the_index_missed_is_applied_later(
    catalog: ProductCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(live_index, "apply_change", fail)
        catalog.upsert([{"id": 7, "title": "blue mug"}])
    assert 7 not in catalog
    catalog.delete([100])
    assert 7 in catalog and 100 not in catalog


def test_optimizing_merges_the_changes_and_changes_no_answer(
    catalog: ProductCatalog, rows: list[dict[str, Any]]
) -> None:
    catalog.upsert([{"id": 7, "title": "blue mug", "image": draw("mug", "blue", 0)}])
    catalog.upsert([{"id": 7, "title": "red mug", "image": draw("mug", "red", 0)}, {"id": 8, "title": "gone"}])
    catalog.delete([8, 105])
    catalog.update_attributes({7: {"price": 1}, 106: {"price": 2, "sizes": ["xl"]}})
    old = catalog.get(110)
    before = catalog.search("red mug", top_k=COUNT)
    catalog.optimize()
    after = catalog.search("red mug", top_k=COUNT)
    assert [(hit.id, hit.title, hit.attributes) for hit in after] == [(h.id, h.title, h.attributes) for h in before]
    assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before], abs=1e-4)
    assert not list((catalog.path / "changes").iterdir())
    assert catalog.photo(old) == catalog.photo(catalog.get(110))  # it lies elsewhere now
    merged = datasets.load_dataset(str(catalog.path), split="train")
    assert set(merged["id"]) == {row["id"] for row in rows} - {105} | {7}
    assert merged[merged["id"].index(106)]["sizes"] == ["xl"] and merged[merged["id"].index(7)]["price"] == 1
    assert merged[0]["image"].size == (36, 48)
    catalog.delete([7])
    again = reopen(catalog)
    assert 7 not in again and len(again) == COUNT - 1
    again.close()


def test_changes_during_an_optimization_are_kept(catalog: ProductCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    run_child = live_index.run_child

    def change_meanwhile(*args: Any) -> None:
        catalog.upsert([{"id": 7, "title": "blue mug"}])
        with pytest.raises(RuntimeError, match="optimized already"):
            catalog.optimize()
        run_child(*args)
        catalog.delete([100])

    monkeypatch.setattr(live_index, "run_child", change_meanwhile)
    catalog.optimize()
    again = reopen(catalog)
    assert 7 in again and 100 not in again and len(again) == COUNT
    again.close()


def test_a_failed_optimization_leaves_all_as_it_was(catalog: ProductCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("the child died")

    before = ids(catalog.search("red shirt"))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="child died"):
        patch.setattr(live_index, "run_child", fail)
        catalog.optimize()
    assert ids(catalog.search("red shirt")) == before
    catalog.optimize()
    assert ids(catalog.search("red shirt")) == before


def test_beyond_the_exact_size_a_graph_is_made(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    script = (
        "import sys; from acebert.catalog import maintenance as i; i.EXACT_UP_TO = 10; "
        "from pathlib import Path; from acebert.catalog.store import ProductStore; "
        "i.make_edge_index(ProductStore(Path(sys.argv[1])), 0, 0)"
    )
    catalog = build()
    expected = ids(catalog.search("red shirt", top_k=COUNT))
    catalog.close()
    subprocess.run([sys.executable, "-c", script, str(catalog.path)], check=True)
    encoder = catalog._encoder
    again = ProductCatalog.load(catalog.path, encoder.model, encoder.processor)
    assert ids(again.search("red shirt", top_k=COUNT)) == expected
    again.close()


def test_readers_see_whole_products_while_a_writer_changes_them(catalog: ProductCatalog) -> None:
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                hits = catalog.search("red shirt", top_k=10)
                product = catalog.get(7)
                if len(hits) != 10 or (product and product.title != f"mug {product.attributes['stock']}"):
                    wrong.append((hits, product))
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for version in range(20):
        catalog.upsert([{"id": 7, "title": f"mug {version}", "stock": version}])
        assert catalog.get(7).attributes == {"stock": version}
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong[0]


@pytest.mark.parametrize(
    ("product", "message"),
    [
        ({"title": "mug"}, "product 0 has no id"),
        ({"id": "7", "title": "mug"}, "id must be of the type integer"),
        ({"id": 7}, "neither title nor image"),
        ({"id": 7, "title": 3}, "title must be a text or None, got 3"),
        ({"id": 7, "image": b"zzz"}, r"product 0 \(id 7\): image .*no image format"),
        ({"id": 7, "title": "mug", "color": "red"}, r"has \['color'\]: a product has id, title, image and"),
        ({"id": 7, "title": "mug", "price": "3"}, "price.*'3'"),
        ({"id": 7, "title": "mug", "sizes": "xl"}, "sizes"),
    ],
)
def test_bad_products_change_nothing(catalog: ProductCatalog, product: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalog.upsert([product, {"id": 8, "title": "fine"}])
    assert len(catalog) == COUNT and not list((catalog.path / "changes").iterdir())


def test_bad_changes_change_nothing(catalog: ProductCatalog) -> None:
    with pytest.raises(ValueError, match="id 8 is given twice"):
        catalog.upsert([{"id": 8, "title": "a"}, {"id": 8, "title": "b"}])
    with pytest.raises(KeyError, match=r"no products with the ids \[7\]"):
        catalog.update_attributes({100: {"price": 1}, 7: {"price": 1}})
    with pytest.raises(ValueError, match=r"product 100: .*colr"):
        catalog.update_attributes({100: {"colr": "red"}})
    for given in ([{"id": 100, "price": 1}], {100: "red"}):
        with pytest.raises(ValueError, match=r"takes a dict of ids to attributes, as .*, got"):
            catalog.update_attributes(given)
    assert catalog.upsert([]) == 0 and catalog.delete([]) == 0
    assert not list((catalog.path / "changes").iterdir())


WRITER = """
import itertools, sys
from acebert.catalog.product_catalog import ProductCatalog
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor

path, checkpoint, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
model, processor = AceBertModel.from_pretrained(checkpoint), AceBertProcessor.from_pretrained(checkpoint)
catalog = ProductCatalog.load(path, model, processor)
for n in itertools.count(first):
    catalog.upsert([{"id": n, "title": f"mug {n}"}])
    catalog.update_attributes({n: {"stock": n}})
    if n % 3 == 0:
        catalog.delete([n])
    print(n, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("index", ["edge", "memory"])
def test_kill_9_loses_nothing_that_was_done(
    build: Callable[..., ProductCatalog],
    model: AceBertModel,
    tiny_processor: AceBertProcessor,
    tmp_path: Path,
    index: str,
) -> None:
    checkpoint = tmp_path / "checkpoint"
    model.save_pretrained(checkpoint)
    tiny_processor.save_pretrained(checkpoint)
    catalog = build(index=index)
    catalog.close()
    done = 1000
    for acknowledged in (1, 7, 40):
        command = [sys.executable, "-c", WRITER, str(catalog.path), str(checkpoint), str(done + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(acknowledged):
                done = int(writer.stdout.readline())
            writer.kill()
            done = max([done, *map(int, writer.stdout.read().split())])
        with ProductCatalog.load(catalog.path, model, tiny_processor) as opened:
            for n in range(1001, done + 1):
                product = opened.get(n)
                assert (product is None) if n % 3 == 0 else product.attributes == {"stock": n}, n
            assert 0 <= len(opened) - COUNT - sum(n % 3 != 0 for n in range(1001, done + 1)) <= 1  # one was under way
            if done > 1002:
                assert opened.search("mug", filters={"stock": (done - 1, done)})[0].id in (done, done - 1)
