"""The catalogue with a tiny model: made, searched, changed, stopped at bad moments and opened again."""

import copy
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from helpers import draw, product_rows
from peft import LoraConfig, get_peft_model
from PIL import Image as PilImage
from qdrant_client import QdrantClient

from acebert.catalog import build as building
from acebert.catalog import maintenance, product_catalog, store
from acebert.catalog.indexes import qdrant
from acebert.catalog.product_catalog import ProductCatalog
from acebert.catalog.store import FORMAT
from acebert.commands import build_catalog
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.utils.fingerprints import product_weights_sha256, weights_sha256

COUNT = 40


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Products with every kind of attribute, some without title, photo or values."""
    rows = product_rows(COUNT)
    for i, row in enumerate(rows):
        row.pop("hot_query")
        row |= {
            "price": i + 0.5 if i % 5 else None,
            "stock": i % 3,
            "sale": i % 4 == 0,
            "sizes": ["s", "m", "l"][: i % 4],
        }
    rows[3]["title"] = None
    rows[4]["image"] = None
    return rows


FEATURES = Features(
    {name: Value("string") for name in ("title", "kind", "colour", "gender")}
    | {
        "id": Value("int64"),
        "image": Image(),
        "price": Value("float64"),
        "stock": Value("int32"),
        "sale": Value("bool"),
    }
    | {"sizes": List(Value("string"))}
)


@pytest.fixture
def dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows, features=FEATURES)


@pytest.fixture
def model(tiny_config: Callable[..., Any]) -> AceBertModel:
    torch.manual_seed(0)
    return AceBertModel(tiny_config()).eval()


@pytest.fixture
def build(
    model: AceBertModel, tiny_processor: AceBertProcessor, dataset: Dataset, tmp_path: Path
) -> Iterator[Callable[..., ProductCatalog]]:
    opened = []

    def make(dataset: Dataset = dataset, path: Path = tmp_path / "catalog", **settings: Any) -> ProductCatalog:
        catalog = ProductCatalog.build(model, tiny_processor, dataset, path, **settings)
        opened.append(catalog)
        return catalog

    yield make
    for catalog in opened:
        catalog.close()


class LocalServer:
    """A stand-in for a client of a Qdrant server: qdrant-client's local mode, which outlives the catalogue here.

    One call at a time, for there a search beside a change may fail, as it does on no server.
    """

    def __init__(self) -> None:
        self._client, self._turn = QdrantClient(":memory:"), threading.RLock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def in_turn(*args: Any, **kwargs: Any) -> Any:
            with self._turn:
                return call(*args, **kwargs)

        return in_turn

    def close(self) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the stand-in for a Qdrant server."""
    client = LocalServer()
    monkeypatch.setattr(qdrant, "_connect", lambda url, *_: (client, url.rpartition("/")[2]))
    return "http://localhost:6333/products"


@pytest.fixture(params=["edge", "memory", "server"])
def catalog(request: pytest.FixtureRequest, build: Callable[..., ProductCatalog], server: str) -> ProductCatalog:
    return build(index=server if request.param == "server" else request.param)


def reopen(catalog: ProductCatalog, **settings: Any) -> ProductCatalog:
    """As after a kill: nothing of the old one is flushed, only its lock is let go of, as the system does."""
    encoder = catalog._encoder
    catalog._lock.release()
    catalog._index.close()
    catalog._open_index = None
    return ProductCatalog.load(catalog.path, encoder.model, encoder.processor, **settings)


def ids(hits: list[Any]) -> list[Any]:
    return [hit.id for hit in hits]


# ----------------------------------------------------------------------------------------------------------------------
# Searching
# ----------------------------------------------------------------------------------------------------------------------


def test_hits_are_the_nearest_by_the_models_own_vectors(
    catalog: ProductCatalog, rows: list[dict[str, Any]], model: AceBertModel, tiny_processor: AceBertProcessor
) -> None:
    inputs = tiny_processor(
        text=[row["title"] for row in rows], images=[row["image"] for row in rows], return_tensors="pt"
    )
    with torch.no_grad():
        products = model.get_product_features(**inputs).pooler_output
        query = model.get_text_features(**tiny_processor(text=["red shirt"], return_tensors="pt")).pooler_output[0]
        title = model.get_product_features(**tiny_processor.process_products(["a shirt a"], None, return_tensors="pt"))
        image = model.get_image_features(**tiny_processor(images=[rows[0]["image"]], return_tensors="pt"))
    scores = products @ query
    hits = catalog.search("red shirt", top_k=COUNT)
    assert len(hits) == COUNT
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        assert hit.score == pytest.approx(float(scores[hit.id - 100]), abs=2e-3)  # kept in half precision
    first = next(hit for hit in hits if hit.id == 100)
    assert rows[0]["title"] == "a shirt a"
    assert first.title_score == pytest.approx(float(title.pooler_output[0] @ query), abs=2e-3)
    assert first.image_score == pytest.approx(float(image.pooler_output[0] @ query), abs=2e-3)
    assert first.carried_by == ("title" if first.title_score >= first.image_score else "image")
    assert first.attributes == {"kind": "shirt", "colour": "red", "gender": "men", "stock": 0, "sale": True}
    without_title = next(hit for hit in hits if hit.id == 103)
    assert without_title.title is None and without_title.title_score is None and without_title.carried_by is None


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({"colour": "red"}, lambda row: row["colour"] == "red"),
        (
            {"colour": ["red", "blue"], "kind": "shoe"},
            lambda row: row["colour"] in ("red", "blue") and row["kind"] == "shoe",
        ),
        ({"price": (None, 10)}, lambda row: row["price"] is not None and row["price"] <= 10),
        ({"price": {"$gt": 5.5, "$lt": 9}}, lambda row: row["price"] is not None and 5.5 < row["price"] < 9),
        ({"stock": 2, "sale": False}, lambda row: row["stock"] == 2 and not row["sale"]),
        ({"sizes": "l"}, lambda row: "l" in row["sizes"]),
        ({"$not": {"gender": "men"}}, lambda row: row["gender"] != "men"),
        (
            {"$or": [{"kind": "mug"}, {"price": (35, None)}]},
            lambda row: row["kind"] == "mug" or (row["price"] or 0) >= 35,
        ),
    ],
)
def test_filters_let_exactly_the_right_products_through(
    catalog: ProductCatalog, rows: list[dict[str, Any]], filters: dict[str, Any], fits: Callable[[dict[str, Any]], bool]
) -> None:
    right = {row["id"] for row in rows if fits(row)}
    assert right and set(ids(catalog.search("red shirt", top_k=COUNT, filters=filters))) == right
    assert len(catalog.search("red shirt", top_k=len(right) - 1 or 1, filters=filters)) == (len(right) - 1 or 1)


def test_photos_both_products_and_batches(catalog: ProductCatalog, rows: list[dict[str, Any]]) -> None:
    photos = [rows[i]["image"] for i in (0, 1)]
    single = [catalog.search(image=photo, top_k=5) for photo in photos]
    assert [ids(hits) for hits in catalog.search(image=photos, top_k=5)] == [ids(hits) for hits in single]
    both = catalog.search("red shirt", photos[0], top_k=COUNT)
    words, photo = (catalog.search(**query, top_k=COUNT) for query in ({"text": "red shirt"}, {"image": photos[0]}))
    mean = {hit.id: hit.score for hit in words}
    mean = {hit.id: (mean[hit.id] + hit.score) / 2 for hit in photo}
    ratios = [hit.score / mean[hit.id] for hit in both if abs(mean[hit.id]) > 0.1]
    assert np.std(ratios) < 0.02 * np.mean(ratios)  # the mean of the two, but for its length
    similar = catalog.search(like=100, top_k=COUNT)
    assert 100 not in ids(similar) and len(similar) == COUNT - 1
    photo_only = catalog.search(image=photos[0], using="image", top_k=1)[0]
    assert photo_only.score == pytest.approx(1, abs=2e-3)


def test_words_and_ranks_joined(catalog: ProductCatalog, rows: list[dict[str, Any]]) -> None:
    by_words = catalog.search("mug h", using="words", top_k=COUNT)
    assert by_words[0].title == "h mug a"  # the only title with both words
    assert {row["title"] for row in rows if row["title"] and "mug" in row["title"]} <= {hit.title for hit in by_words}
    by_vectors = catalog.search("mug h", top_k=COUNT)
    ranks = {hit.id: 1 / (60 + rank) for rank, hit in enumerate(by_vectors, start=1)}
    for rank, hit in enumerate(by_words, start=1):
        ranks[hit.id] += 1 / (60 + rank)
    joined = catalog.search("mug h", hybrid=True, top_k=5)
    assert [hit.score for hit in joined] == pytest.approx(sorted(ranks.values(), reverse=True)[:5])
    assert all(hit.score == pytest.approx(ranks[hit.id]) for hit in joined)
    men = catalog.search("mug h", hybrid=True, top_k=COUNT, filters={"gender": "men"})
    assert set(ids(men)) == {row["id"] for row in rows if row["gender"] == "men"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "needs a text, an image or both"),
        ({"text": "  "}, "text 0 must hold words, got '  '"),
        ({"text": ["a", 3]}, "text 1 must hold words, got 3"),
        ({"text": []}, "no query in the list"),
        ({"text": "a", "like": 100}, "needs a text, an image or both"),
        ({"text": ["a", "b"], "image": [None]}, "2 texts and 1 images"),
        ({"text": "a", "top_k": 0}, "top_k must be a positive integer, got 0"),
        ({"text": "a", "top_k": True}, "top_k must be a positive integer, got True"),
        ({"text": "a", "using": "photo"}, "using must be one of .*, got 'photo'"),
        ({"like": 100, "hybrid": True}, "needs a text"),
        ({"like": "100"}, "id must be of the type integer.*got '100'"),
        ({"vector": [1.0, 2.0]}, "vector must hold 16 finite numbers"),
        ({"vector": [float("nan")] * 16}, "vector must hold 16 finite numbers"),
        ({"text": "a", "filters": {"color": "red"}}, "color"),
        ({"text": "a", "filters": {"price": "cheap"}}, "price.*'cheap'"),
        ({"image": b"no photo"}, "no image format"),
    ],
)
def test_bad_searches(catalog: ProductCatalog, query: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalog.search(**query)


def test_unknown_product_to_be_like(catalog: ProductCatalog) -> None:
    with pytest.raises(KeyError, match="no product with the id 7"):
        catalog.search(like=7)
    assert 7 not in catalog and 100 in catalog and catalog.get(7) is None


def test_samples_are_of_what_is_there(catalog: ProductCatalog) -> None:
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    catalog.delete([100, 101])
    products, vectors = catalog.sample(COUNT + 5)
    assert {product.id for product in products} == set(range(102, 140)) | {7}
    assert catalog.search(vector=vectors[3], top_k=1)[0].id == products[3].id
    few, _ = catalog.sample(5)
    assert few == products[:5] and catalog.sample(5, seed=1)[0] != few
    assert catalog.count() == COUNT - 1 and catalog.count({"colour": "red"}) == catalog.facets("colour")["red"]


def test_facets_and_photos(catalog: ProductCatalog, rows: list[dict[str, Any]]) -> None:
    counts = {value: sum(row["colour"] == value for row in rows) for value in ("red", "green", "blue", "black")}
    assert catalog.facets("colour") == counts
    assert sum(catalog.facets("gender", {"colour": "red"}).values()) < COUNT
    with pytest.raises(ValueError, match="no attribute 'color'"):
        catalog.facets("color")
    with PilImage.open(io.BytesIO(catalog.photo(catalog.get(100)))) as photo:
        assert photo.size == (36, 48)
    assert catalog.photo(catalog.get(104)) is None


# ----------------------------------------------------------------------------------------------------------------------
# Building
# ----------------------------------------------------------------------------------------------------------------------


def test_an_interrupted_build_goes_on_and_comes_to_the_same(
    build: Callable[..., ProductCatalog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "PART_ROWS", 16)
    monkeypatch.setattr(building, "POOL", 1)
    whole = build(path=tmp_path / "whole", batch_size=4)
    encode, calls = building.Encoder.encode, []

    def interrupted(self: Any, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:  # in the second part
            raise KeyboardInterrupt
        return encode(self, *args)

    monkeypatch.setattr(building.Encoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(batch_size=4)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        ProductCatalog.load(tmp_path / "catalog")
    with pytest.raises(FileExistsError, match="other products, settings or weights"):
        build(batch_size=4, sides=False)
    calls.clear()
    catalog = build(batch_size=4)
    assert len(calls) == 6  # the last 24 of 40 products
    for mine, theirs in zip(catalog._store.parts(), whole._store.parts(), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
    with pytest.raises(FileExistsError, match="holds a catalogue"):
        build()


def test_workers_and_batch_sizes_change_nothing(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    one = build(path=tmp_path / "one", batch_size=40)
    two = build(path=tmp_path / "two", batch_size=7, num_workers=2)
    for mine, theirs in zip(one.search("a", top_k=COUNT), two.search("a", top_k=COUNT), strict=True):
        assert mine.id == theirs.id and mine.score == pytest.approx(theirs.score, abs=1e-3)


def test_bad_rows_are_named_or_listed(
    build: Callable[..., ProductCatalog], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    broken = [{**row, "image": {"bytes": _png(row["image"])} if row["image"] else None} for row in rows[:12]]
    broken[1] |= {"id": 100}
    broken[2] |= {"id": None}
    broken[5] |= {"title": " ", "image": None}
    broken[6] |= {"image": {"bytes": b"not a photo"}}
    broken[7] |= {"title": None, "image": {"bytes": _png(rows[7]["image"])[:60]}}
    dataset = Dataset.from_list(broken, features=FEATURES)
    with pytest.raises(ValueError, match=r"3 bad rows, the first is row 1 \(id 100\), id: is row 0's too"):
        build(dataset)
    catalog = build(dataset, on_bad_row="skip", batch_size=4)
    listed = [json.loads(line) for line in (tmp_path / "catalog" / "bad_rows.jsonl").read_text().splitlines()]
    assert [(row["row"], row["field"]) for row in listed] == [
        (1, "id"),
        (2, "id"),
        (5, "title and image"),
        (6, "image"),
        (7, "image"),
    ]
    assert len(catalog) == 12 - 4
    assert catalog.photo(catalog.get(106)) is None and catalog.get(106).title == rows[6]["title"]
    assert 107 not in catalog


def test_a_broken_photo_stops_a_strict_build(build: Callable[..., ProductCatalog], rows: list[dict[str, Any]]) -> None:
    dataset = Dataset.from_list(
        [rows[0] | {"image": {"bytes": b"not a photo"}}, rows[1] | {"image": None}], features=FEATURES
    )
    with pytest.raises(ValueError, match=r"row 0 \(id 100\), image: .*no image format.*on_bad_row='skip'"):
        build(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title_column": "name"}, "no column 'name'"),
        ({"title_column": None, "image_column": None}, "needs a title or a photo"),
        ({"title_column": "price"}, "title column 'price' holds"),
        ({"id_column": "price"}, "id column 'price' holds"),
        ({"attribute_columns": ["image"], "image_column": None}, "attribute column 'image' holds"),
        ({"index": "faiss"}, "index must be 'edge', 'memory' or a server's URL, got 'faiss'"),
        ({"on_bad_row": "ignore"}, "on_bad_row must be 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_bad_settings(build: Callable[..., ProductCatalog], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**change)


def test_a_split_must_be_chosen(build: Callable[..., ProductCatalog], dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=r"choose one of its splits \['train'\]"):
        build(datasets.DatasetDict(train=dataset))
    with pytest.raises(ValueError, match="is empty"):
        build(dataset.select([]))


def test_attributes_that_cannot_be_are_told(
    build: Callable[..., ProductCatalog], dataset: Dataset, caplog: Any
) -> None:
    odd = dataset.add_column("embedding", [[0.5]] * COUNT).add_column("product_vector", ["x"] * COUNT)
    with pytest.raises(ValueError, match="can't be named 'product_vector'"):
        build(odd)
    catalog = build(odd.remove_columns("product_vector"))
    assert "embedding" not in catalog.attributes and catalog.attributes["sizes"] == "strings"


def test_one_side_only(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    titles = build(path=tmp_path / "titles", image_column=None, attribute_columns=[], dataset=_titled(build))
    assert titles.search("red shirt")[0].carried_by is None and titles.attributes == {}
    plain = build(path=tmp_path / "plain", sides=False, photo_size=0)
    assert plain.search("red shirt")[0].title_score is None
    assert plain.photo(plain.get(100)) is None
    with pytest.raises(ValueError, match=r"using must be one of \['product', 'words'\]"):
        plain.search("red shirt", using="title")


def _titled(build: Callable[..., ProductCatalog]) -> Dataset:
    return Dataset.from_dict({"id": ["x", "y"], "title": ["red shirt", "blue mug"]})


def test_a_vector_that_a_product_lacks_is_nan_in_the_files(build: Callable[..., ProductCatalog]) -> None:
    """Not null, which Arrow before version 26 can't read back; but a null that another program wrote counts as none."""
    (part,) = (build(index="memory").path / "products").glob("*/part-*.parquet")
    for side, lacking in (("title_vector", 3), ("image_vector", 4)):
        column = pq.read_table(part, columns=[side])[side]
        missing = np.isnan(np.stack(column.to_numpy()))
        assert column.null_count == 0
        assert missing[lacking].all() and missing.sum() == missing.shape[1]
    rewritten = pa.chunked_array([pa.array([[1, 2], None], pa.list_(pa.float16(), 2))])
    np.testing.assert_array_equal(store._to_array(rewritten, 2), [[1, 2], [np.nan, np.nan]])


def test_large_photos_are_kept_small(build: Callable[..., ProductCatalog], dataset: Dataset) -> None:
    catalog = build(photo_size=24)
    with PilImage.open(io.BytesIO(catalog.photo(catalog.get(100)))) as photo:
        assert photo.size == (18, 24) and photo.format == "JPEG"


# ----------------------------------------------------------------------------------------------------------------------
# Changing
# ----------------------------------------------------------------------------------------------------------------------


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
        patch.setattr(product_catalog, "apply_change", fail)
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
    run_child = product_catalog.run_child

    def change_meanwhile(*args: Any) -> None:
        catalog.upsert([{"id": 7, "title": "blue mug"}])
        with pytest.raises(RuntimeError, match="optimized already"):
            catalog.optimize()
        run_child(*args)
        catalog.delete([100])

    monkeypatch.setattr(product_catalog, "run_child", change_meanwhile)
    catalog.optimize()
    again = reopen(catalog)
    assert 7 in again and 100 not in again and len(again) == COUNT
    again.close()


def test_a_failed_optimization_leaves_all_as_it_was(catalog: ProductCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("the child died")

    before = ids(catalog.search("red shirt"))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="child died"):
        patch.setattr(product_catalog, "run_child", fail)
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
    assert catalog.upsert([]) == 0 and catalog.delete([]) == 0
    assert not list((catalog.path / "changes").iterdir())


# ----------------------------------------------------------------------------------------------------------------------
# Opening
# ----------------------------------------------------------------------------------------------------------------------


def test_another_model_or_processor_is_refused(
    catalog: ProductCatalog, model: AceBertModel, tiny_processor: AceBertProcessor
) -> None:
    catalog.close()
    tiny_processor.title_max_length = 5
    with pytest.raises(ValueError, match=r"The processor of .* did not make the catalogue"):
        ProductCatalog.load(catalog.path, model, tiny_processor)
    tiny_processor.title_max_length = catalog._encoder.processor.title_max_length = 64
    with torch.no_grad():
        model.product_projection.weight.add_(1)
    with pytest.raises(ValueError, match=r"The product weights of .* did not make the catalogue .* build it again"):
        ProductCatalog.load(catalog.path, model, tiny_processor)
    with pytest.raises(ValueError, match="model and its processor, or neither"):
        ProductCatalog.load(catalog.path, model)


def test_one_writer_and_many_readers(catalog: ProductCatalog) -> None:
    encoder = catalog._encoder
    with pytest.raises(RuntimeError, match=r"Another process has .* read_only=True"):
        ProductCatalog.load(catalog.path)
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    with ProductCatalog.load(catalog.path, encoder.model, encoder.processor, read_only=True) as reader:
        assert 7 in reader
        assert ids(reader.search("blue mug")) == ids(catalog.search("blue mug"))
        with pytest.raises(RuntimeError, match="read-only"):
            reader.delete([7])


def test_a_catalogue_on_the_hub_is_read_only(catalog: ProductCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, repo_type: str, revision: str | None) -> str:
        if (name, repo_type, revision) != ("shop/products", "dataset", "v1"):
            raise OSError("not found")
        return str(catalog.path)

    monkeypatch.setattr(product_catalog, "snapshot_download", download)
    with ProductCatalog.load("shop/products", revision="v1") as opened:
        assert ids(opened.search(like=100)) == ids(catalog.search(like=100))
        with pytest.raises(RuntimeError, match="read-only"):
            opened.delete([100])
    with pytest.raises(FileNotFoundError, match="shop/other is no folder here, and no dataset repository"):
        ProductCatalog.load("shop/other")


def test_without_a_model(catalog: ProductCatalog) -> None:
    similar = ids(catalog.search(like=100))
    catalog.close()
    with ProductCatalog.load(catalog.path) as opened:
        assert ids(opened.search(like=100)) == similar
        with pytest.raises(ValueError, match="load the catalogue with its model"):
            opened.search("red shirt")
        with pytest.raises(ValueError, match="load the catalogue with its model"):
            opened.upsert([{"id": 7, "title": "mug"}])
        assert opened.delete([100]) == 1
    with pytest.raises(RuntimeError, match="is closed"):
        opened.search(like=101)


@pytest.mark.parametrize("index", ["edge", "memory"])
def test_a_lost_index_is_made_again(build: Callable[..., ProductCatalog], index: str) -> None:
    catalog = build(index=index)
    catalog.upsert([{"id": 7, "title": "blue mug"}])
    expected = ids(catalog.search("blue mug", top_k=COUNT))
    catalog.close()
    for file in sorted((catalog.path / "index").rglob("*"), reverse=True) if (catalog.path / "index").exists() else ():
        file.rmdir() if file.is_dir() else file.unlink()
    encoder = catalog._encoder
    with ProductCatalog.load(catalog.path, encoder.model, encoder.processor) as opened:
        assert ids(opened.search("blue mug", top_k=COUNT)) == expected


def test_filling_a_server_goes_on_after_a_kill(
    build: Callable[..., ProductCatalog], server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(product_catalog, "fill_index", killed)
        build(index=server)
    path = tmp_path / "catalog"
    with pytest.raises(FileExistsError, match="is there already"):
        build(index=server, path=tmp_path / "other")
    with ProductCatalog.load(path) as opened:
        assert len(opened) == COUNT
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(product_catalog, "fill_index", killed)
            opened.optimize()
    with ProductCatalog.load(path) as opened:
        assert len(opened) == COUNT and opened.photo(opened.get(100))


def test_ctrl_c_while_indexing_leaves_no_half_index(
    build: Callable[..., ProductCatalog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(maintenance, "fill_index", killed)
        build()
    with ProductCatalog.load(tmp_path / "catalog") as opened:
        assert len(opened) == COUNT


def test_folders_that_are_no_catalogue(tmp_path: Path, build: Callable[..., ProductCatalog]) -> None:
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        ProductCatalog.load(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        build(path=tmp_path / "full")
    catalog = build()
    catalog.close()
    file = catalog.path / "catalog.json"
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(ValueError, match=f"format 99 and this version reads {FORMAT}"):
        ProductCatalog.load(catalog.path)


def test_a_folder_that_lost_its_empty_folders_opens(catalog: ProductCatalog) -> None:
    (catalog.path / "changes").rmdir()
    with reopen(catalog) as again:
        again.delete([100])
        assert 100 not in again


def test_a_write_that_was_torn_is_not_seen(catalog: ProductCatalog) -> None:
    (catalog.path / "changes" / "00000001.unfinished").write_bytes(b"half a file")
    (catalog.path / "products" / "00001").mkdir()  # of a merge that was killed
    again = reopen(catalog)
    assert len(again) == COUNT and store.products_folder(again.path, 0).exists()
    assert not (again.path / "products" / "00001").exists()
    again.close()


# ----------------------------------------------------------------------------------------------------------------------
# Processes that are killed, and several at once
# ----------------------------------------------------------------------------------------------------------------------

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


# ----------------------------------------------------------------------------------------------------------------------
# Precision
# ----------------------------------------------------------------------------------------------------------------------


def test_weights_are_the_same_in_bfloat16_and_others_are_not(model: AceBertModel) -> None:
    half = copy.deepcopy(model).bfloat16()
    projection = model.product_projection.weight
    assert not torch.equal(projection, half.product_projection.weight.float())  # the type does lose something
    assert weights_sha256(half) == weights_sha256(model)
    with torch.no_grad():
        model.query_projection.weight[0, 0] *= 1.01
    assert weights_sha256(half) != weights_sha256(model)
    assert product_weights_sha256(half) == product_weights_sha256(model)
    with torch.no_grad():
        projection[0, 0] *= 1.01
    assert product_weights_sha256(half) != product_weights_sha256(model)


def test_the_product_side_is_known_under_a_wrapper(model: AceBertModel) -> None:
    plain = product_weights_sha256(model)
    compiled = torch.compile(model)
    assert product_weights_sha256(compiled) == plain
    adapted = get_peft_model(model, LoraConfig(target_modules=["query", "value"]))
    trained = product_weights_sha256(adapted)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "product_encoder" in name and "lora_B" in name:
                weight += 0.1
    assert product_weights_sha256(adapted) != trained
    with pytest.raises(ValueError, match="BertModel has no product encoder"):
        product_weights_sha256(model.query_encoder)


def test_a_catalogue_is_searched_by_another_query_side(
    model: AceBertModel, tiny_processor: AceBertProcessor, dataset: Dataset, tmp_path: Path
) -> None:
    with ProductCatalog.build(model, tiny_processor, dataset, tmp_path / "catalog", index="memory") as catalog:
        before = [hit.score for hit in catalog.search("red shirt")]
    adapted = copy.deepcopy(model)
    with torch.no_grad():
        adapted.query_projection.weight.mul_(torch.linspace(0.5, 2, 16)[:, None])
    with ProductCatalog.load(tmp_path / "catalog", adapted, tiny_processor) as catalog:
        assert [hit.score for hit in catalog.search("red shirt")] != before
    with torch.no_grad():
        adapted.product_projection.weight[0, 0] *= 1.01
    with pytest.raises(ValueError, match=r"The product weights of .* did not make the catalogue"):
        ProductCatalog.load(tmp_path / "catalog", adapted, tiny_processor)


def test_a_catalogue_made_in_bfloat16_is_searched_and_changed_in_float32(
    model: AceBertModel, tiny_processor: AceBertProcessor, dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "half"
    ProductCatalog.build(copy.deepcopy(model).bfloat16(), tiny_processor, dataset, path).close()
    # Of unit length as far as half precision on the disk goes, which bfloat16 would miss by several times as much.
    stored = pq.read_table(path / "products")["product_vector"].to_pylist()
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=5e-4)
    with ProductCatalog.load(path, model, tiny_processor) as catalog:
        assert catalog.settings.model["precision"] == "bfloat16"
        products, vectors = catalog.sample(COUNT)
        photos = [catalog.photo(product) for product in products]
        exact = catalog._encoder.encode_products([product.title for product in products], photos, ["product"])
        assert (exact["product"] * vectors).sum(1).min() > 0.999
        assert len(catalog.search("blue mug", top_k=COUNT)) == COUNT
        catalog.upsert([{"id": 900, "title": products[0].title, "image": photos[0]}])
        assert {900, products[0].id} == set(ids(catalog.search(vector=vectors[0], top_k=2)))


def test_an_unfinished_catalogue_goes_on_in_its_own_precision_alone(
    build: Callable[..., ProductCatalog], model: AceBertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(product_catalog, "write_parts", killed)
        build()
    model.bfloat16()
    with pytest.raises(FileExistsError, match="unfinished catalogue of other products, settings or weights"):
        build()


@pytest.mark.parametrize(
    ("arguments", "has", "expected"),
    [([], True, "bfloat16"), ([], False, "float32"), (["--dtype", "float32"], True, "float32")],
)
def test_build_catalog_computes_in_bfloat16_where_the_hardware_does(
    model: AceBertModel,
    tiny_processor: AceBertProcessor,
    catalog_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    has: bool,
    expected: str,
) -> None:
    model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    monkeypatch.setattr(build_catalog, "has_bfloat16", lambda device: has and device == "cpu")
    flags = ["--dataset_name", str(catalog_folder), "--split", "validation", "--output_dir", str(tmp_path / "catalog")]
    flags += ["--model_name_or_path", str(tmp_path / "checkpoint"), "--index", "memory"]
    build_catalog.main([*flags, *arguments])
    assert f"encoded in {expected}" in capsys.readouterr().out
    with ProductCatalog.load(tmp_path / "catalog", model, tiny_processor) as catalog:
        assert catalog.settings.model["precision"] == expected


@pytest.mark.slow
def test_two_processes_make_the_same_catalogue(
    catalog_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from acebert.catalog import build; "
        "build.PART_ROWS = 16; from acebert.commands import build_catalog; build_catalog.main()"
    )
    (tmp_path / "small_parts.py").write_text(script)
    paths = [tmp_path / "one", tmp_path / "two"]
    for processes, path in zip((1, 2), paths, strict=True):
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        arguments = [
            "--dataset_name",
            str(catalog_folder),
            "--output_dir",
            str(path),
            "--model_name_or_path",
            str(root),
        ]
        command = [*launcher, str(tmp_path / "small_parts.py"), str(root), *arguments]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    one, two = (sorted((path / "products" / "00000").iterdir()) for path in paths)
    assert [file.name for file in one] == [file.name for file in two] and len(one) == 4
    for mine, theirs in zip(one, two, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


def _png(image: PilImage.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
