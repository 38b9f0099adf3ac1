"""One contract for all engines, checked against plain Python over the same products."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import unit_vectors
from index_contract import DIM, FILTERS, SCHEMA, Shop, assert_same, key_of, make_index, pairs

from acebert.catalog.filters import parse_filters
from acebert.catalog.indexes.base import VECTORS, CatalogIndex
from acebert.catalog.indexes.edge import EdgeIndex
from acebert.catalog.indexes.memory import MemoryIndex

pytestmark = pytest.mark.filterwarnings(
    "error", "ignore:Payload indexes have no effect", "ignore:Local mode performs exact"
)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(params=["memory", "edge", "server"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CatalogIndex]:
    """An empty index, to write to."""
    with make_index(request.param, tmp_path) as made:
        yield made


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
    with make_index(request.param, tmp_path_factory.mktemp("stocked")) as made:
        shop.fill(made)
        yield made


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
            for name in SCHEMA.keys() - {"price", "added"}:
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

    @pytest.mark.parametrize("by", ["year", "gender"])
    def test_counts_and_facets_of_groups(self, stocked: CatalogIndex, shop: Shop, by: str) -> None:
        def groups(rows: list[int]) -> set[Any]:
            attributes = {i: shop.payloads[i]["attributes"] for i in rows}
            return {("group", of[by]) if of[by] is not None else ("product", i) for i, of in attributes.items()}

        for filters in FILTERS:
            where = parse_filters(filters, SCHEMA)
            rows = shop.fitting(where)
            assert stocked.count(where, by) == len(groups(rows)), filters
            for name in ("sizes", "base.colour of it", "on_sale"):
                having: dict[Any, list[int]] = {}
                for i in rows:
                    value = shop.payloads[i]["attributes"][name]
                    for each in value if isinstance(value, list) else [value]:
                        if each is not None:
                            having.setdefault(each, []).append(i)
                expected = {value: len(groups(each)) for value, each in having.items()}
                assert stocked.facets(name, where, by=by) == expected, (filters, name)

    def test_values_are_counted_as_they_are_now(self, filled: CatalogIndex, shop: Shop) -> None:
        facets = filled.facets("sizes")
        assert filled.count_values("sizes", ["M", "XXL", "S"]) == {"M": facets["M"], "S": facets["S"]}
        assert filled.count_values("sizes", ["XXL", ""]) == filled.count_values("sizes", []) == {}
        filled.set_attributes([shop.keys[1]], [{"sizes": ["XXL", "XXL"]}])
        assert filled.count_values("sizes", ["XXL"]) == {"XXL": 1}
        filled.set_attributes([shop.keys[1]], [{"sizes": None}])
        filled.set_attributes([shop.keys[2]], [{"sizes": ["XS"]}])
        assert filled.count_values("sizes", ["XS", "XL"]) == {"XS": 1}

    @pytest.mark.parametrize("name", ["price", "added", "colour"])
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


class TestWithoutSides:
    @pytest.fixture(params=["edge", "server"])
    def index(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CatalogIndex]:
        with make_index(request.param, tmp_path, sides=False) as made:
            yield made

    def test_has_product_vectors_only(self, index: CatalogIndex, shop: Shop) -> None:
        with pytest.raises(ValueError, match="no 'title' vectors, only: product"):
            shop.fill(index)
        index.upsert(shop.keys, {"product": shop.vectors["product"]}, shop.titles, shop.payloads)
        assert list(index.search(np.ones((1, DIM)), 1, with_vectors=VECTORS)[0][0].vectors) == ["product"]
        with pytest.raises(ValueError, match="using='title': the index has only the vectors product"):
            index.search(np.ones((1, DIM)), 1, using="title")
