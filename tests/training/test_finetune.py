"""The losses of fine-tuning, on one process and on two."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from helpers import run_processes, unit_vectors

from acebert.configuration_acebert import AceBertConfig
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.losses_acebert import find_positives
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.training.arguments import FinetuningArguments
from acebert.training.stages.contrast import adversarial_schedule
from acebert.training.stages.finetune import Finetuning
from acebert.utils.hardware import use_loopback


def test_adversarial_schedule() -> None:
    assert adversarial_schedule(0.0, 0.3) == 0.0
    assert adversarial_schedule(0.5, 0.3) == pytest.approx(0.3 * (2 / (1 + 2.718281828**-5) - 1))
    assert adversarial_schedule(1.0, 0.3) == pytest.approx(0.3, rel=1e-3)


def two_sided_loss(
    rank: int, processes: int, port: int, folder: str, config: AceBertConfig, cached_chunk_size: int | None
) -> None:
    """Computes the gathered loss of this process's rows and writes it with the averaged gradients."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    use_loopback()
    from accelerate.utils import InitProcessGroupKwargs

    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=60))
    accelerator = Accelerator(cpu=True, mixed_precision="no", kwargs_handlers=[timeout])
    torch.manual_seed(0)
    model = accelerator.prepare(AceBertForRetrieval(config))
    generator = torch.Generator().manual_seed(1)
    rows = slice(rank * 8 // processes, (rank + 1) * 8 // processes)
    ids = torch.randint(5, 20, (8, 5), generator=generator)
    chunk = {
        "query_input_ids": ids[:, :3],
        "input_ids": ids,
        "pixel_values": torch.randn(8, 4, 192, generator=generator),
        "spatial_shapes": torch.full((8, 2), 2),
    }
    batch = {
        "chunks": [{name: value[rows][part] for name, value in chunk.items()} for part in (slice(0, 2), slice(2, 8))],
        "query_order": torch.arange(8 // processes),
        "product_order": torch.arange(8 // processes),
        "product_ids": torch.tensor([0, 1, 2, 3, 0, 5, 6, 7])[rows],  # the first and the fifth are one product
        "query_ids": torch.arange(8)[rows],
        "product_attributes": torch.zeros(8, 1, dtype=torch.long)[rows],
        "query_attributes": torch.full((8, 1), -1)[rows],
    }
    flags = {"adversarial_strength": 0.3, "cached_chunk_size": cached_chunk_size}
    args = FinetuningArguments(stage="finetune", output_dir="", dataset_name=[], **flags)
    stage = Finetuning(args, accelerator)
    stage.processor = SimpleNamespace(image_processor=AceBertImageProcessor(patch_size=8))  # type: ignore[assignment]
    values = stage.backward(model, batch, 1.0)
    if rank == 0:
        gradients = {name: p.grad for name, p in accelerator.unwrap_model(model).named_parameters()}
        torch.save({"loss": values["loss"].detach(), "gradients": gradients}, f"{folder}/{processes}.pt")
    del model, values  # before the group, as in `main`
    accelerator.free_memory()
    accelerator.end_training()


@pytest.mark.parametrize("cached_chunk_size", [None, 8])
def test_two_processes_give_the_loss_and_gradients_of_one(
    cached_chunk_size: int | None, tiny_config: Callable[..., AceBertConfig], tmp_path: Path
) -> None:
    for processes, chunk_size in ((1, None), (2, cached_chunk_size)):
        run_processes(two_sided_loss, processes, str(tmp_path), tiny_config(), chunk_size)
    one, two = (torch.load(tmp_path / f"{processes}.pt", weights_only=True) for processes in (1, 2))
    assert torch.allclose(one["loss"], two["loss"], atol=1e-6)
    assert set(one["gradients"]) == set(two["gradients"])
    for name, gradient in one["gradients"].items():
        assert torch.allclose(gradient, two["gradients"][name], atol=1e-5), name


def test_positives_reach_the_loss(tiny_config: Callable[..., AceBertConfig]) -> None:
    model = AceBertForRetrieval(tiny_config())
    query, product = unit_vectors(4, 16), unit_vectors(4, 16, seed=1)
    positives = find_positives(product_ids=torch.tensor([0, 0, 1, 2]))
    with_them = model.compute_loss(query, product, positives)["matching_loss"]
    assert with_them < model.compute_loss(query, product)["matching_loss"]  # fewer negatives
