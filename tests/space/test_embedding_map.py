"""The common space: queries made of attributes, the map and where a query lies on it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client.exceptions import AppError
from helpers import product_rows
from space_shop import NASTY, client_of, make_shop

from acebert.catalog.product_catalog import Product
from acebert.processing_acebert import AceBertProcessor
from acebert.space.tabs import embedding_map
from acebert.space.tabs.embedding_map import (
    HEIGHT,
    WIDTH,
    EmbeddingMapTab,
    Map,
    draw,
    make_attribute_queries,
    make_map,
    show_gap,
)

ATTRIBUTES = ["kind", "colour", "gender"]


@pytest.fixture
def shop(tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path) -> Any:
    rows = product_rows(32)
    rows[0] |= {"title": f"{NASTY} mug", "kind": NASTY}
    return make_shop(tiny_config(), tiny_processor, tmp_path, rows)


def product(key: int, **attributes: Any) -> Product:
    return Product(key, f"product {key}", attributes, ("", 0))


def test_queries_are_values_of_one_product_in_order() -> None:
    products = [
        product(1, kind="Shirt", colour="Red", price=3.0, story="x" * 41),
        product(2, kind="Mug", colour="Blue", story=""),
    ]
    attributes = ["kind", "colour", "price", "story"]
    made = {query for seed in range(30) for query in make_attribute_queries(products, attributes, seed=seed)}
    assert made == {"shirt", "red", "shirt red", "mug", "blue", "mug blue"}
    many = [product(i, kind=f"kind {i}") for i in range(50)]
    queries = make_attribute_queries(many, ["kind"], count=20)
    assert len(queries) == len(set(queries)) == 20
    assert (
        queries
        == make_attribute_queries(many, ["kind"], count=20)
        != make_attribute_queries(many, ["kind"], count=20, seed=1)
    )
    assert make_attribute_queries([product(1)], ["kind"]) == []


def test_a_query_lies_in_the_middle_of_its_nearest_products() -> None:
    angles = np.deg2rad(np.arange(0, 180, 10))
    vectors, positions = np.stack([np.cos(angles), np.sin(angles)], 1), np.stack([np.arange(18), np.arange(18) * 2], 1)
    chart = Map([], vectors, positions, [], np.empty((0, 2)), 0.0)
    place, nearest = chart.place(np.array([np.cos(np.deg2rad(51)), np.sin(np.deg2rad(51))]))
    assert nearest.tolist() == [5, 6, 4, 7, 3]
    assert place.tolist() == [5, 10]


def test_the_map_is_laid_out_once(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_map(shop.catalog, ATTRIBUTES, shop.cache)
    assert len(first.products) == 32 and first.positions.shape == (32, 2)
    assert len(first.query_positions) == len(first.queries) > 5
    everything = np.concatenate([first.positions, first.query_positions])
    assert (everything >= 0).all() and (everything <= [WIDTH, HEIGHT]).all()
    by_hand = shop.encoder.encode_queries(first.queries, None).mean(0) - shop.catalog.sample(100)[1].mean(0)
    assert first.gap == pytest.approx(np.linalg.norm(by_hand), abs=1e-5)

    def fail(vectors: np.ndarray) -> np.ndarray:
        raise AssertionError("laid out again")

    monkeypatch.setattr(embedding_map, "lay_out", fail)
    again = make_map(shop.catalog, ATTRIBUTES, shop.cache)
    np.testing.assert_array_equal(again.positions, first.positions)
    with pytest.raises(AssertionError, match="laid out again"):
        make_map(shop.catalog, ["kind"], shop.cache)  # other queries


def test_neighbours_stay_neighbours() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8), 20, axis=0)
    vectors = centres + 0.05 * rng.normal(size=centres.shape)
    positions = embedding_map.lay_out(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(1) // 20 == np.arange(60) // 20).all()


def test_too_small_a_catalogue_is_named(
    tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    shop = make_shop(tiny_config(), tiny_processor, tmp_path, product_rows(5))
    with pytest.raises(ValueError, match="needs 10 products or more, and this catalogue has 5"):
        make_map(shop.catalog, ATTRIBUTES, shop.cache)


def test_the_drawing_is_coloured_by_the_most_frequent_values(shop: Any) -> None:
    chart = make_map(shop.catalog, ATTRIBUTES, shop.cache)
    page = draw(chart, "kind", "red & mug", shop.encode("red mug"))
    assert page.count("data-row=") == 32 and page.count('class="query"') == len(chart.queries)
    assert page.count('class="c0" data-row') == 8 and page.count('data-colour="c') == 5
    assert "&lt;svg src=x onerror=&#34;alert(1)&#34;&gt;" in page and "<svg src=x" not in page
    assert page.count("<line") == 5 and ">red &amp; mug</text>" in page
    many = [product(i, size=f"size {i // 2:02}" if i else None) for i in range(40)]
    wide = Map(many, chart.vectors, np.zeros((40, 2)), [], np.empty((0, 2)), 0.0)
    page = draw(wide, "size")
    assert page.count('data-colour="c') == 10 and ">other</button>" in page and ">size 01</button>" in page
    assert "typed" not in page


def test_the_gap_is_shown_with_the_adversary_where_it_was_measured() -> None:
    alone = show_gap(0.318, None)
    assert "<b>0.32</b> apart" in alone and "adversary" not in alone
    assert "no attributes to make queries of" in show_gap(float("nan"), None)
    measured = {
        "with": {"mean": 0.2, "low": 0.1, "high": 0.3},
        "without": {"mean": 0.4, "low": 0.35, "high": 0.5},
        "seeds": 3,
        "note": "On <fashion>.",
    }
    page = show_gap(0.3, measured)
    assert "0.20 apart, without it 0.40: the mean of 3 runs each" in page and "On &lt;fashion&gt;." in page
    assert "one run each" in show_gap(0.3, measured | {"seeds": 1})
    assert "width:40.0%" in page and "width:80.0%" in page and "left:70.0%;width:30.0%" in page


def test_the_endpoints(shop: Any) -> None:
    chart = make_map(shop.catalog, shop.attributes, shop.cache)
    with client_of(lambda shop: EmbeddingMapTab(shop).lay_out(), shop) as client:
        found = client.predict(attribute="kind", api_name="/map")
        assert [p["id"] for p in found["products"]] == [p.id for p in chart.products]
        assert {p["value"] for p in found["products"]} == {"shirt", "shoe", "bag", "mug", NASTY}
        assert [q["text"] for q in found["queries"]] == chart.queries
        assert found["gap"] == round(chart.gap, 4)
        np.testing.assert_allclose([p["x"] for p in found["products"]], chart.positions[:, 0], atol=1e-3)
        placed = client.predict(query=" red mug ", api_name="/place")
        place, nearest = chart.place(shop.encode("red mug"))
        assert (placed["x"], placed["y"]) == (pytest.approx(place[0]), pytest.approx(place[1]))
        assert [p["id"] for p in placed["nearest"]] == [chart.products[row].id for row in nearest]
        with pytest.raises(AppError, match="no attribute 'size'"):
            client.predict(attribute="size", api_name="/map")
        with pytest.raises(AppError, match="Write a query"):
            client.predict(query=" ", api_name="/place")


def test_the_measured_gap_next_to_the_app_is_read(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = {"mean": 0.25, "low": 0.2, "high": 0.3}
    (tmp_path / "adversary.json").write_text(json.dumps({"with": arm, "without": arm, "seeds": 1, "note": ""}))
    monkeypatch.setattr(embedding_map, "ADVERSARY", tmp_path / "adversary.json")
    with client_of(lambda shop: EmbeddingMapTab(shop).lay_out(), shop) as client:
        assert client.predict(api_name="/map")["gap"] > 0


def test_the_shipped_gap_is_that_of_the_recorded_ablations() -> None:
    shipped = json.loads(embedding_map.ADVERSARY.read_text())
    records = Path(__file__).parents[2] / "docs" / "results" / "ablations"
    for arm, name in (("with", "base"), ("without", "no_adversary")):
        runs = [json.loads(file.read_text()) for file in records.glob(f"seed*-{name}-*/run.json")]
        gaps = [run["metrics"]["modality_gap"] for run in runs]
        assert len(gaps) == shipped["seeds"]
        expected = {"mean": sum(gaps) / len(gaps), "low": min(gaps), "high": max(gaps)}
        assert shipped[arm] == pytest.approx(expected, abs=1e-4)
