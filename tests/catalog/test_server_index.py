"""What is the server index's own."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from helpers import unit_vectors
from index_contract import DIM, SCHEMA, URL, Shop, assert_same, pairs
from qdrant_client import QdrantClient

from acebert.catalog.indexes import server
from acebert.catalog.indexes.server import ServerIndex

pytestmark = pytest.mark.filterwarnings(
    "error", "ignore:Payload indexes have no effect", "ignore:Local mode performs exact"
)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


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
        monkeypatch.setattr(server, "SERVER_BATCH", 7)
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
