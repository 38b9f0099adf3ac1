"""What shoppers expect of a search box, over every index: codes, brands, errors, exclusions, prices, variants."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from catalog_products import COUNT, ids
from datasets import Dataset

from acebert.catalog import ProductCatalog
from acebert.catalog.boosts import Boost

COLOURS, KINDS = ("red", "blue", "green", "black"), ("dress", "shirt", "mug", "sunglasses", "backpack")
BRANDS = ("zorvex", "Kalimo", "Red Tape", "Fossil")
SIZES = ("S", "M", "L")


def make_rows() -> list[dict[str, Any]]:
    """60 products: 20 styles in 3 sizes, four brands, each with a part number, every other one's in the title alone."""
    rng, rows = random.Random(0), []
    for style in range(20):
        colour, kind, brand = COLOURS[style % 4], KINDS[style % 5], BRANDS[style % 4]
        for size in SIZES:
            code = f"{rng.choice('ABC')}{rng.choice('XYZ')}-{rng.randint(1000, 9999)}-{size}"
            rows.append(
                {
                    "id": f"{style:03d}-{size}",
                    "title": f"{colour} {kind} {code}" if style % 2 else f"{colour} {kind}",
                    "code": code,
                    "mpn": None if style % 2 else code,
                    "brand": brand,
                    "colour": colour.capitalize(),
                    "category": f"Home > {kind} > {colour}",
                    "size": size,
                    "style": f"style {style}" if style < 18 else None,
                    "price": 5.0 * style + 1,
                    "stock": style % 3,
                    "new": style % 4 == 0,
                    "added": f"2026-01-{style + 1:02d}",
                }
            )
    return rows


ROWS = make_rows()
BY_ID = {row["id"]: row for row in ROWS}


@pytest.fixture(params=["edge", "memory", "server"])
def shop(request: pytest.FixtureRequest, build: Callable[..., ProductCatalog], server: str) -> ProductCatalog:
    products = Dataset.from_list([{name: value for name, value in row.items() if name != "code"} for row in ROWS])
    return build(products, image_column=None, index=server if request.param == "server" else request.param)


@pytest.mark.parametrize(
    "typed", [str, str.lower, lambda code: code.replace("-", ""), lambda code: code.replace("-", " ")]
)
def test_a_part_number_finds_its_product_first(shop: ProductCatalog, typed: Callable[[str], str]) -> None:
    for row in ROWS[::7]:
        best = shop.search(typed(row["code"]), top_k=3)
        assert best[0].id == row["id"] and best[0].carried_by == "words" and best[0].parts["words"] > 2
        assert best[1].score < best[0].score - 1


def test_an_id_that_is_a_code_is_found(shop: ProductCatalog) -> None:
    assert shop.search("007-M")[0].id == "007-M"


def test_a_brand_s_products_come_first(shop: ProductCatalog) -> None:
    for brand in BRANDS:
        hits = shop.search(brand.upper(), top_k=15)
        assert {hit.attributes["brand"] for hit in hits} == {brand}
    dense = shop.search(BRANDS[0], top_k=15, exact_words=False)
    assert {hit.attributes["brand"] for hit in dense} != {BRANDS[0]} and "words" not in dense[0].parts


def test_a_new_name_is_found_at_once(shop: ProductCatalog) -> None:
    shop.upsert([{"id": "new", "title": "a mug", "mpn": "QQ 99-77"}])
    assert shop.search("qq9977")[0].id == "new"
    shop.update_attributes({"new": {"mpn": "WW-11-22"}})
    assert shop.search("ww 1122")[0].id == "new" and shop.search("qq9977")[0].carried_by != "words"
    shop.delete(["new"])
    assert "words" not in shop.search("ww 1122")[0].parts
    shop.optimize()
    assert shop.search(ROWS[0]["code"])[0].id == ROWS[0]["id"]


def test_typing_errors(shop: ProductCatalog) -> None:
    for typed, meant in (("sunglases", "sunglasses"), ("bakcpack", "backpack"), ("dresss", "dress")):
        results = shop.search(f"{typed} cheap", top_k=60)
        assert results.corrections[typed] == meant and results.text.startswith(meant)
        assert all(("words" in hit.parts) == (meant in hit.title) for hit in results)
        assert "words" not in shop.search(typed, correct=False)[0].parts
        assert typed not in shop.search(f"{typed} cheap", as_words=[typed]).corrections


def test_words_that_the_catalogue_hardly_says(shop: ProductCatalog) -> None:
    found = shop.search("knapsacks red", top_k=60)
    assert found.expansions == {"knapsacks": "backpack"} and found.text == "knapsacks red"
    both = shop.search(["knapsacks red", "knapsacks red backpack"], top_k=60, expand=False)
    assert [results.expansions for results in both] == [{}, {}]
    one, other = ({hit.id: hit.parts["similarity"] for hit in results} for results in both)
    ratios = [hit.parts["similarity"] / (one[hit.id] + other[hit.id]) for hit in found]
    assert ratios == pytest.approx([ratios[0]] * 60, rel=1e-3) and ratios[0] >= 0.5  # the unit vector of the mean
    assert shop.search("knapsacks red", as_words=["knapsacks"]).expansions == {}
    assert shop.search("knapsacks red", using="words").expansions == {}
    assert shop.search("red backpack").expansions == {}


def test_what_was_corrected_is_understood(shop: ProductCatalog) -> None:
    results = shop.search("bakcpack Blck undr 30", top_k=60)
    assert results.corrections["Blck"] == "black" and "Black" in str([chip.filters for chip in results.chips])
    assert shop.search("Kalimo").corrections == {}  # of an attribute, and of no title


def test_exclusions_prices_and_sizes_are_filters(shop: ProductCatalog) -> None:
    results = shop.search("dress not red", top_k=60)
    assert results.text == "dress" and [chip.effect for chip in results.chips] == ["filter"]
    assert set(ids(results)) == {row["id"] for row in ROWS if row["colour"] != "Red"} and results.total == len(results)
    cheap = shop.search("mug under 30 size M", top_k=60)
    assert set(ids(cheap)) == {row["id"] for row in ROWS if row["price"] < 30 and row["size"] == "M"}
    kept = shop.search("mug under 30", top_k=60, as_words=["under 30"])
    assert len(kept) == len(ROWS) and not [chip for chip in kept.chips if chip.effect == "filter"]
    plain = shop.search("mug under 30", understand=False)
    assert plain.chips == [] and plain.text == "mug under 30"
    without = shop.search("gift without mug", top_k=60)
    assert without.total == sum("mug" not in row["title"] for row in ROWS)
    zoned = {row["id"] for row in ROWS if row["brand"] == "zorvex"}
    assert not zoned & set(ids(shop.search("mug not zorvex", top_k=60)))
    shop.upsert([{"id": "plain", "title": "velvet mug"}])
    assert "plain" in ids(shop.search("mug", top_k=61))
    for text in ("mug without velvet", "mug not velvet or blue"):  # a word that no attribute has
        assert "plain" not in ids(shop.search(text, top_k=61))
    shop.delete(["plain"])
    boosted = next(hit for hit in shop.search("red", top_k=60) if hit.attributes["colour"] == "Red")
    assert boosted.parts["understood"] == pytest.approx(0.05)


def test_nonsense_fits_nothing(shop: ProductCatalog) -> None:
    for nonsense in ("xyzabcxyz", "qqqwww zzzuuu", "12"):
        results = shop.search(nonsense)
        assert results.nothing_fits and len(results) == 10  # the nearest, for who wants to show them
    assert not shop.search("red mug").nothing_fits
    assert not shop.search("Kalimos").nothing_fits  # no title says it, but an attribute does
    assert shop.search("mug", filters={"colour": "Pink"}).nothing_fits


def test_variants_are_one_hit(shop: ProductCatalog) -> None:
    results = shop.search("shirt", group_by="style", top_k=60)
    styles = [hit.attributes.get("style") for hit in results]
    assert len(set(styles) - {None}) == 18 and styles.count(None) == 6 and results.total == len(results) == 24
    assert {hit.group_size for hit in results} == {3, 1}
    best = {}
    for hit in shop.search("shirt", top_k=60):
        best.setdefault(hit.attributes.get("style") or hit.id, hit.score)
    assert [hit.score for hit in results] == pytest.approx(sorted(best.values(), reverse=True))
    pages = [shop.search("shirt", group_by="style", top_k=5, offset=start) for start in range(0, 25, 5)]
    assert [i for page in pages for i in ids(page)] == ids(results)
    like = shop.search(like="001-M", group_by="style", top_k=60)
    assert "style 1" not in [hit.attributes.get("style") for hit in like] and len(like) == 23
    assert shop.facets("colour", group_by="style") == {"Red": 5, "Blue": 5, "Green": 4 + 3, "Black": 4 + 3}
    assert shop.facets("colour") == {"Red": 15, "Blue": 15, "Green": 15, "Black": 15}
    cheap = shop.search("shirt", group_by="style", top_k=60, filters={"price": (None, 30), "size": ["S", "M"]})
    assert cheap.total == 6 and {hit.group_size for hit in cheap} == {2}


def test_pages_follow_each_other(shop: ProductCatalog) -> None:
    whole = shop.search("red mug", top_k=60)
    pages = [shop.search("red mug", top_k=7, offset=start) for start in range(0, 70, 7)]
    assert [i for page in pages for i in ids(page)] == ids(whole) and {page.total for page in pages} == {60}
    assert shop.search("red mug", offset=60) == []


def test_sorted_by_a_number(shop: ProductCatalog) -> None:
    for sort_by, reverse in (("price", False), ("-price", True)):
        results = shop.search("mug", sort_by=sort_by, top_k=60)
        prices = [hit.attributes["price"] for hit in results]
        assert prices == sorted(prices, reverse=reverse) and results.total == len(results)
        assert {row["id"] for row in ROWS if "mug" in row["title"]} <= set(ids(results))


def test_boosts(shop: ProductCatalog) -> None:
    hits = shop.search("mug", boosts={"stock": Boost(0.1, pivot=2), "new": 3.0}, top_k=60)
    for hit in hits:
        stock = hit.attributes["stock"]
        assert hit.parts.get("stock", 0) == pytest.approx(0.1 * stock / (stock + 2))
        assert hit.score == pytest.approx(sum(hit.parts.values()))
    assert all(hit.attributes["new"] for hit in hits[:15]) and not any(hit.attributes["new"] for hit in hits[15:])
    newest = shop.search("mug", boosts={"added": Boost(10_000.0, half_life=1_000)}, top_k=60)
    days = [hit.attributes["added"] for hit in newest]
    assert days == sorted(days, reverse=True) and newest[0].parts["added"] < 10_000


def test_paths_and_near_values(shop: ProductCatalog) -> None:
    under = {row["id"] for row in ROWS if row["category"].startswith("Home > mug")}
    for path in ("Home > mug", "home/Mug", "Home>mug"):
        assert set(ids(shop.search("x", filters={"category": {"$under": path}}, top_k=60))) == under
        assert shop.count({"category": {"$under": path}}) == len(under)
    assert shop.search("x", filters={"category": {"$under": "Home > mu"}}).total == 0
    empty = shop.search("mug", filters={"colour": "red", "size": ["M", "XM"]})
    assert empty == [] and empty.near_values["colour"] == ["Red"]
    assert shop.search("mug", filters={"colour": "Red"}).near_values == {}


def test_a_batch_is_what_each_gives_alone(shop: ProductCatalog) -> None:
    texts = ["red mug", "dress not red", ROWS[3]["code"], "sunglases"]
    for alone, together in zip(map(shop.search, texts), shop.search(texts), strict=True):
        assert ids(alone) == ids(together) and alone.chips == together.chips and alone.total == together.total
        assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in together], abs=1e-5)


def test_an_index_of_another_format_is_made_again(catalog: ProductCatalog) -> None:
    records = list(catalog.path.rglob("applied.json"))
    assert len(records) == (catalog.settings.index != "memory")  # that one is made at every start, and records nothing
    encoder = catalog.encoder
    catalog.close()
    for record in records:
        record.write_text('{"change": 0}')
    with ProductCatalog.load(catalog.path, encoder.model, encoder.processor) as again:
        assert len(again) == COUNT and any("words" in hit.parts for hit in again.search("mug", top_k=COUNT))
