"""What is the index in memory's own."""

import numpy as np
import pytest
from helpers import unit_vectors
from index_contract import DIM, SCHEMA, Shop, assert_same, key_of, pairs

from acebert.catalog.indexes.memory import MemoryIndex


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


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
