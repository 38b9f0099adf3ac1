"""The machinery of a run by numbers that are known: cached gradients, averages, patience, the rate finder."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from helpers import product_rows

from acebert.configuration_acebert import AceBertConfig
from acebert.data.collators import PairCollator
from acebert.data.columns import Columns
from acebert.data.pairs import PairDataset
from acebert.data.query_templates import QueryTemplates
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.losses_acebert import find_positives
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.training.contrastive import cached_backward, encode_chunks


@pytest.fixture
def batch(tiny_processor: AceBertProcessor) -> dict:
    rows = product_rows(30)
    columns = Columns(attributes=["colour", "kind"])
    products = Dataset.from_list([{**row, "image": None} for row in rows])
    pairs = PairDataset(products, columns, QueryTemplates(["{colour} {kind}"]), drop_title_probability=0.0)
    items = [pairs[i] | {"image": None if i % 5 == 0 else row["image"]} for i, row in enumerate(rows)]
    for item in items[1::3]:
        if item["image"] is not None:
            item["title"] = None
    return PairCollator(tiny_processor, chunk_size=8)(items)


def loss_of(model: AceBertForRetrieval, batch: dict) -> Callable[..., dict[str, torch.Tensor]]:
    positives = find_positives(
        batch["product_ids"], batch["query_ids"], batch["product_attributes"], batch["query_attributes"]
    )
    return lambda queries, products: model.compute_loss(queries, products, positives, adversarial_strength=0.3)


def encoder_of(model: AceBertForRetrieval) -> Callable[..., Any]:
    return lambda chunk: model(**AceBertImageProcessor(patch_size=8).normalize_patches(chunk), return_loss=False)


def cached_step(model: AceBertForRetrieval, batch: dict) -> dict[str, torch.Tensor]:
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    return cached_backward(model, encoder_of(model), batch, loss_of(model, batch), accelerator)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TestCachedGradients:
    @pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
    def test_equal_those_of_the_plain_backward_pass(
        self, loss: str, tiny_config: Callable[..., AceBertConfig], batch: dict
    ) -> None:
        model = AceBertForRetrieval(tiny_config(loss=loss, matryoshka_dims=[8])).train()
        assert len(batch["chunks"]) > 3
        plain = loss_of(model, batch)(*encode_chunks(encoder_of(model), batch))
        plain["loss"].backward()
        expected = gradients(model)
        model.zero_grad()
        cached = cached_backward(
            model, encoder_of(model), batch, loss_of(model, batch), Accelerator(cpu=True, mixed_precision="no")
        )
        got = gradients(model)
        assert torch.allclose(cached["loss"], plain["loss"], atol=1e-6) and not cached["loss"].requires_grad
        assert set(got) == set(expected) == {name for name, _ in model.named_parameters()}
        for name, gradient in expected.items():
            assert gradient.abs().max() > 0, name
            assert torch.allclose(got[name], gradient, rtol=1e-4, atol=1e-6), name

    def test_both_passes_draw_the_same_dropout(
        self, tiny_config: Callable[..., AceBertConfig], batch: dict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tiny_config()
        for encoder in (config.text_config, config.query_config):
            encoder.hidden_dropout_prob = encoder.attention_probs_dropout_prob = 0.3
        model = AceBertForRetrieval(config).train()
        seen: list[torch.Tensor] = []
        model.acebert.register_forward_hook(lambda module, args, output: seen.append(output.product_embeds.detach()))
        cached_backward(
            model, encoder_of(model), batch, loss_of(model, batch), Accelerator(cpu=True, mixed_precision="no")
        )
        half = len(seen) // 2
        assert half == len(batch["chunks"])
        assert all(torch.equal(first, second) for first, second in zip(seen[:half], seen[half:], strict=True))
        model.eval()
        plain = encoder_of(model)(batch["chunks"][0]).product_embeds
        assert not torch.allclose(plain, seen[0], atol=1e-3)  # dropout was at work

    def test_activations_of_one_chunk_are_held(self, tiny_config: Callable[..., AceBertConfig], batch: dict) -> None:
        """A plain pass saves tensors of all chunks at once, a cached one those of the largest at most."""
        model = AceBertForRetrieval(tiny_config()).train()

        def peak(run: Callable[[], None]) -> int:
            held = {"now": 0, "most": 0}

            class Saved:
                def __init__(self, tensor: torch.Tensor):
                    self.tensor = tensor
                    held["now"] += tensor.numel()
                    held["most"] = max(held["most"], held["now"])

                def __del__(self) -> None:
                    held["now"] -= self.tensor.numel()

            with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
                run()
            return held["most"]

        plain = peak(lambda: loss_of(model, batch)(*encode_chunks(encoder_of(model), batch))["loss"].backward())
        cached = peak(
            lambda: cached_backward(
                model, encoder_of(model), batch, loss_of(model, batch), Accelerator(cpu=True, mixed_precision="no")
            )
        )
        assert cached < 0.5 * plain
