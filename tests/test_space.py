"""The Space: searching, keeping vectors, showing products; on a tiny random checkpoint and a tiny catalogue."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value, load_dataset
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image as PILImage
from starlette.datastructures import QueryParams
from transformers import AutoModel, AutoProcessor, BertTokenizer

from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertImageProcessor, AceBertProcessor

SPACE = Path(__file__).parents[1] / "space"
WORDS = ["red", "blue", "green", "striped", "shirt", "shoe", "bag", "men", "women"]
FEATURES = Features(
    {
        "id": Value("int64"),
        "title": Value("string"),
        "colour": Value("string"),
        "kind": Value("string"),
        "image": Image(),
    }
)
NASTY = '<img src=x onerror="alert(1)"> ${alert(2)} {{value}} & co'


def load_app() -> ModuleType:
    spec = importlib.util.spec_from_file_location("acebert_space", SPACE / "app.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


app = load_app()
COLUMNS = app.Columns("id", "title", "image", ("colour", "kind"))


def plain_photo(colour: str) -> PILImage.Image:
    photo = PILImage.new("RGB", (24, 32), "white")
    photo.paste(colour, (6, 8, 18, 24))
    return photo


def product_rows() -> list[dict[str, Any]]:
    rows = [
        {"title": f"{colour} {kind}", "colour": colour, "kind": kind, "image": plain_photo(colour)}
        for colour in ("red", "blue", "green")
        for kind in ("shirt", "shoe", "bag")
    ]
    rows[3] |= {"title": None}
    rows[4] |= {"image": None}
    rows[5] |= {"title": NASTY, "kind": "<b>bag</b>"}
    rows[8] |= {"colour": None}
    return [{"id": 100 + number, **row} for number, row in enumerate(rows)]


def write_catalog(folder: Path, rows: list[dict[str, Any]]) -> Dataset:
    folder.mkdir(exist_ok=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "train.parquet")
    return load_dataset(str(folder), split="all", cache_dir=str(folder.parent / "datasets"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    layers = {
        "vocab_size": len(vocab),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = AceBertConfig(
        text_config=layers,
        patch_size=8,
        pixel_group_size=4,
        pixel_hidden_size=4,
        projection_dim=16,
        cls_token_id=2,
        sep_token_id=3,
    )
    torch.manual_seed(0)
    AceBertModel(config).save_pretrained(folder)
    images = AceBertImageProcessor(patch_size=8, max_num_patches=12)
    AceBertProcessor(images, BertTokenizer(vocab=vocab)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> Any:
    return app.Encoder(str(checkpoint))


@pytest.fixture(scope="module")
def catalog(encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("catalog")
    return app.Catalog(write_catalog(folder / "data", product_rows()), COLUMNS, encoder, folder / "cache")


@pytest.fixture(scope="module")
def shop(catalog: Any) -> Any:
    return app.Shop(catalog, ("red shirt",))


def test_words_and_photo_make_the_mean_of_their_vectors(checkpoint: Path, encoder: Any) -> None:
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    with torch.no_grad():
        words = model.get_text_features(**processor(text=["red shirt"], return_tensors="pt")).pooler_output[0]
        photo = model.get_image_features(**processor(images=[plain_photo("red")], return_tensors="pt")).pooler_output[0]
    both = torch.nn.functional.normalize(words + photo, dim=0)

    np.testing.assert_allclose(encoder.query("red shirt"), words, atol=1e-6)
    np.testing.assert_allclose(encoder.query(photo=plain_photo("red")), photo, atol=1e-6)
    np.testing.assert_allclose(encoder.query("red shirt", plain_photo("red")), both, atol=1e-6)
    with pytest.raises(ValueError, match="words, a photo, or both"):
        encoder.query()


def test_a_product_is_encoded_from_what_it_has(catalog: Any, encoder: Any) -> None:
    rows = product_rows()
    for row in (0, 3, 4):  # title and photo, photo alone, title alone
        expected = encoder.products([rows[row]["title"]], [rows[row]["image"]])[0]
        np.testing.assert_allclose(catalog.vectors[row], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(catalog.vectors, axis=1), 1, atol=1e-5)


def test_a_product_with_neither_title_nor_photo_is_named(encoder: Any, tmp_path: Path) -> None:
    rows = product_rows()
    rows[6] |= {"title": " ", "image": None}
    with pytest.raises(ValueError, match=r"Product 106 \(row 6\) has neither title nor photo"):
        app.Catalog(write_catalog(tmp_path / "data", rows), COLUMNS, encoder, tmp_path / "cache")


def test_a_broken_photo_is_named(encoder: Any, tmp_path: Path) -> None:
    rows = product_rows()
    rows[2] |= {"image": {"bytes": b"no photo", "path": None}}
    with pytest.raises(ValueError, match=r"from row 0: images\[2\]"):
        app.Catalog(write_catalog(tmp_path / "data", rows), COLUMNS, encoder, tmp_path / "cache")


def test_nearest_is_the_exact_search_among_the_filtered(catalog: Any) -> None:
    query = catalog.encoder.query("blue shoe")
    for filters in ({}, {"colour": ["red", "green"]}, {"colour": ["red"], "kind": ["bag", "shoe"]}, {"kind": []}):
        naive = sorted(
            (-float(catalog.vectors[row] @ query), row)
            for row in range(len(catalog))
            if all(not values or catalog.attributes[name][row] in values for name, values in filters.items())
        )
        hits = catalog.nearest(query, 4, filters)
        assert [hit.row for hit in hits] == [row for _, row in naive[:4]]
        np.testing.assert_allclose([hit.score for hit in hits], [-score for score, _ in naive[:4]], atol=1e-6)
    with pytest.raises(ValueError, match="no attribute 'size'"):
        catalog.nearest(query, 4, {"size": ["L"]})
    with pytest.raises(ValueError, match="0 were asked for"):
        catalog.nearest(query, 0, {})


def test_similar_products_leave_out_the_product_itself(catalog: Any) -> None:
    hits = catalog.similar("102", 3, {})
    assert len(hits) == 3
    assert 2 not in [hit.row for hit in hits]
    assert len(catalog.similar("102", 20, {})) == len(catalog) - 1
    with pytest.raises(ValueError, match="no product 999"):
        catalog.similar("999", 3, {})


def test_vectors_are_kept_until_catalogue_or_model_change(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    products = app.Encoder.products

    def count_products(self: Any, titles: list, photos: list) -> np.ndarray:
        encoded.append(len(titles))
        return products(self, titles, photos)

    monkeypatch.setattr(app.Encoder, "products", count_products)

    def start(rows: list[dict[str, Any]], model: Path) -> Any:
        dataset = write_catalog(tmp_path / "data", rows)
        return app.Catalog(dataset, COLUMNS, app.Encoder(str(model)), tmp_path / "cache")

    first = start(product_rows(), checkpoint)
    dataset = load_dataset(str(tmp_path / "data"), split="all", cache_dir=str(tmp_path / "datasets"))
    again = app.Catalog(dataset, COLUMNS, app.Encoder(str(checkpoint)), tmp_path / "cache")
    assert encoded == [9]
    np.testing.assert_array_equal(first.vectors, again.vectors)

    rows = product_rows()
    rows[0]["title"] = "striped shirt"
    changed = start(rows, checkpoint)
    assert encoded == [9, 9]
    assert not np.allclose(first.vectors[0], changed.vectors[0], atol=1e-4)

    trained = shutil.copytree(checkpoint, tmp_path / "trained")
    model = AceBertModel.from_pretrained(trained)
    with torch.no_grad():
        model.product_projection.weight[0, 0] += 1
    model.save_pretrained(trained)
    start(rows, trained)
    assert encoded == [9, 9, 9]


def test_a_stopped_start_leaves_no_vectors(encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ENCODING_BATCH", 4)
    rows = product_rows()
    rows[8] |= {"title": None, "image": None}
    with pytest.raises(ValueError, match="Product 108"):
        app.Catalog(write_catalog(tmp_path / "data", rows), COLUMNS, encoder, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (app.Columns("id", "name", "image", ()), "no column 'name'.*--title-column"),
        (app.Columns("id", "title", "image", ("size",)), "no column 'size'"),
        (app.Columns("id", "title", "colour", ()), "'colour' holds .* not photos"),
    ],
)
def test_wrong_columns_are_named(catalog: Any, encoder: Any, tmp_path: Path, columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        app.Catalog(catalog.dataset, columns, encoder, tmp_path)


def test_what_the_shop_wrote_is_text(shop: Any) -> None:
    page = shop.page("blue bag", None, "", 24, [], [])
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in page
    assert "&lt;b&gt;bag&lt;/b&gt;" in page
    assert "<b>" not in page and "<img src=x" not in page
    assert page.count('alt="&lt;img') == 1


def test_what_the_shopper_wrote_is_text(shop: Any) -> None:
    for page in (shop.page(NASTY, None, "", 24, [], []), shop.page("", None, NASTY, 24, [], [])):
        assert "&lt;img src=x" in page
        assert "<img src=x" not in page
        assert 'onerror="' not in page


def test_every_product_has_a_photo_with_alt_text_or_says_that_it_has_none(shop: Any) -> None:
    page = shop.page("", None, "", 24, [], [])
    assert page.count('<li class="card">') == 9
    assert page.count('src="data:image/webp;base64,') == 8
    assert page.count("No photo") == 1
    assert 'alt="red shirt"' in page and 'alt="Product 103"' in page


def test_the_page_says_what_it_shows(shop: Any) -> None:
    photo = plain_photo("red")
    assert "From the catalogue" in shop.page(" ", None, "", 24, [], [])
    assert "“red bag”" in shop.page(" red bag ", None, "", 24, [], [])
    assert "“red bag” and your photo" in shop.page("red bag", photo, "", 24, [], [])
    assert "Like your photo" in shop.page("", photo, "", 24, [], [])
    assert "More like “red shirt”" in shop.page("", None, "100", 24, [], [])
    assert "Nothing fits these filters" in shop.page("red bag", None, "", 24, ["red"], ["<b>bag</b>"])
    assert "There is no product 7 in this catalogue." in shop.page("", None, "7", 24, [], [])


def test_a_link_opens_the_same_search(shop: Any) -> None:
    def page_at(address: str) -> tuple:
        return shop.open(SimpleNamespace(query_params=QueryParams(address.removeprefix("?"))))

    link = app.address("red & blue", "", 12, {"colour": ["red", "blue"], "kind": []})
    query, photo, like, count, colours, kinds, drawer, page = page_at(link)
    assert (query, photo, like, count, colours, kinds, drawer.open) == (
        "red & blue", None, "", 12, ["red", "blue"], [], True
    )  # fmt: skip
    assert page == shop.page("red & blue", None, "", 12, ["red", "blue"], [])
    assert f'href="{link.replace("&", "&amp;")}"' in page

    like, page = page_at(app.address("", "104", 24, {}))[2::5]
    assert like == "104" and "More like “blue shoe”" in page
    assert page_at("?n=7&colour=pink")[3:6] == (24, [], [])
    assert "Link to this search" not in shop.page("red", plain_photo("red"), "", 24, [], [])


def test_labels_are_words() -> None:
    assert [app.label(name) for name in ("baseColour", "article_type", "gender")] == [
        "Base colour",
        "Article type",
        "Gender",
    ]


def test_settings_come_from_flags_then_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("ACEBERT_MODEL", raising=False)
    with pytest.raises(SystemExit):
        app.parse_args([])
    assert "--model or set ACEBERT_MODEL" in capsys.readouterr().err
    monkeypatch.setenv("ACEBERT_MODEL", "someone/model")
    monkeypatch.setenv("ACEBERT_ATTRIBUTES", "colour, kind")
    args = app.parse_args(["--catalog", "folder"])
    assert (args.model, args.catalog, args.attributes) == ("someone/model", "folder", ("colour", "kind"))
    assert app.parse_args(["--model", "other/model"]).model == "other/model"


def test_the_space_runs_away_from_the_repository(tmp_path: Path) -> None:
    shutil.copytree(SPACE, tmp_path / "space")
    code = "import sys, runpy; runpy.run_path('app.py'); assert not [m for m in sys.modules if m.startswith('acebert')]"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "space", check=True, timeout=120)


@pytest.fixture(scope="module")
def client(shop: Any) -> Any:
    page = shop.build()
    _, url, _ = app.launch(page, prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    page.close()


def test_the_search_endpoint(client: Client, catalog: Any, tmp_path: Path) -> None:
    hits = client.predict(query="blue shoe", count=3, filters={"colour": ["red"]}, api_name="/search")
    expected = catalog.nearest(catalog.encoder.query("blue shoe"), 3, {"colour": ["red"]})
    assert [hit["id"] for hit in hits] == [catalog.ids[hit.row] for hit in expected]
    assert set(hits[0]) == {"id", "title", "score", "attributes"}
    assert hits[0]["attributes"]["colour"] == "red"

    plain_photo("green").save(tmp_path / "query.png")
    photo = handle_file(str(tmp_path / "query.png"))
    hits = client.predict(query="blue shoe", photo=photo, count=5, api_name="/search")
    expected = catalog.nearest(catalog.encoder.query("blue shoe", plain_photo("green")), 5, {})
    assert [hit["id"] for hit in hits] == [catalog.ids[hit.row] for hit in expected]


def test_the_search_endpoint_says_what_is_wrong(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="words, a photo, or both"):
        client.predict(api_name="/search")
    (tmp_path / "photo.png").write_text("no photo")
    with pytest.raises(AppError, match="can't be read as a photo"):
        client.predict(query="red", photo=handle_file(str(tmp_path / "photo.png")), api_name="/search")
    with pytest.raises(AppError, match="no attribute 'size'"):
        client.predict(query="red", filters={"size": ["L"]}, api_name="/search")


def test_search_is_the_only_public_endpoint(client: Client) -> None:
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/search"]
