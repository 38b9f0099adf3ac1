"""What is the index in memory's own."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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


def test_threads_that_wait_are_answered_together_and_alike() -> None:
    index, vectors = MemoryIndex({}), unit_vectors(200, 8).numpy()
    keys = [str(uuid.UUID(int=i)) for i in range(200)]
    index.upsert(keys, {"product": vectors}, [""] * 200, [{}] * 200)
    alone = [index.search(query[None], 3)[0] for query in vectors]
    asked: list[int] = []
    scores = index._scores

    def count(each: Any) -> Any:
        asked.append(each.scores is None)
        return scores(each)

    index._scores = count
    with ThreadPoolExecutor(20) as pool:
        with index._lock:  # until all wait
            found = [pool.submit(index.search, query[None], 3) for query in vectors[:20]]
            while len(index._asked) < 20:
                time.sleep(0.001)
        for answer, expected in zip(found, alone, strict=False):
            (matches,) = answer.result()
            assert [match.key for match in matches] == [match.key for match in expected]
            assert [match.score for match in matches] == pytest.approx([match.score for match in expected], abs=1e-6)
    assert sum(asked) == 2  # of 20 queries, 16 together and then 4


def test_scores_of_before_a_change_are_not_taken() -> None:
    index, vectors = MemoryIndex({}), unit_vectors(4, 8).numpy()
    keys = [str(uuid.UUID(int=i)) for i in range(4)]
    index.upsert(keys[:3], {"product": vectors[:3]}, [""] * 3, [{}] * 3)
    with ThreadPoolExecutor(1) as pool, index._lock:
        found = pool.submit(index.search, vectors[3][None], 1)
        while not index._asked:
            time.sleep(0.001)
        index.search(vectors[0][None], 1)  # computes the other's scores, too
        assert index._asked[0].scores is not None
        index.delete(keys[:1])
        index.upsert(keys[3:], {"product": vectors[3:]}, [""], [{}])
    assert found.result()[0][0].key == keys[3]
