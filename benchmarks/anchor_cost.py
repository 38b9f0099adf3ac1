"""What the anchor to the text backbone costs: a step of fine-tuning with it, over a step without.

    python benchmarks/anchor_cost.py --model_name_or_path . --steps 100
    python benchmarks/anchor_cost.py --model_name_or_path . --steps 100 --freeze_image_encoder

Drawn products, photos of 48 patches. Steps with and without take turns, since machines are noisy; printed are the
medians, and the median of the ratios of neighbours with the lowest and the highest.
"""

import argparse
from collections.abc import Callable
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from timing import Spread, interleave, timed
from workload import MINILM, make_titles

from acebert.data.collators import CPU_CHUNK, PairCollator
from acebert.data.open_texts import OpenTexts
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.training.arguments import FinetuningArguments
from acebert.training.stages.finetune import Finetuning
from acebert.training.teacher import TextTeacher
from training import choose_attention, make_accelerator, make_rows, make_step, move

PATCHES = 48


def prepare(
    name_or_path: str, accelerator: Accelerator, count: int, is_anchored: bool, is_frozen: bool
) -> Callable[[], None]:
    """A step on one batch of `count` products."""
    processor = AceBertProcessor.from_pretrained(name_or_path)
    model = AceBertForRetrieval.from_pretrained(name_or_path, dtype=torch.float32)
    model.set_attn_implementation(choose_attention(accelerator))
    model.get_input_embeddings().requires_grad_(False)
    args = FinetuningArguments(stage="finetune", output_dir="", dataset_name=[], freeze_image_encoder=is_frozen)
    stage = Finetuning(args, accelerator)
    stage.processor, stage.config = processor, model.config
    stage.teacher = TextTeacher(str(MINILM), accelerator.device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and stage.is_trainable(name))
    rows = make_rows(count)
    collator = PairCollator(processor, CPU_CHUNK, patch_budgets=[PATCHES])
    if is_anchored:
        collator.open_texts = OpenTexts(make_titles(count), [], processor.tokenizer.get_vocab())
    if is_frozen:
        vectors = torch.nn.functional.normalize(torch.randn(count, model.config.projection_dim), dim=1)
        collator.dataset = SimpleNamespace(image_embeds=vectors, epoch=0)  # all that is read of it
        rows = [{**row, "image": vector} for row, vector in zip(rows, vectors, strict=True)]
    batch = collator(rows)
    batch = move(batch, accelerator.device)
    return make_step(model, accelerator, lambda model: stage.backward(model, batch, done=1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name_or_path", default=".")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--freeze_image_encoder", action="store_true")
    args = parser.parse_args()
    accelerator = make_accelerator()
    calls = {
        name: timed(
            prepare(args.model_name_or_path, accelerator, args.batch_size, is_anchored, args.freeze_image_encoder)
        )
        for name, is_anchored in (("with", True), ("without", False))
    }
    seconds = interleave(calls, args.steps)
    for name, values in seconds.items():
        print(f"{name} the anchor: {Spread.of(values).median:.3f} s a step")
    ratio = Spread.of_ratios(seconds["with"], seconds["without"])
    print(f"ratio {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")


if __name__ == "__main__":
    main()
