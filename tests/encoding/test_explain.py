"""Contributions against what hiding the parts really does, on the released checkpoint and on tiny models."""

import io
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import load_dataset
from helpers import draw, unit_vectors
from PIL import Image
from transformers import AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin

import acebert
from acebert.configuration_acebert import AceBertConfig
from acebert.encoding.explain import (
    Explanation,
    _encode_with_an_eye,
    explain,
    find_words,
    heat_map,
    patch_contributions,
)
from acebert.image_processing_acebert import Photo
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.sample_catalog.generate import SampleProduct, draw_product, generate_products, split_products

ROOT = Path(acebert.__file__).parent


@pytest.fixture(scope="module")
def released() -> tuple[PreTrainedModel, ProcessorMixin]:
    model = AutoModel.from_pretrained(ROOT, trust_remote_code=True, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(ROOT, trust_remote_code=True)


@pytest.fixture(scope="module")
def products() -> list[SampleProduct]:
    """Products that the checkpoint was not trained on and whose titles don't say the colour."""
    held_out = split_products(generate_products())["validation"]
    return [product for product in held_out if "colour" in product.hidden][:8]


@pytest.fixture
def tiny_model(tiny_config: Callable[..., AceBertConfig]) -> AceBertModel:
    return AceBertModel(tiny_config()).eval()


@pytest.fixture
def tiny_query() -> torch.Tensor:
    return unit_vectors(1, 16)[0]


@torch.no_grad()
def text_vector(released: tuple[PreTrainedModel, ProcessorMixin], words: str) -> torch.Tensor:
    model, processor = released
    return model.get_text_features(**processor.process_queries([words], return_tensors="pt")).pooler_output[0]


@torch.no_grad()
def product_score(
    model: PreTrainedModel, processor: ProcessorMixin, query: torch.Tensor, title: str | None, image: Image.Image | None
) -> float:
    inputs = processor.process_products([title], None if image is None else [image], return_tensors="pt")
    return (model.get_product_features(**inputs).pooler_output[0] @ query).item()


@torch.no_grad()
def lost_without(
    released: tuple[PreTrainedModel, ProcessorMixin],
    query: torch.Tensor,
    title: str,
    photo: Photo,
    hidden: np.ndarray,
) -> np.ndarray:
    """The score that is lost without each set of patches, given as booleans (sets, rows, columns)."""
    model, processor = released
    inputs = processor.process_products([title], [photo], return_tensors="pt")
    batch = {name: values.repeat_interleave(1 + len(hidden), 0) for name, values in inputs.items()}
    places = hidden.reshape(len(hidden), -1)[:, inputs["pixel_position_ids"][0].numpy()]  # (sets, kept patches)
    batch["pixel_attention_mask"][1:][torch.from_numpy(places)] = 0
    whole, *rest = (model.get_product_features(**batch).pooler_output @ query).tolist()
    return whole - np.array(rest)


def top_and_random(patches: np.ndarray, share: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Booleans (1 + draws, rows, columns): the patches that contribute most, and as many random ones."""
    kept = np.flatnonzero(~np.isnan(patches))
    count = max(1, round(share * len(kept)))
    chosen = [kept[np.argsort(-patches.flat[kept])[:count]], *(rng.permutation(kept)[:count] for _ in range(draws))]
    hidden = np.zeros((1 + draws, patches.size), dtype=bool)
    for row, places in zip(hidden, chosen, strict=True):
        row[places] = True
    return hidden.reshape(-1, *patches.shape)


def shuffled(explanation: Explanation, rng: np.random.Generator) -> np.ndarray:
    patches = explanation.patches.copy()
    kept = ~np.isnan(patches)
    patches[kept] = rng.permutation(patches[kept])
    return patches


class TestPatches:
    def test_top_patches_matter_more_than_random_ones(
        self, released: tuple[PreTrainedModel, ProcessorMixin], products: list[SampleProduct]
    ) -> None:
        """The deletion test; a shuffled map must fail it."""
        rng = np.random.default_rng(0)
        lost = {"map": [], "shuffled": []}
        for product in products:
            title, photo = product.productDisplayName, draw_product(product)
            query = text_vector(released, f"{product.baseColour} {product.articleType}")
            explanation = explain(*released, query, title, photo)
            for name, patches in (("map", explanation.patches), ("shuffled", shuffled(explanation, rng))):
                hidden = top_and_random(patches, share=0.2, draws=5, rng=rng)
                top, *random = lost_without(released, query, title, photo, hidden)
                lost[name].append((top, np.mean(random), top > max(random)))
        top, random, beats_all = np.mean(lost["map"], axis=0)
        assert top > random + 0.005
        assert beats_all >= 0.75
        top, random, beats_all = np.mean(lost["shuffled"], axis=0)
        assert not (top > random + 0.005 and beats_all >= 0.75)

    def test_first_order_tells_patches_apart_as_hiding_each_does(
        self, released: tuple[PreTrainedModel, ProcessorMixin], products: list[SampleProduct]
    ) -> None:
        for product in products[:3]:
            title, photo = product.productDisplayName, draw_product(product)
            query = text_vector(released, f"{product.baseColour} {product.articleType}")
            patches = explain(*released, query, title, photo).patches
            kept = np.argwhere(~np.isnan(patches))
            hidden = np.zeros((len(kept), *patches.shape), dtype=bool)
            hidden[np.arange(len(kept)), kept[:, 0], kept[:, 1]] = True
            exact = lost_without(released, query, title, photo, hidden)
            close = patches[kept[:, 0], kept[:, 1]]
            assert np.corrcoef(close, exact)[0, 1] > 0.7

    @pytest.mark.parametrize("title", ["red shoe", None])
    def test_with_an_eye_they_are_the_scores_slope_as_patches_fade(
        self, tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor, title: str | None
    ) -> None:
        sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40}
        config = tiny_config(vision_config={**sizes, "patch_size": 8, "num_register_tokens": 1})
        model, query = AceBertModel(config).eval(), unit_vectors(1, config.projection_dim)[0]
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
        inputs = tiny_processor.process_products([title], [photo], return_tensors="pt")
        found = patch_contributions(model, inputs, query)
        whole = torch.ones(1, len(found))
        encoded = _encode_with_an_eye(model, inputs, whole)
        torch.testing.assert_close(encoded, model.get_product_features(**inputs).pooler_output[0], atol=1e-5, rtol=0)
        step = 1e-2
        for patch in range(len(found)):
            change = torch.zeros_like(whole)
            change[0, patch] = step
            above, below = (_encode_with_an_eye(model, inputs, whole + sign * change) @ query for sign in (1, -1))
            assert found[patch].item() == pytest.approx((above - below).item() / (2 * step), abs=2e-4)
        assert explain(model, tiny_processor, query, title, photo).patches.size >= len(found)

    def test_background_is_left_out_and_the_box_is_where_the_processor_crops(
        self, released: tuple[PreTrainedModel, ProcessorMixin], products: list[SampleProduct]
    ) -> None:
        model, processor = released
        for product in products[:4]:
            scene = Image.new("RGB", (700, 500), "white")
            scene.paste(draw_product(product), (390, 40))
            explanation = explain(model, processor, text_vector(released, "red shirt"), None, scene)
            inputs = processor.process_products(None, [scene], return_tensors="pt")
            assert list(explanation.patches.shape) == inputs["spatial_shapes"][0].tolist()
            kept = np.flatnonzero(~np.isnan(explanation.patches))
            assert kept.tolist() == inputs["pixel_position_ids"][0].tolist()

            options = {"do_drop_background": False, "return_tensors": "pt"}
            cropped = processor.image_processor([scene], **options)
            by_box = processor.image_processor([scene.crop(explanation.box)], do_salient_crop=False, **options)
            assert torch.equal(by_box["spatial_shapes"], cropped["spatial_shapes"])
            assert (by_box["pixel_values"] - cropped["pixel_values"]).abs().mean() < 0.005
            left, top, right, bottom = explanation.box
            moved = scene.crop((left + 8, top, right + 8, bottom))
            by_moved = processor.image_processor([moved], do_salient_crop=False, **options)
            assert (by_moved["pixel_values"] - cropped["pixel_values"]).abs().mean() > 0.02

    def test_a_photo_without_a_plain_backdrop_is_explained_wholly(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor, tiny_query: torch.Tensor
    ) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 36, 3), dtype=np.uint8))
        explanation = explain(tiny_model, tiny_processor, tiny_query, None, noise)
        assert explanation.box == (0, 0, 36, 48)
        assert explanation.patches.shape == (4, 3) and np.isfinite(explanation.patches).all()
        tiny_processor.image_processor.do_salient_crop = False
        assert tiny_processor.image_processor.find_box(draw("bag", "red", 0)) == (0, 0, 36, 48)


class TestWords:
    def test_each_word_is_what_its_absence_costs(
        self, released: tuple[PreTrainedModel, ProcessorMixin], products: list[SampleProduct]
    ) -> None:
        model, processor = released
        title, photo = "Calvandra Navy Women's Sweatshirt", draw_product(products[0])
        query = text_vector(released, "navy sweatshirt")
        explanation = explain(model, processor, query, title, photo)
        inputs = processor.process_products([title], [photo], return_tensors="pt")
        pieces = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
        for word, lost in explanation.words:
            masked = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
            own = processor.tokenizer.tokenize(word)
            start = next(i for i in range(len(pieces)) if pieces[i : i + len(own)] == own)
            masked["attention_mask"][0, start : start + len(own)] = 0
            with torch.no_grad():
                without = (model.get_product_features(**masked).pooler_output[0] @ query).item()
            assert lost == pytest.approx(explanation.score - without, abs=1e-5)
        ranked = sorted(explanation.words, key=lambda item: -item[1])
        assert {word for word, _ in ranked[:2]} == {"Navy", "Sweatshirt"}

    def test_taking_the_top_word_from_the_title_costs_more_than_any_other(
        self, released: tuple[PreTrainedModel, ProcessorMixin], products: list[SampleProduct]
    ) -> None:
        model, processor = released
        right = 0
        for product in products:
            query = text_vector(released, product.articleType)
            words = explain(*released, query, product.productDisplayName).words
            top = max(range(len(words)), key=lambda i: words[i][1])
            titles = [" ".join(word for j, (word, _) in enumerate(words) if j != i) for i in range(len(words))]
            with torch.no_grad():
                scores = model.get_product_features(**processor(titles, side="product", return_tensors="pt"))
            right += int((scores.pooler_output @ query).argmin()) == top
        assert right >= len(products) - 1

    def test_words_are_spelled_as_in_the_title(self, tiny_processor: AceBertProcessor) -> None:
        title = "  Réd, SHIRT\tmen's\n★ the-bag\u00a0of "
        words = find_words(title, tiny_processor, num_tokens=100)
        assert [word for word, _ in words] == ["Réd,", "SHIRT", "men's", "★", "the-bag", "of"]
        positions = [position for _, tokens in words for position in tokens]
        ids = tiny_processor.process_products([title], return_tensors="pt")["input_ids"][0]
        assert positions == list(range(1, len(ids) - 1))
        (shirt,) = words[1][1]
        assert ids[shirt] == tiny_processor.tokenizer.convert_tokens_to_ids("shirt")

    def test_words_that_the_processor_cuts_are_nan(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor, tiny_query: torch.Tensor
    ) -> None:
        title = " ".join(["red", "shirt"] * 40)
        words = explain(tiny_model, tiny_processor, tiny_query, title).words
        assert " ".join(word for word, _ in words) == title
        read = tiny_processor.title_max_length - 2
        assert not any(math.isnan(lost) for _, lost in words[:read])
        assert all(math.isnan(lost) for _, lost in words[read:])

    def test_a_word_without_a_token_is_nan(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor, tiny_query: torch.Tensor
    ) -> None:
        (first, lost), (_, nothing), (last, _) = explain(
            tiny_model, tiny_processor, tiny_query, "red \u200d shirt"
        ).words
        assert (first, last) == ("red", "shirt") and not math.isnan(lost)
        assert math.isnan(nothing)


class TestShares:
    def test_they_are_shapley_values(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor, tiny_query: torch.Tensor
    ) -> None:
        photo = draw("shoe", "blue", 1)
        explanation = explain(tiny_model, tiny_processor, tiny_query, "the red bag", photo)
        both, title, image = (
            product_score(tiny_model, tiny_processor, tiny_query, *sides)
            for sides in (("the red bag", photo), ("the red bag", None), (None, photo))
        )
        assert explanation.score == pytest.approx(both, abs=1e-5)
        assert explanation.title_share == pytest.approx((title + (both - image)) / 2, abs=1e-5)
        assert explanation.image_share == pytest.approx((image + (both - title)) / 2, abs=1e-5)
        assert explanation.title_share + explanation.image_share == pytest.approx(explanation.score, abs=1e-6)

    def test_a_missing_side_has_none(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor, tiny_query: torch.Tensor
    ) -> None:
        photo = draw("mug", "green", 0)
        by_title = explain(tiny_model, tiny_processor, tiny_query, "green mug")
        assert by_title.score == pytest.approx(product_score(tiny_model, tiny_processor, tiny_query, "green mug", None))
        assert (by_title.title_share, by_title.image_share) == pytest.approx((by_title.score, 0), abs=1e-6)
        assert by_title.patches is None and by_title.box is None and len(by_title.words) == 2
        by_photo = explain(tiny_model, tiny_processor, tiny_query, image=photo)
        assert by_photo.score == pytest.approx(product_score(tiny_model, tiny_processor, tiny_query, None, photo))
        assert (by_photo.title_share, by_photo.image_share) == pytest.approx((0, by_photo.score), abs=1e-6)
        assert by_photo.words == []

    def test_a_photo_as_the_query_finds_itself_in_the_photo(
        self, released: tuple[PreTrainedModel, ProcessorMixin], products: list[SampleProduct]
    ) -> None:
        model, processor = released
        photo = draw_product(products[1])
        with torch.inference_mode():
            inputs = processor.process_products(None, [photo], return_tensors="pt")
            query = model.get_image_features(**inputs).pooler_output[0]
            explanation = explain(model, processor, query, products[1].productDisplayName, photo)
        assert explanation.image_share > explanation.title_share
        assert np.isfinite(explanation.patches).any()


class TestInput:
    def test_photos_of_any_mode_and_form(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor, tiny_query: torch.Tensor
    ) -> None:
        opaque = draw("shirt", "red", 0)
        clear = opaque.convert("RGBA")
        clear.putalpha(Image.fromarray(np.where(np.asarray(opaque).min(2) == 255, 0, 255).astype(np.uint8)))
        turned = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera lay on its side: to be turned by 90 degrees
        opaque.rotate(90, expand=True).save(turned, "PNG", exif=exif)
        plain = explain(tiny_model, tiny_processor, tiny_query, "red shirt", opaque)
        for photo in (clear, turned.getvalue(), {"bytes": turned.getvalue(), "path": None}, np.asarray(opaque)):
            explanation = explain(tiny_model, tiny_processor, tiny_query, "red shirt", photo)
            np.testing.assert_allclose(explanation.patches, plain.patches, atol=1e-6)
            assert explanation.box == plain.box
            assert heat_map(photo, explanation).size == opaque.size
        grey = opaque.convert("L")
        explanation = explain(tiny_model, tiny_processor, tiny_query, "red shirt", grey)
        assert explanation.box == plain.box and heat_map(grey, explanation).mode == "RGB"

    def test_padding_changes_nothing(
        self,
        tiny_config: Callable[..., AceBertConfig],
        tiny_processor: AceBertProcessor,
        tiny_query: torch.Tensor,
    ) -> None:
        for pooling in ("mean", "cls"):
            torch.manual_seed(1)
            model = AceBertModel(tiny_config(pooling=pooling)).eval()
            product = ("the black shoe", draw("shoe", "black", 1))
            tiny_processor.padding = tiny_processor.image_processor.padding = "longest"
            plain = explain(model, tiny_processor, tiny_query, *product)
            tiny_processor.padding = tiny_processor.image_processor.padding = "max_length"
            padded = explain(model, tiny_processor, tiny_query, *product)
            assert padded.score == pytest.approx(plain.score, abs=1e-5)
            np.testing.assert_allclose(padded.patches, plain.patches, atol=1e-5)
            assert [lost for _, lost in padded.words] == pytest.approx([lost for _, lost in plain.words], abs=1e-5)

    def test_the_caller_may_be_in_inference_mode(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor
    ) -> None:
        with torch.inference_mode():
            query = F.normalize(torch.arange(16.0), dim=0)
            inside = explain(tiny_model, tiny_processor, query, "red bag", draw("bag", "red", 0))
        outside = explain(tiny_model, tiny_processor, query.clone(), "red bag", draw("bag", "red", 0))
        np.testing.assert_array_equal(inside.patches, outside.patches)
        assert all(parameter.grad is None for parameter in tiny_model.parameters())

    def test_bad_input_is_refused(
        self, tiny_model: AceBertModel, tiny_processor: AceBertProcessor, tiny_query: torch.Tensor
    ) -> None:
        with pytest.raises(ValueError, match=r"shape \(1, 16\), not \(16,\)"):
            explain(tiny_model, tiny_processor, tiny_query[None], "red bag")
        with pytest.raises(ValueError, match="length 2:"):
            explain(tiny_model, tiny_processor, 2 * tiny_query, "red bag")
        with pytest.raises(ValueError, match="length nan"):
            explain(tiny_model, tiny_processor, tiny_query * torch.nan, "red bag")
        with pytest.raises(ValueError, match="title and image are both None"):
            explain(tiny_model, tiny_processor, tiny_query)
        with pytest.raises(ValueError, match=r"title\[0\] is empty"):
            explain(tiny_model, tiny_processor, tiny_query, " ", draw("bag", "red", 0))
        with pytest.raises(ValueError, match=r"images\[0\]"):
            explain(tiny_model, tiny_processor, tiny_query, "red bag", b"no photo")
        with pytest.raises(ValueError, match="image holds 2 photos: explain the product with one of them"):
            explain(tiny_model, tiny_processor, tiny_query, "red bag", [draw("bag", "red", 0)] * 2)
        with pytest.raises(ValueError, match="training mode"):
            explain(tiny_model.train(), tiny_processor, tiny_query, "red bag")


class TestHeatMap:
    def made_up(self, patches: list[list[float]], box: tuple[int, int, int, int]) -> Explanation:
        return Explanation(0.5, 0.0, 0.5, [], np.array(patches, dtype=np.float32), box)

    def test_orange_is_for_blue_is_against_and_grey_is_neither(self) -> None:
        photo = Image.new("RGB", (80, 60), (120, 30, 200))
        explanation = self.made_up([[0.01, -0.01], [0.0, math.nan]], box=(20, 20, 60, 60))
        red, green, blue = np.moveaxis(np.asarray(heat_map(photo, explanation)).astype(int), 2, 0)
        assert red.shape == (60, 80)
        assert red[22, 22] > green[22, 22] > blue[22, 22] + 40
        assert blue[22, 57] > green[22, 57] > red[22, 57] + 40
        for y, x in ((10, 10), (58, 22), (58, 58), (40, 70)):  # outside the box, no contribution, background
            assert max(red[y, x], green[y, x], blue[y, x]) - min(red[y, x], green[y, x], blue[y, x]) <= 1

    def test_the_photo_stays_readable(self) -> None:
        ramp = Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8), (20, 1)))
        for contribution in (0.003, -0.003):
            shown = heat_map(ramp, self.made_up([[contribution]], box=(0, 0, 50, 20)))
            luminance = np.asarray(shown.convert("L"))[10].astype(int)
            assert (np.diff(luminance) >= 0).all() and luminance[-1] - luminance[0] > 90

    def test_no_contribution_at_all_is_a_grey_photo(self) -> None:
        shown = heat_map(draw("bag", "red", 0), self.made_up([[0.0, 0.0]], box=(0, 0, 36, 48)))
        assert np.ptp(np.asarray(shown).astype(int), axis=2).max() <= 1

    def test_needs_the_photo_that_was_explained(self) -> None:
        with pytest.raises(ValueError, match="explained without a photo"):
            heat_map(draw("bag", "red", 0), Explanation(0.5, 0.5, 0.0, [], None, None))
        with pytest.raises(ValueError, match="pass its own photo"):
            heat_map(draw("bag", "red", 0), self.made_up([[0.1]], box=(0, 0, 300, 300)))


@pytest.mark.real
def test_top_patches_and_words_matter_on_real_products(released: tuple[PreTrainedModel, ProcessorMixin]) -> None:
    assert os.environ.get("ACEBERT_DATA"), "set ACEBERT_DATA, as `make test-real DATA=<folder>` does"
    products = load_dataset(os.environ["ACEBERT_DATA"], split="validation")
    rng = np.random.default_rng(0)
    patches, words = [], []
    for product in products.select(range(0, 3000, 100)):
        title, photo = product["productDisplayName"], product["image"]
        query = text_vector(released, f"{product['baseColour']} {product['articleType']}")
        explanation = explain(*released, query, title, photo)
        hidden = top_and_random(explanation.patches, share=0.2, draws=5, rng=rng)
        top, *random = lost_without(released, query, title, photo, hidden)
        patches.append((top, np.mean(random)))
        lost = [lost for _, lost in explanation.words]
        words.append((max(lost), np.mean(lost)))
    top, random = np.mean(patches, axis=0)
    assert top > random + 0.005
    top, average = np.mean(words, axis=0)
    assert top > average + 0.05
