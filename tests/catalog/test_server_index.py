"""What is the server index's own: addresses, options, what it refuses to open, and a server that fails."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import unit_vectors
from index_contract import DIM, SCHEMA, Shop, assert_same, key_of, pairs
from qdrant_client import QdrantClient, models
from qdrant_server import QdrantStandIn

from acebert.catalog.indexes import connection, server
from acebert.catalog.indexes.connection import IndexUnavailableError, Server, ServerOptions, parse_address
from acebert.catalog.indexes.server import ServerIndex, split_by_size

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture
def qdrant() -> Iterator[QdrantStandIn]:
    with QdrantStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def index(qdrant: QdrantStandIn, shop: Shop) -> Iterator[ServerIndex]:
    made = ServerIndex.create(f"{qdrant.url}/products", DIM, SCHEMA, options={"grpc": False, "timeout": 3})
    shop.fill(made)
    qdrant.requests.clear()
    yield made
    made.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Warnings of the connection, each time they are given."""
    told: list[str] = []
    monkeypatch.setattr(connection.logger, "warning_once", told.append, raising=False)
    return told


QUERY = unit_vectors(1, DIM, seed=9).numpy()


# ----------------------------------------------------------------------------------------------------------------------
# Addresses and options
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "urls", "collection"),
    [
        ("http://localhost:6333/products", ("http://localhost:6333",), "products"),
        ("https://shop.example/qdrant/v1/products/", ("https://shop.example/qdrant/v1",), "products"),
        ("http://a:1/p, http://b:2/x/p", ("http://a:1", "http://b:2/x"), "p"),
        ("http://[::1]:6333/p", ("http://[::1]:6333",), "p"),
    ],
)
def test_addresses(text: str, urls: tuple[str, ...], collection: str) -> None:
    assert parse_address(text) == (urls, collection)


@pytest.mark.parametrize(
    "url", ["localhost:6333/products", "http://localhost:6333", "ftp://localhost/a", "/a", "http://localhost:x/a", ""]
)
def test_a_wrong_url_says_how_it_is_written(url: str) -> None:
    with pytest.raises(ValueError, match=r"http\(s\)://host:port/collection, got"):
        ServerIndex.open(url, SCHEMA)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost/name?x=1", "'x=1', which has no meaning here: leave it out"),
        ("http://localhost/name#part", "'part', which has no meaning here"),
        ("http://me:secret@localhost:6333/name", "'http://localhost:6333/name' was given with a user or password"),
        ("http://a/one,http://b/two", "All urls must name one collection, got one, two"),
        ("http://a/one*", "can't be named 'one\\*'"),
    ],
)
def test_what_a_url_means_nothing_by_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 3}, "Unknown index option 'shards': a server's index takes shard_number, replication_factor"),
        ({"shard_number": 0}, "shard_number must be a number of at least 1, got 0"),
        ({"quantization": "int4"}, "quantization must be 'none', 'scalar' or 'binary', got 'int4'"),
        ({"timeout": None}, "timeout must be a number of at least 0.001, got None"),
        ({"retries": True}, "retries must be a number of at least 0, got True"),
        ({"on_disk": "yes"}, "on_disk must be true or false, got 'yes'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerOptions.of(options)


def test_the_key_is_neither_kept_nor_shown() -> None:
    options = ServerOptions.of({"api_key": "secret", "shard_number": 6, "timeout": 10})
    assert options.to_keep() == {"shard_number": 6} and "secret" not in repr(options)


def test_without_qdrant_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ImportError, match=r'pip install "acebert\[server\]"'):
        ServerIndex.open("http://localhost:6333/products", SCHEMA)


def test_options_reach_the_server(qdrant: QdrantStandIn) -> None:
    options = {"shard_number": 6, "replication_factor": 2, "write_consistency_factor": 1, "on_disk": True}
    options |= {"hnsw_m": 32, "hnsw_ef_construct": 200, "hnsw_ef": 99, "quantization": "binary", "oversampling": 4.0}
    with_options = ServerIndex.create(f"{qdrant.url}/products", DIM, {"price": "number"}, options=options)
    (created,) = qdrant.bodies("/collections/products$")[:1]
    assert [created[name] for name in ("shard_number", "replication_factor", "write_consistency_factor")] == [6, 2, 1]
    product = created["vectors"]["product"]
    assert product["on_disk"] and product["quantization_config"] == {"binary": {"always_ram": True}}
    assert product["hnsw_config"] == {"m": 32, "ef_construct": 200}
    assert created["vectors"]["title"] == {"size": DIM, "distance": "Cosine", "datatype": "float16", "on_disk": True}
    assert created["sparse_vectors"] == {"words": {"modifier": "idf"}}
    assert qdrant.bodies("/index$") == [{"field_name": 'attributes."price"', "field_schema": "float"}]
    with_options.search(np.ones((1, DIM)), 3)
    asked = qdrant.bodies("/query/batch$")[0]
    assert asked["searches"][0]["params"] == {
        "hnsw_ef": 99,
        "exact": False,
        "quantization": {"rescore": True, "oversampling": 4.0},
    }
    with_options.close()
    scalar = ServerIndex.create(f"{qdrant.url}/scalar", DIM, {}, options={"quantization": "scalar"})
    vectors = qdrant.bodies("/collections/scalar$")[0]["vectors"]
    assert vectors["product"]["quantization_config"]["scalar"]["type"] == "int8"
    assert "quantization_config" not in vectors["title"]
    scalar.close()


# ----------------------------------------------------------------------------------------------------------------------
# Opening
# ----------------------------------------------------------------------------------------------------------------------


def test_opens_what_was_created(qdrant: QdrantStandIn, index: ServerIndex, shop: Shop) -> None:
    again = ServerIndex.open(f"{qdrant.url}/products", SCHEMA)
    assert_same(pairs(again.search(QUERY, 7)[0]), shop.nearest(QUERY[0], None, "product")[:7])
    again.close()
    with pytest.raises(FileExistsError, match="'products' is there already"):
        ServerIndex.create(f"{qdrant.url}/products", DIM, SCHEMA)
    with pytest.raises(FileNotFoundError, match=r"no collection 'other' on http://127\.0\.0\.1:\d+: make one"):
        ServerIndex.open(f"{qdrant.url}/other", SCHEMA)


def test_a_client_can_be_given(shop: Shop) -> None:
    client = QdrantClient(":memory:")
    index = ServerIndex.create("http://localhost/products", DIM, {}, client=client)
    index.upsert(shop.keys[:3], {"product": shop.vectors["product"][:3]}, shop.titles[:3], [{}] * 3)
    assert ServerIndex.open("http://localhost/products", {}, client=client).count() == 3
    index.close()


COSINE = models.Distance.COSINE
WORDS = {"words": models.SparseVectorParams(modifier=models.Modifier.IDF)}


@pytest.mark.parametrize(
    ("vectors", "sparse", "metadata", "owner", "messages"),
    [
        ({"text": (DIM, COSINE)}, WORDS, None, None, ["it has no vectors 'product', only 'text'"]),
        ({"product": (DIM, models.Distance.DOT)}, WORDS, None, None, ["'product' are compared by Dot, not by Cosine"]),
        ({"product": (DIM, COSINE)}, {}, None, None, ["it has no sparse vectors 'words'"]),
        ({"product": (DIM, COSINE)}, {"words": models.SparseVectorParams()}, None, None, ["lack the modifier idf"]),
        (
            {"product": (DIM, COSINE)},
            WORDS,
            None,
            {"catalog": "me", "dim": 16, "sides": True},
            ["no vectors 'title'", "have 8 numbers, not 16", "no catalogue made it"],
        ),
        (
            {"product": (DIM, COSINE)},
            WORDS,
            {"acebert": {"catalog": "you", "attributes": {"price": "number"}}},
            {"catalog": "me", "attributes": {"price": "integer"}},
            ["its catalog is 'you', not 'me'", "its attributes is {'price': 'number'}, not {'price': 'integer'}"],
        ),
    ],
)
def test_a_collection_that_is_anothers_is_refused(
    qdrant: QdrantStandIn, vectors: Any, sparse: Any, metadata: Any, owner: Any, messages: list[str]
) -> None:
    made = {name: models.VectorParams(size=size, distance=distance) for name, (size, distance) in vectors.items()}
    qdrant.do(lambda store: store.create_collection("products", made, sparse, metadata=metadata))
    with pytest.raises(ValueError, match=r"'products' on .* isn't this index's: ") as caught:
        ServerIndex.open(f"{qdrant.url}/products", SCHEMA, owner=owner)
    assert all(message in str(caught.value) for message in messages), caught.value


# ----------------------------------------------------------------------------------------------------------------------
# Failures that pass
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "break off", "proxy"])
def test_what_may_pass_is_repeated(qdrant: QdrantStandIn, index: ServerIndex, shop: Shop, fault: Any) -> None:
    qdrant.fail(fault, times=2 if fault != 429 else 1)
    assert_same(pairs(index.search(QUERY, 7)[0]), shop.nearest(QUERY[0], None, "product")[:7])
    qdrant.fail(fault, path="/points")
    index.upsert([key_of(1)], {"product": QUERY}, ["a new mug"], [{}])
    qdrant.fail(fault, path="/delete")
    index.delete([key_of(2)])
    assert index.count() == len(shop.keys) - 1 and index.search(QUERY, 1)[0][0].key == key_of(1)


def test_a_busy_server_says_how_long_to_wait(qdrant: QdrantStandIn, index: ServerIndex) -> None:
    qdrant.fail(429)
    started = time.monotonic()
    index.count()
    assert time.monotonic() - started >= 1  # as its header Retry-After wants


def test_searches_get_over_a_restart(qdrant: QdrantStandIn, index: ServerIndex, shop: Shop) -> None:
    """As one of two seconds, which had 37 of 120 searches fail."""
    qdrant.stop()
    threading.Timer(1.0, qdrant.start).start()
    expected = shop.nearest(QUERY[0], None, "product")[:3]
    for _ in range(5):
        assert_same(pairs(index.search(QUERY, 3)[0]), expected)


def test_a_server_that_is_down_is_named(qdrant: QdrantStandIn, index: ServerIndex) -> None:
    qdrant.stop()
    with pytest.raises(IndexUnavailableError) as caught:
        index.search(QUERY, 3)
    message = str(caught.value)
    assert qdrant.url in message and "asked to search in 'products': it can't be reached (" in message
    assert "refused" in message and "Tried " in message and "'timeout'" in message and "(now 3 s, 8)" in message
    assert "ResponseHandlingException" not in message and "b'" not in message


class Clock:
    """Stands for the module `time`: time passes only while somebody sleeps, however busy the machine is."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.mark.parametrize(
    ("timeout", "retries", "message"),
    [(60, 6, "Tried 7 times in"), (1, 100, r"Tried \d times in [01]\."), (1, 0, r"Tried 1 time in 0\.0")],
)
def test_the_limits_are_kept(
    timeout: int, retries: int, message: str, qdrant: QdrantStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(connection, "time", clock)
    qdrant.stop()
    with pytest.raises(IndexUnavailableError, match=message):
        Server([qdrant.url], ServerOptions(timeout=timeout, retries=retries)).check()
    assert clock.monotonic() <= timeout
    waits = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0][: len(clock.pauses)]
    assert clock.pauses == pytest.approx(waits, rel=0.26)  # each a little longer or shorter


def test_a_frozen_server_is_named(qdrant: QdrantStandIn) -> None:
    server = Server([qdrant.url], ServerOptions(timeout=1))
    qdrant.fail("hang")
    with pytest.raises(
        IndexUnavailableError, match=r"http://127.*asked to count in 'a': it did not answer within 1 s\."
    ):
        server.call("count in 'a'", lambda client: client.get_collections())
    server.close()


def test_when_one_address_is_down_the_next_is_asked(qdrant: QdrantStandIn, index: ServerIndex, shop: Shop) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        several = ServerIndex.open(f"{dead}/products,{qdrant.url}/products", SCHEMA)
        started = time.monotonic()
        for _ in range(20):
            assert several.count() == len(shop.keys)
        assert time.monotonic() - started < 5  # the address that answered last is asked first
        qdrant.stop()
        with pytest.raises(IndexUnavailableError, match=f"Qdrant servers at {dead}, {qdrant.url}, asked"):
            several.server.call("count", lambda client: client.get_collections(), retries=1)
        several.close()


def test_all_addresses_of_a_name_are_tried(qdrant: QdrantStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes of a cluster behind one name: the system's own resolution gives them all."""
    look_up = socket.getaddrinfo

    def several(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("cluster.example", b"cluster.example"):
            return look_up(host, port, *args, **kwargs)
        dead, alive = ((socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1"))
        return [dead, alive]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    server = Server([f"http://cluster.example:{qdrant.port}"], ServerOptions(retries=0))
    assert server.call("list", lambda client: client.get_collections()).collections == []
    server.close()


def test_a_collection_whose_making_was_acknowledged_to_nobody_is_taken(
    qdrant: QdrantStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = QdrantClient.create_collection

    def lose_the_answer(client: QdrantClient, name: str, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(QdrantClient, "create_collection", create)
        client.create_collection(name, *args, **kwargs)
        qdrant.fail(500, path=f"/collections/{name}")
        return client.create_collection(name, *args, **kwargs)

    monkeypatch.setattr(QdrantClient, "create_collection", lose_the_answer)
    index = ServerIndex.create(f"{qdrant.url}/products", DIM, {})
    assert index.count() == 0
    index.close()


# ----------------------------------------------------------------------------------------------------------------------
# Failures that stay
# ----------------------------------------------------------------------------------------------------------------------


def test_a_key_is_asked_for(qdrant: QdrantStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    qdrant.key = "right"
    url = f"{qdrant.url}/products"
    with pytest.raises(PermissionError) as caught:
        ServerIndex.create(url, DIM, {})
    assert "it needs a key: QDRANT_API_KEY or api_key= (Must provide an API key" in str(caught.value)
    assert qdrant.url in str(caught.value) and "b'" not in str(caught.value)
    with pytest.raises(PermissionError, match=r"doesn't take the key of QDRANT_API_KEY or api_key= \(Invalid API key"):
        ServerIndex.create(url, DIM, {}, options={"api_key": "wrong"})
    ServerIndex.create(url, DIM, {}, options={"api_key": "right"}).close()
    monkeypatch.setenv("QDRANT_API_KEY", "right")
    ServerIndex.open(url, {}).close()


def test_a_key_over_plain_http_to_another_machine_is_warned_of(logged: list[str]) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        Server([f"http://{host}:6333"], ServerOptions(api_key="secret")).client(0)
    Server(["https://shop.example"], ServerOptions(api_key="secret"))
    assert logged == []
    Server(["http://shop.example:6333"], ServerOptions(api_key="secret"))
    assert len(logged) == 1 and "http://shop.example:6333 goes over the network unencrypted" in logged[0]
    assert "secret" not in logged[0]


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (400, RuntimeError, r"asked to count in 'products': it fails with the status 400 \(asked to fail\)\.$"),
        (404, FileNotFoundError, r"it isn't there \(asked to fail\)"),
        ("not qdrant", RuntimeError, "its answer is none of a Qdrant server's"),
    ],
)
def test_other_errors_end_at_once_in_plain_words(
    qdrant: QdrantStandIn, index: ServerIndex, fault: Any, error: type[Exception], message: str
) -> None:
    qdrant.fail(fault)
    with pytest.raises(error, match=message) as caught:
        index.count()
    assert qdrant.url in str(caught.value) and len(qdrant.requests) == 1


def test_a_proxys_page_is_told_in_its_words(qdrant: QdrantStandIn) -> None:
    qdrant.fail("proxy")
    with pytest.raises(IndexUnavailableError, match=r"fails with the status 502 \(502 Bad Gateway\)"):
        Server([qdrant.url], ServerOptions(retries=0)).call("list", lambda client: client.get_collections())


def test_a_prefix_behind_a_proxy() -> None:
    with QdrantStandIn(prefix="/search/v1") as qdrant:
        index = ServerIndex.create(f"{qdrant.url}/products", DIM, {})
        assert index.count() == 0 and qdrant.requests[0][1] == "/search/v1/collections"
        assert not index.server.has_grpc()
        index.close()


@pytest.mark.parametrize(
    ("version", "told"),
    [("1.18.2", None), ("1.18.9", None), ("1.17.0", "version 1.17.0; ACE-BERT was tried with 1.18.2")],
)
def test_the_version_is_told_once_in_the_projects_words(logged: list[str], version: str, told: str | None) -> None:
    with QdrantStandIn(version=version) as qdrant:
        server = Server([qdrant.url], ServerOptions())
        server.check()
        server.close()
    assert (told is None) == (logged == []) and all(told in line for line in logged if told)


def test_a_server_that_is_too_old_is_refused() -> None:
    with (
        QdrantStandIn(version="1.15.3") as qdrant,
        pytest.raises(RuntimeError, match=r"is version 1\.15\.3, and at least"),
    ):
        Server([qdrant.url], ServerOptions()).check()


# ----------------------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------------------


def test_requests_are_bounded_by_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SERVER_BATCH", 3)
    monkeypatch.setattr(server, "REQUEST_BYTES", 100)
    assert list(split_by_size([10] * 7)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(split_by_size([60, 60, 40, 100, 1])) == [[0], [1, 2], [3], [4]]
    assert list(split_by_size([])) == []


@pytest.mark.parametrize("grpc", [False, True])
def test_large_products_go_in_small_requests(
    qdrant: QdrantStandIn, monkeypatch: pytest.MonkeyPatch, shop: Shop, grpc: bool
) -> None:
    monkeypatch.setattr(server, "REQUEST_BYTES", 2000)
    qdrant.start_grpc()
    options = {"grpc": grpc, "grpc_port": qdrant.grpc_port}
    index = ServerIndex.create(f"{qdrant.url}/products", DIM, SCHEMA, options=options)
    payloads = [{"note": "x" * 500}] * 10
    index.upsert(shop.keys[:10], {"product": shop.vectors["product"][:10]}, [None] * 10, payloads)
    sizes = [body if grpc else len(body["points"]) for body in qdrant.bodies("/points$")]
    assert len(sizes) == 4 and sum(sizes) == 10 and max(sizes) == 3
    with pytest.raises(ValueError, match=f"The product {shop.keys[0]} takes 3,0.. bytes, and a request .* 2,000"):
        index.upsert(shop.keys[:1], {"product": QUERY}, [None], [{"note": "x" * 3000}])
    assert index.count() == 10
    index.close()


def test_writes_go_by_grpc_where_it_answers(qdrant: QdrantStandIn, shop: Shop) -> None:
    qdrant.start_grpc()
    both = []
    for options in ({"grpc_port": qdrant.grpc_port}, {"grpc": False}):
        index = ServerIndex.create(f"{qdrant.url}/products{len(both)}", DIM, SCHEMA, options=options)
        qdrant.requests.clear()
        shop.fill(index)
        ways = {method for method, path, _ in qdrant.requests if path.endswith("/points")}
        assert ways == ({"GRPC"} if "grpc_port" in options else {"PUT"})
        both.append(index)
    for match, other in zip(*(index.get(shop.keys, ["product", "title", "image"]) for index in both), strict=True):
        assert match.payload == other.payload and match.vectors.keys() == other.vectors.keys()
        for name, vector in match.vectors.items():
            np.testing.assert_allclose(vector, other.vectors[name], atol=1e-6)
    words = [[pairs(found) for found in index.search_words(["red mug", "bag"], 9)] for index in both]
    for mine, theirs in zip(*words, strict=True):
        assert_same(mine, theirs)
    for index in both:
        index.close()


def test_a_failing_grpc_write_is_explained(qdrant: QdrantStandIn) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        options = {"grpc": True, "grpc_port": unused.getsockname()[1], "retries": 1, "timeout": 1}
        index = ServerIndex.create(f"{qdrant.url}/products", DIM, {}, options=options)
        with pytest.raises(IndexUnavailableError, match=r"asked to write to 'products': it .*Tried "):
            index.upsert([key_of(1)], {"product": QUERY}, [None], [{}])
        index.close()


def test_where_no_grpc_answers_rest_is_taken(qdrant: QdrantStandIn) -> None:
    with socket.socket() as silent:  # takes connections, and is no gRPC server
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = ServerOptions(grpc_port=silent.getsockname()[1], timeout=1)
        assert not Server([qdrant.url], options).has_grpc()
