"""The anchor's loss, in closed form."""

import pytest
import torch

from acebert.losses_acebert import anchor_loss


def test_it_is_one_minus_the_mean_cosine() -> None:
    embeds = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    reference = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, -1.0]])
    assert anchor_loss(embeds, reference).item() == pytest.approx((0 + 1 + 2) / 3)


def test_its_gradient_turns_the_vector_towards_the_reference() -> None:
    embeds = torch.tensor([[1.0, 0.0]], requires_grad=True)
    anchor_loss(embeds, torch.tensor([[0.6, 0.8]])).backward()
    # d/dx (1 - x·r/|x|) = -(r - (x·r) x) for a unit x
    torch.testing.assert_close(embeds.grad, torch.tensor([[0.0, -0.8]]))


def test_it_computes_in_single_precision() -> None:
    embeds = torch.ones(1, 4, dtype=torch.bfloat16)
    assert anchor_loss(embeds, torch.ones(1, 4)).dtype == torch.float32
