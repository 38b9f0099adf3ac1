"""Gradients of a contrastive loss over many chunks and processes."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator


class GatherRows(torch.autograd.Function):
    """All processes' rows, in their order. The gradient of a row is the sum of what all processes send back to it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def encode_chunks(
    encode: Callable[[dict[str, torch.Tensor]], Any], batch: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and product vectors of a batch of `PairCollator`, (rows, projection_dim) each, in the order of its rows.

    Args:
        encode: maps a chunk to `query_embeds` and `product_embeds`.
        batch: of `PairCollator`.
    """
    outputs = [encode(chunk) for chunk in batch["chunks"]]
    query_embeds = torch.cat([output.query_embeds for output in outputs])
    product_embeds = torch.cat([output.product_embeds for output in outputs])
    return query_embeds[batch["query_order"]], product_embeds[batch["product_order"]]


def cached_backward(
    model: torch.nn.Module,
    encode: Callable[[dict[str, torch.Tensor]], Any],
    batch: dict[str, Any],
    compute_loss: Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]],
    accelerator: Accelerator,
) -> dict[str, torch.Tensor]:
    """The backward pass of a contrastive loss, holding the activations of one chunk at a time.

    Gradient caching (Gao et al. 2021, arXiv 2101.06983, section 3.2): encode all chunks without a graph, take the
    loss's gradient for the vectors, then encode each chunk again and send its rows of that gradient back. Dropout
    draws the same in both passes. The gradients are those of the plain backward pass, for about a third more time.

    Args:
        model: as `accelerator.prepare` returned it; `encode` calls it.
        encode: maps a chunk to `query_embeds` and `product_embeds`.
        batch: of `PairCollator`.
        compute_loss: maps the vectors of the batch to values, `loss` among them; may hold parameters of its own.
        accelerator: scales the loss, and averages gradients over processes with the last chunk.

    Returns:
        The values, without a graph.
    """
    chunks = batch["chunks"]
    seeds = torch.randint(2**62, (len(chunks),)).tolist()
    query_parts, product_parts = [], []
    with torch.no_grad():
        for chunk, seed in zip(chunks, seeds, strict=True):
            torch.manual_seed(seed)
            outputs = encode(chunk)
            query_parts.append(outputs.query_embeds)
            product_parts.append(outputs.product_embeds)
    query_embeds = torch.cat(query_parts)[batch["query_order"]].requires_grad_()
    product_embeds = torch.cat(product_parts)[batch["product_order"]].requires_grad_()
    values = compute_loss(query_embeds, product_embeds)
    gradients = torch.autograd.grad(values["loss"], (query_embeds, product_embeds))
    sizes = [len(part) for part in query_parts]
    query_gradients = gradients[0][batch["query_order"].argsort()].split(sizes)
    product_gradients = gradients[1][batch["product_order"].argsort()].split(sizes)
    for i, (chunk, seed) in enumerate(zip(chunks, seeds, strict=True)):
        last = i == len(chunks) - 1
        torch.manual_seed(seed)
        with accelerator.no_sync(model) if not last else nullcontext():
            outputs = encode(chunk)
            # The gradient of this scalar product for the vectors is the cached one.
            product = (outputs.query_embeds * query_gradients[i]).sum()
            product = product + (outputs.product_embeds * product_gradients[i]).sum()
            if last:  # with the loss's own parameters
                product = product + compute_loss(query_embeds.detach(), product_embeds.detach())["loss"]
            accelerator.backward(product)
    return {name: value.detach() for name, value in values.items()}
