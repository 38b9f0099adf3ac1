"""The Space: opening a catalogue, searching it, showing and explaining products; on a tiny random checkpoint."""

import asyncio
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from catalog_products import png
from datasets import Dataset, Features, Image, List, Value
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image as PILImage
from starlette.datastructures import QueryParams
from transformers import BertTokenizer

from acebert.catalog.product_catalog import ProductCatalog
from acebert.configuration_acebert import AceBertConfig
from acebert.encoding.encoder import Encoder
from acebert.encoding.explain import Explanation
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.space import app
from acebert.space.cards import label, show_facts
from acebert.space.filter_slots import CHOICE_SLOTS, DATE_SLOTS, RANGE_SLOTS, SLOTS, FilterSlots
from acebert.space.page import build_page, launch
from acebert.space.search_panel import DEFAULT_COUNT, Asked, SearchPanel, address, find, look_around
from acebert.space.shop import ENTRY_BYTES, Shop, find_product, load_model, open_catalog
from acebert.space.why import Question, Reasons, find_reasons, why_page

ROOT = Path(__file__).parents[2]

WORDS = ["red", "blue", "green", "striped", "shirt", "shoe", "bag", "men", "women"]
FEATURES = Features(
    {
        "id": Value("int64"),
        "title": Value("string"),
        "colour": Value("string"),
        "kind": Value("string"),
        "price": Value("float64"),
        "image": Image(),
    }
)
NASTY = '<svg src=x onerror="alert(1)"> ${alert(2)} {{value}} & co'
ATTRIBUTES = ("colour", "kind", "price")
UNFILTERED = [[]] * CHOICE_SLOTS + [None] * 2 * RANGE_SLOTS + [""] * 2 * DATE_SLOTS


def plain_photo(colour: str) -> PILImage.Image:
    photo = PILImage.new("RGB", (24, 32), "white")
    photo.paste(colour, (6, 8, 18, 24))
    return photo


def product_rows() -> list[dict[str, Any]]:
    rows = [
        {"title": f"{colour} {kind}", "colour": colour, "kind": kind, "image": plain_photo(colour)}
        for colour in ("red", "blue", "green")
        for kind in ("shirt", "shoe", "bag")
    ]
    rows[3] |= {"title": None}
    rows[4] |= {"image": None}
    rows[5] |= {"title": NASTY, "kind": "<x>bag</x>"}
    rows[8] |= {"colour": None}
    return [{"id": 100 + number, "price": 10.0 * number, **row} for number, row in enumerate(rows)]


def write_dataset(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir(exist_ok=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "train.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    layers = {
        "vocab_size": len(vocab),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = AceBertConfig(
        text_config=layers,
        patch_size=8,
        pixel_group_size=4,
        pixel_hidden_size=4,
        projection_dim=16,
        cls_token_id=2,
        sep_token_id=3,
    )
    torch.manual_seed(0)
    AceBertModel(config).save_pretrained(folder)
    images = AceBertImageProcessor(patch_size=8, max_num_patches=12)
    AceBertProcessor(images, BertTokenizer(vocab=vocab)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> tuple:
    return load_model(str(checkpoint))


@pytest.fixture(scope="module")
def shop(loaded: tuple, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    source = write_dataset(folder / "data", product_rows())
    catalog = open_catalog(*loaded, source, folder / "cache", attributes=ATTRIBUTES)
    return Shop(catalog, folder / "cache", ATTRIBUTES)


@pytest.fixture(scope="module")
def panel(shop: Shop) -> SearchPanel:
    return SearchPanel(shop, lambda _: shop.catalog, "shop", attributes=ATTRIBUTES, shareable=True)


def request(query_string: str = "") -> Any:
    return SimpleNamespace(query_params=QueryParams(query_string.removeprefix("?")))


def shown(
    panel: SearchPanel,
    query: str = "",
    photo: Any = None,
    like: str = "",
    count: int = 24,
    *values: Any,
    as_words: Sequence[str] = (),
    sort: str = "",
) -> str:
    """The results as HTML."""
    return panel.refine(request(), query, photo, like, as_words, count, sort, *(values or UNFILTERED))[-2]


def ranges(*bounds: Any) -> list[Any]:
    """Values of the slots: none chosen, and bounds of the first numbers."""
    return [*UNFILTERED[:CHOICE_SLOTS], *bounds, *UNFILTERED[CHOICE_SLOTS + len(bounds) :]]


def ids_in(page: str) -> list[int]:
    return [int(product) for product in re.findall(r'data-like="(\d+)"', page)]


# ----------------------------------------------------------------------------------------------------------------------
# Opening a catalogue
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many products each encoding took, as it goes on."""
    counts = []
    encode = Encoder.encode

    def count_products(self: Encoder, inputs: dict, *arguments: Any) -> dict:
        counts.append(len(next(iter(inputs.values()))))
        return encode(self, inputs, *arguments)

    monkeypatch.setattr(Encoder, "encode", count_products)
    return counts


def test_a_dataset_is_encoded_once_until_it_or_the_model_changes(
    loaded: tuple, checkpoint: Path, tmp_path: Path, encoded: list[int]
) -> None:
    source = write_dataset(tmp_path / "data", product_rows())
    first = open_catalog(*loaded, source, tmp_path / "cache", attributes=ATTRIBUTES)
    assert sum(encoded) == len(first) == 9
    again = open_catalog(*load_model(str(checkpoint)), source, tmp_path / "cache", attributes=ATTRIBUTES)
    assert sum(encoded) == 9
    assert again.path == first.path

    rows = product_rows()
    rows[0]["title"] = "striped shirt"
    changed = open_catalog(*loaded, write_dataset(tmp_path / "data", rows), tmp_path / "cache", attributes=ATTRIBUTES)
    assert sum(encoded) == 18
    assert changed.get(100).title == "striped shirt" and first.get(100).title == "red shirt"

    trained = shutil.copytree(checkpoint, tmp_path / "trained")
    model = AceBertModel.from_pretrained(trained)
    with torch.no_grad():
        model.product_projection.weight[0, 0] += 1
    model.save_pretrained(trained)
    open_catalog(*load_model(str(trained)), source, tmp_path / "cache", attributes=ATTRIBUTES)
    assert sum(encoded) == 27


def test_a_stopped_encoding_goes_on(loaded: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_dataset(tmp_path / "data", product_rows())
    encode = Encoder.encode

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Encoder, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        open_catalog(*loaded, source, tmp_path / "cache", attributes=ATTRIBUTES)
    monkeypatch.setattr(Encoder, "encode", encode)
    assert len(open_catalog(*loaded, source, tmp_path / "cache", attributes=ATTRIBUTES)) == 9


def test_a_built_catalogue_is_opened_as_it_is_beside_its_writer(
    loaded: tuple, shop: Shop, checkpoint: Path, tmp_path: Path, encoded: list[int]
) -> None:
    built = shutil.copytree(shop.catalog.path, tmp_path / "catalog")
    with ProductCatalog.load(built):
        assert len(open_catalog(*loaded, str(built), tmp_path)) == 9
    assert encoded == []
    torch.manual_seed(1)  # the checkpoint's is 0
    other = AceBertModel(AceBertConfig.from_pretrained(checkpoint))
    with pytest.raises(ValueError, match="did not make the catalogue"):
        open_catalog(other, loaded[1], str(built), tmp_path)


def test_rows_without_title_and_photo_are_left_out(loaded: tuple, tmp_path: Path) -> None:
    rows = product_rows()
    rows[6] |= {"title": " ", "image": None}
    catalog = open_catalog(*loaded, write_dataset(tmp_path / "data", rows), tmp_path / "cache", attributes=ATTRIBUTES)
    assert len(catalog) == 8 and 106 not in catalog
    assert json.loads((catalog.path / "bad_rows.jsonl").read_text())["id"] == 106


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title_column": "name"}, "no column 'name'.*--title_column"),
        ({"attributes": ("size",)}, "no column 'size'"),
        ({"image_column": "colour"}, "'colour' holds .* not photos"),
    ],
)
def test_wrong_columns_are_named(loaded: tuple, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_catalog(*loaded, write_dataset(tmp_path / "data", product_rows()), tmp_path / "cache", **columns)


def test_attributes_to_show_are_those_that_the_catalogue_has(loaded: tuple, shop: Shop, tmp_path: Path) -> None:
    assert Shop(shop.catalog, tmp_path).attributes == ["colour", "kind", "price"]
    with pytest.raises(ValueError, match="no attribute 'size': it has"):
        Shop(shop.catalog, tmp_path, ["size"])


# ----------------------------------------------------------------------------------------------------------------------
# Encoding, photos
# ----------------------------------------------------------------------------------------------------------------------


def test_words_and_photo_make_the_mean_of_their_vectors(shop: Shop) -> None:
    model, processor = shop.encoder.model, shop.encoder.processor
    with torch.no_grad():
        words = model.get_text_features(**processor(text=["red shirt"], return_tensors="pt")).pooler_output[0]
        photo = model.get_image_features(**processor(images=[plain_photo("red")], return_tensors="pt")).pooler_output[0]
    both = torch.nn.functional.normalize(words + photo, dim=0)

    for _ in range(2):  # the second time from the cache
        np.testing.assert_allclose(shop.encode("red shirt"), words, atol=1e-6)
    np.testing.assert_allclose(shop.encode(photo=plain_photo("red")), photo, atol=1e-6)
    np.testing.assert_allclose(shop.encode("red shirt", plain_photo("red")), both, atol=1e-6)
    with pytest.raises(ValueError, match="words, a photo, or both"):
        shop.encode()


def test_searches_and_explanations_at_once_give_what_they_give_alone(shop: Shop) -> None:
    texts = [" ".join(WORDS[: 1 + number % 9]) for number in range(60)]
    alone = [shop.encoder.encode_queries([text], None)[0] for text in texts]
    product = shop.catalog.get(100)

    def ask(number: int) -> np.ndarray:
        if number % 3 == 0:
            shop.explain(alone[0], product, shop.catalog.photo(product))
        return shop.encoder.encode_queries([texts[number]], None)[0]

    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_allclose(list(pool.map(ask, range(60))), alone, atol=1e-6)


def photo_at(shop: Shop, address: str) -> Any:
    return asyncio.run(shop.serve_photo(request("?" + address.partition("?")[2])))


def test_photos_are_served_for_catalogues_that_were_shown(shop: Shop, loaded: tuple, tmp_path: Path) -> None:
    with ProductCatalog.load(shutil.copytree(shop.catalog.path, tmp_path / "own")) as own:
        product = own.get(100)
        stranger = Shop(shop.catalog, tmp_path)
        at = shop.photo_address(own, product)
        found = photo_at(shop, at)
        assert found.status_code == 200 and found.media_type == "image/png"
        assert found.body == own.photo(product)
        assert photo_at(stranger, at).status_code == 404  # it never showed that catalogue
        assert photo_at(shop, at.replace("100", "999")).status_code == 404
        assert photo_at(shop, at.replace("100", "../100")).status_code == 404
        without = photo_at(shop, shop.photo_address(own, own.get(104)))
        assert without.media_type == "image/svg+xml" and b"No photo" in without.body
    del own, product
    assert photo_at(shop, at).status_code == 404  # the catalogue is gone
    deadline = time.monotonic() + 10
    while any(kept.path == tmp_path / "own" for kept in shop._photos):  # and its photos with it
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_photos_of_all_catalogues_together_are_bounded(
    shop: Shop, loaded: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Photos:  # in a catalogue's place
        def photo(self, product: Any) -> bytes | None:
            read.append(product.id)
            return None if product.id < 0 else bytes(1000)

    read: list[int] = []
    most = 20 * (1000 + ENTRY_BYTES)
    monkeypatch.setattr("acebert.space.shop.PHOTO_BYTES", most)
    own, large, small = Shop(shop.catalog, tmp_path), Photos(), Photos()

    async def reads(catalog: Photos, *product_ids: int) -> int:
        before = len(read)
        for product_id in product_ids:
            await own._photo(catalog, SimpleNamespace(id=product_id, location=0))
            assert sum(kept.size for kept in own._photos.values()) <= most
        return len(read) - before

    async def show() -> None:
        assert await reads(small, 0) == 1
        assert await reads(large, *range(30)) == 30
        assert await reads(small, 0) == 0 and await reads(large, *range(11, 30)) == 0  # kept
        assert await reads(large, 10) == 1  # the first of the larger catalogue went
        without_photo = range(-1000, 0)
        assert await reads(large, *without_photo) == 1000 and await reads(large, -1) == 0
        assert len(own._photos[large].files) < 1000

    asyncio.run(show())


# ----------------------------------------------------------------------------------------------------------------------
# Searching
# ----------------------------------------------------------------------------------------------------------------------


def test_results_are_the_exact_search_among_the_filtered(shop: Shop, panel: SearchPanel) -> None:
    rows = {row["id"]: row for row in product_rows()}
    vectors = {
        product: shop.encoder.encode_products([row["title"]], [row["image"]], ["product"])["product"][0]
        for product, row in rows.items()
    }
    query = vectors.pop(100)
    for values, fits in (
        (UNFILTERED, lambda row: True),
        ([["red", "green"], *UNFILTERED[1:]], lambda row: row["colour"] in ("red", "green")),
        ([["red"], ["bag", "shoe"], *UNFILTERED[2:]], lambda row: row["colour"] == "red" and row["kind"] != "shirt"),
        (ranges(20, 50), lambda row: 20 <= row["price"] <= 50),
        (ranges(None, 30), lambda row: row["price"] <= 30),
    ):
        naive = sorted(
            (-float(vectors[product] @ query), product) for product, row in rows.items() if product != 100 and fits(row)
        )
        page = shown(panel, "", None, "100", 4, *values)
        assert ids_in(page) == [product for _, product in naive[:4]]
        scores = [float(score) for score in re.findall(r">(-?[\d.]+) match<", page)]
        np.testing.assert_allclose(scores, [-score for score, _ in naive[:4]], atol=6e-3)


def test_similar_products_leave_out_the_product_itself(panel: SearchPanel) -> None:
    page = shown(panel, like="102", count=48)
    assert len(ids_in(page)) == 8 and 102 not in ids_in(page)
    assert "More like “red bag”" in page


def test_looking_around_shows_different_products_that_fit(shop: Shop) -> None:
    products = look_around(shop.catalog, 6, {})
    assert len({product.id for product in products}) == 6
    assert {product.id for product in look_around(shop.catalog, 6, {"colour": ["red"]})} == {100, 101, 102}


def test_filters_say_how_many_products_each_value_would_leave(shop: Shop) -> None:
    slots = FilterSlots.of(shop.catalog, ATTRIBUTES)
    assert (slots.choices, slots.ranges) == (("colour", "kind"), ("price",))
    updates = slots.updates(shop.catalog, {"colour": ["red"], "price": (None, 10)})
    (colours, kinds, *unused), (low, high) = updates[:CHOICE_SLOTS], updates[CHOICE_SLOTS:][:2]
    # The filter's own counts don't depend on itself.
    assert colours["choices"] == [("red (2)", "red")]
    assert sorted(kinds["choices"]) == [("shirt (1)", "shirt"), ("shoe (1)", "shoe")]
    assert [update["visible"] for update in unused] == [False] * (CHOICE_SLOTS - 2)
    assert (low["label"], high["label"]) == ("Price from", "Price to")
    # What was chosen stays, so that it can be taken away.
    assert ("blue (0)", "blue") in slots.updates(shop.catalog, {"colour": ["blue"], "price": (None, 10)})[0]["choices"]


def test_filters_count_groups_where_products_are_grouped(shop: Shop, tmp_path: Path) -> None:
    rows = [{"id": str(i), "title": "mug", "colour": ("red", "blue")[i % 2], "style": str(i // 4)} for i in range(8)]
    rows[7]["style"] = None
    catalog = ProductCatalog.build(
        shop.encoder.model,
        shop.encoder.processor,
        Dataset.from_list(rows),
        tmp_path / "grouped",
        image_column=None,
        index="memory",
        group_column="style",
    )
    with catalog:
        choices = FilterSlots.of(catalog, ["colour"]).updates(catalog, {})[0]["choices"]
        assert choices == [("blue (3)", "blue"), ("red (2)", "red")]
        found = find(shop, catalog, Asked("mug"))
        assert found.products.total == 3 and sorted(hit.group_size for hit in found.products) == [1, 3, 4]


def test_dates_are_filtered_from_and_to(shop: Shop, tmp_path: Path) -> None:
    rows = [{"id": str(i), "title": "mug", "added": f"2026-01-{1 + i:02d}"} for i in range(9)]
    model, processor = shop.encoder.model, shop.encoder.processor
    products = Dataset.from_list(rows)
    with ProductCatalog.build(
        model, processor, products, tmp_path / "dated", image_column=None, index="memory"
    ) as catalog:
        slots = FilterSlots.of(catalog, ["added"])
        assert slots == FilterSlots(dates=("added",)) and FilterSlots.left_out(catalog, ["added"]) == []
        filters = {"added": ("2026-01-03", "2026-01-05")}
        assert slots.read(slots.write(filters)) == filters and slots.read(slots.write({})) == {}
        assert [update["label"] for update in slots.updates(catalog, {})[-4:-2]] == ["Added from", "Added to"]
        panel = SearchPanel(shop, lambda _: catalog, "dated", shareable=True)
        link = address("mug", "", 24, filters, sort="-added")
        assert link.endswith("sort=-added&added.min=2026-01-03&added.max=2026-01-05")
        _, _, _, sort, *values, drawer, page, _ = panel.open(request(link))
        assert sort["value"] == "-added" and ("Added, newest first", "-added") in sort["choices"] and drawer["open"]
        assert [value["value"] for value in values[-4:]] == ["2026-01-03", "2026-01-05", "", ""]
        assert "3 of 3 products" in page and re.findall(r'data-why="(\d)"', page) == ["4", "3", "2"]
        wrong = shown(panel, "mug", None, "", 24, *UNFILTERED[:-4], "soon", "", "", "")
        assert "&#39;added&#39; is a day or a moment" in wrong


@pytest.mark.parametrize("filters", [{}, {"kind": ["bag"]}, {"colour": ["red", "blue"], "price": (10.5, None)}])
def test_slots_hold_filters(shop: Shop, filters: dict[str, Any]) -> None:
    slots = FilterSlots.of(shop.catalog, ATTRIBUTES)
    values = slots.write(filters)
    assert len(values) == SLOTS
    assert slots.read(values) == filters


# ----------------------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------------------


def test_what_the_shop_wrote_is_text(panel: SearchPanel) -> None:
    page = shown(panel, "blue bag")
    assert "&lt;svg src=x onerror=&#34;alert(1)&#34;&gt;" in page
    assert "&lt;x&gt;bag&lt;/x&gt;" in page
    assert "<x>" not in page and "<svg src=x" not in page
    assert page.count('alt="&lt;svg') == 1


def test_what_the_shopper_wrote_is_text(panel: SearchPanel) -> None:
    for page in (shown(panel, NASTY), shown(panel, like=NASTY)):
        assert "&lt;svg src=x" in page
        assert "<svg src=x" not in page
        assert 'onerror="' not in page


def test_every_product_has_a_photo_with_alt_text(panel: SearchPanel) -> None:
    page = shown(panel, "red")
    assert page.count('<li class="card">') == page.count('<img src="photo?catalog=') == 9
    assert 'alt="red shirt"' in page and 'alt="Product 103"' in page


def test_cards_say_which_side_carried_the_match(shop: Shop, panel: SearchPanel) -> None:
    cards = dict(zip(ids_in(page := shown(panel, "red shirt")), page.split('<li class="card">')[1:], strict=True))
    for hit in shop.catalog.search("red shirt", top_k=9):
        expected = {"words": "exact words", "title": "by title", "image": "by photo", None: None}[hit.carried_by]
        assert re.findall(r"(?:by title|by photo|exact words)(?=<)", cards[hit.id]) == ([expected] if expected else [])
    assert "by photo" not in cards[104] and "by title" not in cards[103]  # they have one side only
    assert "match" not in shown(panel)  # nothing was asked


def test_the_page_says_what_it_shows(panel: SearchPanel) -> None:
    photo = plain_photo("red")
    assert "From the catalogue" in shown(panel, " ")
    assert "9 of 9 products, best match first" in shown(panel, "red")
    assert "2 of 3 products" in shown(panel, "red", None, "", 2, ["red"], *UNFILTERED[1:])
    assert "“red bag”" in shown(panel, " red bag ")
    assert "“red bag” and your photo" in shown(panel, "red bag", photo)
    assert "Like your photo" in shown(panel, "", photo)
    assert "More like “red shirt”" in shown(panel, like="100")
    assert "Nothing fits these filters" in shown(panel, "bag", None, "", 24, ["red"], ["<x>bag</x>"], *UNFILTERED[2:])
    assert "There is no product 7 in this catalogue." in shown(panel, like="7")
    assert "The range on &#39;price&#39; is empty" in shown(panel, "bag", None, "", 24, *ranges(9, 1))
    empty = SearchPanel(panel.shop, lambda _: None, "own")
    assert "Nothing to search yet" in empty.open(request())[-2]
    assert "Nothing to search yet" in shown(empty, "red")


def test_a_link_opens_the_same_search(panel: SearchPanel) -> None:
    link = address("red & blue", "", 12, {"colour": ["red", "blue"], "price": (None, 40.5)})
    like, as_words, count, sort, *slots, drawer, page, question = panel.open(request(link))
    values = [slot["value"] for slot in slots]
    assert (like, as_words, count, sort["value"], drawer["open"]) == ("", [], 12, "", True)
    assert sorted(values[0]) == ["blue", "red"] and values[CHOICE_SLOTS:][:2] == [None, 40.5]
    assert page == shown(panel, "red & blue", None, "", 12, *values)
    assert (
        f'data-address="{address("red & blue", "", 12, FilterSlots(("colour",), ("price",)).read(values))}"'.replace(
            "&", "&amp;"
        )
        in page
    )
    np.testing.assert_array_equal(question.vector, panel.shop.encode("red & blue"))

    opened = panel.open(request(address("", "104", 24, {})))
    assert opened[0] == "104" and "More like “blue shoe”" in opened[-2]
    _, _, count, _, *slots, _, _, _ = panel.open(request("?n=7&price.min=9&price.max=1"))
    assert count == DEFAULT_COUNT and [slot["value"] for slot in slots] == UNFILTERED
    low = 4 + CHOICE_SLOTS
    assert panel.open(request("?price.min=much&price.max=30"))[low : low + 2] == (
        opened[low] | {"value": None},
        opened[low + 1] | {"value": 30},
    )
    assert "Link to this search" in shown(panel, "red")
    assert "Link to this search" not in shown(panel, "red", plain_photo("red"))


def test_a_link_to_any_value_opens_filtered(panel: SearchPanel) -> None:
    """Also to one that isn't among those listed, or that no product has."""
    _, _, _, _, colour, *_, page, _ = panel.open(request("?q=bag&colour=pink"))
    assert colour["value"] == ["pink"] and ("pink (0)", "pink") in colour["choices"]
    assert "Nothing fits these filters" in page


def test_what_a_search_says_can_be_taken_back(panel: SearchPanel) -> None:
    page = shown(panel, "bag over 20 not red")
    assert re.findall(r'data-as-words="([^"]+)"', page)[:2] == ["over 20", "not red"]
    rows = {row["id"]: row for row in product_rows()}
    fitting = {i for i, row in rows.items() if row["price"] > 20 and row["colour"] != "red"}
    assert set(ids_in(page)) == fitting
    event = SimpleNamespace(product="", words="not red")
    *_, as_words, page, _ = panel.follow(event, request(), "bag over 20 not red", None, [], 24, "", *UNFILTERED)
    assert as_words == ["not red"] and set(ids_in(page)) == {i for i, row in rows.items() if row["price"] > 20}
    link = re.search(r'data-address="([^"]+)"', page)[1].replace("&amp;", "&")
    assert panel.open(request(link))[-2] == page
    assert "Showing results for" not in page and "Nothing here seems to fit" not in page


def test_results_sorted_by_a_number(panel: SearchPanel) -> None:
    rows = {row["id"]: row for row in product_rows()}
    prices = [rows[product]["price"] for product in ids_in(shown(panel, "red shirt", sort="-price"))]
    assert prices == sorted(prices, reverse=True)
    assert panel.open(request("?q=red&sort=-price"))[3]["value"] == "-price"


def test_another_panel_keeps_the_address_out(shop: Shop) -> None:
    own = SearchPanel(shop, lambda _: shop.catalog, "own")
    assert own.open(request("?q=red"))[-1] is None  # nothing was asked
    assert own.open_another(request())[:2] == ("", None)
    assert "Link to this search" not in shown(own, "red")
    # With nothing named, it filters by all that the catalogue has.
    assert [slot["visible"] for slot in own.open(request())[4:-3]].count(True) == 4


def test_labels_are_words() -> None:
    assert [label(name) for name in ("baseColour", "article_type", "gender")] == [
        "Base colour",
        "Article type",
        "Gender",
    ]


def test_facts_are_those_that_a_product_has(shop: Shop) -> None:
    assert show_facts(shop.catalog.get(101), ATTRIBUTES) == "red\u00a0· shoe\u00a0· Price\u00a010"
    assert show_facts(shop.catalog.get(108), ATTRIBUTES) == "bag\u00a0· Price\u00a080"


# ----------------------------------------------------------------------------------------------------------------------
# Why this product?
# ----------------------------------------------------------------------------------------------------------------------


def test_reasons_are_about_the_product_and_the_question(shop: Shop) -> None:
    query = shop.encode("red shirt")
    by_id = {hit.id: hit for hit in shop.catalog.search(vector=query, top_k=9)}
    for product in (100, 103, 104):  # title and photo, photo alone, title alone
        reasons, hit = find_reasons(shop, shop.catalog, Question(query), str(product)), by_id[product]
        assert reasons.explanation.score == pytest.approx(hit.score, abs=2e-3)
        assert reasons.alone.get("title") == pytest.approx(hit.title_score, abs=2e-3)
        assert reasons.alone.get("image") == pytest.approx(hit.image_score, abs=2e-3)
        assert reasons.explanation.title_share + reasons.explanation.image_share == pytest.approx(hit.score, abs=2e-3)
        assert (reasons.map is None) == (product == 104)
    with pytest.raises(ValueError, match="no product 7"):
        find_reasons(shop, shop.catalog, Question(query), "7")


def test_a_product_is_explained_by_the_product_that_it_is_like(shop: Shop) -> None:
    (hit,) = shop.catalog.search(like=102, top_k=1)
    reasons = find_reasons(shop, shop.catalog, Question(like="102"), str(hit.id))
    assert reasons.explanation.score == pytest.approx(hit.score, abs=2e-3)


def explained(title_share: float, image_share: float, sides: tuple[str, ...] = ("title", "image")) -> Reasons:
    explanation = Explanation(title_share + image_share, title_share, image_share, [("red", math.nan)], None, None)
    return Reasons(SimpleNamespace(id=1, title="red"), explanation, dict.fromkeys(sides, 0.5), None)


@pytest.mark.parametrize(
    ("reasons", "percent", "summary"),
    [
        (explained(0.4, 0.1), 80, "mostly on its title"),
        (explained(0.1, 0.4), 20, "mostly on its photo"),
        (explained(0.2, 0.3), 40, "title and its photo alike"),
        (explained(-0.1, 0.4), None, "Its photo speaks for it, its title against it"),
        (explained(0.4, -0.1), None, "Its title speaks for it, its photo against it"),
        (explained(-0.1, -0.1), None, "Neither"),
        (explained(0.5, 0, ("title",)), None, "It has no photo: the match rests on its title"),
        (explained(0, 0.5, ("image",)), None, "It has no title: the match rests on its photo"),
    ],
)
def test_the_summary_says_what_the_match_rests_on(reasons: Reasons, percent: int | None, summary: str) -> None:
    assert reasons.title_percent == percent
    assert summary in reasons.summary
    assert json.loads(json.dumps(reasons.to_json(), allow_nan=False))["words"] == [["red", None]]


@pytest.fixture
def gallery(tiny_config: Any, tiny_processor: AceBertProcessor, tmp_path: Path) -> Iterator[Shop]:
    """Products with two photos, one and none."""
    eye = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40}
    eye |= {"patch_size": 8, "initializer_range": 0.2}
    torch.manual_seed(0)
    model, processor = AceBertModel(tiny_config(vision_config=eye)).eval(), tiny_processor
    red, blue = (png(plain_photo(colour)) for colour in ("red", "blue"))
    rows = [{"id": str(i), "title": NASTY, "image": some} for i, some in enumerate(([red, blue], [red], []))]
    features = Features({"id": Value("string"), "title": Value("string"), "image": List(Image())})
    products = Dataset.from_list(rows, features=features)
    with ProductCatalog.build(model, processor, products, tmp_path / "gallery", index="memory") as catalog:
        yield Shop(catalog, tmp_path / "cache")


def test_several_photos_are_a_strip_of_buttons(gallery: Shop) -> None:
    page = shown(SearchPanel(gallery, lambda _: gallery.catalog, "gallery"), "shirt")
    assert page.count('<div class="strip"') == 1 and page.count("data-photo=") == 2
    assert re.findall(r'aria-pressed="(\w+)" aria-label="([^"]+)"', page) == [
        ("true", "Photo 1 of 2"),
        ("false", "Photo 2 of 2"),
    ]
    assert page.count("<svg src=x") == 0
    product = gallery.catalog.get("0")
    files = [photo_at(gallery, gallery.photo_address(gallery.catalog, product, number)).body for number in range(2)]
    assert files == gallery.catalog.photos(product) and files[0] != files[1]
    for number in ("2", "999", "-1", "x", "9" * 5000):
        address = gallery.photo_address(gallery.catalog, product) + f"&number={number}"
        assert photo_at(gallery, address).status_code == 200
    assert photo_at(gallery, gallery.photo_address(gallery.catalog, product, 2)).media_type == "image/svg+xml"


def test_the_photo_that_fits_best_explains_a_match(gallery: Shop) -> None:
    product = gallery.catalog.get("0")
    alone = gallery.encoder.encode_products([None] * 2, gallery.catalog.photos(product), ["image"])["image"]
    for number, vector in enumerate(alone):
        reasons = find_reasons(gallery, gallery.catalog, Question(vector), "0")
        assert reasons.chosen == number and reasons.alone.keys() == {"title", "image"}
        page = why_page(gallery, gallery.catalog, reasons)
        pressed = re.findall(r'aria-pressed="(\w+)"', page)
        assert pressed.index("true") == number and len(pressed) == 2
        assert "The photo that fits best with what mattered in colour" in page
    alone_page = why_page(gallery, gallery.catalog, find_reasons(gallery, gallery.catalog, Question(alone[0]), "1"))
    assert "strip" not in alone_page and "The same photo" in alone_page


def test_the_panel_shows_words_photo_and_scores_as_text(shop: Shop) -> None:
    page = why_page(shop, shop.catalog, find_reasons(shop, shop.catalog, Question(shop.encode("blue bag")), "105"))
    assert "<svg src=x" not in page and "onerror=" in page and 'onerror="' not in page
    assert page.count("<figure") == 2 and 'src="data:image/webp;base64,' in page
    assert len(re.findall(r"<dd>-?\d\.\d\d</dd>", page)) == 3


def test_the_answer_carries_the_question_s_ticket(shop: Shop, panel: SearchPanel) -> None:
    question = Question(shop.encode("red shirt"))
    event = SimpleNamespace(product="100", ticket='3"')
    answer = panel.show_why(event, request(), question)["why"]
    assert answer.startswith('<section data-ticket="3&#34;">') and "Title alone" in answer
    assert "search again" in panel.show_why(event, request(), None)["why"]
    assert "no product 7" in panel.show_why(SimpleNamespace(product="7", ticket="1"), request(), question)["why"]


# ----------------------------------------------------------------------------------------------------------------------
# The app
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shell that runs the tests."""
    for name in ("ACEBERT_MODEL_NAME_OR_PATH", "ACEBERT_CATALOG"):
        monkeypatch.delenv(name, raising=False)


def test_settings_come_from_flags_then_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        app.parse_args([])
    assert "--model_name_or_path or set ACEBERT_MODEL_NAME_OR_PATH" in capsys.readouterr().err
    monkeypatch.setenv("ACEBERT_MODEL_NAME_OR_PATH", "someone/model")
    monkeypatch.setenv("ACEBERT_ATTRIBUTE_COLUMNS", "colour, kind")
    args = app.parse_args(["--catalog", "folder"])
    assert (args.model_name_or_path, args.catalog) == ("someone/model", "folder")
    assert args.attribute_columns == ("colour", "kind")
    assert app.parse_args(["--model_name_or_path", "other/model"]).model_name_or_path == "other/model"


def test_only_a_known_catalogue_has_settings_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ACEBERT_MODEL_NAME_OR_PATH", "someone/model")
    demo, other = app.parse_args([]), app.parse_args(["--catalog", "folder"])
    assert demo.catalog == "ashraq/fashion-product-images-small" and demo.title_column == "productDisplayName"
    assert "baseColour" in demo.attribute_columns and "black high heels" in demo.examples
    columns = (other.id_column, other.title_column, other.image_column, other.attribute_columns, other.examples)
    assert columns == ("id", "title", "image", None, ())
    sample = app.parse_args(["--catalog", "folder", "--preset", "sample", "--title_column", "name"])
    assert sample.title_column == "name" and "price" in sample.attribute_columns
    monkeypatch.setenv("ACEBERT_PRESET", "unknown")
    with pytest.raises(SystemExit):
        app.parse_args([])
    assert "There is no preset 'unknown': choose one of ashraq/" in capsys.readouterr().err


def test_a_published_commit_is_of_the_published_repository_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = {"model_name_or_path": "a/model", "revision": "1", "catalog": "a/shoes", "catalog_revision": "2"}
    (tmp_path / "settings.json").write_text(json.dumps(published))
    monkeypatch.setattr(app, "PUBLISHED", tmp_path / "settings.json")
    monkeypatch.setenv("ACEBERT_CATALOG", "b/bags")
    args = app.parse_args([])
    assert (args.model_name_or_path, args.revision) == ("a/model", "1")
    assert (args.catalog, args.catalog_revision) == ("b/bags", None)
    args = app.parse_args(["--model_name_or_path", "b/model", "--revision", "3", "--catalog", "a/shoes"])
    assert (args.revision, args.catalog_revision) == ("3", "2")


def test_the_space_runs_away_from_the_repository_by_the_checkpoint_s_code(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "space", tmp_path / "space")
    code = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import app
from pathlib import Path
assert app.provide_package({str(ROOT)!r}, "main", Path("cache")) == "main"
import acebert.catalog.product_catalog, acebert.space.page
print(acebert.catalog.product_catalog.__file__)
print(acebert.space.page.__file__)
"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path / "space", check=True, timeout=120, capture_output=True, text=True)
    assert all(Path(file).is_relative_to(tmp_path / "space" / "cache") for file in done.stdout.split())


def test_model_and_package_come_from_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "0123abc"
    for folder in ("", *app.PACKAGE_PARTS):
        (snapshot / folder).mkdir(exist_ok=True)
        (snapshot / folder / "__init__.py").write_text("")
    asked = []

    def download(model: str, **options: Any) -> str:
        asked.append((model, options["revision"]))
        return str(snapshot)

    monkeypatch.setattr(app, "snapshot_download", download)
    monkeypatch.setattr(app, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert app.provide_package("someone/model", "v1", tmp_path / "cache") == "0123abc"
    assert asked == [("someone/model", "v1")]
    assert (Path(sys.path[-1]) / "acebert" / "__init__.py").exists()
    assert (Path(sys.path[-1]) / "acebert" / "catalog" / "__init__.py").exists()


@pytest.fixture(scope="module")
def client(shop: Shop) -> Any:
    page = build_page(shop, ("red shirt",))
    _, url, _ = launch(page, shop, prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    page.close()


def test_the_search_endpoint(client: Client, shop: Shop, tmp_path: Path) -> None:
    hits = client.predict(query="blue shoe", count=3, filters={"colour": ["red"]}, api_name="/search")
    expected = shop.catalog.search("blue shoe", top_k=3, filters={"colour": "red"})
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert set(hits[0]) == {"id", "title", "score", "carried_by", "parts", "attributes"}
    assert hits[0]["attributes"]["colour"] == "red"

    plain_photo("green").save(tmp_path / "query.png")
    photo = handle_file(str(tmp_path / "query.png"))
    hits = client.predict(query="blue shoe", photo=photo, count=5, filters={"price": {"$lt": 70}}, api_name="/search")
    expected = shop.catalog.search("blue shoe", plain_photo("green"), top_k=5, filters={"price": {"$lt": 70}})
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]


def test_the_why_endpoint(client: Client, shop: Shop) -> None:
    reasons, heat = client.predict(product="100", query="red shirt", api_name="/why")
    expected = find_reasons(shop, shop.catalog, Question(shop.encode("red shirt")), "100").to_json()
    assert reasons["score"] == pytest.approx(expected["score"], abs=2e-3)
    assert [word for word, _ in reasons["words"]] == ["red", "shirt"]
    with PILImage.open(heat) as photo:
        assert photo.size == (24, 32)


def test_the_endpoints_say_what_is_wrong(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="words, a photo, or both"):
        client.predict(api_name="/search")
    (tmp_path / "photo.png").write_text("no photo")
    with pytest.raises(AppError, match="can't be read as a photo"):
        client.predict(query="red", photo=handle_file(str(tmp_path / "photo.png")), api_name="/search")
    with pytest.raises(AppError, match="Unknown attribute 'size'"):
        client.predict(query="red", filters={"size": ["L"]}, api_name="/search")
    with pytest.raises(AppError, match="1 to 100 products, and 0 were"):
        client.predict(query="red", count=0, api_name="/search")
    with pytest.raises(AppError, match="no product 7"):
        client.predict(product="7", query="red", api_name="/why")


def test_endpoints_are_named_and_described(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert {"/search", "/why"} <= set(endpoints)
    assert not [name for name in endpoints if re.search(r"_\d+$", name)]  # no two share a name
    assert endpoints["/search"]["description"].startswith("Finds products")
    described = {parameter["parameter_name"]: parameter for parameter in endpoints["/search"]["parameters"]}
    assert list(described) == ["query", "photo", "count", "filters"]
    assert described["filters"]["type"]["type"] == "object"  # agents refuse a schema without a type


def test_the_page_loads_its_photos_from_its_own_address(client: Client, shop: Shop) -> None:
    at = shop.photo_address(shop.catalog, find_product(shop.catalog, "100"))
    answer = httpx.get(client.src + at)
    assert answer.headers["content-type"] == "image/png" and answer.content.startswith(b"\x89PNG")
    assert "http://" not in (page := shown(SearchPanel(shop, lambda _: shop.catalog, "shop", shareable=True), "red"))
    assert "https://" not in page
