"""One contract for all engines, checked against plain Python over the same products, and what is each engine's own."""

import json
import math
import operator
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import unit_vectors
from qdrant_client import QdrantClient

from acebert.catalog.filters import And, Filter, Not, OneOf, Or, Range, parse_filters
from acebert.catalog.indexes import qdrant
from acebert.catalog.indexes.base import VECTORS, CatalogIndex
from acebert.catalog.indexes.memory import MemoryIndex
from acebert.catalog.indexes.qdrant import EdgeIndex, ServerIndex

pytestmark = pytest.mark.filterwarnings(
    "error", "ignore:Payload indexes have no effect", "ignore:Local mode performs exact"
)

DIM = 8
SCHEMA = {
    "gender": "string",
    "base.colour of it": "string",
    "price": "number",
    "year": "integer",
    "on_sale": "boolean",
    "sizes": "strings",
}
COLOURS, KINDS = ("red", "blue", "green"), ("shirt", "bag", "mug")
URL = "http://localhost:6333/products"


def key_of(number: int) -> str:
    return str(uuid.UUID(int=number))


class Shop:
    """Invented products, and what an index must answer about them, product by product."""

    def __init__(self, count: int = 120) -> None:
        rng = np.random.default_rng(0)
        self.keys = [key_of(i + 1) for i in range(count)]
        self.vectors = {name: unit_vectors(count, DIM, seed=seed).numpy() for seed, name in enumerate(VECTORS)}
        self.vectors["title"][4::5] = np.nan
        self.vectors["image"][::3] = np.nan
        words = [[*rng.choice(COLOURS, rng.integers(1, 3)), *rng.choice(KINDS, rng.integers(1, 4))] for _ in self.keys]
        self.titles = [None if i % 11 == 3 else "" if i % 11 == 4 else " ".join(w) for i, w in enumerate(words)]
        self.payloads = []
        for i in range(count):
            attributes = {
                "gender": (None, "Men", "Women")[i % 3],
                "base.colour of it": (*COLOURS, None)[i % 4],
                "price": int(i // 2) if i % 4 == 0 else float(rng.integers(0, 100)) / 2,
                "year": None if i % 10 == 0 else 2000 + int(rng.integers(0, 9)),
                "on_sale": (True, False, None)[i % 7 % 3],
                "sizes": [str(size) for size in rng.choice(["S", "M", "L"], i % 4, replace=False)] if i % 6 else None,
            }
            self.payloads.append({"id": i, "attributes": attributes})

    def fill(self, index: CatalogIndex) -> None:
        for part in (slice(0, 50), slice(50, None)):
            vectors = {name: rows[part] for name, rows in self.vectors.items()}
            index.upsert(self.keys[part], vectors, self.titles[part], self.payloads[part])

    def fitting(self, where: Filter | None) -> list[int]:
        return [i for i, payload in enumerate(self.payloads) if where is None or meets(payload["attributes"], where)]

    def nearest(self, query: np.ndarray, where: Filter | None, using: str) -> list[tuple[str, float]]:
        scores = self.vectors[using] @ (query / np.linalg.norm(query))
        return ranked((self.keys[i], float(scores[i])) for i in self.fitting(where) if not math.isnan(scores[i]))

    def best_by_words(self, words: list[str], where: Filter | None) -> list[tuple[str, float]]:
        """BM25 with k1 = 1.2, b = 0.75 and an average length of 6 words."""
        titles = [(title or "").split() for title in self.titles]
        titled = sum(bool(title) for title in titles)
        scores = dict.fromkeys(range(len(titles)), 0.0)
        for word in words:
            having = [i for i, title in enumerate(titles) if word in title]
            idf = math.log(1 + (titled - len(having) + 0.5) / (len(having) + 0.5))
            for i in having:
                count = titles[i].count(word)
                scores[i] += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(titles[i]) / 6))
        return ranked((self.keys[i], scores[i]) for i in self.fitting(where) if scores[i] > 0)


def ranked(scored: Any) -> list[tuple[str, float]]:
    return sorted(scored, key=lambda pair: -pair[1])


def meets(attributes: dict[str, Any], where: Filter) -> bool:
    if isinstance(where, And):
        return all(meets(attributes, part) for part in where.parts)
    if isinstance(where, Or):
        return any(meets(attributes, part) for part in where.parts)
    if isinstance(where, Not):
        return not meets(attributes, where.part)
    value = attributes.get(where.name)
    if value is None:
        return False
    if isinstance(where, OneOf):
        return any(part in where.values for part in (value if isinstance(value, list) else [value]))
    assert isinstance(where, Range)
    bounds = [(operator.ge, where.gte), (operator.gt, where.gt), (operator.le, where.lte), (operator.lt, where.lt)]
    return all(bound is None or compare(value, bound) for compare, bound in bounds)


FILTERS: list[dict[str, Any] | None] = [
    None,
    {"gender": "Men"},
    {"base.colour of it": ["red", "blue"]},
    {"gender": "Nobody"},
    {"price": 10},
    {"price": [10, 12.5, 13]},
    {"price": (10, 20.5)},
    {"price": {"$gt": 10, "$lt": 20.5}},
    {"year": 2003},
    {"year": [2001, 2004]},
    {"year": (2003, None)},
    {"year": {"$gt": 2003, "$lte": 2006}},
    {"on_sale": True},
    {"on_sale": False},
    {"on_sale": [True, False]},
    {"sizes": "M"},
    {"sizes": ["S", "L"]},
    {"$not": {"gender": "Men"}},
    {"$not": {"sizes": ["S", "M"]}},
    {"$not": {"price": (0, 30), "on_sale": True}},
    {"$or": [{"year": 2003}, {"base.colour of it": "red", "price": (None, 20)}]},
    {"gender": "Women", "$or": [{"$not": {"year": (2000, 2005)}}, {"$and": [{"sizes": "L"}, {"on_sale": False}]}]},
]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


def make_index(engine: str, path: Path) -> CatalogIndex:
    if engine == "memory":
        return MemoryIndex(SCHEMA)
    if engine == "edge":
        return EdgeIndex.create(path / "index", DIM, SCHEMA)
    return ServerIndex.create(URL, DIM, SCHEMA, client=QdrantClient(":memory:"))


@pytest.fixture(params=["memory", "edge", "server"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CatalogIndex]:
    """An empty index, to write to."""
    made = make_index(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def filled(index: CatalogIndex, shop: Shop) -> CatalogIndex:
    """The whole shop, to write to."""
    shop.fill(index)
    return index


@pytest.fixture(scope="module", params=["memory", "edge", "server"])
def stocked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shop: Shop
) -> Iterator[CatalogIndex]:
    """The whole shop, only to read."""
    made = make_index(request.param, tmp_path_factory.mktemp("stocked"))
    shop.fill(made)
    yield made
    made.close()


def pairs(matches: list[Any]) -> list[tuple[str, float]]:
    return [(match.key, match.score) for match in matches]


def assert_same(found: list[tuple[str, float]], expected: list[tuple[str, float]], tolerance: float = 1e-5) -> None:
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=tolerance)


class TestEveryEngine:
    @pytest.mark.parametrize("using", VECTORS)
    def test_finds_the_nearest_that_meet_the_filter(self, stocked: CatalogIndex, shop: Shop, using: str) -> None:
        queries = 3 * unit_vectors(4, DIM, seed=9).numpy()  # of any length
        for filters in FILTERS:
            where = parse_filters(filters, SCHEMA)
            found = stocked.search(queries, 7, where, using)
            assert len(found) == 4
            for query, matches in zip(queries, found, strict=True):
                expected = shop.nearest(query, where, using)[:7]
                # The sides may be kept in float16.
                assert_same(pairs(matches), expected, 1e-5 if using == "product" else 1e-3)
                for match in matches:
                    assert match.payload["id"] == shop.keys.index(match.key) and match.vectors == {}

    def test_counts_and_facets(self, stocked: CatalogIndex, shop: Shop) -> None:
        for filters in FILTERS:
            where = parse_filters(filters, SCHEMA)
            rows = shop.fitting(where)
            assert stocked.count(where) == len(rows), filters
            for name in SCHEMA.keys() - {"price"}:
                values = [shop.payloads[i]["attributes"][name] for i in rows]
                flat = [part for value in values for part in (value if isinstance(value, list) else [value])]
                expected = Counter(part for part in flat if part is not None)
                facets = stocked.facets(name, where)
                assert facets == expected, (filters, name)
                assert list(facets.values()) == sorted(facets.values(), reverse=True)
                assert all(type(value) is type(other) for value, other in zip(facets, expected, strict=True))
        assert list(stocked.facets("sizes", limit=2).values()) == [
            count for _, count in Counter(stocked.facets("sizes")).most_common(2)
        ]

    @pytest.mark.parametrize("name", ["price", "colour"])
    def test_only_attributes_with_countable_values_have_facets(self, stocked: CatalogIndex, name: str) -> None:
        with pytest.raises(ValueError, match=f"'{name}' is .*one of base.colour of it, gender, on_sale, sizes, year"):
            stocked.facets(name)

    def test_words_are_ranked_by_bm25(self, stocked: CatalogIndex, shop: Shop) -> None:
        asked = {"Red shirts!": ["red", "shirt"], "the green mug": ["green", "mug"], "bag bag": ["bag"]}
        for filters in FILTERS:
            where = parse_filters(filters, SCHEMA)
            found = stocked.search_words([*asked, "the", "", "submarine"], 200, where)
            assert found[3:] == [[], [], []]
            for words, matches in zip(asked.values(), found, strict=False):
                expected = dict(shop.best_by_words(words, where))
                assert {m.key: m.score for m in matches} == pytest.approx(expected, rel=1e-5), filters
                scores = [match.score for match in matches]
                assert scores == sorted(scores, reverse=True)
        assert len(stocked.search_words(["red"], 3)[0]) == 3

    def test_gets_products_and_the_vectors_that_are_there(self, stocked: CatalogIndex, shop: Shop) -> None:
        found = stocked.get([shop.keys[4], key_of(10**6), shop.keys[0], shop.keys[1]], VECTORS)
        assert [match and match.key for match in found] == [shop.keys[4], None, shop.keys[0], shop.keys[1]]
        assert [match and sorted(match.vectors) for match in found] == [
            ["image", "product"],
            None,
            ["product", "title"],
            ["image", "product", "title"],
        ]
        for name in VECTORS:
            vector = found[3].vectors[name]
            assert vector.dtype == np.float32
            np.testing.assert_allclose(vector, shop.vectors[name][1], atol=1e-3)
        attributes = shop.payloads[1]["attributes"]
        assert found[3].payload == {"id": 1, "attributes": {k: v for k, v in attributes.items() if v is not None}}
        assert stocked.get([]) == []

    def test_searches_return_the_vectors_asked_for(self, stocked: CatalogIndex, shop: Shop) -> None:
        by_vector = stocked.search(shop.vectors["product"][:1], 1, with_vectors=["image", "title"])[0][0]
        assert by_vector.key == shop.keys[0] and list(by_vector.vectors) == ["title"]
        for match in stocked.search_words(["red"], 5, with_vectors=["product"])[0]:
            expected = shop.vectors["product"][shop.keys.index(match.key)]
            np.testing.assert_allclose(match.vectors["product"], expected, atol=1e-6)

    def test_what_is_found_is_the_callers_to_change(self, stocked: CatalogIndex, shop: Shop) -> None:
        (match,) = stocked.get(shop.keys[1:2], ["product"])
        match.payload["attributes"]["gender"] = "Nobody"
        match.vectors["product"][:] = 0
        (again,) = stocked.get(shop.keys[1:2], ["product"])
        assert again.payload["attributes"]["gender"] == "Men" and again.vectors["product"].any()

    def test_upsert_replaces_all_of_a_product(self, filled: CatalogIndex, shop: Shop) -> None:
        new = unit_vectors(1, DIM, seed=42).numpy()
        filled.upsert(shop.keys[1:2], {"product": new}, ["a purple kettle"], [{"attributes": {"gender": "Kids"}}])
        (match,) = filled.get(shop.keys[1:2], VECTORS)
        assert match.payload == {"attributes": {"gender": "Kids"}} and list(match.vectors) == ["product"]
        assert filled.count() == len(shop.keys)
        assert filled.search(new, 1)[0][0].key == shop.keys[1]
        assert [m.key for m in filled.search_words(["kettles"], 5)[0]] == [shop.keys[1]]
        assert shop.keys[1] not in [m.key for m in filled.search_words([shop.titles[1]], 200)[0]]
        assert shop.keys[1] not in [m.key for m in filled.search(new, 200, using="image")[0]]
        assert filled.facets("gender")["Kids"] == 1
        assert filled.count(parse_filters({"price": (None, 1000)}, SCHEMA)) == len(shop.keys) - 1

    def test_of_rows_that_share_a_key_the_last_counts(self, index: CatalogIndex) -> None:
        payloads = [{"attributes": {"gender": gender}} for gender in ("Men", "Women")]
        index.upsert([key_of(1)] * 2, {"product": np.eye(DIM)[:2]}, ["old", "new"], payloads)
        assert index.count() == 1 and index.facets("gender") == {"Women": 1}
        assert index.search(np.eye(DIM)[1:2], 5)[0][0].score == pytest.approx(1)
        assert [len(found) for found in index.search_words(["old", "new"], 5)] == [0, 1]

    def test_attributes_merge_and_none_removes(self, filled: CatalogIndex, shop: Shop) -> None:
        before = filled.count(parse_filters({"gender": "Men"}, SCHEMA))
        keys = [shop.keys[1], shop.keys[0]]  # the second has no gender so far
        changes = [{"gender": None, "price": 999, "sizes": ["XL"]}, {"gender": "Men", "base.colour of it": "pink"}]
        filled.set_attributes(keys, changes)
        first, second = filled.get(keys, ["product"])
        kept = {name: value for name, value in shop.payloads[1]["attributes"].items() if value is not None}
        del kept["gender"]
        assert first.payload == {"id": 1, "attributes": kept | {"price": 999, "sizes": ["XL"]}}
        assert second.payload["attributes"]["base.colour of it"] == "pink"
        np.testing.assert_allclose(first.vectors["product"], shop.vectors["product"][1], atol=1e-6)
        assert filled.count(parse_filters({"gender": "Men"}, SCHEMA)) == before
        assert filled.count(parse_filters({"price": 999, "sizes": "XL", "$not": {"gender": "Men"}}, SCHEMA)) == 1
        assert filled.facets("base.colour of it")["pink"] == 1
        assert shop.keys[1] in [m.key for m in filled.search_words([shop.titles[1]], 200)[0]]

    def test_a_product_without_attributes_can_be_given_some(self, index: CatalogIndex) -> None:
        index.upsert([key_of(1)], {"product": np.eye(DIM)[:1]}, [None], [{}])
        index.set_attributes([key_of(1)], [{"year": 2020, "gender": None}])
        assert index.get([key_of(1)])[0].payload == {"attributes": {"year": 2020}}

    def test_attributes_of_absent_products_change_nothing(self, filled: CatalogIndex, shop: Shop) -> None:
        with pytest.raises(KeyError, match=f"1 of 2 products.*{key_of(10**6)}"):
            filled.set_attributes([shop.keys[0], key_of(10**6)], [{"gender": "Kids"}] * 2)
        assert "Kids" not in filled.facets("gender")
        filled.set_attributes([], [])

    def test_delete(self, filled: CatalogIndex, shop: Shop) -> None:
        gone = shop.keys[::2]
        filled.delete([*gone, key_of(10**6)])
        filled.delete(gone)
        filled.delete([])
        assert filled.count() == len(shop.keys) - len(gone)
        assert filled.get(gone) == [None] * len(gone)
        assert sum(filled.facets("gender").values()) == sum(
            bool(p["attributes"]["gender"]) for p in shop.payloads[1::2]
        )
        for found in [*filled.search(np.eye(DIM), 200), *filled.search_words(["red blue"], 200)]:
            assert not {match.key for match in found} & set(gone)
        shop.fill(filled)
        assert filled.count() == len(shop.keys)
        query = unit_vectors(1, DIM, seed=9).numpy()
        assert_same(pairs(filled.search(query, 7)[0]), shop.nearest(query[0], None, "product")[:7])

    def test_an_empty_index_answers(self, index: CatalogIndex) -> None:
        where = parse_filters({"gender": "Men"}, SCHEMA)
        assert index.search(np.eye(DIM)[:2], 3, where) == [[], []]
        assert index.search_words(["red"], 3) == [[]]
        assert index.search_words([], 3) == []
        assert index.search(np.empty((0, DIM)), 3) == []
        assert index.count(where) == 0 and index.facets("sizes") == {} and index.get([key_of(1)]) == [None]
        index.upsert([], {"product": np.empty((0, DIM))}, [], [])
        index.flush()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"keys": ["abc"]}, "The key 'abc' is no UUID"),
            ({"keys": [key_of(1).replace("-", "")]}, "is no UUID as"),
            ({"keys": [uuid.UUID(int=1)]}, "is no UUID as"),
            ({"titles": []}, "must have the same length"),
            ({"vectors": {"product": np.ones((2, DIM))}}, "must have the same length"),
            ({"vectors": {"title": np.ones((1, DIM))}}, "The 'product' vectors are missing"),
            ({"vectors": {"product": np.full((1, DIM), np.nan)}}, f"product {key_of(1)} has no 'product' vector"),
            ({"vectors": {"product": np.zeros((1, DIM))}}, r"vectors\['product'\]: row 0 is zero"),
            ({"vectors": {"product": np.array([[1, np.nan] + [0] * (DIM - 2)])}}, "row 0 is zero or holds NaN"),
            ({"vectors": {"product": np.ones((1, DIM)), "image": np.full((1, DIM), np.inf)}}, r"\['image'\]: row 0"),
            ({"vectors": {"product": np.ones(1)}}, r"must have the shape \(n, 8\), got \(1,\)"),
            ({"vectors": {"product": np.ones((1, 3))}}, r"must have the shape \(n, 8\), got \(1, 3\)"),
            ({"vectors": {"product": np.ones((1, DIM)), "photo": np.ones((1, DIM))}}, "no 'photo' vectors, only"),
            ({"payloads": [{"attributes": {"colour": "red"}}]}, "Unknown attribute 'colour'"),
            ({"payloads": [{"attributes": {"price": "3"}}]}, "'price' is a finite number, got '3'"),
        ],
    )
    def test_bad_products_are_refused_whole(
        self, stocked: CatalogIndex, shop: Shop, change: dict[str, Any], message: str
    ) -> None:
        good = {"keys": [key_of(1)], "vectors": {"product": np.ones((1, DIM))}, "titles": ["new"], "payloads": [{}]}
        with pytest.raises(ValueError, match=message):
            stocked.upsert(**(good | change))
        assert stocked.count() == len(shop.keys) and stocked.get([key_of(1)])[0].payload["id"] == 0

    @pytest.mark.parametrize(
        ("ask", "message"),
        [
            (lambda index: index.search(np.ones((1, 3)), 5), r"queries must have the shape \(n, 8\), got \(1, 3\)"),
            (lambda index: index.search(np.ones(DIM), 5), r"queries must have the shape \(n, 8\), got \(8,\)"),
            (lambda index: index.search(np.zeros((1, DIM)), 5), "queries: row 0 is zero"),
            (lambda index: index.search(np.full((1, DIM), np.nan), 5), "queries: a row is NaN"),
            (lambda index: index.search(np.ones((1, DIM)), 0), "top_k must be at least 1, got 0"),
            (lambda index: index.search_words(["red"], -1), "top_k must be at least 1, got -1"),
            (lambda index: index.search(np.ones((1, DIM)), 5, using="photo"), "using='photo'.*product, title, image"),
            (lambda index: index.search(np.ones((1, DIM)), 5, with_vectors=["photo"]), "Unknown vectors 'photo'"),
            (lambda index: index.search_words(["red"], 5, with_vectors=["photo"]), "Unknown vectors 'photo'"),
            (lambda index: index.get(["abc"]), "The key 'abc' is no UUID"),
            (lambda index: index.delete(["abc"]), "The key 'abc' is no UUID"),
            (lambda index: index.set_attributes(["abc"], [{}]), "The key 'abc' is no UUID"),
            (lambda index: index.set_attributes([key_of(1)], []), "1 keys but 0 dicts"),
            (lambda index: index.set_attributes([key_of(1)], [{"year": 2.5}]), "'year' is an integer"),
        ],
    )
    def test_bad_calls_say_why(self, stocked: CatalogIndex, ask: Callable[[CatalogIndex], Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ask(stocked)


@pytest.mark.parametrize("engine", ["memory", "edge"])
def test_threads_read_while_others_write(engine: str, tmp_path: Path) -> None:
    """Two writers and three readers; a product is always found whole, in one of the states that were written."""
    index = MemoryIndex(SCHEMA) if engine == "memory" else EdgeIndex.create(tmp_path / "index", DIM, SCHEMA)
    vectors, errors, done = unit_vectors(400, DIM).numpy(), [], threading.Event()

    def write(numbers: range) -> None:
        for i in numbers:
            payload = {"id": i, "attributes": {"year": i, "gender": "Men" if i % 2 else "Women"}}
            index.upsert([key_of(i)], {"product": vectors[i : i + 1]}, [f"product {i}"], [payload])
            index.set_attributes([key_of(i)], [{"on_sale": True}])
            if i % 10 == 0:
                index.delete([key_of(i)])

    def read() -> None:
        where = parse_filters({"gender": "Men", "year": (0, 1000)}, SCHEMA)
        while not done.is_set():
            for match in index.search(vectors[:3], 5, where, with_vectors=["product"])[0]:
                i = match.payload["id"]
                assert match.key == key_of(i) and i % 2 == 1
                np.testing.assert_allclose(match.vectors["product"], vectors[i], atol=1e-6)
            assert all("year" in match.payload["attributes"] for match in index.search_words(["product"], 5)[0])
            index.facets("gender")
            index.get([key_of(5)])

    def run(task: Callable[..., None], *args: Any) -> None:
        try:
            task(*args)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=run, args=(write, range(start, 400, 2))) for start in (0, 1)]
    readers = [threading.Thread(target=run, args=(read,)) for _ in range(3)]
    for thread in writers + readers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert index.count() == 360 and index.count(parse_filters({"on_sale": True}, SCHEMA)) == 360
    index.close()


class TestMemoryIndex:
    def test_many_queries_are_scored_in_chunks(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        index = MemoryIndex(SCHEMA)
        shop.fill(index)
        queries = unit_vectors(9, DIM, seed=9).numpy()
        whole = [pairs(matches) for matches in index.search(queries, 5)]
        monkeypatch.setattr("acebert.utils.ranking.SCORES_PER_CHUNK", 2 * len(shop.keys))
        for matches, expected in zip(index.search(queries, 5), whole, strict=True):
            assert_same(pairs(matches), expected)

    def test_rows_of_deleted_products_are_used_again(self, shop: Shop) -> None:
        index = MemoryIndex(SCHEMA)
        shop.fill(index)
        rows = len(index._vectors["product"])
        for _ in range(3):
            shop.fill(index)
            index.delete(shop.keys[:30])
        assert len(index._vectors["product"]) == rows and index.count() == len(shop.keys) - 30

    def test_what_it_was_given_stays_the_callers(self, shop: Shop) -> None:
        index, payload = MemoryIndex(SCHEMA), {"id": 1, "photos": ["a.png"], "attributes": {"sizes": ["S"]}}
        index.upsert([key_of(1)], {"product": np.eye(DIM)[:1]}, [None], [payload])
        payload["photos"].append("b.png")
        payload["attributes"]["sizes"].append("M")
        assert index.get([key_of(1)])[0].payload == {"id": 1, "photos": ["a.png"], "attributes": {"sizes": ["S"]}}


class TestEdgeIndex:
    def test_what_is_written_is_there_when_opened_again(self, tmp_path: Path, shop: Shop) -> None:
        index = EdgeIndex.create(tmp_path / "a" / "index", DIM, SCHEMA)
        shop.fill(index)
        index.flush()
        index.close()
        index = EdgeIndex.open(tmp_path / "a" / "index", SCHEMA)
        where = parse_filters({"gender": "Men"}, SCHEMA)
        for using in VECTORS:
            query = unit_vectors(1, DIM, seed=9).numpy()
            assert_same(pairs(index.search(query, 7, where, using)[0]), shop.nearest(query[0], where, using)[:7], 1e-3)
        with pytest.raises(ValueError, match=r"must have the shape \(n, 8\)"):
            index.search(np.ones((1, 3)), 5)
        index.close()

    def test_words_of_deleted_products_count_until_it_is_opened_again(self, tmp_path: Path, shop: Shop) -> None:
        index, fresh = EdgeIndex.create(tmp_path / "index", DIM, SCHEMA), MemoryIndex(SCHEMA)
        for each in (index, fresh):
            shop.fill(each)
            each.delete(shop.keys[::2])
        expected = {match.key: match.score for match in fresh.search_words(["red shirt"], 200)[0]}
        found = {match.key: match.score for match in index.search_words(["red shirt"], 200)[0]}
        assert found.keys() == expected.keys() and found != pytest.approx(expected, rel=1e-3)
        index.close()
        index = EdgeIndex.open(tmp_path / "index", SCHEMA)
        found = {match.key: match.score for match in index.search_words(["red shirt"], 200)[0]}
        assert found == pytest.approx(expected, rel=1e-5)
        index.close()

    def test_many_queries_are_asked_in_batches(
        self, tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(qdrant, "EDGE_BATCH", 4)
        index = EdgeIndex.create(tmp_path / "index", DIM, SCHEMA)
        shop.fill(index)
        queries = unit_vectors(10, DIM, seed=9).numpy()
        for query, matches in zip(queries, index.search(queries, 3), strict=True):
            assert_same(pairs(matches), shop.nearest(query, None, "product")[:3])
        index.close()

    def test_a_process_that_dies_loses_nothing(self, tmp_path: Path) -> None:
        script = """
import os, sys
import numpy as np
from acebert.catalog.indexes.qdrant import EdgeIndex
index = EdgeIndex.create(sys.argv[1], 8, {"year": "integer"})
for i in range(8):
    key = f"00000000-0000-0000-0000-00000000000{i}"
    index.upsert([key], {"product": np.eye(8)[i : i + 1]}, ["a mug"], [{"attributes": {"year": i}}])
index.set_attributes([key], [{"year": 70}])
os.kill(os.getpid(), 9)
"""
        run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "index")], capture_output=True, text=True)
        assert run.returncode == -9, run.stderr
        index = EdgeIndex.open(tmp_path / "index", {"year": "integer"})
        assert index.facets("year") == dict.fromkeys([0, 1, 2, 3, 4, 5, 6, 70], 1)
        assert index.search(np.eye(8)[7:], 1)[0][0].payload["attributes"] == {"year": 70}
        assert len(index.search_words(["mugs"], 10)[0]) == 8
        index.close()

    def test_one_process_has_it_open(self, tmp_path: Path) -> None:
        path = tmp_path / "index"
        index = EdgeIndex.create(path, DIM, SCHEMA)
        with pytest.raises(RuntimeError, match=r"index is open already, in another process or by another object"):
            EdgeIndex.open(path, SCHEMA)
        script = f"from acebert.catalog.indexes.qdrant import EdgeIndex; EdgeIndex.open({str(path)!r}, {{}})"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "RuntimeError" in run.stderr and "is open already" in run.stderr
        with pytest.raises(FileExistsError, match="holds an index already"):
            EdgeIndex.create(path, DIM, SCHEMA)
        index.close()
        EdgeIndex.open(path, SCHEMA).close()

    def test_none_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere holds no index: make one with EdgeIndex\.create"):
            EdgeIndex.open(tmp_path / "nowhere", SCHEMA)

    def test_attributes_can_be_added_to_the_schema(self, tmp_path: Path) -> None:
        index = EdgeIndex.create(tmp_path / "index", DIM, {"year": "integer"})
        index.upsert([key_of(1)], {"product": np.ones((1, DIM))}, [None], [{"attributes": {"year": 2001}}])
        index.close()
        index = EdgeIndex.open(tmp_path / "index", {"year": "integer", "gender": "string"})
        index.set_attributes([key_of(1)], [{"gender": "Men"}])
        assert index.facets("gender") == {"Men": 1} and index.facets("year") == {2001: 1}
        index.close()

    def test_a_graph_finds_nearly_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qdrant, "FULL_SCAN_KB", 20)
        count, wide = 2000, 32
        vectors = unit_vectors(count, wide).numpy()
        keys = [key_of(i) for i in range(count)]
        payloads = [{"attributes": {"year": i % 400, "gender": "Men" if i % 2 else "Women"}} for i in range(count)]
        index = EdgeIndex.create(tmp_path / "index", wide, SCHEMA, hnsw=True, sides=False)
        index.upsert(keys, {"product": vectors}, [None] * count, payloads)
        index.delete(keys[1900:])
        index.optimize()
        assert sum(file.stat().st_size for file in tmp_path.rglob("links*")) > 16 * count  # some bytes per edge
        queries = unit_vectors(30, wide, seed=9).numpy()
        for filters, least in (({}, 0.9), ({"gender": "Men"}, 0.9), ({"year": 7}, 1.0)):
            where = parse_filters(filters, SCHEMA)
            exact = [{m.key for m in matches} for matches in index.search(queries, 10, where, exact=True)]
            found = [{m.key for m in matches} for matches in index.search(queries, 10, where)]
            assert {len(keys) for keys in found} == {min(10, index.count(where))}
            recall = np.mean([len(a & b) / len(a) for a, b in zip(exact, found, strict=True)])
            assert recall >= least, filters
        # What is written later is found at once.
        index.upsert([keys[0]], {"product": queries[:1]}, [None], [{}])
        assert index.search(queries[:1], 1)[0][0].key == keys[0]
        index.close()

    def test_too_few_found_by_the_graph_are_searched_exactly(
        self, tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index = EdgeIndex.create(tmp_path / "index", DIM, SCHEMA)
        shop.fill(index)
        ask, asked = index._query, []

        def graph(queries: list[Any], *args: Any, exact: bool) -> list[list[Any]]:
            """Finds nothing for the first query, as a graph may, and all for the others."""
            asked.append((len(queries), exact))
            found = ask(queries, *args, exact=exact)
            return found if exact else [[], *found[1:]]

        monkeypatch.setattr(index, "_query", graph)
        queries = unit_vectors(3, DIM, seed=9).numpy()
        where = parse_filters({"gender": "Men"}, SCHEMA)
        for query, matches in zip(queries, index.search(queries, 5, where), strict=True):
            assert_same(pairs(matches), shop.nearest(query, where, "product")[:5])
        assert asked == [(3, False), (1, True)]
        # All that have a title are enough, though more meet the filter.
        asked.clear()
        assert all(len(matches) > 0 for matches in index.search(queries, 1000, where, "title")[1:])
        assert asked == [(3, False), (1, True)]
        index.close()


class TestWithoutSides:
    @pytest.fixture(params=["edge", "server"])
    def index(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CatalogIndex]:
        if request.param == "edge":
            made = EdgeIndex.create(tmp_path / "index", DIM, SCHEMA, sides=False)
        else:
            made = ServerIndex.create(URL, DIM, SCHEMA, sides=False, client=QdrantClient(":memory:"))
        yield made
        made.close()

    def test_has_product_vectors_only(self, index: CatalogIndex, shop: Shop) -> None:
        with pytest.raises(ValueError, match="no 'title' vectors, only: product"):
            shop.fill(index)
        index.upsert(shop.keys, {"product": shop.vectors["product"]}, shop.titles, shop.payloads)
        assert list(index.search(np.ones((1, DIM)), 1, with_vectors=VECTORS)[0][0].vectors) == ["product"]
        with pytest.raises(ValueError, match="using='title': the index has only the vectors product"):
            index.search(np.ones((1, DIM)), 1, using="title")


class TestServerIndex:
    def test_opens_what_was_created(self, shop: Shop) -> None:
        client = QdrantClient(":memory:")
        shop.fill(ServerIndex.create(URL, DIM, SCHEMA, client=client))
        index = ServerIndex.open(URL, SCHEMA, client=client)
        query = unit_vectors(1, DIM, seed=9).numpy()
        assert_same(pairs(index.search(query, 7)[0]), shop.nearest(query[0], None, "product")[:7])
        with pytest.raises(FileExistsError, match="'products' is there already"):
            ServerIndex.create(URL, DIM, SCHEMA, client=client)
        with pytest.raises(FileNotFoundError, match="no collection 'other'"):
            ServerIndex.open("http://localhost:6333/other", SCHEMA, client=client)
        index.close()

    def test_writes_in_batches(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qdrant, "SERVER_BATCH", 7)
        index = ServerIndex.create(URL, DIM, SCHEMA, client=QdrantClient(":memory:"))
        shop.fill(index)
        index.set_attributes(shop.keys, [{"gender": "Kids"}] * len(shop.keys))
        assert index.facets("gender") == {"Kids": len(shop.keys)}
        index.close()

    def test_asks_for_the_collection_of_the_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Shards and indexed attributes reach the server, in the requests that qdrant-client makes of them."""
        calls: list[tuple[str, dict[str, Any]]] = []

        class Recorder:
            def __init__(self, **options: Any):
                calls.append(("connect", options))

            def __getattr__(self, name: str) -> Callable[..., Any]:
                def call(*args: Any, **options: Any) -> bool:
                    calls.append((name, {"args": args} | options))
                    return False

                return call

        monkeypatch.setattr("qdrant_client.QdrantClient", Recorder)
        monkeypatch.setenv("QDRANT_API_KEY", "from the environment")
        ServerIndex.create("https://shop.example:6333/products", DIM, {"price": "number"}, shard_number=3)
        assert calls[0] == ("connect", {"url": "https://shop.example:6333", "api_key": "from the environment"})
        name, created = calls[2]
        assert name == "create_collection" and created["args"][0] == "products" and created["shard_number"] == 3
        assert json.loads(created["args"][2]["words"].model_dump_json())["modifier"] == "idf"
        name, indexed = calls[3]
        assert name == "create_payload_index" and indexed["args"] == ("products", 'attributes."price"', "float")
        calls.clear()
        ServerIndex.create("http://localhost:6333/products", DIM, {}, api_key="given")
        assert calls[0][1]["api_key"] == "given"

    @pytest.mark.parametrize(
        "url", ["localhost:6333/products", "http://localhost:6333", "http://localhost/a/b", "ftp://localhost/a", "/a"]
    )
    def test_a_wrong_url_says_how_it_is_written(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"http\(s\)://host:port/collection, got"):
            ServerIndex.open(url, SCHEMA)

    def test_without_qdrant_client_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "qdrant_client", None)
        with pytest.raises(ImportError, match=r'pip install "acebert\[server\]"'):
            ServerIndex.open(URL, SCHEMA)
