"""The Accelerator of a training command."""

import logging

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs

from acebert.training.argument_groups import RunArguments
from acebert.utils.hardware import has_bfloat16, use_loopback


def make_accelerator(args: RunArguments) -> Accelerator:
    # Tied word embeddings are saved once, which accelerate warns of at every checkpoint.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    use_loopback()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or ("bf16" if has_bfloat16() else "no"),
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_dir=args.output_dir,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed, non_blocking=True),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    precision = {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}
    accelerator.print(f"Computing in {precision[accelerator.mixed_precision]} on {accelerator.device.type}.")
    return accelerator
