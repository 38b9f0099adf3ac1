"""The sample catalogue: its titles, its queries, its pictures and the folder it is written to."""

import dataclasses
import io
import re

import numpy as np
import pytest
from datasets import concatenate_datasets, load_dataset

from acebert.sample_catalog import drawing
from acebert.sample_catalog import generate as sample_catalog
from acebert.sample_catalog.__main__ import main
from acebert.sample_catalog.generate import (
    SampleProduct,
    draw_product,
    generate_products,
    make_judged_queries,
    split_products,
    write_sample_catalog,
)
from acebert.sample_catalog.vocabulary import BRANDS, COLOUR_WORDS, KINDS, LINES, PATTERN_WORDS

NUM_PRODUCTS = 1200


@pytest.fixture(scope="module")
def products() -> list[SampleProduct]:
    return generate_products(NUM_PRODUCTS, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sample_catalog(tmp_path_factory.mktemp("shop") / "catalog", num_products=40, seed=3)


def says(title: str, words: str) -> bool:
    return re.search(rf"\b{re.escape(words)}\b", title.casefold()) is not None


def pixels(product: SampleProduct, size: tuple[int, int] = (120, 120)) -> np.ndarray:
    return np.asarray(draw_product(product, size), np.float64)


def test_same_seed_same_products_and_pictures(products):
    again = generate_products(NUM_PRODUCTS, seed=0)
    assert products == again
    assert generate_products(NUM_PRODUCTS, seed=1) != again
    assert sample_catalog._jpeg(products[7]) == sample_catalog._jpeg(again[7])
    assert sample_catalog._jpeg(products[7]) != sample_catalog._jpeg(dataclasses.replace(products[7], seed=1))


def test_products_cover_the_shop(products):
    assert [product.id for product in products] == list(range(1_000_000, 1_000_000 + NUM_PRODUCTS))
    assert {product.articleType for product in products} == set(KINDS)
    assert {product.baseColour for product in products} == set(COLOUR_WORDS)
    assert {product.pattern for product in products} == set(PATTERN_WORDS)
    for product in products:
        low, high = KINDS[product.articleType].price
        assert low - 1 <= product.price <= high
        assert product.gender in KINDS[product.articleType].genders
    assert 0.05 < np.mean([product.hot_query is None for product in products]) < 0.25


@pytest.mark.parametrize("share", [0.0, 0.25, 0.4, 1.0])
def test_share_of_hidden_titles(share):
    products = generate_products(200, seed=5, hidden_share=share)
    assert sum(product.hidden != "" for product in products) == round(share * 200)


def test_titles_hide_what_they_claim_and_say_the_rest(products):
    for product in products:
        hidden = product.hidden.split(",") if product.hidden else []
        facts = KINDS[product.articleType]
        nouns = [style.format(noun=noun) for style in ("{noun}", *facts.styles.values()) for noun in facts.nouns]
        words = {
            "colour": COLOUR_WORDS[product.baseColour],
            "pattern": PATTERN_WORDS[product.pattern],
            "kind": (*nouns, product.articleType.casefold()),
        }
        for name, synonyms in words.items():
            said = any(says(product.productDisplayName, word) for word in synonyms)
            if name in hidden:
                assert not said, f"{product.productDisplayName!r} says its {name}"
            elif name != "pattern" or product.pattern != "Plain":
                assert said, f"{product.productDisplayName!r} does not say its {name}"


def test_brands_and_lines_give_nothing_away():
    kinds = {noun for facts in KINDS.values() for noun in facts.nouns}
    for word in (*BRANDS, *LINES):
        assert not any(
            says(word, other) for words in (*COLOUR_WORDS.values(), *PATTERN_WORDS.values(), kinds) for other in words
        )


def test_the_shop_window_has_striped_red_tshirts_whose_titles_say_neither():
    for count in (10, 1000):
        silent = [
            product
            for product in generate_products(count, seed=0)
            if (product.articleType, product.baseColour, product.pattern) == ("Tshirts", "Red", "Striped")
            and product.hidden == "colour,pattern"
        ]
        assert len(silent) >= 2


def test_relevance_is_exact(products):
    queries = make_judged_queries(products, seed=0)
    assert len(queries) == 200
    assert len({query.query for query in queries}) == 200
    striped = queries[0]
    assert (striped.baseColour, striped.pattern, striped.articleType) == (("Red",), ("Striped",), ("Tshirts",))
    constraints = ("articleType", "style", "baseColour", "pattern", "gender")
    for query in queries:
        relevant = set()
        for product in products:
            for name in constraints:
                accepted = getattr(query, name)
                if accepted and getattr(product, name) not in accepted:
                    break
            else:
                relevant.add(product.id)
        assert relevant == set(query.relevant_ids)
        assert len(query.relevant_ids) == len(relevant) > 0


def test_queries_say_what_they_constrain(products):
    for query in make_judged_queries(products, seed=0):
        for values, words in ((query.baseColour, COLOUR_WORDS), (query.pattern, PATTERN_WORDS)):
            if values:
                assert any(says(query.query, word) for word in words[values[0]]), query
        assert bool(query.gender) == any(
            says(query.query, word) for word in ("men's", "mens", "women's", "ladies", "boys", "girls", "kids")
        )
    assert any(query.gender == ("Boys", "Girls") for query in make_judged_queries(products, seed=0))


def test_few_products_give_fewer_queries():
    queries = make_judged_queries(generate_products(2, seed=0), seed=0)
    assert 1 < len(queries) < 200
    assert [query.query_id for query in queries] == list(range(len(queries)))


def test_splits_share_no_title(products):
    twins = [
        dataclasses.replace(product, id=index, productDisplayName=product.productDisplayName.upper())
        for index, product in enumerate(products[:60])
    ]
    splits = split_products([*products, *twins], seed=0)
    titles = {name: {product.productDisplayName.casefold() for product in members} for name, members in splits.items()}
    assert not titles["train"] & titles["validation"]
    assert sum(map(len, splits.values())) == len(products) + len(twins)
    assert abs(len(splits["validation"]) / len(products) - 0.15) < 0.02


def test_no_split_is_empty(products):
    for count in (2, 3, 4):
        assert all(split_products(products[:count]).values())
    with pytest.raises(ValueError, match="num_products must be larger: 1 can't be split"):
        split_products(products[:1])


def test_every_kind_and_style_can_be_drawn():
    assert set(drawing.KINDS) == set(KINDS)
    assert set(drawing.COLOURS) == set(COLOUR_WORDS)
    assert set(drawing.PATTERNS) == set(PATTERN_WORDS)
    index = 0
    for kind, facts in KINDS.items():
        for style in facts.styles:
            index += 1
            pattern = drawing.PATTERNS[index % len(drawing.PATTERNS)]
            image = drawing.draw(kind, style, "Red", pattern, (0, index), (64, 64))
            assert image.mode == "RGB" and image.size == (64, 64)
            red, green, blue = np.moveaxis(np.asarray(image, float), 2, 0)
            assert ((red > 1.6 * green) & (red > 1.6 * blue)).mean() > 0.015, (kind, style)


@pytest.mark.parametrize("kind, style", [("Tshirts", "Crew Neck"), ("Mugs", "Classic"), ("Cushion Covers", "Square")])
def test_pictures_show_the_colour(products, kind, style):
    shop = {
        name: pixels(dataclasses.replace(products[0], articleType=kind, style=style, baseColour=name, pattern="Plain"))
        for name in COLOUR_WORDS
    }
    # The middle of the picture is the object's; the median leaves out seams, handles and light.
    shown = {name: np.median(picture[45:75, 50:70].reshape(-1, 3), axis=0) for name, picture in shop.items()}
    for name, colour in shown.items():
        distances = {other: np.abs(colour - rgb).sum() for other, rgb in drawing.COLOURS.items()}
        assert min(distances, key=distances.get) == name, (kind, name, colour)


def test_pictures_show_the_pattern(products):
    middles = {}
    for pattern in PATTERN_WORDS:
        product = dataclasses.replace(
            products[0], articleType="Cushion Covers", style="Square", baseColour="Blue", pattern=pattern
        )
        middles[pattern] = pixels(product)[40:80, 40:80].mean(2)
    for pattern, middle in middles.items():
        if pattern != "Plain":
            assert middle.std() > 3 * middles["Plain"].std(), pattern
    for first in middles:
        for second in middles:
            assert first == second or np.abs(middles[first] - middles[second]).mean() > 5


def test_stripes_repeat_along_one_direction_and_dots_along_both(products):
    looks = {"Striped": [], "Dotted": []}
    for pattern, ratios in looks.items():
        for seed in range(12):
            product = dataclasses.replace(
                products[0], articleType="Cushion Covers", style="Square", baseColour="Blue", pattern=pattern, seed=seed
            )
            middle = pixels(product, (200, 200))[60:140, 60:140].mean(2)
            spectrum = np.abs(np.fft.fft2(middle - middle.mean())) ** 2
            ratios.append(spectrum.max() / spectrum.sum())
    assert np.median(looks["Striped"]) > 1.5 * np.median(looks["Dotted"])


def test_pictures_are_framed_on_light_ground(products):
    aspects = set()
    for product in products[::40]:
        image = draw_product(product)
        assert 180 <= max(image.size) <= 320
        aspects.add(round(image.width / image.height, 1))
        picture = np.asarray(image, float)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert border.min() > 175 and border.mean() > 225, product
    assert min(aspects) < 0.8 and max(aspects) > 1.2


def test_folder_reads_back(folder, tmp_path):
    catalog = load_dataset(str(folder), cache_dir=str(tmp_path))
    assert set(catalog) == {"train", "validation"}
    both = concatenate_datasets([catalog["train"], catalog["validation"]])
    expected = {product.id: product for product in generate_products(40, seed=3)}
    assert sorted(both["id"]) == sorted(expected)
    assert not set(catalog["train"]["productDisplayName"]) & set(catalog["validation"]["productDisplayName"])
    for row in both.select(range(0, 40, 9)):
        product = dataclasses.asdict(expected[row["id"]])
        image = row.pop("image")
        del product["seed"]
        assert row == product
        drawn = np.asarray(draw_product(expected[row["id"]]), float)
        assert np.abs(np.asarray(image.convert("RGB"), float) - drawn).mean() < 6  # JPEG

    queries = load_dataset(str(folder), "queries", cache_dir=str(tmp_path))["test"]
    assert queries["query"] == [query.query for query in make_judged_queries(list(expected.values()), seed=3)]
    assert set().union(*queries["relevant_ids"]) <= set(expected)


def test_columns_are_those_of_the_fashion_dataset(folder, tmp_path):
    features = load_dataset(str(folder), split="train", cache_dir=str(tmp_path)).features
    names = ["id", "gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage"]
    assert list(features)[: len(names) + 2] == [*names, "productDisplayName", "image"]
    assert features["id"].dtype == "int64" and features["year"].dtype == "float64"


def test_second_call_changes_nothing_and_other_arguments_replace(tmp_path):
    folder = tmp_path / "catalog"
    write_sample_catalog(folder, num_products=3, seed=0)
    (folder / ".ready").touch()  # as make's stamp
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_sample_catalog(folder, num_products=3, seed=0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    content = (folder / "data" / "train-00000-of-00001.parquet").read_bytes()
    write_sample_catalog(folder, num_products=4, seed=0)
    assert (folder / "data" / "train-00000-of-00001.parquet").read_bytes() != content
    assert [path.name for path in tmp_path.iterdir()] == ["catalog"]


def test_damaged_folder_is_written_again(tmp_path):
    folder = write_sample_catalog(tmp_path / "catalog", num_products=3, seed=0)
    parquet = folder / "data" / "train-00000-of-00001.parquet"
    content = parquet.read_bytes()
    parquet.unlink()
    write_sample_catalog(folder, num_products=3, seed=0)
    assert parquet.read_bytes() == content


def test_refuses_to_overwrite_what_it_did_not_write(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="neither empty nor a sample catalogue"):
        write_sample_catalog(tmp_path, num_products=3)
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(FileExistsError, match="neither empty nor a sample catalogue"):
        write_sample_catalog(tmp_path, num_products=3)
    folder = write_sample_catalog(tmp_path / "catalog", num_products=3)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        write_sample_catalog(folder, num_products=4)
    assert (folder / "notes.txt").read_text() == "mine"


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_catalog, "make_judged_queries", fail)
    with pytest.raises(KeyboardInterrupt):
        write_sample_catalog(tmp_path / "catalog", num_products=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_products": 0}, "num_products must be an integer of at least 1, got 0"),
        ({"num_products": 2.5}, "num_products must be"),
        ({"seed": -1}, "seed must be"),
        ({"hidden_share": 1.5}, "hidden_share must be between 0 and 1, got 1.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        generate_products(**arguments)


def test_command_line(tmp_path, capsys):
    main(["--output_dir", str(tmp_path / "catalog"), "--num_products", "2", "--seed", "1"])
    assert str(tmp_path / "catalog") in capsys.readouterr().out
    assert (tmp_path / "catalog" / "README.md").read_text().startswith("---\n")


def test_processes_draw_the_same(products):
    some = products[:4]
    assert list(sample_catalog._jpegs(some, num_proc=2)) == [sample_catalog._jpeg(product) for product in some]
    assert all(io.BytesIO(jpeg).read(2) == b"\xff\xd8" for jpeg in sample_catalog._jpegs(some, num_proc=1))
