"""Several photos of a product: what the processor makes of them, and the vector that stands for them."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import draw, unit_vectors
from transformers.utils import logging

from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertModel, mean_photo
from acebert.processing_acebert import AceBertProcessor

EYE = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40, "patch_size": 8}
RED, BLUE, MUG = draw("shirt", "red", 0), draw("bag", "blue", 2), draw("mug", "green", 1).resize((90, 20))


@pytest.fixture
def model(tiny_config: Callable[..., AceBertConfig]) -> AceBertModel:
    torch.manual_seed(0)
    return AceBertModel(tiny_config(vision_config={**EYE, "initializer_range": 0.2})).eval()


def encode(model: AceBertModel, processor: AceBertProcessor, images: list[Any], titles: Any = None) -> torch.Tensor:
    inputs = processor.process_products(titles, images, return_tensors="pt")
    with torch.inference_mode():
        return model.get_product_features(**inputs).pooler_output


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_the_mean_by_hand() -> None:
    one, other, third = unit_vectors(3, 8)
    nothing = torch.zeros(8)
    rows = [[one, other, third], [one, other, nothing], [one, nothing, nothing], [nothing] * 3]
    vectors = torch.stack([torch.stack(row) for row in rows])
    found = mean_photo(vectors)
    assert_close(found[0], F.normalize((one + other + third) / 3, dim=0))
    assert_close(found[1], F.normalize((one + other) / 2, dim=0))
    assert torch.equal(found[2], one) and torch.equal(found[3], nothing)
    for order in permutations(range(3)):
        assert_close(mean_photo(vectors[:, order]), found)


def test_a_product_is_joined_of_its_title_and_the_mean(model: AceBertModel, tiny_processor: AceBertProcessor) -> None:
    titles = ["red shirt", "mug", None, "the blue bag of the women"]
    found = encode(model, tiny_processor, [[RED, None, BLUE], None, (MUG, RED, BLUE), [MUG]], titles)
    red, blue, mug = encode(model, tiny_processor, [RED, BLUE, MUG])
    shirt, plain, bag = encode(model, tiny_processor, None, [titles[0], titles[1], titles[3]])
    weight = model.config.image_weight
    assert_close(found[0], F.normalize(shirt + weight * F.normalize(red + blue, dim=0), dim=0))
    assert_close(found[1], plain)
    assert_close(found[2], F.normalize(mug + red + blue, dim=0))
    assert_close(found[3], F.normalize(bag + weight * mug, dim=0))


@pytest.mark.parametrize("kind", ["pt", "np", None])
def test_one_photo_in_a_list_is_that_photo_to_the_bit(kind: Any, tiny_processor: AceBertProcessor) -> None:
    listed = tiny_processor(["a", "b", "c"], [[RED], (None, BLUE, None), []], return_tensors=kind)
    single = tiny_processor(["a", "b", "c"], [RED, BLUE, None], return_tensors=kind)
    assert listed.keys() == single.keys()
    for name, values in single.items():
        for mine, theirs in zip(listed[name], values, strict=True):
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))


def test_photos_of_a_product_stand_in_their_order(tiny_processor: AceBertProcessor) -> None:
    several = tiny_processor(images=[[RED, None, BLUE], MUG], return_tensors="pt")
    single = tiny_processor(images=[RED, BLUE, MUG], return_tensors="pt")
    assert several["pixel_attention_mask"].any(-1).tolist() == [[True, True], [True, False]]
    for name, values in several.items():
        assert torch.equal(values[[0, 0, 1], [0, 1, 0]], single[name])
    assert [np.shape(item) for item in tiny_processor(images=[[RED, BLUE], MUG])["spatial_shapes"]] == [(2, 2)] * 2
    assert "pixel_values" not in tiny_processor(text=["a", "b"], images=[[], [None]], side="product")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([RED, [BLUE, None, b"x"]], r"images\[1\]\[2\] can't be used"),
        ([RED, [[1, 2], [3, 4]]], r"images\[1\]\[0\] can't be used: list is no photo"),
        ([[RED, BLUE], b"x"], r"images\[1\] can't be used"),
        ([[None, None], RED], "product 0 has nothing in images"),
    ],
)
def test_bad_photos_are_named(images: list[Any], message: str, tiny_processor: AceBertProcessor) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_processor(images=images)


def test_a_model_in_one_stream_reads_the_first_and_says_so(
    tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    logging.warning_once.cache_clear()  # another test may have had it said
    model = AceBertModel(tiny_config()).eval()
    single = encode(model, tiny_processor, [RED, MUG], ["a", "b"])
    assert "first alone" not in caplog.text
    for _ in range(2):
        assert_close(encode(model, tiny_processor, [[RED, BLUE], [MUG]], ["a", "b"]), single)
    assert caplog.text.count("it reads the first alone") == 1


def test_sentence_transformers_takes_them(model: AceBertModel, tiny_processor: AceBertProcessor) -> None:
    documents = [{"text": "red shirt", "image": [RED, BLUE]}, {"image": [MUG, RED, BLUE]}, "mug"]
    documents.append({"text": "a", "image": MUG})
    images, titles = [[RED, BLUE], [MUG, RED, BLUE], None, MUG], ["red shirt", None, "mug", "a"]
    found = model.to_sentence_transformer(tiny_processor).encode_document(documents, convert_to_tensor=True)
    assert_close(found, encode(model, tiny_processor, images, titles))
