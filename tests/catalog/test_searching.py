"""Searches of a catalogue with a tiny model: hits, filters, photos, words, facets."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from catalog_products import COUNT, ids
from PIL import Image as PilImage

from acebert.catalog import ProductCatalog
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor


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
    hits = catalog.search("red shirt", top_k=COUNT, exact_words=False, understand=False)
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
    plain = {"exact_words": False, "understand": False}
    both = catalog.search("red shirt", photos[0], top_k=COUNT, **plain)
    words, photo = (
        catalog.search(**query, top_k=COUNT, **plain) for query in ({"text": "red shirt"}, {"image": photos[0]})
    )
    mean = {hit.id: hit.score for hit in words}
    mean = {hit.id: (mean[hit.id] + hit.score) / 2 for hit in photo}
    ratios = [hit.score / mean[hit.id] for hit in both if abs(mean[hit.id]) > 0.1]
    assert np.std(ratios) < 0.02 * np.mean(ratios)  # the mean of the two, but for its length
    similar = catalog.search(like=100, top_k=COUNT)
    assert 100 not in ids(similar) and len(similar) == COUNT - 1
    photo_only = catalog.search(image=photos[0], using="image", top_k=1)[0]
    assert photo_only.score == pytest.approx(1, abs=2e-3)


def test_words_alone(catalog: ProductCatalog, rows: list[dict[str, Any]]) -> None:
    by_words = catalog.search("mug h", using="words", top_k=COUNT)
    assert by_words[0].title == "h mug a" and by_words[0].parts.keys() == {"bm25"}  # the only title with both words
    assert {row["title"] for row in rows if row["title"] and "mug" in row["title"]} <= {hit.title for hit in by_words}


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
        ({"like": 100, "using": "words"}, "give a text"),
        ({"text": "a", "offset": -1}, "offset must be an integer of at least 0, got -1"),
        ({"text": "a", "group_by": "sizes"}, "group_by must be one of .*'colour'.*got 'sizes'"),
        ({"text": "a", "min_score": 3}, "min_score is a confidence between 0 and 1, got 3"),
        ({"text": "a", "sort_by": "colour"}, "sort_by must be one of .*'price'.*got 'colour'"),
        ({"text": "a", "boosts": {"colour": 1}}, "boosts: 'colour' is a string"),
        ({"text": "a", "boosts": {"margin": 1}}, "boosts: there is no attribute 'margin'"),
        ({"text": "a", "as_words": "under 5"}, "as_words must be a list"),
        ({"text": "a", "filters": {"price": {"$under": "a"}}}, "under asks for a path"),
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
