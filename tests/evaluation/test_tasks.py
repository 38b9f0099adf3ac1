"""Which queries are asked and what answers them, on catalogues small enough to know all answers."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from helpers import draw

from acebert.data.columns import Columns
from acebert.data.corpus import Corpus
from acebert.data.query_templates import QueryTemplates
from acebert.evaluation.queries import QueryFile, read_queries, read_query_config, read_text_benchmark
from acebert.evaluation.shopper_queries import (
    Synonyms,
    hidden_words_task,
    hide_attributes,
    hide_words,
    make_shopper_queries,
    shopper_tasks,
    word_forms,
)
from acebert.evaluation.tasks import (
    attribute_task,
    image_task,
    judged_task,
    restrict_task,
    template_queries,
    title_phrases_task,
)
from acebert.evaluation.training_texts import TrainingTexts
from acebert.utils.tokenization import tokenize

COLUMNS = Columns(title="title", image="image", attributes=["gender", "colour", "kind"])


def make_corpus(rows: list[tuple[str | None, ...]], **columns: list[Any]) -> Corpus:
    """Rows of title, gender, colour, kind; ids count from 10, so that order as strings is order as numbers."""
    names = ("title", "gender", "colour", "kind")
    data = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    products = Dataset.from_dict({"id": list(range(10, 10 + len(rows))), **data, **columns})
    return Corpus.from_products(products, ["train"] * len(rows), COLUMNS, "drawn")


SHOP = make_corpus(
    [("Acme Blue T-Shirt", "Men", "Blue", "Tshirts")] * 3
    + [("Acme Red Tees", "Men", "Red", "Tshirts")] * 2
    + [("Zed Shoe", "Boys", "Blue", "Casual Shoes")] * 2
    + [("Zed Shoes", "Girls", "Blue", "Casual Shoes")] * 2
    + [("Zed Bag", "Women", None, "Bags")] * 4
)
SYNONYMS = Synonyms(
    {
        "gender": {"Men": ["gents"], "Boys": ["kids"], "Girls": ["kids"]},
        "kind": {"Tshirts": ["tee"], "Casual Shoes": ["sneakers"]},
    }
)
ALL = np.arange(len(SHOP))


def ids_of(**values: str) -> set[str]:
    rows = set.intersection(*(SHOP.members[column][value] for column, value in values.items()))
    return {SHOP.ids[row] for row in rows}


def test_catalog_is_in_descending_order_of_ids_with_its_attributes() -> None:
    assert SHOP.ids == sorted(SHOP.ids, reverse=True)
    row = SHOP.ids.index("13")
    assert (SHOP.titles[row], SHOP.attributes["colour"][row]) == ("Acme Red Tees", "Red")
    assert SHOP.attributes["colour"][SHOP.ids.index("22")] is None
    assert not SHOP.has_photo.any() and SHOP.shows(["title", "image"]).all() and not SHOP.shows(["image"]).any()


def test_shopper_queries_ask_for_what_enough_products_have() -> None:
    templates = QueryTemplates(["{gender} {colour} {kind}", "{colour} {kind}"])
    queries = make_shopper_queries(SHOP, ALL, templates, SYNONYMS, num_queries=50, min_relevant=2, seed=0)
    asked = [tuple(sorted(query.values.items())) for query in queries]
    assert len(set(asked)) == len(asked)
    assert {query.plain for query in queries} == {
        "men blue tshirts", "men red tshirts", "boys blue casual shoes", "girls blue casual shoes",
        "blue tshirts", "red tshirts", "blue casual shoes",
    }  # fmt: skip
    wordings = {query.plain: query.synonym for query in queries}
    assert wordings["men blue tshirts"] == "gents blue tee"
    assert wordings["blue casual shoes"] == "blue sneakers"

    more = make_shopper_queries(SHOP, ALL, templates, SYNONYMS, num_queries=50, min_relevant=3, seed=0)
    assert {query.plain for query in more} == {"men blue tshirts", "blue tshirts", "blue casual shoes"}
    part = make_shopper_queries(SHOP, ALL, templates, SYNONYMS, num_queries=3, min_relevant=2, seed=0)
    assert part == queries[:3]
    with pytest.raises(ValueError, match=r"No combination .* has 9 products"):
        make_shopper_queries(SHOP, ALL, templates, SYNONYMS, num_queries=3, min_relevant=9, seed=0)


def test_queries_without_a_synonym_are_left_out() -> None:
    templates = QueryTemplates(["{gender} {kind}"])
    queries = make_shopper_queries(SHOP, ALL, templates, SYNONYMS, num_queries=50, min_relevant=2, seed=0)
    assert "women bags" not in {query.plain for query in queries}


def training(**columns: list[Any]) -> TrainingTexts:
    names = {"hot_query": "hot_query"} if "hot_query" in columns else {}
    products = Dataset.from_dict(columns)
    return TrainingTexts(products, Columns(title="title", attributes=["kind"], **names), QueryTemplates(["buy {kind}"]))


def test_shopper_relevance_in_both_wordings_and_slices() -> None:
    templates = QueryTemplates(["{gender} {colour} {kind}", "{kind}"])
    queries = make_shopper_queries(SHOP, ALL, templates, SYNONYMS, num_queries=50, min_relevant=2, seed=0)
    texts = training(title=["Old sneakers", "Hat"], kind=["Tshirts", None], hot_query=["gents wear", None])
    plain, synonym = shopper_tasks(queries, SYNONYMS, SHOP, ALL, "", "kind", "colour", texts)
    assert synonym.plain is plain
    by_plain = dict(zip(plain.queries, plain.relevance, strict=True))
    assert set(by_plain["men blue tshirts"]) == ids_of(gender="Men", colour="Blue", kind="Tshirts")
    assert set(by_plain["boys blue casual shoes"]) == ids_of(gender="Boys")
    # "kids" is listed for boys and for girls, so it asks for both.
    by_synonym = dict(zip(synonym.queries, synonym.relevance, strict=True))
    assert set(by_synonym["kids blue sneakers"]) == ids_of(gender="Boys") | ids_of(gender="Girls")
    assert by_synonym["gents blue tee"] == by_plain["men blue tshirts"]

    labels = {name: dict(zip(synonym.queries, values, strict=True)) for name, values in synonym.slices.items()}
    assert labels["query length"]["gents blue tee"] == "3 words" and labels["query length"]["tee"] == "1 word"
    assert labels["colour"]["gents blue tee"] == "Blue" and labels["colour"]["tee"] == "none asked"
    assert labels["kind in training"]["tee"] == "head"
    assert labels["kind in training"]["sneakers"] == "not in training"
    assert labels["synonyms"]["tee"] == "a word in no training text"
    assert labels["synonyms"]["sneakers"] == "all words in training titles"
    assert labels["synonyms"]["gents blue tee"] == "a word in no training text"


def test_words_of_training_queries_are_those_of_logs_templates_and_values() -> None:
    texts = training(title=["Old sneakers"], kind=["Sun Hats"], hot_query=["gents wear"])
    assert texts.query_words == {"buy", "sun", "hat", "gent", "wear"}
    assert texts.title_words == {"old", "sneaker"}


def test_relevance_stays_within_the_ranked_products() -> None:
    templates = QueryTemplates(["{colour} {kind}"])
    rows = np.array([row for row in ALL if SHOP.attributes["gender"][row] in ("Men", "Boys")])
    queries = make_shopper_queries(SHOP, rows, templates, SYNONYMS, num_queries=50, min_relevant=2, seed=0)
    plain, _ = shopper_tasks(queries, SYNONYMS, SHOP, rows, "", "kind", "colour", None)
    by_query = dict(zip(plain.queries, plain.relevance, strict=True))
    assert set(by_query["blue casual shoes"]) == ids_of(gender="Boys")
    task = attribute_task("kind", SHOP, rows, ", part", {})
    assert task.queries == ["Casual Shoes", "Tshirts"]
    assert set(task.relevance[0]) == ids_of(gender="Boys")


def test_frequency_bands() -> None:
    kinds = ["a"] * 50 + ["b"] * 30 + ["c"] * 12 + ["d"] * 8
    bands = training(title=["t"] * 100, kind=kinds).frequency_bands("kind")
    assert bands == {"a": "head", "b": "torso", "c": "torso", "d": "tail"}


@pytest.mark.parametrize(
    ("title", "left"),
    [
        ("Acme Blue T-Shirt 12", "Acme 12"),
        ("Acme navy blue T Shirts", "Acme"),
        ("Acme tshirt, NAVY-BLUE", "Acme"),
        ("Acme Flip-Flop Flipflops flip flops", "Acme"),
        ("Acme tees", "Acme"),
        ("Shirting by Bluebell", "Shirting by Bluebell"),
        ("Acme's   Men (2 pack)", "Acme's   Men (2 pack)"),
        ("Blue T-shirt", None),
    ],
)
def test_hidden_words(title: str, left: str | None) -> None:
    forms = word_forms(["Tshirts", "Shirts", "Flip Flops", "Navy Blue", "Blue", "tee"])
    assert hide_words(title, forms) == left


def test_hidden_words_task_takes_every_value_and_synonym_out_of_every_title() -> None:
    hidden = hide_attributes(SHOP, ["colour", "kind"], SYNONYMS)
    assert set(hidden.titles) == {"Acme", "Zed"}
    assert SHOP.titles[SHOP.ids.index("10")] == "Acme Blue T-Shirt"  # the catalogue itself stays as it is
    assert hidden.sha256 != SHOP.sha256
    templates = QueryTemplates(["{colour} {kind}"])
    queries = make_shopper_queries(SHOP, ALL, templates, SYNONYMS, num_queries=50, min_relevant=2, seed=0)
    plain, _ = shopper_tasks(queries, SYNONYMS, SHOP, ALL, "", "kind", "colour", None)
    task = hidden_words_task(plain, hidden, ["colour", "kind"], "")
    assert (task.queries, task.relevance) == (plain.queries, plain.relevance)
    assert task.corpus is hidden and plain.corpus is SHOP


def test_photo_queries_find_other_products_of_their_kind_and_colour() -> None:
    rows = [(f"title {i // 2}", "Men", "Blue", "Tshirts") for i in range(8)]
    rows += [("alone", "Men", "Red", "Tshirts"), ("nothing", "Men", None, "Tshirts")]
    catalog = make_corpus(rows, image=[{"bytes": b"photo", "path": None}] * 10)
    task = image_task(catalog, np.arange(10), np.arange(10), "", ("kind", "colour"), 100, 5, 0, {"Tshirts": "head"})
    assert sorted(task.queries) == [str(10 + i) for i in range(8)]
    for query, row, grades, excluded in zip(
        task.queries, task.photo_queries, task.relevance, task.excluded, strict=True
    ):
        assert catalog.ids[row] == query
        # Products 10 and 11 share a title, and so on: neither may be found.
        pair = {str(10 + (int(query) - 10) // 2 * 2 + i) for i in range(2)}
        assert {catalog.ids[other] for other in excluded} == pair
        assert set(grades) == {str(10 + i) for i in range(8)} - pair
    assert task.slices["kind in training"] == ["head"] * 8
    with pytest.raises(ValueError, match="No product has a photo and 7 others"):
        image_task(catalog, np.arange(10), np.arange(10), "", ("kind", "colour"), 100, 7, 0, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no synonyms"),
        ({"kind": ["tee"]}, "column 'kind' holds"),
        ({"kind": {"Tshirts": "tee"}}, "kind 'Tshirts' has 'tee'"),
        ({"kind": {"Tshirts": ["bags"]}}, "'bags', for kind 'Tshirts', consists of words of the catalogue's own"),
        ({"flavour": {"Sweet": ["sugary"]}}, r"has the columns \['flavour'\]"),
    ],
)
def test_synonym_files_of_another_form(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "synonyms.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Synonyms.read(str(path), SHOP)


@pytest.mark.parametrize(
    "queries", [[], {}, {"red": ["7"]}, {"red": {"7": "1"}}, {" ": {"7": 1}}, {"red": {"7": True}}]
)
def test_query_files_of_another_form(queries: Any, tmp_path: Path) -> None:
    path = tmp_path / "queries.json"
    path.write_text(json.dumps(queries), encoding="utf-8")
    with pytest.raises(ValueError, match=r"queries\.json.* expected"):
        read_queries(str(path))


def test_queries_of_a_dataset_configuration(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    rows = Dataset.from_dict({"query": ["red mug", "bag"], "relevant_ids": [[11, 12], [7]]})
    rows.to_parquet(tmp_path / "queries" / "test-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: queries\n  data_files:\n  - split: test\n    path: queries/test-*.parquet\n---\n"
    )
    queries = read_query_config(str(tmp_path), "queries", "query", "relevant_ids")
    assert queries == {"red mug": {"11": 1.0, "12": 1.0}, "bag": {"7": 1.0}}
    with pytest.raises(ValueError, match=r"no column 'words'.*--query_text_column"):
        read_query_config(str(tmp_path), "queries", "words", "relevant_ids")
    with pytest.raises(ValueError, match="row 0: query 'red mug' has 'red mug'"):
        read_query_config(str(tmp_path), "queries", "query", "query")


def test_judged_products_outside_the_catalog() -> None:
    queries = {"red": {"10": 1, "999": 1}, "blue": {"998": 1}, "green": {"21": 1}}
    fields = {"name": "n", "description": "", "rows": ALL, "metrics": ("mrr@10",), "main_metric": "mrr@10"}
    with pytest.raises(ValueError, match=r"2 judged product ids, of 2 queries, .* the first is '999' of query 'red'"):
        judged_task(queries, "file", SHOP, drop_missing=False, **fields)
    task = judged_task(queries, "file", SHOP, drop_missing=True, **fields)
    assert (task.queries, task.num_dropped_ids, task.num_dropped_queries) == (["red", "green"], 2, 1)
    with pytest.raises(ValueError, match="no relevant product is in the catalogue"):
        judged_task({"red": {"x": 1}}, "file", SHOP, drop_missing=True, **fields)


def write(folder: Path, content: Any, name: str = "queries.json") -> str:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_conditions_name_the_relevant_products(tmp_path: Path) -> None:
    content = [
        {"query": "blue things for kids", "where": {"gender": ["Boys", "Girls"], "colour": ["Blue"]}},
        {"query": "tees or bags", "where": {"kind": ["Tshirts", "Bags"]}},
        {"query": "green shoes", "where": {"colour": ["Green"], "kind": ["Casual Shoes"]}},
    ]
    file = QueryFile.read(write(tmp_path, content))
    assert file.name == f"{tmp_path.name}/queries.json"
    assert file.columns == ["gender", "colour", "kind"]
    relevant = {query: set(grades) for query, grades in file.judge(SHOP).items()}
    assert relevant == {
        "blue things for kids": ids_of(gender="Boys") | ids_of(gender="Girls"),
        "tees or bags": ids_of(kind="Tshirts") | ids_of(kind="Bags"),
        "green shoes": set(),
    }


def test_conditions_are_read_as_the_catalogue_is(tmp_path: Path) -> None:
    products = Dataset.from_dict({"id": [1, 2], "title": ["a", "b"], "year": [2012.0, 2013.0]})
    corpus = Corpus.from_products(products, ["train"] * 2, Columns(image=None, attributes=["year"]), "drawn")
    file = QueryFile.read(write(tmp_path, [{"query": "of 2012", "where": {"year": [2012]}}]))
    assert file.judge(corpus) == {"of 2012": {"1": 1.0}}


def test_grades_are_taken_as_they_are(tmp_path: Path) -> None:
    file = QueryFile.read(write(tmp_path, {"red": {"10": 3, "11": 0}}))
    assert file.columns == []
    assert file.judge(SHOP) == {"red": {"10": 3, "11": 0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no queries; expected a JSON object .* or a list"),
        ("red", "holds no queries; expected a JSON object .* or a list"),
        (["red"], "entry 0 is 'red'; expected a list"),
        ([{"query": "red"}], "entry 0 is {'query': 'red'}; expected"),
        ([{"query": "red", "where": {}}], "entry 0 is"),
        ([{"query": " ", "where": {"colour": ["Red"]}}], "entry 0 is"),
        ([{"query": "red", "where": ["colour"]}], "entry 0 is"),
        ([{"query": "red", "where": {"colour": "Red"}}], "query 'red' asks for 'Red' in 'colour'; expected a list"),
        ([{"query": "red", "where": {"colour": []}}], r"query 'red' asks for \[\] in 'colour'"),
        ([{"query": "red", "where": {"colour": [None]}}], r"query 'red' asks for \[None\] in 'colour'"),
        ([{"query": "red", "where": {"colour": ["Red"]}}] * 2, "entry 1 repeats the query 'red'"),
    ],
)
def test_conditions_of_another_form(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        QueryFile.read(write(tmp_path, content))


def test_judged_queries_among_a_part_of_the_products() -> None:
    queries = {"red": {"13": 3, "15": 2, "10": 1}, "shoe": {"15": 0, "16": 1}, "bag": {"20": 2}}
    fields = {"name": "n", "description": "", "rows": ALL, "metrics": ("ndcg@10",), "main_metric": "ndcg@10"}
    task = judged_task(queries, "file", SHOP, drop_missing=False, kind="natural", **fields)
    rows = np.array([SHOP.ids.index(product) for product in ("16", "15", "10")])
    part = restrict_task(task, rows, ", part")
    assert (part.name, part.kind, part.rows.tolist()) == ("n, part", "natural", rows.tolist())
    assert part.queries == ["red", "shoe"]  # no bag is ranked
    assert part.relevance == [{"15": 2, "10": 1}, {"15": 0, "16": 1}]
    assert part.num_dropped_queries == 1
    assert part.slices == {"query length": ["1 word", "1 word"]}
    assert task.queries == ["red", "shoe", "bag"]
    assert restrict_task(task, np.array([SHOP.ids.index("22")]), ", part") is None


def test_text_benchmark_counts_products_of_one_title_as_one(tmp_path: Path) -> None:
    products = {
        "1": {"title": "Speaker", "description": "loud"},
        "2": {"title": "Cable"},
        "3": {"title": "Speaker"},
        "4": {"title": "Lamp"},
    }
    write(tmp_path, products, "products.json")
    write(tmp_path, {"loud box": {"1": 1, "3": 3, "2": 0}, "light": {"4": 2}, "nothing": {"2": 0}})
    corpus, judgements = read_text_benchmark(str(tmp_path))
    assert corpus.name == tmp_path.name
    assert (corpus.ids, corpus.titles) == (["4", "2", "1"], ["Lamp", "Cable", "Speaker"])
    assert not corpus.has_photo.any()
    assert judgements == {"loud box": {"1": 3, "2": 0}, "light": {"4": 2}}


@pytest.mark.parametrize(
    ("products", "queries", "message"),
    [
        ({}, {"red": {"1": 1}}, "products.json holds no products; expected"),
        ({"1": {"name": "a"}}, {"red": {"1": 1}}, "product '1' has no title; expected"),
        ({"1": {"title": "a"}}, {"red": {"2": 1}}, "query 'red' judges product '2', which products.json lacks"),
        ({"1": {"title": "a"}}, {"red": {"1": 0}}, "no query has a product of grade 1 or more"),
    ],
)
def test_text_benchmarks_of_another_form(products: Any, queries: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, products, "products.json")
    write(tmp_path, queries)
    with pytest.raises(ValueError, match=message):
        read_text_benchmark(str(tmp_path))


def test_title_phrases_are_answered_by_the_titles_that_hold_their_words() -> None:
    rows = np.array([row for row in ALL if SHOP.attributes["kind"][row] != "Bags"])
    task = title_phrases_task(SHOP, rows, ", part", num_phrases=100, seed=0)
    assert (task.name, task.kind, task.modalities) == ("title phrases, part", "title phrases", ("title",))
    for phrase, grades in zip(task.queries, task.relevance, strict=True):
        words = set(tokenize(phrase))
        found = {SHOP.ids[row] for row in rows if words <= set(tokenize(SHOP.titles[row]))}
        assert set(grades) == found and found, phrase
    by_phrase = dict(zip(task.queries, task.relevance, strict=True))
    assert set(by_phrase["Zed"]) == ids_of(kind="Casual Shoes")  # the bags of that brand are not ranked
    untitled = make_corpus([(None, None, None, None), ("123", None, None, None)])
    assert title_phrases_task(untitled, np.arange(2), "", num_phrases=10, seed=0) is None


def test_templates_ask_for_what_products_have() -> None:
    templates = QueryTemplates(["{colour} {kind}", "buy {kind}"], drop_probability=0)
    rows = ALL.tolist() * 5
    made = template_queries(SHOP, rows, templates, 100, np.random.default_rng(0))
    # A template with words of its own, "buy Bags", asks for more than the kind: nobody knows what answers it.
    assert set(made) == {"Blue Tshirts", "Red Tshirts", "Blue Casual Shoes", "Bags"}
    assert set(made["Blue Casual Shoes"]) == ids_of(colour="Blue", kind="Casual Shoes")
    few = template_queries(SHOP, rows, templates, 2, np.random.default_rng(0))
    assert list(few.items()) == list(made.items())[:2]


def test_shopper_queries_need_no_synonyms() -> None:
    templates = QueryTemplates(["{gender} {kind}"])
    none = Synonyms({})
    queries = make_shopper_queries(SHOP, ALL, templates, none, num_queries=50, min_relevant=2, seed=0)
    assert {query.plain for query in queries} == {
        "men tshirts", "boys casual shoes", "girls casual shoes", "women bags",
    }  # fmt: skip
    plain, _ = shopper_tasks(queries, none, SHOP, ALL, "", None, None, training(title=["a"], kind=["Bags"]))
    assert set(plain.slices) == {"query length"}


def test_photos_have_a_hash(tmp_path: Path) -> None:
    rows = [("a", None, None, None), ("b", None, None, None)]

    def hashed(photos: list[Any]) -> str:
        return make_corpus(rows, image=photos).photos_sha256

    one, two = {"bytes": b"one", "path": None}, {"bytes": b"two", "path": None}
    assert hashed([one, two]) == hashed([dict(one), dict(two)]) != hashed([two, one])
    assert hashed([one, None]) != hashed([None, one])
    path = tmp_path / "photo.png"
    draw("shirt", "red", 0).save(path)
    file = {"bytes": None, "path": str(path)}
    before = hashed([file, None])
    draw("bag", "blue", 0).resize((20, 20)).save(path)
    assert hashed([file, None]) != before


SHIPPED = Path(__file__).parents[2] / "configs" / "synonyms.json"


def test_shipped_synonyms_are_new_words_for_their_values() -> None:
    listed = json.loads(SHIPPED.read_text(encoding="utf-8"))
    rows = max(map(len, listed.values()))
    values = {column: [*words, *[None] * (rows - len(words))] for column, words in listed.items()}
    products = Dataset.from_dict({"id": list(range(rows)), "title": ["a"] * rows, **values})
    columns = Columns(title="title", image=None, attributes=list(listed))
    synonyms = Synonyms.read(str(SHIPPED), Corpus.from_products(products, ["train"] * rows, columns, "values"))
    assert synonyms.values["gender"]["kids"] == {"Boys", "Girls"}
    for column, words in listed.items():
        for value, choices in words.items():
            assert choices and len(set(choices)) == len(choices), (column, value)
            assert all(choice == choice.lower().strip() for choice in choices), (column, value)


@pytest.mark.real
def test_shipped_synonyms_are_for_values_of_the_real_catalogue() -> None:
    listed = json.loads(SHIPPED.read_text(encoding="utf-8"))
    columns = Columns(title="productDisplayName", image=None, attributes=[*listed, "subCategory"])
    catalog = Corpus.load([os.environ["ACEBERT_DATA"]], ["train"], columns)
    Synonyms.read(str(SHIPPED), catalog)  # raises for a word that the catalogue's own values say
    for column, words in listed.items():
        assert set(words) <= set(catalog.members[column]), column
