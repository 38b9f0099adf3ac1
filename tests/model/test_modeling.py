"""The model: closed forms of its losses, two ways to one result, round trips, and what it refuses."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import draw, unit_vectors
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM

from acebert.configuration_acebert import AceBertConfig
from acebert.losses_acebert import (
    domain_loss,
    find_positives,
    info_nce_loss,
    modality_gap,
    reverse_gradient,
    sigmoid_loss,
)
from acebert.modeling_acebert import AceBertForPreTraining, AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.training.loading import recompute_activations

MakeConfig = Callable[..., AceBertConfig]
Inputs = dict[str, torch.Tensor]


@pytest.fixture
def model(tiny_config: MakeConfig) -> AceBertModel:
    return AceBertModel(tiny_config()).eval()


class TestLosses:
    def test_info_nce_of_equal_vectors_is_the_logarithm_of_the_batch(self) -> None:
        same = torch.ones(6, 4) / 2
        assert info_nce_loss(same, same, 3.0).item() == pytest.approx(math.log(6), abs=1e-6)
        more = torch.ones(9, 4) / 2
        assert info_nce_loss(same, more, 3.0).item() == pytest.approx((math.log(9) + math.log(6)) / 2, abs=1e-6)

    def test_info_nce_by_hand(self) -> None:
        query, product = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        # logits, twice the cosines: [[2, 1.2], [0, 1.6]]
        rows = [math.log(1 + math.exp(-0.8)), math.log(1 + math.exp(-1.6))]
        columns = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-0.4))]
        assert info_nce_loss(query, product, 2.0).item() == pytest.approx(sum(rows + columns) / 4, abs=1e-6)

    def test_positives_are_no_negatives(self) -> None:
        query, product = unit_vectors(4, 8), unit_vectors(4, 8, seed=1)
        positives = torch.eye(4, dtype=torch.bool)
        positives[0, 1] = positives[1, 0] = True
        query.requires_grad_()
        product.requires_grad_()
        info_nce_loss(query[:1], product[:2], 5.0, positives[:1, :2]).backward()
        assert product.grad[1].abs().sum() == 0  # left out of query 0's denominator
        scores, own = 5 * query @ product.t(), torch.eye(4, dtype=torch.bool)
        rows = []
        for i, place in enumerate((0, 0, 2, 3)):  # of the own product among those that are left
            left = scores[i][~positives[i] | own[i]]
            rows.append(F.cross_entropy(left[None], torch.tensor([place])))
        columns = info_nce_loss(product, query, 5.0, positives.t()) * 2
        both = info_nce_loss(query, product, 5.0, positives) * 2
        assert both.item() == pytest.approx(columns.item(), abs=1e-6)
        logits = scores.masked_fill(positives & ~own, -torch.inf)
        expected = torch.stack(rows).mean() + F.cross_entropy(logits.t(), torch.arange(4))
        assert both.item() == pytest.approx(expected.item(), abs=1e-6)

    def test_equal_weights_give_the_loss_without_weights_to_the_bit(self) -> None:
        query, product = unit_vectors(7, 8), unit_vectors(9, 8, seed=1)
        positives = torch.eye(7, 9, dtype=torch.bool)
        positives[0, 1] = positives[2, 8] = True
        for weight in (1.0, 0.1, 1 / 3):
            weights = torch.full((7,), weight)
            for loss, extra in ((info_nce_loss, ()), (sigmoid_loss, (-1.0,))):
                results = []
                for given in (None, weights):
                    own = query.clone().requires_grad_()
                    value = loss(own, product, 20.0, *extra, positives, given)
                    value.backward()
                    results.append((value.detach(), own.grad))
                assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))

    def test_weights_by_hand(self) -> None:
        query, product = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        weights = torch.tensor([3.0, 1.0])
        # As in `test_info_nce_by_hand`, each row of both directions with its weight.
        rows = 3 * math.log(1 + math.exp(-0.8)) + math.log(1 + math.exp(-1.6))
        columns = 3 * math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-0.4))
        found = info_nce_loss(query, product, 2.0, weights=weights)
        assert found.item() == pytest.approx((rows + columns) / 8, abs=1e-6)
        same = torch.ones(2, 4) / 2
        assert info_nce_loss(same, same, 3.0, weights=weights).item() == pytest.approx(math.log(2), abs=1e-6)
        own, other = -math.log(torch.sigmoid(torch.tensor(2.0))), -math.log(torch.sigmoid(torch.tensor(-1.2)))
        last = -math.log(torch.sigmoid(torch.tensor(1.6))) + math.log(2)
        found = sigmoid_loss(query, product, 2.0, 0.0, weights=weights)
        assert found.item() == pytest.approx((3 * (own + other) + last) / 4, abs=1e-6)

    def test_sigmoid_loss_closed_form(self) -> None:
        zeros = torch.zeros(5, 4)
        assert sigmoid_loss(zeros, zeros, 1.0, 0.0).item() == pytest.approx(5 * math.log(2), abs=1e-5)
        everything = torch.ones(5, 5, dtype=torch.bool)
        assert sigmoid_loss(zeros, zeros, 1.0, 0.0, everything).item() == pytest.approx(math.log(2), abs=1e-5)

    def test_find_positives(self) -> None:
        found = find_positives(
            product_ids=torch.tensor([1, 2, 1, 3, 4]),
            query_ids=torch.tensor([7, 7, 8]),
            product_attributes=torch.tensor([[1, 1], [1, 2], [2, 1], [1, 1], [-1, -1]]),
            query_attributes=torch.tensor([[1, -1], [-1, -1], [-1, -1]]),
        )
        assert found.tolist() == [
            [True, True, True, True, False],  # itself, its query, its product, the attribute that it asks for
            [True, True, False, False, False],  # asks for nothing: its own row and the row of the same query
            [True, False, True, False, False],
        ]
        with pytest.raises(ValueError, match="needs ids or attributes"):
            find_positives()

    def test_domain_loss_of_a_classifier_that_cannot_tell(self) -> None:
        loss, accuracy = domain_loss(torch.zeros(3), torch.zeros(5))
        assert (loss.item(), accuracy.item()) == (pytest.approx(math.log(2)), 0.5)
        loss, accuracy = domain_loss(torch.tensor([-9.0, -9.0, 9.0, 9.0]), torch.tensor([9.0]))
        assert accuracy.item() == 0.75  # the sides weigh alike, whatever their numbers
        smooth, _ = domain_loss(torch.tensor([-9.0]), torch.tensor([9.0]), label_smoothing=0.2)
        assert smooth.item() == pytest.approx(0.9 * math.log1p(math.exp(-9)) + 0.1 * (9 + math.log1p(math.exp(-9))))

    def test_reverse_gradient(self) -> None:
        x = torch.tensor([1.5, -2.0], requires_grad=True)
        y = reverse_gradient(x, 0.3)
        assert torch.allclose(y, x)
        (y * torch.tensor([1.0, 4.0])).sum().backward()
        assert torch.allclose(x.grad, torch.tensor([-0.3, -1.2]))

    def test_modality_gap(self) -> None:
        gap = modality_gap(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[0.0, 1.0]] * 2))
        assert gap.item() == pytest.approx(2**0.5)

    def test_matryoshka_is_the_mean_over_widths(self, tiny_config: MakeConfig) -> None:
        model = AceBertModel(tiny_config(matryoshka_dims=[4, 8]))
        query, product = unit_vectors(5, 16), unit_vectors(5, 16, seed=1)
        parts = [info_nce_loss(F.normalize(query[:, :d]), F.normalize(product[:, :d]), model.scale) for d in (4, 8, 16)]
        assert torch.allclose(model.retrieval_loss(query, product), torch.stack(parts).mean())

    def test_temperature_is_clamped(self, model: AceBertModel) -> None:
        with torch.no_grad():
            model.logit_scale.fill_(9.0)
        assert model.scale.item() == pytest.approx(100, rel=1e-3)


class TestVectors:
    def test_unit_length_and_names(self, model: AceBertModel, query_inputs: Inputs, product_inputs: Inputs) -> None:
        for output in (model.get_text_features(**query_inputs), model.get_product_features(**product_inputs)):
            assert output.pooler_output.shape == (4, 16)
            assert torch.allclose(output.pooler_output.norm(dim=1), torch.ones(4))

    @pytest.mark.parametrize("pooling", ["mean", "cls"])
    def test_a_product_does_not_depend_on_its_neighbours(
        self, tiny_config: MakeConfig, tiny_processor: AceBertProcessor, product_inputs: Inputs, pooling: str
    ) -> None:
        model = AceBertModel(tiny_config(pooling=pooling)).eval()
        together = model.get_product_features(**product_inputs).pooler_output
        alone = [
            model.get_product_features(**tiny_processor(text=[t], images=[i], return_tensors="pt")).pooler_output
            for t, i in [
                ("red shirt", draw("shirt", "red", 0)),
                ("the black shoe of the men", draw("shoe", "black", 1)),
                ("green mug", None),
            ]
        ]
        photo = tiny_processor(images=[draw("bag", "blue", 2)], return_tensors="pt")
        alone.append(model.get_image_features(**photo).pooler_output)
        assert torch.allclose(together, torch.cat(alone), atol=1e-6)

    def test_longer_padding_changes_nothing(self, model: AceBertModel, tiny_processor: AceBertProcessor) -> None:
        arguments = {"text": ["red shirt"], "images": [draw("shirt", "red", 0)], "return_tensors": "pt"}
        short = tiny_processor(**arguments)
        tiny_processor.image_processor.padding = "max_length"
        long = tiny_processor(**arguments, padding="max_length")
        assert long["input_ids"].shape[1] > short["input_ids"].shape[1]
        vectors = [model.get_product_features(**inputs).pooler_output for inputs in (short, long)]
        assert torch.allclose(*vectors, atol=1e-6)

    def test_padding_between_title_and_photo_is_not_computed(
        self, model: AceBertModel, tiny_processor: AceBertProcessor
    ) -> None:
        """What records the layers' outputs computes all places; both ways must agree, on every token's own place."""
        titles, photos = ["red shirt", "the black shoe of the men"], [draw("shirt", "red", 0), None]
        product_inputs = tiny_processor(text=titles, images=photos, return_tensors="pt")
        seen: list[int] = []
        layer = model.product_encoder.bert.encoder.layer[0]
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
        short = model.get_product_features(**product_inputs)
        whole = model.get_product_features(**product_inputs, output_hidden_states=True)
        mask = torch.cat([product_inputs["attention_mask"], product_inputs["pixel_attention_mask"]], dim=1)
        assert seen == [int(mask.sum(1).max()), mask.shape[1]]
        assert seen[0] < seen[1]
        torch.testing.assert_close(short.pooler_output, whole.pooler_output)
        real = mask.bool()
        torch.testing.assert_close(short.last_hidden_state[real], whole.last_hidden_state[real])
        model.product_encoder.config.output_hidden_states = True
        model.get_product_features(**product_inputs)
        assert seen[2] == seen[1]

    def test_rows_of_padding_alone_and_masks_of_other_types(self, model: AceBertModel, product_inputs: Inputs) -> None:
        """Rows without a single token have vectors of the usual shape."""
        expected = model.get_product_features(**product_inputs).pooler_output
        masks = {name: mask.bool() for name, mask in product_inputs.items() if name.endswith("attention_mask")}
        torch.testing.assert_close(model.get_product_features(**{**product_inputs, **masks}).pooler_output, expected)
        none = {name: mask.zero_() for name, mask in masks.items()}
        assert model.get_product_features(**{**product_inputs, **none}).pooler_output.shape == expected.shape

    def test_all_parts_matter(self, model: AceBertModel, tiny_processor: AceBertProcessor) -> None:
        def encode(**parts: object) -> torch.Tensor:
            inputs = tiny_processor(return_tensors="pt", side="product", **parts)
            return model.get_product_features(**inputs).pooler_output

        photo, other = [draw("shirt", "red", 0)], [draw("shirt", "blue", 0)]
        vectors = [
            encode(text=["red shirt"]),
            encode(images=photo),
            encode(text=["red shirt"], images=photo),
            encode(text=["red shirt"], images=other),
            encode(text=["red shirt"], hot_queries=["men"]),
            encode(text=["men"], hot_queries=["red shirt"]),
        ]
        cosines = torch.cat(vectors) @ torch.cat(vectors).t()
        assert (cosines - torch.eye(6)).max() < 0.9999

    def test_patches_without_positions_are_the_whole_grid(self, model: AceBertModel) -> None:
        pixels, shape = torch.randn(1, 6, 192), torch.tensor([[2, 3]])
        plain = model.get_image_features(pixel_values=pixels, spatial_shapes=shape).pooler_output
        order = torch.tensor([4, 0, 5, 2, 1, 3])
        shuffled = model.get_image_features(
            pixel_values=pixels[:, order], spatial_shapes=shape, pixel_position_ids=order[None]
        ).pooler_output
        assert torch.allclose(plain, shuffled, atol=1e-6)
        moved = model.get_image_features(pixel_values=pixels[:, order], spatial_shapes=shape).pooler_output
        assert not torch.allclose(plain, moved, atol=1e-4)

    @pytest.mark.parametrize("switches", [(True, False), (False, True)])
    def test_patch_and_pixel_features_are_switches(self, tiny_config: MakeConfig, switches: tuple[bool, bool]) -> None:
        model = AceBertModel(tiny_config(use_patch_features=switches[0], use_pixel_features=switches[1])).eval()
        pixels, shape = torch.randn(1, 4, 192, requires_grad=True), torch.tensor([[2, 2]])
        model.get_image_features(pixel_values=pixels, spatial_shapes=shape).pooler_output[0, 0].backward()
        assert (pixels.grad.abs().sum(-1) > 0).all()
        names = {name.split(".")[2] for name, _ in model.named_parameters() if ".image_embeddings." in name}
        assert ("patch_features" in names, "pixel_features" in names) == switches

    def test_position_embeddings_at_grid_points(self, tiny_config: MakeConfig) -> None:
        embeddings = AceBertModel(tiny_config(position_grid_size=4)).product_encoder.image_embeddings
        got = embeddings.position_embeddings(torch.zeros(1, 16, 192), torch.tensor([[4, 4]]), None)
        expected = embeddings.row_embeddings[:, None] + embeddings.column_embeddings[None, :]
        assert torch.allclose(got, expected.reshape(1, 16, -1), atol=1e-6)

    def test_shared_encoders_have_one(self, tiny_config: MakeConfig, query_inputs: Inputs) -> None:
        config = tiny_config()
        model = AceBertModel(tiny_config(query_config=config.text_config.to_dict(), share_encoders=True)).eval()
        as_query = model.get_text_features(**query_inputs).pooler_output
        assert torch.equal(as_query, model.get_product_features(**query_inputs).pooler_output)
        assert not any(name.startswith("query_") for name, _ in model.named_parameters())

    def test_half_precision(self, model: AceBertModel, query_inputs: Inputs, product_inputs: Inputs) -> None:
        full = model.get_product_features(**product_inputs).pooler_output
        half = model.to(torch.bfloat16).get_product_features(**product_inputs).pooler_output
        assert half.dtype == torch.bfloat16
        assert (half.float() * full).sum(1).min() > 0.99

    def test_what_is_refused(self, model: AceBertModel, query_inputs: Inputs, product_inputs: Inputs) -> None:
        with pytest.raises(ValueError, match="reads text alone"):
            model.get_text_features(**product_inputs)
        with pytest.raises(ValueError, match="its title"):
            model.get_product_features()
        with pytest.raises(ValueError, match="spatial_shapes"):
            model.get_image_features(pixel_values=torch.zeros(1, 4, 192))
        with pytest.raises(ValueError, match="patches of 48 values"):
            model.get_image_features(pixel_values=torch.zeros(1, 4, 48), spatial_shapes=torch.tensor([[2, 2]]))


def pairs(query_inputs: Inputs, product_inputs: Inputs) -> Inputs:
    return {f"query_{name}": value for name, value in query_inputs.items()} | dict(product_inputs)


class TestLibrary:
    """What transformers offers for every model."""

    def test_forward_combines_the_two_sides(
        self, model: AceBertModel, query_inputs: Inputs, product_inputs: Inputs
    ) -> None:
        output = model(**pairs(query_inputs, product_inputs), return_loss=True)
        assert torch.equal(output.query_embeds, model.get_text_features(**query_inputs).pooler_output)
        assert torch.equal(output.product_embeds, model.get_product_features(**product_inputs).pooler_output)
        assert torch.allclose(output.logits_per_query, model.scale * output.query_embeds @ output.product_embeds.t())
        assert torch.equal(output.logits_per_query.t(), output.logits_per_product)
        expected = info_nce_loss(output.query_embeds, output.product_embeds, model.scale)
        assert torch.allclose(output.loss, expected)

    def test_tuples_on_request(self, tiny_config: MakeConfig, query_inputs: Inputs, product_inputs: Inputs) -> None:
        inputs = pairs(query_inputs, product_inputs)
        for model_class, given in (
            (AceBertModel, inputs),
            (AceBertForRetrieval, inputs),
            (AceBertForPreTraining, dict(product_inputs)),
        ):
            model = model_class(tiny_config(return_dict=False)).eval()
            as_tuple, as_output = model(**given), model(**given, return_dict=True)
            assert isinstance(as_tuple, tuple)
            flat = as_output.to_tuple()
            assert len(as_tuple) == len(flat)
            assert all(torch.equal(a, b) for a, b in zip(as_tuple, flat, strict=True) if isinstance(a, torch.Tensor))
        model = AceBertModel(tiny_config(return_dict=False)).eval()
        assert model.get_text_features(**query_inputs)[1].shape == (4, 16)
        assert model.get_product_features(**product_inputs)[1].shape == (4, 16)

    def test_eager_equals_sdpa(self, model: AceBertModel, query_inputs: Inputs, product_inputs: Inputs) -> None:
        inputs = pairs(query_inputs, product_inputs)
        assert model.product_encoder.bert.config._attn_implementation == "sdpa"
        sdpa = model(**inputs)
        model.set_attn_implementation("eager")
        eager = model(**inputs, output_attentions=True, output_hidden_states=True)
        assert torch.allclose(sdpa.query_embeds, eager.query_embeds, atol=1e-5)
        assert torch.allclose(sdpa.product_embeds, eager.product_embeds, atol=1e-5)
        product = eager.product_model_output
        length = product_inputs["input_ids"].shape[1] + product_inputs["pixel_values"].shape[1]
        assert [x.shape for x in product.hidden_states] == [(4, length, 32)] * 3
        assert [x.shape for x in product.attentions] == [(4, 4, length, length)] * 2
        assert len(eager.query_model_output.hidden_states) == 2

    def test_gradient_checkpointing_gives_the_same_gradients(
        self, tiny_config: MakeConfig, query_inputs: Inputs, product_inputs: Inputs
    ) -> None:
        inputs = pairs(query_inputs, product_inputs)
        gradients = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            model = AceBertForRetrieval(tiny_config())
            if checkpointing:
                recompute_activations(model)
            model(**inputs).loss.backward()
            gradients.append({name: p.grad for name, p in model.named_parameters()})
        assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])

    def test_every_parameter_learns(
        self, tiny_config: MakeConfig, query_inputs: Inputs, product_inputs: Inputs
    ) -> None:
        model = AceBertForRetrieval(tiny_config(loss="sigmoid"))
        model(**pairs(query_inputs, product_inputs)).loss.backward()
        assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []

    @pytest.mark.slow
    def test_compiles_without_graph_breaks(
        self, tiny_config: MakeConfig, query_inputs: Inputs, product_inputs: Inputs
    ) -> None:
        model = AceBertForRetrieval(tiny_config()).eval()
        inputs = pairs(query_inputs, product_inputs)
        compiled = torch.compile(model, fullgraph=True)(**inputs)
        assert torch.allclose(compiled.loss, model(**inputs).loss, atol=1e-5)

    @pytest.mark.parametrize("tie", [True, False])
    @pytest.mark.parametrize("model_class", [AceBertModel, AceBertForPreTraining, AceBertForRetrieval])
    def test_resize_token_embeddings(self, tiny_config: MakeConfig, model_class: type, tie: bool) -> None:
        model = model_class(tiny_config(tie_word_embeddings=tie))
        size = model.config.text_config.vocab_size + 5
        model.resize_token_embeddings(size)
        base = model.base_model
        product, query = (x.get_input_embeddings().weight for x in (base.product_encoder, base.query_encoder))
        assert product.shape[0] == query.shape[0] == size
        assert (product is query) == tie
        assert model.config.text_config.vocab_size == model.config.query_config.vocab_size == size
        if model_class is AceBertForPreTraining:
            assert model(input_ids=torch.tensor([[2, size - 1, 3]])).prediction_logits.shape == (1, 3, size)

    def test_weights_that_a_file_lacks_are_initialised_and_the_others_kept(
        self, tiny_config: MakeConfig, tmp_path: Path
    ) -> None:
        model = AceBertModel(tiny_config(loss="sigmoid"))
        with torch.no_grad():
            model.logit_scale.fill_(4.0)
        model.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        dropped = [name for name in state if "image_embeddings" in name or name == "logit_bias"]
        kept = {name: value for name, value in state.items() if name not in dropped}
        save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
        loaded = AceBertModel.from_pretrained(tmp_path)
        assert loaded.logit_scale.item() == 4.0
        assert loaded.logit_bias.item() == -10.0
        for name in dropped:
            value = loaded.state_dict()[name]
            assert value.isfinite().all() and value.abs().max() < 20, name
        position_ids = loaded.query_encoder.embeddings.position_ids
        assert torch.equal(position_ids[0], torch.arange(128))

    @pytest.mark.parametrize("saved_class", [AceBertModel, AceBertForPreTraining, AceBertForRetrieval])
    def test_each_class_loads_what_another_saved(
        self, tiny_config: MakeConfig, tmp_path: Path, saved_class: type, query_inputs: Inputs, product_inputs: Inputs
    ) -> None:
        saved = saved_class(tiny_config()).eval()
        saved.save_pretrained(tmp_path)
        expected = saved.base_model(**pairs(query_inputs, product_inputs))
        for loading_class in (AceBertModel, AceBertForPreTraining, AceBertForRetrieval):
            loaded = loading_class.from_pretrained(tmp_path).eval().base_model(**pairs(query_inputs, product_inputs))
            assert torch.equal(loaded.query_embeds, expected.query_embeds)
            assert torch.equal(loaded.product_embeds, expected.product_embeds)


class TestPreTraining:
    def make(self, tiny_config: MakeConfig, **overrides: object) -> AceBertForPreTraining:
        torch.manual_seed(0)
        return AceBertForPreTraining(tiny_config(**overrides)).eval()

    def test_losses_are_those_of_the_masked_places(self, tiny_config: MakeConfig, product_inputs: Inputs) -> None:
        model = self.make(tiny_config, mlm_loss_weight=2.0, patch_loss_weight=0.5, matching_loss_weight=0.25)
        labels = torch.full_like(product_inputs["input_ids"], -100)
        labels[0, 1], labels[2, 2] = 7, 8
        masked = torch.zeros_like(product_inputs["pixel_attention_mask"], dtype=torch.bool)
        masked[0, 2] = masked[3, 0] = masked[2, 0] = True  # product 2 has no photo, so its place doesn't count
        matching = torch.tensor([1, 1, 1, 0])  # product 3 is mismatched, so nothing of it is predicted
        output = model(**product_inputs, labels=labels, bool_masked_pos=masked, matching_labels=matching)

        hidden = {k: v.clone() for k, v in product_inputs.items()}
        hidden["pixel_values"][masked] = 0
        plain = model(**hidden)
        words = torch.stack([plain.prediction_logits[0, 1], plain.prediction_logits[2, 2]])
        mlm = F.cross_entropy(words, torch.tensor([7, 8]))
        patch = (plain.patch_predictions[0, 2] - product_inputs["pixel_values"][0, 2]).pow(2).mean()
        match = F.cross_entropy(plain.matching_logits, matching)
        for got, expected in ((output.mlm_loss, mlm), (output.patch_loss, patch), (output.matching_loss, match)):
            assert torch.allclose(got, expected, atol=1e-5)
        assert torch.allclose(output.loss, 2 * mlm + 0.5 * patch + 0.25 * match, atol=1e-5)

    def test_nothing_masked_is_no_nan(self, tiny_config: MakeConfig, product_inputs: Inputs) -> None:
        model = self.make(tiny_config)
        output = model(
            **product_inputs,
            labels=torch.full_like(product_inputs["input_ids"], -100),
            bool_masked_pos=torch.zeros_like(product_inputs["pixel_attention_mask"], dtype=torch.bool),
        )
        assert output.loss.item() == 0.0

    def test_a_masked_patch_is_hidden(self, tiny_config: MakeConfig, product_inputs: Inputs) -> None:
        model = self.make(tiny_config)
        masked = torch.zeros_like(product_inputs["pixel_attention_mask"], dtype=torch.bool)
        masked[0, 1] = True
        changed = {k: v.clone() for k, v in product_inputs.items()}
        changed["pixel_values"][0, 1] += 1
        before, after = (model(**x, bool_masked_pos=masked).patch_predictions for x in (product_inputs, changed))
        assert torch.equal(before, after)

    def test_decoder_is_tied_to_the_word_embeddings(self, tiny_config: MakeConfig) -> None:
        model = self.make(tiny_config)
        assert model.mlm_head.decoder.weight is model.get_input_embeddings().weight


class TestRetrieval:
    def test_the_adversary_reverses_the_domain_gradient(self, tiny_config: MakeConfig) -> None:
        model = AceBertForRetrieval(tiny_config())
        gradients = {}
        for strength in (0.0, 0.5, 1.0):
            query = unit_vectors(4, 16).requires_grad_()
            values = model.compute_loss(query, unit_vectors(4, 16, seed=1), adversarial_strength=strength)
            model.zero_grad()
            values["loss"].backward()
            gradients[strength] = query.grad
            assert values["loss"].item() == pytest.approx((values["matching_loss"] + values["domain_loss"]).item())
            assert model.domain_classifier[0].weight.grad.abs().sum() > 0  # it learns at any strength
        reversed_part = gradients[1.0] - gradients[0.0]
        assert reversed_part.abs().sum() > 0
        assert torch.allclose(gradients[0.5] - gradients[0.0], reversed_part / 2, atol=1e-6)

        query = unit_vectors(4, 16).requires_grad_()
        logits = model.domain_classifier(query)[:, 0], model.domain_classifier(unit_vectors(4, 16, seed=1))[:, 0]
        domain_loss(*logits)[0].backward()
        assert torch.allclose(reversed_part, -query.grad, atol=1e-6)

    def test_default_strength_is_the_configs(self, tiny_config: MakeConfig) -> None:
        query, product = unit_vectors(4, 16), unit_vectors(4, 16, seed=1)
        model = AceBertForRetrieval(tiny_config(adversarial_strength=0.5))
        gradients = []
        for given in ({}, {"adversarial_strength": 0.5}):
            vectors = query.clone().requires_grad_()
            model.compute_loss(vectors, product, **given)["loss"].backward()
            gradients.append(vectors.grad)
        assert torch.equal(*gradients)

    def test_without_an_adversary_the_domain_classifier_does_not_run(self, tiny_config: MakeConfig) -> None:
        model = AceBertForRetrieval(tiny_config(adversarial_strength=0.0))
        model.domain_classifier.register_forward_hook(lambda *_: pytest.fail("it ran"))
        values = model.compute_loss(unit_vectors(4, 16), unit_vectors(4, 16, seed=1), adversarial_strength=0.0)
        assert set(values) == {"loss", "matching_loss"} and torch.equal(values["loss"], values["matching_loss"])

    def test_it_learns_to_see(self, tiny_config: MakeConfig, tiny_processor: AceBertProcessor) -> None:
        """Products whose titles say nothing are told apart by their photos alone after some steps."""
        model = AceBertForRetrieval(tiny_config(text_config=tiny_config(initializer_range=0.02).text_config.to_dict()))
        colours = ["red", "green", "blue", "black"]
        inputs = pairs(
            tiny_processor(text=[f"{c} shirt" for c in colours], return_tensors="pt"),
            tiny_processor(text=["the shirt"] * 4, images=[draw("shirt", c, 0) for c in colours], return_tensors="pt"),
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(60):
            model(**inputs, adversarial_strength=0.0).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        photos = [draw("shirt", c, 2) for c in colours]
        unseen = tiny_processor(text=["the shirt"] * 4, images=photos, return_tensors="pt")
        products = model.acebert.get_product_features(**unseen).pooler_output
        asked = tiny_processor(text=[f"{c} shirt" for c in colours], return_tensors="pt")
        queries = model.acebert.get_text_features(**asked)
        assert (queries.pooler_output @ products.t()).argmax(1).tolist() == [0, 1, 2, 3]


class TestBackbone:
    def test_text_outputs_equal_the_backbones_own(self, minilm: str) -> None:
        model = AceBertModel.from_backbone(minilm, projection_dim=384).eval()
        tokenizer, source = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
        texts = ["red shoes for men", "a table lamp with a very long arm"]
        inputs = tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            expected = source(**inputs).last_hidden_state
            real = inputs["attention_mask"].bool()
            pooled = torch.stack([expected[i][real[i]].mean(0) for i in range(2)])
            text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            for output in (model.get_text_features(**text), model.get_product_features(**text)):
                assert torch.allclose(output.last_hidden_state[real], expected[real], atol=1e-5)
                # the projection starts as the identity: the vector is the sentence embedding that MiniLM is known for
                assert torch.allclose(output.pooler_output, F.normalize(pooled, dim=-1), atol=1e-5)
        assert model.config.backbone == {
            "product_layers": [0, 1, 2, 3, 4, 5],
            "query_layers": [0, 1, 2, 3, 4, 5],
            "mlm_head": False,
        }

    def test_fewer_layers_are_spread_evenly(self, minilm: str) -> None:
        model = AceBertForRetrieval.from_backbone(minilm, query_config={"num_hidden_layers": 3}, projection_dim=64)
        assert model.config.backbone["query_layers"] == [0, 2, 5]
        source = AutoModel.from_pretrained(minilm)
        taken = model.acebert.query_encoder.encoder.layer[1].attention.self.query.weight
        assert torch.equal(taken, source.encoder.layer[2].attention.self.query.weight)
        words = model.acebert.product_encoder.get_input_embeddings().weight
        assert model.acebert.query_encoder.get_input_embeddings().weight is words

    def test_a_masked_lm_backbone_gives_its_head(self, tmp_path: Path) -> None:
        sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40}
        source = BertForMaskedLM(BertConfig(vocab_size=150, **sizes)).eval()
        source.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="pass `cls_token_id` and `sep_token_id`"):
            AceBertForPreTraining.from_backbone(str(tmp_path), projection_dim=16)
        ids = {"cls_token_id": 101, "sep_token_id": 102}
        model = AceBertForPreTraining.from_backbone(str(tmp_path), projection_dim=16, **ids).eval()
        assert model.config.backbone["mlm_head"] is True
        ids = torch.tensor([[101, 8, 9, 102]])
        with torch.no_grad():
            assert torch.allclose(model(input_ids=ids).prediction_logits, source(input_ids=ids).logits, atol=1e-5)

    def test_what_is_refused(self, minilm: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="has 9 layers, but the backbone only 6"):
            AceBertModel.from_backbone(minilm, query_config={"num_hidden_layers": 9})
        with pytest.raises(ValueError, match=r"`text_config` changes \['hidden_size'\]"):
            AceBertModel.from_backbone(minilm, text_config={"hidden_size": 768})
        shared = AceBertModel.from_backbone(minilm, share_encoders=True, text_config={"num_hidden_layers": 2})
        assert shared.config.query_config.num_hidden_layers == 2
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        with pytest.raises(ValueError, match="is of type 'gpt2'"):
            AceBertModel.from_backbone(str(tmp_path))
