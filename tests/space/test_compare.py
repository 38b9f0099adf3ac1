"""Side by side: late fusion by hand, five systems on one catalogue, and what the page shows of them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client.exceptions import AppError
from helpers import product_rows
from space_shop import NASTY, client_of, make_shop

from acebert.catalog.records import Hit
from acebert.processing_acebert import AceBertProcessor
from acebert.space.tabs.compare import SYSTEMS, CompareTab, compare, fuse, show_columns


@pytest.fixture
def shop(tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path) -> Any:
    rows = product_rows(32)
    rows[0]["title"] = f"{NASTY} mug"
    rows[1]["title"] = None
    rows[2]["image"] = None
    return make_shop(tiny_config(), tiny_processor, tmp_path, rows)


def hit(key: int, title_score: float | None, image_score: float | None) -> Hit:
    return Hit(key, f"product {key}", {}, ("", 0), 0.0, title_score=title_score, image_score=image_score)


def test_late_fusion_is_the_mean_of_the_sides_that_a_product_has() -> None:
    both, title_alone, photo_alone = hit(1, 0.4, 0.2), hit(2, 0.35, None), hit(3, None, 0.1)
    fused = fuse([both, title_alone], [both, photo_alone])
    assert [(found.id, pytest.approx(found.score)) for found in fused] == [(2, 0.35), (1, 0.3), (3, 0.1)]


def test_each_system_ranks_all_products_by_its_own_scores(shop: Any) -> None:
    _, vectors = shop.catalog.sample(100)
    query = shop.encode("red mug")
    found = compare(shop.catalog, "red mug", query, count=32)
    assert list(found) == [system.key for system in SYSTEMS]
    np.testing.assert_allclose([h.score for h in found["acebert"]], np.sort(vectors @ query)[::-1], atol=1e-5)
    assert {h.id for h in found["title"]} == {100 + i for i in range(32)} - {101}
    assert {h.id for h in found["photo"]} == {100 + i for i in range(32)} - {102}
    fused = {h.id: h.score for h in found["late_fusion"]}
    by_title, by_photo = ({h.id: h.score for h in found[key]} for key in ("title", "photo"))
    assert len(fused) == 32 and list(fused.values()) == sorted(fused.values(), reverse=True)
    assert fused[101] == pytest.approx(by_photo[101], abs=1e-6)
    assert fused[110] == pytest.approx((by_title[110] + by_photo[110]) / 2, abs=1e-6)
    assert all("mug" in h.title for h in found["bm25"]) and len(found["bm25"]) == 9


def test_a_catalogue_without_sides_has_two_systems(
    tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    shop = make_shop(tiny_config(), tiny_processor, tmp_path, sides=False)
    found = compare(shop.catalog, "mug", shop.encode("mug"))
    assert list(found) == ["bm25", "acebert"]
    page = show_columns(shop, found)
    assert page.count("<section>") == 5 and page.count("no vectors of titles and photos alone") == 3


def test_what_all_lists_agree_on_is_marked(shop: Any) -> None:
    product, other = shop.catalog.get(104), shop.catalog.get(105)
    hits = {p.id: Hit(**vars(p), score=0.5) for p in (product, other)}
    found = {system.key: [hits[104]] for system in SYSTEMS} | {"bm25": [hits[105], hits[104]]}
    page = show_columns(shop, found)
    assert "1 product is among the first 10 of all 5 lists." in page
    assert page.count('class="agreed" data-product="104"') == 5
    assert page.count("in all 5 lists") == 5 and page.count("in 1 of 5 lists") == 1
    found["bm25"] = []
    page = show_columns(shop, found)
    assert "No product is among" in page and "No title has one of these words." in page


def test_what_the_shop_wrote_is_text(shop: Any) -> None:
    page = show_columns(shop, compare(shop.catalog, "mug co", shop.encode("mug")))
    assert "&lt;svg src=x onerror=&#34;alert(1)&#34;&gt; &amp; co mug" in page
    assert "<svg src=x" not in page


def test_the_endpoint(shop: Any) -> None:
    with client_of(lambda shop: CompareTab(shop).lay_out(), shop) as client:
        found = client.predict(query=" red mug ", count=3, api_name="/compare")
        expected = compare(shop.catalog, "red mug", shop.encode("red mug"), 3)
        assert {key: [h["id"] for h in hits] for key, hits in found.items()} == {
            key: [h.id for h in hits] for key, hits in expected.items()
        }
        np.testing.assert_allclose(found["acebert"][0]["score"], expected["acebert"][0].score, atol=1e-4)
        for arguments, message in (({"query": " "}, "Write what"), ({"query": "mug", "count": 0}, "count must be")):
            with pytest.raises(AppError, match=re.escape(message)):
                client.predict(**arguments, api_name="/compare")
