"""Catalogues are built, stopped and resumed; bad rows, bad settings and precision."""

import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from catalog_products import COUNT, FEATURES, ids, png
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image as PilImage

from acebert.catalog import ProductCatalog, parts, store
from acebert.catalog import build as building
from acebert.commands import build_catalog
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.utils.fingerprints import product_weights_sha256, weights_sha256


def test_an_interrupted_build_goes_on_and_comes_to_the_same(
    build: Callable[..., ProductCatalog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 16)
    monkeypatch.setattr(parts, "PREFETCH_BATCHES", 1)
    whole = build(path=tmp_path / "whole", batch_size=4)
    encode, calls = parts.Encoder.encode, []

    def interrupted(self: Any, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:  # in the second part
            raise KeyboardInterrupt
        return encode(self, *args)

    monkeypatch.setattr(parts.Encoder, "encode", interrupted)
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
    broken = [{**row, "image": {"bytes": png(row["image"])} if row["image"] else None} for row in rows[:12]]
    broken[1] |= {"id": 100}
    broken[2] |= {"id": None}
    broken[5] |= {"title": " ", "image": None}
    broken[6] |= {"image": {"bytes": b"not a photo"}}
    broken[7] |= {"title": None, "image": {"bytes": png(rows[7]["image"])[:60]}}
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


def test_the_group_of_variants_is_kept(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    catalog = build(attribute_columns=["price"], group_column="kind")
    assert set(catalog.attributes) == {"price", "kind"} and catalog.settings.group == "kind"
    assert json.loads((tmp_path / "catalog" / "catalog.json").read_text())["group"] == "kind"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title_column": "name"}, "no column 'name'"),
        ({"title_column": None, "image_column": None}, "needs a title or a photo"),
        ({"title_column": "price"}, "title column 'price' holds"),
        ({"id_column": "price"}, "id column 'price' holds"),
        ({"attribute_columns": ["image"], "image_column": None}, "attribute column 'image' holds"),
        ({"index": "faiss"}, "index must be 'edge', 'memory' or a server's URL, got 'faiss'"),
        ({"group_column": "price"}, "group_column is 'price', which is number: name an attribute of texts"),
        ({"group_column": "parent"}, "group_column is 'parent', which is none of the attributes"),
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
    assert titles.search("red shirt", exact_words=False)[0].carried_by is None and titles.attributes == {}
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
        patch.setattr(building, "write_parts", killed)
        build()
    model.bfloat16()
    with pytest.raises(FileExistsError, match="unfinished catalogue of other products, settings or weights"):
        build()


@pytest.mark.parametrize("arguments", [[], ["--mixed_precision", "no"]], ids=["auto", "no"])
def test_build_catalog_computes_in_bfloat16_where_the_hardware_does(
    model: AceBertModel,
    tiny_processor: AceBertProcessor,
    catalog_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    bfloat16: bool,
) -> None:
    expected = "bfloat16" if bfloat16 and not arguments else "float32"
    model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    flags = ["--dataset_name", str(catalog_folder), "--split", "validation", "--output_dir", str(tmp_path / "catalog")]
    flags += ["--model_name_or_path", str(tmp_path / "checkpoint"), "--index", "memory"]
    build_catalog.main([*flags, *arguments])
    assert f"Encoding in {expected} on cpu" in capsys.readouterr().out
    with ProductCatalog.load(tmp_path / "catalog", model, tiny_processor) as catalog:
        assert catalog.settings.model["precision"] == expected


@pytest.mark.slow
def test_two_processes_make_the_same_catalogue(
    catalog_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    script = (
        "import os, sys; from pathlib import Path; from acebert.catalog import parts; "
        "parts.PART_ROWS = 16; from acebert.commands import build_catalog; build_catalog.main(); "
        'Path(__file__).with_name(f\'rank-{os.environ["RANK"]}-of-{os.environ["WORLD_SIZE"]}\').touch()'
    )
    (tmp_path / "small_parts.py").write_text(script)
    paths = [tmp_path / "one", tmp_path / "two"]
    for processes, path in zip((1, 2), paths, strict=True):
        # `accelerate launch` starts several processes on accelerators only; on a CPU that is torchrun's or MPI's job.
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        arguments = ["--dataset_name", catalog_folder, "--output_dir", path, "--model_name_or_path", root]
        subprocess.run(
            [*launcher, tmp_path / "small_parts.py", *map(str, arguments)],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )
    assert {path.name for path in tmp_path.glob("rank-*")} == {"rank-0-of-1", "rank-0-of-2", "rank-1-of-2"}
    one, two = (sorted((path / "products" / "00000").iterdir()) for path in paths)
    assert [file.name for file in one] == [file.name for file in two] and len(one) == 4
    for mine, theirs in zip(one, two, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
