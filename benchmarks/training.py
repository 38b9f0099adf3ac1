"""Fine-tuning: products a second in the same Accelerate loop, and memory as the batch grows.

The peer is transformers' `CLIPModel`, whose sizes are chosen so that a pair of query and photo costs as many operations
as a pair of query and product does here. Both train all weights, with the same optimizer and attention.
"""

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import limits
import numpy as np
import operations
import psutil
import torch
from accelerate import Accelerator
from processor import open_files
from timing import OURS, REFERENCE, Row, Spread, interleave, rates, timed
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from workload import Workload, draw_photos, make_query_texts, make_titles

from acebert.configuration_acebert import AceBertConfig
from acebert.data.collators import PairCollator
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.training.arguments import FinetuningArguments
from acebert.training.stages.finetune import Finetuning
from acebert.utils.hardware import has_bfloat16

PEER = "transformers' CLIPModel"
PHOTO = (60, 80)
DISTINCT = 256  # products that a larger batch repeats
CHUNK = 64


def make_rows(count: int) -> list[dict[str, Any]]:
    """Pairs of query and product as `PairDataset` gives them."""
    distinct = min(count, DISTINCT)
    titles, photos, queries = make_titles(distinct), draw_photos(distinct, PHOTO), make_query_texts(distinct)
    none = np.full(1, -1)
    return [
        {"row": i, "id": i, "product_id": i, "query_id": i, "from_title": False}
        | {"product_attributes": none, "query_attributes": none}
        | {"query": queries[i % distinct], "title": titles[i % distinct], "image": photos[i % distinct]}
        for i in range(count)
    ]


def choose_attention(accelerator: Accelerator) -> str:
    """As `train_accelerate.py` does: PyTorch's fused attention is slow backwards on CPUs with few tokens."""
    return "eager" if accelerator.device.type == "cpu" else "sdpa"


def make_step(
    model: torch.nn.Module, accelerator: Accelerator, backward: Callable[[torch.nn.Module], object]
) -> Callable[[], None]:
    """One step of the loop that both share; `backward` adds one batch's gradients."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    model, optimizer = accelerator.prepare(model.train(), optimizer)

    def step() -> None:
        with accelerator.accumulate(model):
            backward(model)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step


def move(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if batch is None or isinstance(batch, str):
        return batch
    if isinstance(batch, list):
        return [move(item, device) for item in batch]
    return {name: move(item, device) for name, item in batch.items()}


def our_work(batch: dict[str, Any], config: AceBertConfig) -> float:
    """Operations of one forward pass over a batch of `PairCollator`."""
    lengths = {
        name: torch.cat([chunk[name].sum(1) for chunk in batch["chunks"]]).cpu().numpy()
        for name in ("query_attention_mask", "attention_mask", "pixel_attention_mask")
    }
    products = operations.acebert_products(config, lengths["attention_mask"], lengths["pixel_attention_mask"])
    return operations.acebert_queries(config, lengths["query_attention_mask"]) + products


def make_batch(workload: Workload, count: int) -> dict[str, Any]:
    return PairCollator(workload.processor, CHUNK)(make_rows(count))


def prepare_ours(
    workload: Workload, batch: dict[str, Any], accelerator: Accelerator, cached_chunk_size: int | None
) -> Callable[[], None]:
    """A step on a batch of [`make_batch`]."""
    model = AceBertForRetrieval.from_pretrained(workload.name_or_path, dtype=torch.float32)
    model.set_attn_implementation(choose_attention(accelerator))
    batch = move(batch, accelerator.device)
    args = FinetuningArguments(stage="finetune", output_dir="", dataset_name=[], cached_chunk_size=cached_chunk_size)
    stage = Finetuning(args, accelerator)
    stage.processor = workload.processor

    def backward(model: torch.nn.Module) -> None:
        stage.backward(model, batch, done=1.0)

    return make_step(model, accelerator, backward)


def choose_peer_sizes(workload: Workload, work: float, words: np.ndarray) -> CLIPConfig:
    """A CLIP that sees as many patches of as many pixels, with as many layers, and an MLP that makes up the difference.

    Args:
        workload: of the run.
        work: operations of the forward pass that it is to match.
        words: tokens of each query (batch,).
    """
    ours, options = workload.config, workload.processor.image_processor
    layers = {name: getattr(ours.text_config, name) for name in ("hidden_size", "num_attention_heads")}
    text = {
        **layers,
        "num_hidden_layers": ours.query_config.num_hidden_layers,
        "vocab_size": ours.text_config.vocab_size,
    }
    vision = {**layers, "num_hidden_layers": ours.text_config.num_hidden_layers, "patch_size": options.patch_size}
    vision["image_size"] = options.patch_size * int(options.max_num_patches**0.5)

    def config(intermediate: int) -> CLIPConfig:
        mlp = {"intermediate_size": intermediate}
        return CLIPConfig(
            text_config={**text, **mlp, "eos_token_id": workload.processor.tokenizer.sep_token_id},
            vision_config={**vision, **mlp},
            projection_dim=ours.projection_dim,
        )

    # The operations are linear in the MLP's width.
    least, more = (operations.clip(config(width), words) for width in (8, 16))
    return config(max(8, 8 + round(8 * (work - least) / (more - least))))


def prepare_peer(
    workload: Workload, count: int, accelerator: Accelerator, work: float
) -> tuple[Callable[[], None], float]:
    """A step on queries and photos, and the operations of its forward pass, which is to match `work`."""
    rows = make_rows(count)
    queries = workload.processor.process_queries([row["query"] for row in rows], return_tensors="pt")
    words = queries["attention_mask"].sum(1).numpy()
    config = choose_peer_sizes(workload, work, words)
    model = CLIPModel(config)
    model.set_attn_implementation(choose_attention(accelerator))
    side = config.vision_config.image_size
    process = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    photos = process(images=open_files([row["image"] for row in rows]), return_tensors="pt")
    batch = move({**queries, **photos}, accelerator.device)

    def backward(model: torch.nn.Module) -> None:
        accelerator.backward(model(**batch, return_loss=True).loss)

    return make_step(model, accelerator, backward), operations.clip(config, words)


def make_accelerator() -> Accelerator:
    return Accelerator(mixed_precision="bf16" if has_bfloat16() else "no")


def measure_speed(workload: Workload) -> Row:
    count, accelerator = workload.sizes.training_batch, make_accelerator()
    batch = make_batch(workload, count)
    step, work = prepare_ours(workload, batch, accelerator, None), our_work(batch, workload.config)
    peer_step, peer_work = prepare_peer(workload, count, accelerator, work)
    calls = {REFERENCE: limits.measure_reference(workload), OURS: timed(step), PEER: timed(peer_step)}
    rounds = interleave(calls, workload.sizes.training_repeats)
    reference = rounds.pop(REFERENCE)
    samples = {name: rates(count, seconds) for name, seconds in rounds.items()}
    # A backward pass is twice the products of the forward pass.
    shares = {
        name: limits.share(3 * number, rounds[name], reference) for name, number in ((OURS, work), (PEER, peer_work))
    }
    notes = [
        f"{PEER} of {peer_work / work:.2f} times the operations, {choose_attention(accelerator)} attention, "
        f"{accelerator.mixed_precision} mixed precision."
    ]
    return Row.of(f"a step, batch {count}", "pairs/s", samples, shares, notes)


def find_peak(workload: Workload, count: int, is_peer: bool, results: Any) -> None:
    """Puts the MiB that one step holds at most, beyond what was held before it; in a process of its own."""
    accelerator, batch = make_accelerator(), make_batch(workload, count)
    if is_peer:
        step, _ = prepare_peer(workload, count, accelerator, our_work(batch, workload.config))
    else:
        step = prepare_ours(workload, batch, accelerator, CHUNK)
    if accelerator.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        results.put((torch.cuda.max_memory_allocated() - before) / 2**20)
    else:
        results.put(watch_memory(step) / 2**20)


def watch_memory(call: Callable[[], object]) -> int:
    """Bytes of this process at most during the call, looked at every few milliseconds, less those before it."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def look() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return peak - before


def measure_memory(workload: Workload) -> list[Row]:
    """Each batch size in a new process, since a process keeps the memory that it once had."""
    context = multiprocessing.get_context("spawn")
    rows = []
    sizes = ((OURS, workload.sizes.memory_batches), (PEER, workload.sizes.peer_memory_batches))
    for name, batches in sizes:
        for count in batches:
            results = context.Queue()
            bare = Workload(workload.name_or_path, workload.export, workload.sizes)
            process = context.Process(target=find_peak, args=(bare, count, name == PEER, results))
            process.start()
            process.join()
            if process.exitcode:
                row = Row(
                    f"memory of a step, batch {count}", skipped=f"{name} ended with exit code {process.exitcode}."
                )
            else:
                how = f"{name}, cached gradients, chunks of {CHUNK}" if name == OURS else name
                row = Row(f"memory of a step, batch {count}", "MiB", {how: Spread.of([results.get()])})
            rows.append(row)
    return rows


def measure(workload: Workload) -> list[Row]:
    return [measure_speed(workload), *measure_memory(workload)]
