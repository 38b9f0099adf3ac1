"""The machinery of a run by numbers that are known: cached gradients, averages, patience, the rate finder."""

import json
from collections.abc import Callable
from pathlib import Path

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
from acebert.losses_acebert import find_positives
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.training.contrastive import cached_backward, encode_chunks
from acebert.training.lr_range_test import run_range_test
from acebert.training.optimization import average_weights
from acebert.training.run import Progress


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


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TestCachedGradients:
    @pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
    def test_equal_those_of_the_plain_backward_pass(
        self, loss: str, tiny_config: Callable[..., AceBertConfig], batch: dict
    ) -> None:
        model = AceBertForRetrieval(tiny_config(loss=loss, matryoshka_dims=[8])).train()
        assert len(batch["chunks"]) > 3
        plain = loss_of(model, batch)(*encode_chunks(model, batch))
        plain["loss"].backward()
        expected = gradients(model)
        model.zero_grad()
        cached = cached_backward(model, batch, loss_of(model, batch), Accelerator(cpu=True, mixed_precision="no"))
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
        cached_backward(model, batch, loss_of(model, batch), Accelerator(cpu=True, mixed_precision="no"))
        half = len(seen) // 2
        assert half == len(batch["chunks"])
        assert all(torch.equal(first, second) for first, second in zip(seen[:half], seen[half:], strict=True))
        model.eval()
        plain = model(**batch["chunks"][0], return_loss=False).product_embeds
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

        plain = peak(lambda: loss_of(model, batch)(*encode_chunks(model, batch))["loss"].backward())
        cached = peak(
            lambda: cached_backward(model, batch, loss_of(model, batch), Accelerator(cpu=True, mixed_precision="no"))
        )
        assert cached < 0.5 * plain


def test_moving_average() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = average_weights(model, decay=0.5)
    values = [4.0, 8.0, 2.0, 6.0]
    expected = None
    for n, value in enumerate(values):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        keep = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else keep * expected + (1 - keep) * value
        assert average.module.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 6.0


def test_patience() -> None:
    progress = Progress()
    for score, without_gain in [(0.5, 0), (0.4, 1), (float("nan"), 2), (0.6, 0), (0.6, 1)]:
        progress.improve(score, {"score": score})
        assert progress.checks_without_gain == without_gain
    other = Progress()
    other.load_state_dict(progress.state_dict())
    assert (other.best_score, other.checks_without_gain, other.best_metrics) == (0.6, 1, {"score": 0.6})


def test_learning_rate_range_test(tmp_path: Path) -> None:
    """Gradient descent on x² with rate r multiplies x by 1 - 2r: fastest at r = 1/2, growing beyond r = 1."""
    x = torch.nn.Parameter(torch.tensor(10.0))
    optimizer = torch.optim.SGD([x], lr=0.1)

    def step(batch: dict) -> float:
        optimizer.zero_grad()
        loss = x**2
        loss.backward()
        optimizer.step()
        return loss.item()

    accelerator = Accelerator(cpu=True)
    batches = iter([{}] * 200)
    factor = run_range_test(batches, step, optimizer, 60, str(tmp_path), accelerator, lowest=1e-3, highest=1e3)
    assert 0.02 < factor * 0.1 < 1.0
    report = json.loads((tmp_path / "learning_rate.json").read_text())
    assert report["suggested_rates"] == [pytest.approx(0.1 * factor)]
    assert len(report["loss"]) < 60  # it ends when the loss grows
    assert report["factor"][0] == pytest.approx(1e-3)
    assert (tmp_path / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
