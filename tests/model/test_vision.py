"""The eye: equal to the models whose weights it takes, on any grid, and a fusion whose harm is bounded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import draw, unit_vectors
from huggingface_hub.errors import StrictDataclassClassValidationError
from PIL import Image
from transformers import (
    AutoModel,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from acebert.configuration_acebert import AceBertConfig, AceBertVisionConfig
from acebert.data.collators import drop_patches
from acebert.image_processing_acebert import BACKBONE_PIXELS, AceBertImageProcessor
from acebert.modeling_acebert import AceBertForPreTraining, AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.training.loading import recompute_activations
from acebert.vision_acebert import _KINDS, AceBertVisionModel, interpolation_weights, load_image_backbone

Inputs = dict[str, torch.Tensor]
MakeConfig = Callable[..., AceBertConfig]

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 4}
SOURCES: dict[str, Callable[[], PreTrainedModel]] = {
    "vit": lambda: ViTModel(ViTConfig(**SIZES, image_size=20, intermediate_size=48, hidden_act="gelu")),
    "vit without biases": lambda: ViTModel(ViTConfig(**SIZES, image_size=20, intermediate_size=48, qkv_bias=False)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZES, image_size=36, layerscale_value=0.3)),
    "dinov2 with registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**SIZES, image_size=36, num_register_tokens=3)
    ),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES, image_size=20, intermediate_size=48)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES, image_size=20, intermediate_size=48)),
    "siglip 2": lambda: Siglip2VisionModel(Siglip2VisionConfig(**SIZES, num_patches=36, intermediate_size=48)),
}


def make_source(name: str, folder: Path) -> PreTrainedModel:
    """A random model of the kind in a folder, every weight of it away from what it starts as."""
    torch.manual_seed(0)
    source = SOURCES[name]().eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    source.save_pretrained(folder)
    return source


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def source_tokens(source: PreTrainedModel, inputs: Inputs, rows: int, columns: int) -> torch.Tensor:
    """The source's own last hidden state for one photo of rows x columns patches, after its final norm."""
    if source.config.model_type == "siglip2_vision_model":
        mask = inputs["pixel_attention_mask"]
        return source(inputs["pixel_values"], mask, inputs["spatial_shapes"]).last_hidden_state
    side = source.config.patch_size
    patches = inputs["pixel_values"][0].view(rows, columns, side, side, 3)
    picture = patches.permute(4, 0, 2, 1, 3).reshape(1, 3, rows * side, columns * side)
    natural = {} if source.config.model_type.startswith("dinov2") else {"interpolate_pos_encoding": True}
    hidden = source(picture, **natural).last_hidden_state
    if source.config.model_type == "clip_vision_model":  # which norms the class token alone
        hidden = getattr(source, "vision_model", source).post_layernorm(hidden)
    return hidden


@pytest.mark.parametrize("name", SOURCES)
class TestSources:
    @pytest.mark.parametrize(("height", "width"), [(20, 20), (36, 24), (12, 48), (60, 52), (4, 4)])
    def test_hidden_states_equal_the_sources(self, name: str, height: int, width: int, tmp_path: Path) -> None:
        source = make_source(name, tmp_path)
        config, state = load_image_backbone(str(tmp_path))
        eye = AceBertVisionModel(config).eval()
        eye.load_state_dict(state)
        processor = AceBertImageProcessor.from_backbone(
            str(tmp_path), max_num_patches=height * width // 16, do_salient_crop=False, do_drop_background=False
        )
        inputs = processor(noise(height, width), return_tensors="pt")
        assert inputs["spatial_shapes"].tolist() == [[height // 4, width // 4]]
        with torch.no_grad():
            output = eye(**inputs, output_hidden_states=True)
            expected = source_tokens(source, inputs, height // 4, width // 4)
        assert torch.allclose(output.last_hidden_state, expected, atol=2e-5, rtol=1e-4)
        assert len(output.hidden_states) == 1 + SIZES["num_hidden_layers"]
        patches = output.last_hidden_state[:, -inputs["pixel_values"].shape[1] :]
        features = [output.last_hidden_state[:, 0]] if config.use_class_token else []
        assert torch.allclose(output.pooler_output, torch.cat([*features, patches.mean(1)], dim=-1), atol=1e-5)

    def test_padding_changes_nothing_and_fewer_layers_are_the_first(self, name: str, tmp_path: Path) -> None:
        make_source(name, tmp_path)
        config, state = load_image_backbone(str(tmp_path), 2)
        assert config.num_hidden_layers == 2 and not any(key.startswith("layers.2.") for key in state)
        eye = AceBertVisionModel(config).eval()
        eye.load_state_dict(state)
        processor = AceBertImageProcessor.from_backbone(str(tmp_path), max_num_patches=12)
        photos = [noise(40, 36), noise(20, 60, 1), noise(16, 16, 2)]
        with torch.no_grad():
            together = eye(**processor(photos, return_tensors="pt")).pooler_output
            alone = [eye(**processor(photo, return_tensors="pt")).pooler_output for photo in photos]
        assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("table", "size"), [(37, 8), (37, 37), (5, 13), (16, 1), (1, 3), (2, 7)])
def test_positions_are_resized_as_pytorch_does(interpolation: str, antialias: bool, table: int, size: int) -> None:
    entries = torch.randn(table, 3, generator=torch.Generator().manual_seed(0))
    places = torch.arange(size)
    weights = interpolation_weights(places, torch.full_like(places, size), table, interpolation, antialias)
    options = {"mode": interpolation, "antialias": antialias, "align_corners": False}
    picture = entries.t()[None, :, :, None].repeat(1, 1, 1, 4)  # four columns, all alike
    expected = F.interpolate(picture, size=(size, 4), **options)[0, :, :, 0].t()
    assert torch.allclose(weights @ entries, expected, atol=1e-5)


def test_every_kind_of_source_has_its_pixels() -> None:
    assert _KINDS.keys() == BACKBONE_PIXELS.keys()


class TestImageProcessor:
    def test_takes_over_what_the_source_saved(self, tmp_path: Path) -> None:
        make_source("dinov2", tmp_path)
        bare = AceBertImageProcessor.from_backbone(str(tmp_path))
        assert bare.patch_size == 4 and bare.image_mean[0] == 0.485 and bare.resample == Image.Resampling.BICUBIC
        saved = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2, "size": {"height": 20}}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
        taken = AceBertImageProcessor.from_backbone(str(tmp_path), max_num_patches=48)
        assert (list(taken.image_mean), list(taken.image_std)) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
        assert taken.resample == Image.Resampling.BILINEAR and taken.max_num_patches == 48

    def test_refuses_what_has_no_patches(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
        with pytest.raises(ValueError, match="not 'resnet'"):
            AceBertImageProcessor.from_backbone(str(tmp_path))
        with pytest.raises(ValueError, match="not 'resnet'"):
            load_image_backbone(str(tmp_path))


VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "position_grid_size": 5,
    "use_layer_scale": True,
    "num_register_tokens": 2,
}


@pytest.fixture
def config(tiny_config: MakeConfig) -> AceBertConfig:
    plain = tiny_config()
    return tiny_config(vision_config={**VISION, "patch_size": plain.patch_size}, image_head_size=20)


@pytest.fixture
def model(config: AceBertConfig) -> AceBertModel:
    torch.manual_seed(0)
    return AceBertModel(config).eval()


class TestFusion:
    def test_it_is_the_sum_of_title_and_photo(self, model: AceBertModel, product_inputs: Inputs) -> None:
        """`product_inputs`: two with both, one without a photo, one without a title."""
        with torch.no_grad():
            output = model.get_product_features(**product_inputs)
            photo = {name: value for name, value in product_inputs.items() if "pixel" in name or "shapes" in name}
            text = {name: value for name, value in product_inputs.items() if name in ("input_ids", "attention_mask")}
            images = model.get_image_features(**photo).pooler_output
            titles = model.get_product_features(**text).pooler_output
        assert torch.allclose(output.pooler_output.norm(dim=1), torch.ones(4))
        both = F.normalize(titles[:2] + 0.6 * images[:2], dim=-1)
        assert torch.allclose(output.pooler_output[:2], both, atol=1e-6)
        assert torch.allclose(output.pooler_output[2], titles[2], atol=1e-6)
        assert torch.allclose(output.pooler_output[3], images[3], atol=1e-6)
        assert torch.equal(output.title_embeds[:3], titles[:3]) and not output.title_embeds[3].any()
        assert torch.equal(output.image_embeds, images) and not images[2].any()

    def test_photos_that_were_encoded_before_stand_for_photos(
        self, model: AceBertModel, product_inputs: Inputs
    ) -> None:
        whole = model.get_product_features(**product_inputs)
        texts = {name: product_inputs[name] for name in ("input_ids", "attention_mask")}
        given = model.get_product_features(**texts, image_embeds=whole.image_embeds)
        torch.testing.assert_close(given.pooler_output, whole.pooler_output)
        alone = model.get_product_features(image_embeds=whole.image_embeds)
        torch.testing.assert_close(alone.pooler_output, whole.image_embeds)
        with pytest.raises(ValueError, match="`image_embeds` or `pixel_values`, not both"):
            model.get_product_features(**product_inputs, image_embeds=whole.image_embeds)

    def test_a_weight_for_each_product(self, model: AceBertModel, product_inputs: Inputs) -> None:
        with torch.no_grad():
            weights = torch.tensor([0.0, 0.3, 0.8, 0.0])
            output = model.get_product_features(**product_inputs, image_weight=weights)
            one = model.get_product_features(**product_inputs, image_weight=0.3).pooler_output
        title, image = output.title_embeds, output.image_embeds
        assert torch.allclose(output.pooler_output[0], title[0], atol=1e-6)
        assert torch.allclose(output.pooler_output[1], F.normalize(title[1] + 0.3 * image[1], dim=0), atol=1e-6)
        assert torch.allclose(output.pooler_output[1], one[1])
        # One that lacks a side is the other, whatever the weight.
        assert torch.allclose(output.pooler_output[2:], torch.stack([title[2], image[3]]), atol=1e-6)

    def test_a_photo_can_do_bounded_harm(self) -> None:
        title, photo = unit_vectors(200, 8), unit_vectors(200, 8, seed=1)
        cosines = (F.normalize(title + 0.6 * photo, dim=-1) * title).sum(1)
        assert cosines.min() >= (1 - 0.6**2) ** 0.5 - 1e-6

    def test_a_product_does_not_depend_on_its_neighbours(
        self, model: AceBertModel, tiny_processor: AceBertProcessor, product_inputs: Inputs
    ) -> None:
        pairs = [("red shirt", draw("shirt", "red", 0)), ("the black shoe of the men", draw("shoe", "black", 1))]
        with torch.no_grad():
            together = model.get_product_features(**product_inputs).pooler_output
            for row, (title, photo) in enumerate(pairs):
                alone = tiny_processor(text=[title], images=[photo], return_tensors="pt")
                assert torch.allclose(model.get_product_features(**alone).pooler_output[0], together[row], atol=1e-6)

    def test_one_set_of_weights_serves_every_budget_and_dropped_patches(
        self, model: AceBertModel, tiny_processor: AceBertProcessor
    ) -> None:
        photos = [noise(60, 40), noise(30, 90, 1)]
        vectors = {}
        for budget in (4, 9, 36):
            inputs = tiny_processor(text=["a", "b"], images=photos, return_tensors="pt", max_num_patches=budget)
            assert inputs["pixel_values"].shape[1] <= budget
            vectors[budget] = model.get_product_features(**inputs)
            dropped = {name: value.clone() for name, value in inputs.items()}
            drop_patches(dropped, 0.5, np.random.default_rng(0))
            kept = model.get_product_features(**dropped)
            assert torch.allclose(kept.title_embeds, vectors[budget].title_embeds)
            assert not torch.allclose(kept.image_embeds, vectors[budget].image_embeds, atol=1e-4)
            # The order of the patches that stay tells nothing: their places do.
            order = torch.arange(inputs["pixel_values"].shape[1]).flip(0)
            turned = {n: v[:, order] if n.startswith("pixel") else v for n, v in inputs.items()}
            same = model.get_product_features(**turned).image_embeds
            assert torch.allclose(same, vectors[budget].image_embeds, atol=1e-6)

    def test_without_any_photo_training_still_touches_the_eye(
        self, model: AceBertModel, tiny_processor: AceBertProcessor
    ) -> None:
        inputs = dict(tiny_processor(text=["red shirt"], side="product", return_tensors="pt"))
        width = 3 * model.config.patch_size**2
        inputs |= {"pixel_values": torch.zeros(1, 1, width), "spatial_shapes": torch.zeros(1, 2, dtype=torch.long)}
        inputs |= {name: torch.zeros(1, 1, dtype=torch.long) for name in ("pixel_attention_mask", "pixel_position_ids")}
        plain = model.get_product_features(**inputs)
        assert not plain.image_embeds.any() and plain.image_model_output is None
        model.train().get_product_features(**inputs).pooler_output.sum().backward()
        gradients = [parameter.grad for parameter in model.image_encoder.parameters()]
        assert all(gradient is not None and not gradient.any() for gradient in gradients)

    def test_the_loss_trains_every_part(
        self, config: AceBertConfig, query_inputs: Inputs, product_inputs: Inputs
    ) -> None:
        torch.manual_seed(0)
        model = AceBertForRetrieval(config)
        queries = {f"query_{name}": value for name, value in query_inputs.items() if name != "token_type_ids"}
        output = model(**queries, **product_inputs, image_weight=torch.full((4,), 0.5))
        output.loss.backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert torch.equal(output.title_embeds, output.product_model_output.title_embeds)
        assert torch.equal(output.image_embeds, output.product_model_output.image_embeds)

    def test_what_is_refused(self, config: AceBertConfig, tiny_config: MakeConfig, product_inputs: Inputs) -> None:
        with pytest.raises(ValueError, match="needs title and photo in one encoder"):
            AceBertForPreTraining(config)
        with pytest.raises(ValueError, match="needs a model with `vision_config`"):
            AceBertModel(tiny_config()).get_product_features(**product_inputs, image_weight=0.5)
        refused: list[tuple[Callable[[], Any], str]] = [
            (lambda: tiny_config(vision_config={}), r"must equal `vision_config.patch_size` \(14\)"),
            (lambda: tiny_config(text_projection=False, projection_dim=7), "`text_projection=False` needs"),
            (lambda: AceBertVisionConfig(hidden_size=10, num_attention_heads=3), "must be a multiple of"),
            (lambda: AceBertVisionConfig(position_interpolation="nearest"), "not 'nearest'"),
        ]
        for make, message in refused:
            with pytest.raises(StrictDataclassClassValidationError, match=message):
                make()
        assert tiny_config(vision_config={**VISION, "num_hidden_layers": 0}).vision_config is None


class TestLibrary:
    def test_saving_and_loading(self, model: AceBertModel, product_inputs: Inputs, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        loaded = AceBertModel.from_pretrained(tmp_path)
        assert loaded.config.to_dict() == AceBertModel.from_pretrained(tmp_path).config.to_dict()
        assert isinstance(loaded.config.vision_config, AceBertVisionConfig)
        with torch.no_grad():
            before, after = (m.eval().get_product_features(**product_inputs) for m in (model, loaded))
        assert torch.equal(before.pooler_output, after.pooler_output)
        half = AceBertModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
        vectors = half.get_product_features(**product_inputs).pooler_output
        assert vectors.dtype == torch.bfloat16
        assert torch.allclose(vectors.float(), before.pooler_output, atol=0.03)

    @pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
    def test_attention_implementations_agree(
        self, model: AceBertModel, product_inputs: Inputs, implementation: str
    ) -> None:
        with torch.no_grad():
            model.set_attn_implementation("eager")
            expected = model.get_product_features(**product_inputs).pooler_output
            model.set_attn_implementation(implementation)
            assert model.image_encoder.config._attn_implementation == implementation
            assert model.config.vision_config._attn_implementation == implementation
            found = model.get_product_features(**product_inputs).pooler_output
        assert torch.allclose(found, expected, atol=1e-6)

    def test_gradient_checkpointing_changes_no_gradient(self, model: AceBertModel, product_inputs: Inputs) -> None:
        gradients: list[dict[str, torch.Tensor]] = []
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for checkpointing in (False, True):
            if checkpointing:
                recompute_activations(model)
                assert model.image_encoder.layers[0].gradient_checkpointing
            model.zero_grad()
            model.get_product_features(**product_inputs).pooler_output[:, 0].sum().backward()
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        assert all(torch.allclose(gradients[0][n], gradients[1][n], atol=1e-7) for n in gradients[0])

    def test_attentions_and_hidden_states_of_the_title(self, model: AceBertModel, product_inputs: Inputs) -> None:
        model.set_attn_implementation("eager")
        output = model.get_product_features(**product_inputs, output_hidden_states=True, output_attentions=True)
        layers = model.config.text_config.num_hidden_layers
        assert (len(output.hidden_states), len(output.attentions)) == (layers + 1, layers)
        assert len(output.image_model_output.attentions) == VISION["num_hidden_layers"]


class TestBackbones:
    def test_text_is_the_backbones_own_before_training(self, minilm: str, tmp_path: Path) -> None:
        make_source("dinov2", tmp_path)
        model = AceBertModel.from_backbone(minilm, image=str(tmp_path), image_layers=2).eval()
        assert model.config.backbone["image_layers"] == [0, 1] and model.config.patch_size == 4
        tokenizer, source = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
        inputs = tokenizer(
            ["red shoes for men", "a table lamp with a very long arm"], return_tensors="pt", padding=True
        )
        mask = inputs["attention_mask"]
        text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            hidden = source(**inputs).last_hidden_state
            expected = F.normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)
            query, title = (f(**text).pooler_output for f in (model.get_text_features, model.get_product_features))
        assert torch.allclose(query, expected, atol=1e-6) and torch.allclose(title, expected, atol=1e-6)
        assert torch.equal(query, title)

    def test_a_clip_gives_its_vision_part(self, minilm: str, tmp_path: Path) -> None:
        sizes: dict[str, Any] = {**SIZES, "intermediate_size": 48}
        text = {name: value for name, value in sizes.items() if name != "patch_size"}
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 20})).eval()
        clip.save_pretrained(tmp_path)
        model = AceBertForRetrieval.from_backbone(minilm, image=str(tmp_path))
        first = clip.vision_model.encoder.layers[0].self_attn.k_proj.weight
        assert torch.equal(model.acebert.image_encoder.layers[0].attention.qkv.weight[32:64], first)
        with pytest.raises(ValueError, match="between 1 and the 3"):
            AceBertModel.from_backbone(minilm, image=str(tmp_path), image_layers=4)
        one_stream = AceBertModel.from_backbone(minilm, image=str(tmp_path), image_layers=0)
        assert one_stream.config.vision_config is None and one_stream.image_encoder is None
