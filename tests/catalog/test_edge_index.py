"""What is the embedded index's own: files, processes, graphs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import unit_vectors
from index_contract import DIM, SCHEMA, Shop, assert_same, key_of, pairs

from acebert.catalog.filters import parse_filters
from acebert.catalog.indexes import edge
from acebert.catalog.indexes.base import VECTORS
from acebert.catalog.indexes.edge import EdgeIndex
from acebert.catalog.indexes.memory import MemoryIndex


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


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
        monkeypatch.setattr(edge, "EDGE_BATCH", 4)
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
from acebert.catalog.indexes.edge import EdgeIndex
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
        script = f"from acebert.catalog.indexes.edge import EdgeIndex; EdgeIndex.open({str(path)!r}, {{}})"
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
        monkeypatch.setattr(edge, "FULL_SCAN_KB", 20)
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
