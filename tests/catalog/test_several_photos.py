"""Catalogues of products with several photos: built, searched, changed and written out."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from catalog_products import FEATURES, png, reopen
from datasets import Dataset, Features, Image, List
from helpers import draw

from acebert.catalog import ProductCatalog
from acebert.commands import encode
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor

EYE = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40, "patch_size": 8}
SEVERAL = Features({name: FEATURES[name] for name in ("id", "title", "kind")} | {"image": List(Image())})
RED, BLUE, MUG = (png(draw(*each)) for each in (("shirt", "red", 0), ("bag", "blue", 2), ("mug", "green", 1)))
BROKEN = RED[:60]


@pytest.fixture
def model(tiny_config: Callable[..., Any]) -> AceBertModel:
    torch.manual_seed(0)
    return AceBertModel(tiny_config(vision_config={**EYE, "initializer_range": 0.2})).eval()


def title_of(product_id: int) -> str:
    return f"mug {'abcdefghij'[product_id]}"


def shop(*photos: list[bytes]) -> Dataset:
    rows = [
        {"id": i, "title": title_of(i), "kind": "mug", "image": [{"bytes": each} for each in some]}
        for i, some in enumerate(photos)
    ]
    return Dataset.from_list(rows, features=SEVERAL)


def expected(model: AceBertModel, processor: AceBertProcessor, photos: list[bytes], title: str) -> np.ndarray:
    with torch.inference_mode():
        inputs = processor(images=photos, return_tensors="pt")
        image = model.get_image_features(**inputs).pooler_output.sum(0)
        text = model.get_product_features(**processor([title], side="product", return_tensors="pt")).pooler_output[0]
        product = text + model.config.image_weight * image / image.norm()
    return (product / product.norm()).numpy()


def vector(catalog: ProductCatalog, product_id: int) -> np.ndarray:
    products, vectors = catalog.sample(100)
    return vectors[[product.id for product in products].index(product_id)]


def test_all_photos_of_a_product_make_its_vector(
    build: Callable[..., ProductCatalog], model: AceBertModel, tiny_processor: AceBertProcessor
) -> None:
    photos = ([RED, BLUE], [MUG], [], [BLUE, MUG, RED])
    catalog = build(shop(*photos), attribute_columns=["kind"], batch_size=3)
    for i in (0, 1, 3):
        made = expected(model, tiny_processor, photos[i], title_of(i))
        np.testing.assert_allclose(vector(catalog, i), made, atol=1e-3)
    assert catalog.photo(catalog.get(3)) == BLUE and catalog.photo(catalog.get(2)) is None
    assert [catalog.photos(catalog.get(i)) for i in range(4)] == [list(some) for some in photos]
    assert [catalog.get(i).num_photos for i in range(4)] == [2, 1, 0, 3]
    assert catalog.settings.max_images == 4
    hit = catalog.search(image=[[BLUE, MUG, RED]], using="image")[0][0]
    assert hit.id == 3 and hit.score == pytest.approx(1, abs=1e-3)
    before = vector(catalog, 0)
    with reopen(catalog) as again:
        np.testing.assert_array_equal(vector(again, 0), before)


def test_order_changes_nothing_and_later_changes_read_all(
    build: Callable[..., ProductCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    catalog = build(shop([RED, BLUE], [MUG]), max_images=2)
    with caplog.at_level(logging.WARNING):
        catalog.upsert(
            [
                {"id": 1, "title": title_of(0), "image": [None, {"bytes": BLUE, "path": None}, RED]},
                {"id": 7, "title": title_of(0), "image": (RED, BLUE, MUG)},
            ]
        )
    assert caplog.text.count("1 products have more than 2 photos: the first 2 are read") == 1
    for product_id in (1, 7):
        np.testing.assert_allclose(vector(catalog, product_id), vector(catalog, 0), atol=1e-3)
    assert catalog.photo(catalog.get(1)) == BLUE
    old = catalog.get(7)
    for _ in range(2):  # the second time after the changes are merged
        assert catalog.photos(catalog.get(1)) == [BLUE, RED] and catalog.photos(old) == [RED, BLUE]
        assert [catalog.get(i).num_photos for i in (0, 1, 7)] == [2, 2, 2]
        catalog.optimize()
    with pytest.raises(ValueError, match=r"product 0 \(id 8\): image 2 of 2 can't be read"):
        catalog.upsert([{"id": 8, "title": "mug", "image": [RED, BROKEN]}])


def test_a_broken_photo_among_several_costs_no_product(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    dataset = shop([RED, BROKEN, BLUE], [RED, BLUE], [BROKEN, BROKEN], *[[MUG]] * 4)
    with pytest.raises(ValueError, match=r"row 0 \(id 0\), image: 2 of 3 can't be read.*on_bad_row='skip'"):
        build(dataset)
    catalog = build(dataset, on_bad_row="skip", path=tmp_path / "other")
    listed = [json.loads(line) for line in (tmp_path / "other" / "bad_rows.jsonl").read_text().splitlines()]
    assert [(row["row"], row["reason"][:11]) for row in listed] == [(0, "2 of 3 can'"), (2, "1, 2 of 2 c")]
    assert len(catalog) == 7 and catalog.photo(catalog.get(2)) is None
    whole = build(shop([RED, BLUE]), path=tmp_path / "whole")
    np.testing.assert_allclose(vector(catalog, 0), vector(whole, 0), atol=2e-6)  # half precision


def test_more_photos_than_are_read_are_told(
    build: Callable[..., ProductCatalog], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = build(shop([RED, BLUE, MUG], [MUG]), max_images=1, path=tmp_path / "one")
    assert "1 products have more than 1 photos in 'image'" in caplog.text
    alone = build(shop([RED], [MUG]), path=tmp_path / "alone")
    np.testing.assert_array_equal(vector(one, 0), vector(alone, 0))
    assert json.loads((tmp_path / "one" / "catalog.json").read_text())["max_images"] == 1
    with pytest.raises(ValueError, match="max_images must be at least 1, got 0"):
        build(shop([RED]), max_images=0, path=tmp_path / "none")


def test_a_catalogue_of_before_goes_on_with_one_photo(
    build: Callable[..., ProductCatalog], tmp_path: Path, model: AceBertModel, tiny_processor: AceBertProcessor
) -> None:
    build(shop([RED], [MUG])).close()
    file = tmp_path / "catalog" / "catalog.json"
    settings = json.loads(file.read_text())
    del settings["max_images"]
    file.write_text(json.dumps(settings))
    with ProductCatalog.load(tmp_path / "catalog", model, tiny_processor) as catalog:
        catalog.upsert([{"id": 1, "title": title_of(0), "image": [RED, BLUE]}])
        np.testing.assert_allclose(vector(catalog, 1), vector(catalog, 0), atol=1e-3)
        assert catalog.photos(catalog.get(1)) == [RED] and catalog.get(1).num_photos is None


def test_encode_writes_the_same_vectors(
    build: Callable[..., ProductCatalog], model: AceBertModel, tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    for part in (model, tiny_processor):
        part.save_pretrained(tmp_path / "model")
    dataset = shop([RED, BROKEN, BLUE], [MUG], [], [BLUE, RED], [MUG], [MUG])
    dataset.to_parquet(tmp_path / "shop.parquet")
    flags = ["--model_name_or_path", str(tmp_path / "model"), "--dataset_name", str(tmp_path / "shop.parquet")]
    flags += ["--on_bad_row", "skip", "--mixed_precision", "no", "--output_dir"]
    encode.main([*flags, str(tmp_path / "vectors")])
    (file,) = (tmp_path / "vectors").rglob("*.parquet")
    table = pq.read_table(file)
    found = {row["id"]: row for row in table.to_pylist()}
    name = next(column for column in table.column_names if "vector" in column)
    catalog = build(dataset, on_bad_row="skip")
    for i in range(6):
        np.testing.assert_allclose(found[i][name], vector(catalog, i), atol=1e-3)
    with pytest.raises(SystemExit, match="--output_dir"):
        encode.main([*flags, str(tmp_path / "vectors"), "--max_images", "1"])
