"""The HTTP service: what it answers, what it refuses, and how it says so."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog_products import png
from datasets import load_dataset
from fastapi.testclient import TestClient
from helpers import draw

from acebert import AceBertModel, AceBertProcessor, ProductCatalog
from acebert.catalog.boosts import Boost
from acebert.serving.app import create_app
from acebert.serving.settings import Keys, Settings

WRITE = {"X-API-Key": "to write"}


@pytest.fixture
def settings(tiny_config: Callable, tiny_processor: AceBertProcessor, catalog_folder: Path, tmp_path: Path) -> Settings:
    """Of a service over 64 products."""
    torch.manual_seed(0)
    AceBertModel(tiny_config()).save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    products = load_dataset(str(catalog_folder), split="train")
    products = products.add_column("stock", [0] * len(products)).add_column("new", [False] * len(products))
    model = AceBertModel.from_pretrained(tmp_path / "model")
    ProductCatalog.build(model, tiny_processor, products, tmp_path / "catalog", index="memory").close()
    return Settings(str(tmp_path / "catalog"), str(tmp_path / "model"))


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., TestClient]]:
    opened: list[TestClient] = []

    def call(keys: Keys | None = None, **changes: Any) -> TestClient:
        app = create_app(Settings(**{**vars(settings), **changes}), keys or Keys(write="to write"))
        client = TestClient(app, raise_server_exceptions=False)
        opened.append(client.__enter__())
        return client

    yield call
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start: Callable[..., TestClient]) -> TestClient:
    return start()


def encode(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


def ids(answer: Any) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def expect(answer: Any, status: int, **parts: str) -> None:
    """That the answer is an error whose parts contain what is given."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"field", "value", "problem", "remedy"} and error["problem"] and error["remedy"]
    for name, text in parts.items():
        assert text in str(error[name]), error


def test_it_finds_what_the_catalogue_finds(client: TestClient) -> None:
    catalog: ProductCatalog = client.app.state.catalog
    body = {"text": "red shirt", "top_k": 5, "filters": {"colour": ["red", "blue"]}}
    answer = client.post("/v1/search", json=body)
    expected = catalog.search("red shirt", top_k=5, filters={"colour": ["red", "blue"]})
    assert ids(answer) == [hit.id for hit in expected]
    first = answer.json()["hits"][0]
    assert first["score"] == pytest.approx(expected[0].score)
    assert (first["title"], first["attributes"]) == (expected[0].title, expected[0].attributes)
    photo = draw("shirt", "red", 0)
    for body in ({"image": encode(png(photo))}, {"text": "red shirt", "image": encode(png(photo))}):
        expected = catalog.search(body.get("text"), photo)
        assert ids(client.post("/v1/search", json=body)) == [hit.id for hit in expected]
    assert ids(client.post("/v1/similar", json={"id": 100, "top_k": 3})) == [
        hit.id for hit in catalog.search(like=100, top_k=3)
    ]


def test_pages_groups_and_what_was_read_in_a_query(client: TestClient) -> None:
    catalog: ProductCatalog = client.app.state.catalog
    body = {"text": "shirt not red", "group_by": "colour", "top_k": 2, "offset": 1}
    answer = client.post("/v1/search", json=body).json()
    expected = catalog.search("shirt not red", group_by="colour", top_k=2, offset=1)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    assert answer["total"] == expected.total and answer["text"] == expected.text
    assert [chip["label"] for chip in answer["chips"]] == [chip.label for chip in expected.chips] != []
    assert answer["hits"][0]["group_size"] == expected[0].group_size
    assert answer["hits"][0]["parts"] == pytest.approx(expected[0].parts)
    (excluded,) = [chip for chip in expected.chips if chip.effect == "filter"]
    plain = client.post("/v1/search", json={**body, "as_words": [excluded.words]}).json()
    assert excluded.label not in [chip["label"] for chip in plain["chips"]]
    expect(client.post("/v1/search", json={**body, "sort_by": "colour"}), 422, problem="colour")


def test_boosts_paths_and_vectors(client: TestClient) -> None:
    catalog: ProductCatalog = client.app.state.catalog
    new = [
        {"id": i, "title": "red mug", "attributes": {"kind": f"Home > Kitchen > {i % 2}", "stock": i, "new": i == 3}}
        for i in range(4)
    ]
    assert client.post("/v1/products/upsert", json={"products": new}, headers=WRITE).json() == {"changed": 4}
    below = {"kind": {"$under": "home/kitchen"}}
    plain = client.post("/v1/search", json={"text": "red mug", "filters": below}).json()
    assert {hit["id"] for hit in plain["hits"]} == {0, 1, 2, 3} and plain["total"] == 4
    assert client.post("/v1/facets", json={"attributes": ["kind"], "filters": below}).json()["products"] == 4
    boosts: dict[str, Any] = {"stock": {"weight": 0.5, "pivot": 2}, "new": 0.25}
    boosted = client.post("/v1/search", json={"text": "red mug", "filters": below, "boosts": boosts}).json()["hits"]
    expected = catalog.search("red mug", filters=below, boosts={"stock": Boost(0.5, pivot=2), "new": 0.25})
    assert [hit["id"] for hit in boosted] == [hit.id for hit in expected] == [3, 2, 1, 0]
    assert boosted[0]["parts"] == pytest.approx(expected[0].parts) and boosted[0]["parts"]["new"] == 0.25
    like = client.post("/v1/similar", json={"id": 0, "filters": below, "boosts": {"stock": 1}}).json()["hits"]
    assert [hit["id"] for hit in like] == [3, 2, 1] and like[0]["parts"]["stock"] == pytest.approx(0.75)
    vector = catalog.encode_queries(["red mug"])[0].tolist()
    assert ids(client.post("/v1/search", json={"vector": vector, "top_k": 3})) == [
        hit.id for hit in catalog.search(vector=vector, top_k=3)
    ]


def test_facets_of_groups(client: TestClient) -> None:
    body = {"attributes": ["colour"], "filters": {"colour": ["red", "blue"]}}
    answer = client.post("/v1/facets", json={**body, "group_by": "kind"}).json()
    assert answer["facets"]["colour"] == [{"value": "blue", "count": 4}, {"value": "red", "count": 4}]
    assert (answer["products"], answer["groups"]) == (32, 4)
    assert client.post("/v1/facets", json=body).json()["groups"] is None
    assert client.get("/v1/catalog").json()["group"] is None
    expect(client.post("/v1/facets", json={**body, "group_by": "size"}), 422, field="group_by", value="size")


def test_facets_products_and_photos(client: TestClient) -> None:
    answer = client.post("/v1/facets", json={"attributes": ["colour", "kind"], "filters": {"colour": "red"}}).json()
    assert answer["facets"]["colour"] == [{"value": "red", "count": 16}] and answer["products"] == 16
    assert {entry["value"] for entry in answer["facets"]["kind"]} == {"shirt", "shoe", "bag", "mug"}
    assert client.get("/v1/products/100").json()["title"] == "a shirt a"
    photo = client.get("/v1/products/100/photo")
    assert photo.headers["content-type"] == "image/png" and photo.content.startswith(b"\x89PNG")
    assert client.get("/v1/products/100").json()["num_photos"] == 1
    assert client.get("/v1/catalog").json()["products"] == 64
    for path in ("/v1/products/7", "/v1/products/x", "/v1/products/7/photo"):
        expect(client.get(path), 404, field="product_id", problem="no such product")
    both = [png(draw("mug", colour, 0)) for colour in ("red", "blue")]
    new = {"id": 1, "title": "mug", "images": [encode(photo) for photo in both]}
    assert client.post("/v1/products/upsert", json={"products": [new]}, headers=WRITE).json() == {"changed": 1}
    assert client.get("/v1/products/1").json()["num_photos"] == 2
    for number, content in enumerate(both):
        assert client.get(f"/v1/products/1/photo?number={number}").content == content
    expect(client.get("/v1/products/1/photo?number=2"), 404, problem="no photo 2")
    expect(client.get("/v1/products/1/photo?number=-1"), 422, field="number")
    new["image"] = new["images"][0]
    expect(client.post("/v1/products/upsert", json={"products": [new]}, headers=WRITE), 422, problem="image or images")


def test_changes_are_found_at_once_and_kept(client: TestClient, settings: Settings) -> None:
    new = {"id": 1, "title": "blue mug", "image": encode(png(draw("mug", "blue", 0))), "attributes": {"colour": "blue"}}
    assert client.post("/v1/products/upsert", json={"products": [new]}, headers=WRITE).json() == {"changed": 1}
    assert 1 in ids(client.post("/v1/search", json={"text": "mug", "using": "words", "top_k": 64}))
    change = {"products": [{"id": 1, "attributes": {"colour": "red"}}]}
    assert client.post("/v1/products/attributes", json=change, headers=WRITE).json() == {"changed": 1}
    assert client.post("/v1/products/delete", json={"ids": [100, 5]}, headers=WRITE).json() == {"changed": 1}
    with ProductCatalog.load(settings.catalog) as catalog:
        assert len(catalog) == 64 and 100 not in catalog and catalog.get(1).attributes["colour"] == "red"


@pytest.mark.parametrize(
    ("path", "body", "parts"),
    [
        ("search", {}, {"problem": "needs a text, an image or both"}),
        ("search", {"text": "  "}, {"field": "text", "problem": "at least 1 character"}),
        ("search", {"text": "x" * 501}, {"field": "text", "value": "x" * 80, "remedy": "at most 500 characters"}),
        ("search", {"text": "mug", "top_k": 201}, {"field": "top_k", "value": "201", "remedy": "at most 200"}),
        ("search", {"text": "mug", "top_k": 0}, {"field": "top_k", "value": "0"}),
        ("search", {"text": "mug", "topk": 3}, {"field": "topk", "value": "3"}),
        ("search", {"text": "mug", "using": "titel"}, {"field": "using", "value": "titel"}),
        ("search", {"text": "mug", "filters": {"color": "red"}}, {"field": "filters", "problem": "'color'"}),
        ("search", {"text": "mug", "filters": {"colour": {"$under": 3}}}, {"field": "filters", "problem": "'colour'"}),
        ("search", {"text": "mug", "vector": [1.0]}, {"problem": "or else a vector"}),
        ("search", {"vector": [1.0]}, {"field": "vector", "value": "1.0"}),
        ("search", {"text": "mug", "sort_by": "kind"}, {"field": "sort_by", "value": "kind"}),
        ("search", {"text": "mug", "group_by": "stock level"}, {"field": "group_by", "value": "stock level"}),
        ("search", {"text": "mug", "boosts": {"shade": 1}}, {"field": "boosts", "problem": "'shade'"}),
        ("search", {"text": "mug", "boosts": {"kind": 1}}, {"field": "boosts", "problem": "'kind'"}),
        ("search", {"text": "mug", "boosts": {"stock": {"weight": 1, "halflife": 3}}}, {"field": "boosts.stock"}),
        ("search", {"text": "mug", "boosts": {"stock": {"weight": 1, "pivot": 0}}}, {"field": "boosts.stock"}),
        ("search", {"image": "no base64!"}, {"field": "image"}),
        ("search", {"image": encode(b"no photo")}, {"field": "image", "problem": "can't be read"}),
        ("similar", {"id": "100"}, {"field": "id", "problem": "type integer"}),
        ("facets", {"attributes": ["color"]}, {"field": "attributes", "value": "color"}),
        ("facets", {"attributes": []}, {"field": "attributes"}),
        ("products/upsert", {"products": [{"id": 1}]}, {"field": "products", "remedy": "give it one"}),
        (
            "products/upsert",
            {"products": [{"id": 1, "title": "mug", "attributes": {"title": "cup"}}]},
            {"field": "products.0.attributes.title"},
        ),
        ("products/upsert", {"products": [{"id": 1, "title": "mug", "attributes": {"colour": 3}}]}, {"problem": "3"}),
        ("products/delete", {"ids": list(range(257))}, {"field": "ids", "remedy": "at most 256"}),
        ("products/delete", {"ids": ["a"]}, {"field": "ids"}),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    path: str, body: dict[str, Any], parts: dict[str, str], client: TestClient
) -> None:
    expect(client.post(f"/v1/{path}", json=body, headers=WRITE), 422, **parts)


def test_ids_and_products_that_are_not_there(client: TestClient) -> None:
    expect(client.post("/v1/similar", json={"id": 7}), 404, field="id", value="7")
    change = {"products": [{"id": 7, "attributes": {"colour": "red"}}]}
    expect(client.post("/v1/products/attributes", json=change, headers=WRITE), 404, problem="[7]")
    expect(client.get("/v1/nowhere"), 404)
    expect(client.post("/v1/search", content=b"{", headers={"Content-Type": "application/json"}), 422)


def test_keys(start: Callable[..., TestClient]) -> None:
    change, search = {"ids": [100]}, {"text": "mug"}
    closed = start(Keys(search="to search", write="to write"))
    expect(closed.post("/v1/search", json=search), 401, field="X-API-Key")
    expect(closed.post("/v1/search", json=search, headers={"X-API-Key": "to sear"}), 401)
    expect(closed.post("/v1/search", json=search, headers={"X-API-Key": "grün".encode()}), 401)
    for key in ("to search", "to write"):
        assert closed.post("/v1/search", json=search, headers={"X-API-Key": key}).status_code == 200
    expect(closed.post("/v1/products/delete", json=change, headers={"X-API-Key": "to search"}), 401)
    expect(start(Keys()).post("/v1/products/delete", json=change, headers=WRITE), 403, remedy="ACEBERT_WRITE_KEY")
    assert closed.get("/health").status_code == 200
    assert "to write" not in repr(closed.app.state.keys)


def test_limits(start: Callable[..., TestClient]) -> None:
    small = start(max_body_bytes=1000)
    expect(small.post("/v1/search", json={"text": "x" * 1000}), 413, field="body", problem="1,000 bytes")
    chunks = (b'{"text": "', *(b"x" * 100 for _ in range(20)), b'"}')
    expect(small.post("/v1/search", content=iter(chunks)), 413)  # says no length
    busy = start(max_waiting=1)
    guard = busy.app.middleware_stack
    while not hasattr(guard, "waiting"):
        guard = guard.app
    guard.waiting = 1
    answer = busy.post("/v1/search", json={"text": "mug"})
    expect(answer, 503, problem="1 requests are in progress")
    assert answer.headers["Retry-After"] == "1" and busy.get("/ready").status_code == 200


def test_state_metrics_and_the_contract(client: TestClient) -> None:
    for _ in range(3):
        client.post("/v1/search", json={"text": "mug"})
    client.get("/v1/products/100")
    client.get("/ready")
    text = client.get("/metrics").text
    assert 'acebert_requests_total{route="/v1/search",status="200"}' in text
    assert 'route="/v1/products/{product_id:path}"' in text and "/v1/products/100" not in text
    assert "acebert_products 64.0" in text and "acebert_request_seconds_bucket" in text
    api = client.get("/openapi.json").json()
    assert set(api["paths"]["/v1/search"]["post"]["responses"]) >= {"200", "401", "413", "422", "503"}
    assert api["paths"]["/v1/products/delete"]["post"]["security"] == [{"APIKeyHeader": []}]
    assert client.get("/docs").status_code == 200


def test_pages_of_other_origins_may_ask_only_where_they_are_named(start: Callable[..., TestClient]) -> None:
    page = {"Origin": "https://shop.example"}
    allowed = start(allow_origins=["https://shop.example"]).post("/v1/search", json={"text": "mug"}, headers=page)
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in start().post("/v1/search", json={"text": "mug"}, headers=page).headers


def test_a_fault_is_told_without_its_inside(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the password is swordfish")

    monkeypatch.setattr(ProductCatalog, "search", fail)
    answer = client.post("/v1/search", json={"text": "mug"})
    expect(answer, 500, problem="failed")
    assert "swordfish" not in answer.text
    assert 'acebert_requests_total{route="/v1/search",status="500"}' in client.get("/metrics").text
