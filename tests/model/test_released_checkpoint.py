"""The checkpoint in the repository's root, on drawn products: it must see, though it was trained on no drawing."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor

import acebert
from acebert.sample_catalog.generate import SampleProduct, draw_product, generate_products, split_products

ROOT = Path(acebert.__file__).parent


@pytest.fixture(scope="module")
def products() -> list[SampleProduct]:
    """Products of the validation split whose titles say neither colour nor, where there is one, pattern."""
    held_out = split_products(generate_products())["validation"]
    return [product for product in held_out if "colour" in product.hidden]


@pytest.fixture(scope="module")
def vectors(products: list[SampleProduct]) -> dict[str, torch.Tensor]:
    model = AutoModel.from_pretrained(ROOT, trust_remote_code=True, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(ROOT, trust_remote_code=True)
    titles, photos = (
        [product.productDisplayName for product in products],
        [draw_product(product) for product in products],
    )
    queries = [f"{product.baseColour} {product.articleType}" for product in products]
    with torch.inference_mode():
        inputs = {
            "titles": processor.process_products(titles, return_tensors="pt"),
            "both": processor.process_products(titles, photos, return_tensors="pt"),
            "photos": processor.process_products(images=photos, return_tensors="pt"),
        }
        vectors = {side: model.get_product_features(**inputs[side]).pooler_output for side in inputs}
        asked = processor.process_queries(queries, return_tensors="pt")
        return vectors | {"queries": model.get_text_features(**asked).pooler_output}


def precision_at_1(vectors: dict[str, torch.Tensor], side: str, products: list[SampleProduct]) -> float:
    """Share of queries ("Red Tshirts") whose first product is of that colour and kind."""
    first = (vectors["queries"] @ vectors[side].t()).argmax(1).tolist()
    wanted = [(product.baseColour, product.articleType) for product in products]
    return sum(wanted[i] == wanted[j] for i, j in enumerate(first)) / len(wanted)


def test_colours_that_titles_hide_are_seen(products: list[SampleProduct], vectors: dict[str, torch.Tensor]) -> None:
    assert len(products) > 80
    blind, seeing = (precision_at_1(vectors, side, products) for side in ("titles", "both"))
    assert seeing > 0.45
    assert seeing > blind + 0.2


def test_a_photo_alone_is_enough(products: list[SampleProduct], vectors: dict[str, torch.Tensor]) -> None:
    assert precision_at_1(vectors, "photos", products) > 0.45


def test_the_checkpoint_is_small_and_complete() -> None:
    assert (ROOT / "model.safetensors").stat().st_size < 96e6
    for name in ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (ROOT / name).exists(), name
