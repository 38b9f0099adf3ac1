"""Trains ACE-BERT on your own catalogue.

    accelerate launch train_accelerate.py --stage pretrain --backbone sentence-transformers/all-MiniLM-L6-v2 \\
        --dataset_name ashraq/fashion-product-images-small --title_column productDisplayName \\
        --output_dir runs/pretrained
    accelerate launch train_accelerate.py --stage finetune --model_name_or_path runs/pretrained \\
        --dataset_name ashraq/fashion-product-images-small --title_column productDisplayName \\
        --query_templates "{gender} {baseColour} {articleType}" --output_dir runs/finetuned
    accelerate launch train_accelerate.py --stage queries --model_name_or_path runs/finetuned \\
        --dataset_name ashraq/fashion-product-images-small --title_column productDisplayName \\
        --query_templates "{gender} {baseColour} {articleType}" --output_dir runs/queries

`--config run.yaml` reads any of the flags from a file; flags on the command line win. The same command started again
goes on from its latest checkpoint. `--output_dir` itself always holds the best model so far as a complete Hub folder.
"""

import copy
import json
import logging
import math
import shutil
import sys
import time
from argparse import ArgumentParser
from contextlib import nullcontext
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
import yaml
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, broadcast_object_list, set_seed
from datasets import Dataset
from huggingface_hub import HfApi
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoTokenizer, HfArgumentParser, get_scheduler

from acebert.configuration_acebert import AceBertConfig
from acebert.data.cleaning import find_good_rows
from acebert.data.collators import MaskingCollator, PairCollator, QueryCollator
from acebert.data.columns import Columns
from acebert.data.pairs import ProductPairs, ProductParts, ProductQueries, WholeProducts
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import hold_out, load_products
from acebert.data.workers import worker_options
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.hub.model_card import find_places, read_stages, write_card
from acebert.hub.publishing import PublishError, open_repository, publish_model
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.losses_acebert import find_positives, matryoshka_answer_loss, modality_gap
from acebert.modeling_acebert import AceBertForPreTraining, AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.training.catalog_negatives import RankedProducts
from acebert.training.checkpoints import (
    checkpoints_of,
    find_other_versions,
    remedy_of_versions,
    replace_model,
    resume,
    save_checkpoint,
)
from acebert.training.contrastive import GatherRows, cached_backward, encode_chunks
from acebert.training.hard_negatives import NearMissSampler, find_near_misses
from acebert.training.lr_range_test import find_learning_rate
from acebert.training.optimization import average_weights
from acebert.training.run import LogWindow, Progress, append_log, rewind_log
from acebert.training.signals import DivergenceWatch, Stopper, explain_lost_processes
from acebert.utils.files import UNFINISHED, atomic_write, writing
from acebert.utils.fingerprints import products_sha256
from acebert.utils.hardware import has_bfloat16, use_loopback


@dataclass
class ModelArguments:
    """Where the weights come from, and the sizes of a model built around a backbone."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "ACE-BERT checkpoint to go on from (folder or Hub id). This or --backbone."}
    )
    backbone: str | None = field(
        default=None, metadata={"help": "Pre-trained BERT (folder or Hub id) to build a new model around."}
    )
    product_layers: int | None = field(
        default=None, metadata={"help": "Layers of the product encoder; all by default."}
    )
    query_layers: int | None = field(default=None, metadata={"help": "Layers of the query encoder; all by default."})
    share_encoders: bool = field(default=False, metadata={"help": "Encode queries with the product encoder."})
    pooling: Literal["mean", "cls"] = field(default="mean", metadata={"help": "From tokens to one vector."})
    projection_dim: int = field(default=384, metadata={"help": "Width of the vectors."})
    matryoshka_dims: list[int] = field(
        default_factory=list, metadata={"help": "Smaller widths at which vectors are to stay good, e.g. 64 128."}
    )
    patch_size: int = field(default=16, metadata={"help": "Side of a patch, in pixels of the resized photo."})
    max_num_patches: int = field(default=196, metadata={"help": "Patches of a photo at most."})
    pixel_group_size: int = field(default=4, metadata={"help": "Side of a pixel group; divides --patch_size."})
    use_patch_features: bool = field(default=True, metadata={"help": "Image tokens hold patch features."})
    use_pixel_features: bool = field(default=True, metadata={"help": "Image tokens hold pixel features."})
    crop_to_object: bool = field(
        default=True, metadata={"help": "Crop photos with a uniform background to the object and leave background out."}
    )
    loss: Literal["info_nce", "sigmoid"] = field(default="info_nce", metadata={"help": "Retrieval loss."})
    freeze_word_embeddings: bool = field(
        default=False,
        metadata={"help": "Leave the backbone's word embeddings as they are, so that synonyms stay near each other."},
    )
    dropout: float | None = field(default=None, metadata={"help": "Of hidden states; the backbone's by default."})
    attention_dropout: float | None = field(default=None, metadata={"help": "Of attention; the backbone's by default."})
    query_max_length: int = field(default=32, metadata={"help": "Tokens of a query at most."})
    title_max_length: int = field(default=64, metadata={"help": "Tokens of a title at most."})


@dataclass
class DataArguments:
    """Which catalogue, and how queries are drawn from it."""

    dataset_name: list[str] = field(
        metadata={"help": "Catalogues to train on, one or more: Hub id, folder, CSV, TSV, JSON or Parquet file."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub dataset."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision of Hub datasets."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    validation_split: str | None = field(
        default=None,
        metadata={"help": "Split that picks the best checkpoint; see --validation_share."},
    )
    validation_share: float = field(
        default=0.05,
        metadata={
            "help": "Share of the training split that is held out to pick the best checkpoint where no "
            "--validation_split is named. Products with one id or title stay together. 0 for no validation."
        },
    )
    validation_size: int = field(
        default=2000, metadata={"help": "Products of it that are used, evenly spaced; 0 for all."}
    )
    id_column: str = field(default="id", metadata={"help": "Product id."})
    title_column: str | None = field(default="title", metadata={"help": "Title; 'none' if there is no such column."})
    image_column: str | None = field(
        default="image", metadata={"help": "Photo, or the path of one; 'none' if there is no such column."}
    )
    query_column: str | None = field(default=None, metadata={"help": "Real query that led to the product."})
    hot_query_column: str | None = field(default=None, metadata={"help": "The product's hot query."})
    query_templates: list[str] = field(
        default_factory=list,
        metadata={"help": 'Templates that make (synthetic) queries from attributes: "{gender} {colour} {category}".'},
    )
    drop_attribute_probability: float = field(default=0.3, metadata={"help": "Of each attribute of a template."})
    title_query_probability: float = field(
        default=0.5,
        metadata={"help": "Share of rows whose query is the title; the product then shows its photo alone."},
    )
    balanced_query_probability: float = field(
        default=0.5,
        metadata={
            "help": "In the stage 'queries', of asking for attribute values drawn among all that the catalogue has, "
            "rare ones as often as common ones, in place of the row's own; in the other rows."
        },
    )
    drop_title_probability: float = field(default=0.2, metadata={"help": "Of the product's title, in the other rows."})
    drop_image_probability: float = field(default=0.1, metadata={"help": "Of the product's photo, in the other rows."})
    flip_probability: float = field(default=0.5, metadata={"help": "Of mirroring a photo."})
    crop_probability: float = field(
        default=0.0, metadata={"help": "Of cutting up to a fifth off a photo's width and off its height."}
    )
    drop_patch_probability: float = field(
        default=0.0, metadata={"help": "Of leaving each patch out, in fine-tuning: faster, and harder to memorise."}
    )
    num_workers: int = field(default=1, metadata={"help": "Processes that read and prepare data."})
    on_bad_row: Literal["raise", "skip"] = field(
        default="raise",
        metadata={
            "help": "skip: leave bad rows out and list them in bad_rows_<split>.jsonl in --output_dir. Every photo is "
            "then decoded once at the start."
        },
    )


@dataclass
class RunArguments:
    """How long, how fast and where to."""

    stage: Literal["pretrain", "finetune", "queries"] = field(
        metadata={
            "help": "Cross-modal pre-training; retrieval; or the query encoder alone, against the whole catalogue, "
            "whose vectors stay as they are."
        }
    )
    output_dir: str = field(metadata={"help": "Folder of the run: best model, checkpoints, logs."})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Start over instead of resuming."})
    seed: int = field(default=0, metadata={"help": "Of weights, data order, draws and dropout."})
    num_train_epochs: float = field(default=5, metadata={"help": "Passes over the training split."})
    max_train_steps: int | None = field(default=None, metadata={"help": "Optimizer steps; wins over epochs."})
    per_device_batch_size: int = field(
        default=256, metadata={"help": "Products a process and step. All other products in a step are negatives."}
    )
    chunk_size: int = field(default=64, metadata={"help": "Products of about equal length that are encoded together."})
    cached_chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Cached gradients: hold the activations of one chunk of so many products at a time, whatever "
            "--per_device_batch_size. The same gradients, for about a third more time."
        },
    )
    gradient_accumulation_steps: int = field(
        default=1,
        metadata={"help": "Batches an optimizer step. This adds no negatives: each batch is contrasted alone."},
    )
    learning_rate: float = field(default=2e-4, metadata={"help": "Peak rate of the BERT layers and text embeddings."})
    query_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak rate of the query encoder's layers; --learning_rate by default."}
    )
    image_learning_rate: float = field(default=1e-3, metadata={"help": "Peak rate of the image embeddings."})
    head_learning_rate: float = field(
        default=5e-4, metadata={"help": "Peak rate of projections, heads, domain classifier and temperature."}
    )
    lr_scheduler_type: str = field(default="linear", metadata={"help": "Any name of transformers' get_scheduler."})
    warmup_ratio: float = field(default=0.05, metadata={"help": "Share of the steps that warm up."})
    weight_decay: float = field(default=0.01, metadata={"help": "Of matrices; never of biases, norms, temperature."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to this norm."})
    adversarial_strength: float = field(
        default=0.1, metadata={"help": "Final factor of the reversed gradient; 0 for no adversary."}
    )
    mine_hard_negatives_every: int | None = field(
        default=None,
        metadata={
            "help": "Epochs between searches for hard negatives: near misses on the vectors of the whole catalogue, "
            "which then share batches. The first search is before the second epoch. None by default."
        },
    )
    hard_negatives: int = field(default=3, metadata={"help": "Near misses that follow a product, at most."})
    hard_negative_margin: float = field(
        default=0.05,
        metadata={"help": "Cosine by which a near miss scores below the product itself; nearer ones may be matches."},
    )
    ema_decay: float | None = field(
        default=None,
        metadata={"help": "Validate and save a moving average of the weights that keeps this share of itself a step."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Validations without a gain after which the run ends."}
    )
    find_learning_rate: int | None = field(
        default=None,
        metadata={"help": "Train nothing: try so many steps at growing rates, plot the loss and suggest a factor."},
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "Of the classification losses."})
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of words masked in pre-training."})
    patch_mask_probability: float = field(default=0.5, metadata={"help": "Share of patches hidden in pre-training."})
    mismatch_probability: float = field(
        default=0.25, metadata={"help": "Share of rows with another product's photo or hot query in pre-training."}
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = field(
        default=None,
        metadata={"help": "Autocast type; wins over accelerate's own. By default bf16 where the hardware has it."},
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "Any of transformers' attentions; by default 'eager' on CPUs, where it trains fastest."},
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Less memory, about a third more time."})
    eval_steps: int = field(default=500, metadata={"help": "Optimizer steps between validations."})
    checkpointing_steps: int = field(default=200, metadata={"help": "Optimizer steps between checkpoints."})
    checkpoints_total_limit: int = field(default=2, metadata={"help": "Checkpoints to keep."})
    logging_steps: int = field(default=10, metadata={"help": "Optimizer steps between log entries."})
    report_to: str = field(default="none", metadata={"help": "tensorboard, wandb, trackio or none."})
    save_dtype: Literal["float32", "bfloat16"] = field(default="float32", metadata={"help": "Of the saved model."})
    push_to_hub: bool = field(default=False, metadata={"help": "Upload the best model when the run ends."})
    hub_private_repo: bool = field(default=False, metadata={"help": "Make that repository a private one."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository; the folder's name by default."})


@explain_lost_processes()
def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs one stage. Returns the last validation's metrics of the best model (empty without a validation split)."""
    model_args, data_args, args = parse_arguments(sys.argv[1:] if argv is None else argv)
    # Tied word embeddings are saved once, which accelerate warns of at every checkpoint.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    use_loopback()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or ("bf16" if has_bfloat16() else "no"),
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_dir=args.output_dir,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    precision = {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}
    accelerator.print(f"Computing in {precision[accelerator.mixed_precision]} on {accelerator.device.type}.")
    # Asked for before the long work starts: a wrong token or name shows now.
    repository = create_repository(args) if args.push_to_hub and accelerator.is_main_process else None
    set_seed(args.seed)

    # The catalogue and the model.
    train_data, validation_data, fingerprints = load_data(data_args, args, accelerator)
    settings = {**asdict(model_args), **asdict(data_args), **asdict(args), **fingerprints}
    settings |= {"mixed_precision": accelerator.mixed_precision, "num_processes": accelerator.num_processes}
    prepare_output_dir(args, settings, accelerator)
    model, processor = load_model_and_processor(model_args, args, accelerator)
    sampler = NearMissSampler(len(train_data), args.seed, args.hard_negatives)
    train_loader = make_loader(train_data, processor, data_args, args, sampler)
    validation_loader = validation_data and make_loader(validation_data, processor, data_args, args)

    least = args.per_device_batch_size * accelerator.num_processes
    if len(train_data) < least:
        raise SystemExit(
            f"The training split has {len(train_data)} products, but one batch of all processes takes {least}: "
            "lower --per_device_batch_size."
        )

    # The optimizer, and a schedule that ends with the last step. A prepared scheduler moves once per process and step.
    optimizer = make_optimizer(model, args)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)
    ranked = everything = None
    if isinstance(train_data, ProductQueries):
        ranked, everything = encode_products(
            model, processor, train_data, validation_data, data_args, args, accelerator
        )
    model.train()  # `from_pretrained` leaves dropout off
    if args.find_learning_rate:
        return suggest_learning_rate(model, optimizer, train_loader, args, accelerator, ranked)
    steps_per_epoch = math.ceil(len(train_loader) / args.gradient_accumulation_steps)
    total_steps = args.max_train_steps or math.ceil(args.num_train_epochs * steps_per_epoch)
    if total_steps < 1:
        raise SystemExit(f"--num_train_epochs {args.num_train_epochs} makes no step: raise it.")
    scheduler = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=round(args.warmup_ratio * total_steps) * accelerator.num_processes,
        num_training_steps=total_steps * accelerator.num_processes,
    )
    scheduler = accelerator.prepare(scheduler)
    average = average_weights(accelerator.unwrap_model(model), args.ema_decay) if args.ema_decay else None
    best_of = average.module if average else accelerator.unwrap_model(model)  # what is validated and saved
    accelerator.init_trackers("acebert", config={k: v for k, v in settings.items() if isinstance(v, int | float | str)})

    progress = Progress()
    accelerator.register_for_checkpointing(progress, sampler, *([average] if average else []))
    resume(accelerator, args.output_dir)
    rewind_log(args.output_dir, progress, accelerator)
    stopper, watch = Stopper(), DivergenceWatch()
    check_finite = partial(watch.check, partial(ids_of_batches, train_loader, train_data), args.output_dir)
    bar = tqdm(total=total_steps, initial=progress.step, disable=not accelerator.is_local_main_process, unit="step")

    # One step: encode both sides, gather the vectors of all processes, contrast, fool the domain classifier, update.
    window, clock = LogWindow(), time.perf_counter()
    while progress.step < total_steps and not out_of_patience(progress, args):
        if mining_is_due(progress, sampler, args):
            pause = time.perf_counter()
            mine_hard_negatives(
                accelerator.unwrap_model(model), train_data, processor, sampler, progress, args, accelerator
            )
            window.start += time.perf_counter() - pause
        sampler.start_epoch(progress.epoch)
        train_loader.set_epoch(progress.epoch)
        train_data.set_epoch(progress.epoch)
        loader = accelerator.skip_first_batches(train_loader, progress.batch)
        for batch in loader:
            progress.batch += 1
            # Dropout depends on the place in the run alone, so that a resumed run draws what an unbroken one does.
            seed_step(args.seed, progress, accelerator.process_index)
            with accelerator.accumulate(model):
                strength = adversarial_schedule(progress.step / total_steps, args.adversarial_strength)
                values = forward_and_backward(model, batch, args, accelerator, strength, ranked)
                norm = None
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                    norm = None if accelerator.scaler else norm  # a scaler expects overflows and skips their steps
                watch.add(progress.step + 1, progress.batch, scheduler.get_last_lr()[0], values["loss"], norm)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            clamp_temperature(accelerator.unwrap_model(model))
            window.add(values, args.per_device_batch_size * accelerator.num_processes)
            if not accelerator.sync_gradients:
                continue

            progress.step += 1
            progress.seconds, clock = progress.seconds + time.perf_counter() - clock, time.perf_counter()
            bar.update()
            if average:
                average.update_parameters(accelerator.unwrap_model(model))
            last = progress.step == total_steps
            if progress.step % args.logging_steps == 0 or last:
                check_finite()
                entry = window.flush() | {"learning_rate": scheduler.get_last_lr()[0]}
                entry |= {"adversarial_strength": strength} if args.stage == "finetune" else {}
                accelerator.log({f"train/{name}": value for name, value in entry.items()}, step=progress.step)
                append_log(args.output_dir, progress, entry, accelerator)
                shown = ("loss", "recall@1", "domain_accuracy", "rate")
                bar.set_postfix({name: f"{entry[name]:.3g}" for name in shown if name in entry})
            pause = time.perf_counter()
            if validation_loader and (progress.step % args.eval_steps == 0 or last):
                check_finite()
                metrics = validate(best_of, validation_loader, args.stage, accelerator, everything)
                accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, step=progress.step)
                append_log(args.output_dir, progress, {"validation": metrics}, accelerator)
                if accelerator.is_main_process:
                    bar.write(
                        f"step {progress.step}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                    )
                if progress.improve(metrics["score"], metrics):
                    save_model(best_of, processor, args, accelerator)
                if out_of_patience(progress, args) and not last:
                    accelerator.print(
                        f"Stopped early: no gain in {progress.checks_without_gain} validations (best score "
                        f"{progress.best_score:.4f})."
                    )
                    last = True
            stopping = stopper.asked(accelerator)
            if progress.step % args.checkpointing_steps == 0 or last or stopping:
                check_finite()
                save_checkpoint(accelerator, args.output_dir, progress.step, args.checkpoints_total_limit)
                if stopping and not last:
                    stopper.restore()
                    raise SystemExit(f"Stopped after step {progress.step}; the same command goes on from there.")
            window.start += time.perf_counter() - pause
            if last:
                break
        else:
            check_finite()
            progress.epoch, progress.batch = progress.epoch + 1, 0
    bar.close()
    stopper.restore()

    if validation_loader is None:
        save_model(best_of, processor, args, accelerator)
    # Before the group of processes ends: the wrapper's last hold on the group is let go under Python's lock, and then
    # waits for a thread that may need this lock (https://github.com/pytorch/pytorch/issues/56297).
    del model
    accelerator.free_memory()
    accelerator.end_training()
    if repository:
        push_to_hub(repository, args)
    accelerator.print(f"The {'best' if validation_loader else 'last'} model is in {args.output_dir}")
    return progress.best_metrics


# ----------------------------------------------------------------------------------------------------------------------
# Settings
# ----------------------------------------------------------------------------------------------------------------------


# The model's flags that go with a checkpoint too.
CHANGEABLE = {
    "model_name_or_path",
    "backbone",
    "dropout",
    "attention_dropout",
    "matryoshka_dims",
    "freeze_word_embeddings",
}


# The flags that say how the product side is trained, and those of losses that look at it.
OF_PRODUCTS = {
    "adversarial_strength",
    "cached_chunk_size",
    "crop_probability",
    "drop_patch_probability",
    "flip_probability",
    "hard_negative_margin",
    "hard_negatives",
    "image_learning_rate",
    "label_smoothing",
    "mine_hard_negatives_every",
    "mismatch_probability",
    "mlm_probability",
    "patch_mask_probability",
}


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, RunArguments]:
    """Flags, and before them those of the YAML file that `--config` names."""
    # An abbreviated flag would escape the checks below.
    first = ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", help="YAML file of flags; those on the command line win.")
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, RunArguments),
        description=__doc__.splitlines()[0],
        parents=[first],
        allow_abbrev=False,
    )
    config, argv = first.parse_known_args(argv)
    if config.config:
        values = yaml.safe_load(Path(config.config).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            parser.error(f"--config {config.config} must hold `flag: value` lines.")
        from_file = []
        for name, value in values.items():
            if value is not None and value != []:
                from_file += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
        argv = from_file + argv
    model_args, data_args, args, _ = parser.parse_args_into_dataclasses(args=argv)

    if (model_args.model_name_or_path is None) == (model_args.backbone is None):
        parser.error("Give --model_name_or_path to go on from a checkpoint, or --backbone to build a new model.")
    given = {flag.split("=")[0].removeprefix("--").removeprefix("no_") for flag in argv if flag.startswith("--")}
    fixed = sorted(given & {f.name for f in fields(ModelArguments)} - CHANGEABLE)
    if model_args.model_name_or_path and fixed:
        parser.error(f"--{', --'.join(fixed)} can't change the checkpoint of --model_name_or_path: leave out.")
    if model_args.share_encoders and model_args.query_layers:
        parser.error("--share_encoders has no query encoder of its own: leave --query_layers out.")
    counts = ("per_device_batch_size", "chunk_size", "gradient_accumulation_steps", "eval_steps", "logging_steps")
    counts += ("checkpointing_steps", "checkpoints_total_limit", "max_train_steps", "cached_chunk_size")
    counts += ("mine_hard_negatives_every", "hard_negatives", "early_stopping_patience", "find_learning_rate")
    for name in counts:
        least = 2 if name == "find_learning_rate" else 1  # two rates make a slope
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}.")
    for name in ("cached_chunk_size", "mine_hard_negatives_every"):
        if args.stage == "pretrain" and getattr(args, name):
            parser.error(f"--{name} is fine-tuning's: pre-training contrasts no products. Leave it out.")
    if args.stage == "queries":
        if model_args.backbone:
            parser.error("The stage 'queries' needs the products' vectors: give --model_name_or_path, not --backbone.")
        if given & OF_PRODUCTS:
            parser.error(
                f"--{', --'.join(sorted(given & OF_PRODUCTS))}: the stage 'queries' leaves the product side as it is. "
                "Leave out."
            )
        if "balanced_query_probability" in given and not data_args.query_templates:
            parser.error("--balanced_query_probability draws values for --query_templates: give some, or leave it out.")
    elif "balanced_query_probability" in given:
        parser.error(f"--balanced_query_probability is of the stage 'queries', not of '{args.stage}'. Leave it out.")
    for name in ("crop_probability", "drop_patch_probability", "balanced_query_probability"):
        if not 0 <= getattr(data_args, name) <= 1:
            parser.error(f"--{name} must lie in [0, 1], got {getattr(data_args, name)}.")
    if args.ema_decay is not None and not 0 < args.ema_decay < 1:
        parser.error(f"--ema_decay must lie in (0, 1), got {args.ema_decay}.")
    if args.early_stopping_patience and not (data_args.validation_split or data_args.validation_share):
        parser.error("--early_stopping_patience needs a validation: give --validation_split or --validation_share.")
    if not 0 <= data_args.validation_share < 1:
        parser.error(f"--validation_share must lie in [0, 1), got {data_args.validation_share}.")
    for name in ("title_column", "image_column"):
        if getattr(data_args, name) == "none":
            setattr(data_args, name, None)
    return model_args, data_args, args


def prepare_output_dir(args: RunArguments, settings: dict[str, Any], accelerator: Accelerator) -> None:
    """Keeps the settings beside the model, and refuses to continue a run with others or on other data."""
    folder, file = Path(args.output_dir), Path(args.output_dir) / "training_args.json"
    free = ("overwrite_output_dir", "num_workers", "logging_steps", "checkpointing_steps", "checkpoints_total_limit")
    free += ("report_to", "places")

    def fixed(settings: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in free and "hub" not in name}

    settings = fixed(settings)
    places: dict[str, str] = {}  # a run that goes on keeps what was a folder when it began
    if accelerator.is_main_process:
        if args.overwrite_output_dir:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            (folder / "train_log.jsonl").unlink(missing_ok=True)
        elif file.exists() and (folder / "checkpoints").exists():
            record, defaults = json.loads(file.read_text()), default_settings()
            before, places = fixed(record), record.get("places", {})
            # Flags that came with a later version do nothing by default; its other records have nothing to differ from.
            new = {k: v for k, v in settings.items() if k not in before and v == defaults.get(k, v)}
            known = {**before, **settings}.keys() - new.keys()
            changed = {k: (before.get(k), settings.get(k)) for k in sorted(known) if before.get(k) != settings.get(k)}
            checkpoints = checkpoints_of(args.output_dir)
            others = find_other_versions(checkpoints[-1]) if checkpoints else None
            if changed:
                raise SystemExit(
                    f"{folder} holds a run with other settings or data (then, now): {changed}. Bring them back to go "
                    "on, use another --output_dir, or start over by --overwrite_output_dir."
                    + (f"\nIt was written by {others}. {remedy_of_versions(args.output_dir)}" if others else "")
                )
            if new:
                print(f"Warning: {folder} holds a run that recorded less. It is taken to have had {new}.")
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(settings | {"places": places | find_places(settings)}, indent=2))
    accelerator.wait_for_everyone()


# ----------------------------------------------------------------------------------------------------------------------
# Data and model
# ----------------------------------------------------------------------------------------------------------------------


def load_data(
    data_args: DataArguments, args: RunArguments, accelerator: Accelerator
) -> tuple[ProductPairs, ProductPairs | None, dict[str, str]]:
    """The training split and, where there is one, the validation split, as pairs or as parts by stage.

    Returns:
        Both, and the fingerprints of the splits that were read, by which a resumed run knows its data again.
    """
    templates = None
    if data_args.query_templates:
        templates = QueryTemplates(data_args.query_templates, data_args.drop_attribute_probability)
        accelerator.print(
            "The queries made by --query_templates are synthetic: measure on real ones before you decide."
        )
    columns = Columns(
        id=data_args.id_column,
        title=data_args.title_column,
        image=data_args.image_column,
        query=data_args.query_column,
        hot_query=data_args.hot_query_column,
        attributes=templates.attributes if templates else [],
    )
    kinds = {"pretrain": ProductParts, "finetune": ProductPairs, "queries": ProductQueries}
    kind: type[ProductPairs] = kinds[args.stage]

    source = (data_args.dataset_revision, data_args.dataset_config_name, data_args.on_bad_row)
    query_columns = (columns.query, columns.hot_query, *columns.attributes)

    def load(split: str) -> Dataset:
        with accelerator.main_process_first():  # it fills the cache, the others read it
            products = load_products(data_args.dataset_name, split, columns, *source)
        if data_args.on_bad_row == "raise":
            return products
        file = Path(args.output_dir, f"bad_rows_{split}.jsonl")
        learns_from = None if args.stage == "pretrain" else query_columns
        return products.select(find_good_rows(products, columns, file, learns_from=learns_from))

    products = load(data_args.train_split)
    fingerprints = {"train_data": describe(products)}
    held_out = None
    if data_args.validation_split:
        held_out = load(data_args.validation_split)
        fingerprints["validation_data"] = describe(held_out)
    elif data_args.validation_share:
        products, held_out = hold_out(products, columns, data_args.validation_share)
    if held_out is not None and 0 < data_args.validation_size < len(held_out):
        spacing = len(held_out) / data_args.validation_size
        held_out = held_out.select([int(i * spacing) for i in range(data_args.validation_size)])

    def draw_from(products: Dataset, **draws: float) -> ProductPairs:
        return kind(
            products,
            columns,
            templates,
            title_query_probability=data_args.title_query_probability,
            drop_title_probability=data_args.drop_title_probability,
            drop_image_probability=data_args.drop_image_probability,
            seed=args.seed,
            **draws,
        )

    draws = {"flip_probability": data_args.flip_probability, "crop_probability": data_args.crop_probability}
    if args.stage == "queries":  # which opens no photo
        draws = {"balanced_query_probability": data_args.balanced_query_probability}
    train = draw_from(products, **draws)
    validation = None if held_out is None else draw_from(held_out)
    if args.stage != "pretrain" and not any(
        text for texts in (*train.attributes.values(), train.queries, train.hot_queries) for text in texts
    ):
        accelerator.print("No product has a query: titles alone are asked for, each for its photo.")
    accelerator.print(f"{len(train)} products to train on, {len(validation) if validation else 0} to validate on.")
    return train, validation, fingerprints


def describe(products: Dataset) -> str:
    return f"{len(products)} products, SHA-256 {products_sha256(products)[:16]}"


def load_model_and_processor(
    model_args: ModelArguments, args: RunArguments, accelerator: Accelerator
) -> tuple[AceBertForPreTraining | AceBertForRetrieval, AceBertProcessor]:
    """A checkpoint's model and processor, or new ones around the backbone."""
    model_class = AceBertForPreTraining if args.stage == "pretrain" else AceBertForRetrieval
    dropouts = {
        "hidden_dropout_prob": model_args.dropout,
        "attention_probs_dropout_prob": model_args.attention_dropout,
    }
    dropouts = {name: value for name, value in dropouts.items() if value is not None}
    if model_args.model_name_or_path:
        config = AceBertConfig.from_pretrained(model_args.model_name_or_path)
        for name, value in dropouts.items():
            setattr(config.text_config, name, value)
            setattr(config.query_config, name, value)
        if args.stage != "queries":  # which has no such losses
            config.adversarial_strength, config.label_smoothing = args.adversarial_strength, args.label_smoothing
        elif config.share_encoders:
            raise SystemExit(
                f"{model_args.model_name_or_path} shares its encoders, so its queries can't be trained alone: train it "
                "by --stage finetune."
            )
        if model_args.matryoshka_dims:
            config.matryoshka_dims = model_args.matryoshka_dims
        config.validate_architecture()
        model = model_class.from_pretrained(
            model_args.model_name_or_path, config=config, dtype=torch.float32, use_safetensors=True
        )
        processor = AceBertProcessor.from_pretrained(model_args.model_name_or_path)
    else:
        tokenizer = AutoTokenizer.from_pretrained(model_args.backbone)
        layers = {"product": model_args.product_layers, "query": model_args.query_layers}
        layers = {side: {"num_hidden_layers": n} if n else {} for side, n in layers.items()}
        if model_args.share_encoders:
            layers["query"] = layers["product"]
        model = model_class.from_backbone(
            model_args.backbone,
            text_config={**dropouts, **layers["product"]},
            query_config={**dropouts, **layers["query"]},
            share_encoders=model_args.share_encoders,
            pooling=model_args.pooling,
            projection_dim=model_args.projection_dim,
            matryoshka_dims=model_args.matryoshka_dims or None,
            patch_size=model_args.patch_size,
            pixel_group_size=model_args.pixel_group_size,
            use_patch_features=model_args.use_patch_features,
            use_pixel_features=model_args.use_pixel_features,
            loss=model_args.loss,
            adversarial_strength=args.adversarial_strength,
            label_smoothing=args.label_smoothing,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
        )
        accelerator.print(f"Taken from the backbone {model_args.backbone}: {model.config.backbone}")
        image_processor = AceBertImageProcessor(
            patch_size=model_args.patch_size,
            max_num_patches=model_args.max_num_patches,
            do_salient_crop=model_args.crop_to_object,
            do_drop_background=model_args.crop_to_object,
        )
        processor = AceBertProcessor(
            image_processor,
            tokenizer,
            query_max_length=model_args.query_max_length,
            title_max_length=model_args.title_max_length,
        )
    # PyTorch's fused attention is slow backwards on CPUs with sequences of tens of tokens (docs/training.md).
    on_cpu = accelerator.device.type == "cpu"
    model.set_attn_implementation(args.attn_implementation or ("eager" if on_cpu else "sdpa"))
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if args.stage == "pretrain":
        # The query side takes no part in this stage; it goes through unchanged.
        for name, parameter in model.acebert.named_parameters():
            parameter.requires_grad_(name.startswith("product_encoder."))
    elif args.stage == "queries":
        # Word embeddings that both encoders share go by the product encoder's name.
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("acebert.query_"))
    if model_args.freeze_word_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model, processor


def encode_products(
    model: torch.nn.Module,
    processor: AceBertProcessor,
    train_data: ProductQueries,
    validation_data: ProductPairs | None,
    data_args: DataArguments,
    args: RunArguments,
    accelerator: Accelerator,
) -> tuple[RankedProducts, RankedProducts]:
    """The products that the stage of queries trains against, and those together with the validation split's."""
    inner = accelerator.unwrap_model(model).eval().acebert
    cache, sizes = Path(args.output_dir, "vectors"), (args.per_device_batch_size, data_args.num_workers)
    encoder = CorpusEncoder(inner, processor, accelerator, cache, "encoding", *sizes)
    try:
        ranked = everything = RankedProducts.encode(train_data, encoder, data_args.train_split)
        if isinstance(validation_data, ProductQueries):
            everything = ranked.join(RankedProducts.encode(validation_data, encoder, "the validation products"))
            accelerator.print(
                f"Validation ranks all {len(everything.groups)} products: its figures are lower than fine-tuning's, "
                "which are among the validation products."
            )
    except KeyboardInterrupt:
        raise SystemExit("Stopped while products were encoded; the same command goes on from there.") from None
    return ranked, everything


def make_loader(
    data: ProductPairs,
    processor: AceBertProcessor,
    data_args: DataArguments,
    args: RunArguments,
    sampler: NearMissSampler | None = None,
) -> DataLoader:
    """Batches to train on, in the sampler's order; without a sampler those to validate on."""
    if args.stage == "pretrain":
        collator = MaskingCollator(
            processor, data, args.mlm_probability, args.patch_mask_probability, args.mismatch_probability, args.seed
        )
    elif args.stage == "queries":
        collator = QueryCollator(processor, args.chunk_size)
    else:
        drop = data_args.drop_patch_probability if sampler else 0.0
        collator = PairCollator(processor, args.cached_chunk_size or args.chunk_size, drop, args.seed, data)
    return DataLoader(
        data,
        batch_size=args.per_device_batch_size,
        sampler=sampler,
        drop_last=sampler is not None,
        collate_fn=collator,
        **worker_options(data_args.num_workers),
    )


def ids_of_batches(loader: DataLoader, data: ProductPairs, batches: list[int]) -> list[Any]:
    """Ids of this process's products in batches of the present epoch, which count from 1."""
    return [data.id_of(row) for n, rows in enumerate(loader.batch_sampler, 1) if n in batches for row in rows]


def make_optimizer(model: torch.nn.Module, args: RunArguments) -> torch.optim.AdamW:
    """AdamW with a rate for each part of the model, and weight decay on matrices alone."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if ".image_embeddings." in name:
            rate = args.image_learning_rate
        elif "query_encoder." in name:
            rate = args.query_learning_rate or args.learning_rate
        elif "product_encoder." in name:
            rate = args.learning_rate
        else:
            rate = args.head_learning_rate
        decay = args.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    # The product encoder's layers come first: their rate is the one that is logged.
    ordered = sorted(groups.items(), key=lambda group: group[0][0] != args.learning_rate)
    parameters = [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in ordered]
    return torch.optim.AdamW(parameters, betas=(0.9, 0.98), eps=1e-6, fused=True)


# ----------------------------------------------------------------------------------------------------------------------
# One step
# ----------------------------------------------------------------------------------------------------------------------


def seed_step(seed: int, progress: "Progress", process: int) -> None:
    state = np.random.SeedSequence((seed, progress.epoch, progress.batch, process)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


def clamp_temperature(model: AceBertForPreTraining | AceBertForRetrieval) -> None:
    """Keeps the temperature where its gradient isn't cut off (as CLIP does, arXiv 2103.00020, section 2.5)."""
    with torch.no_grad():
        model.acebert.logit_scale.clamp_(max=model.config.logit_scale_max_value)


def adversarial_schedule(done: float, strength: float) -> float:
    """From 0 to `strength` as `done` goes from 0 to 1 (Ganin et al. 2016, arXiv 1505.07818, section 5.2.2)."""
    return strength * (2 / (1 + math.exp(-10 * done)) - 1)


def forward_and_backward(
    model: torch.nn.Module,
    batch: dict[str, Any],
    args: RunArguments,
    accelerator: Accelerator,
    strength: float,
    ranked: RankedProducts | None = None,
) -> dict[str, torch.Tensor]:
    """Adds the gradients of one batch. Returns its loss and what else is logged of it."""
    if ranked is not None:
        return contrast_with_catalog(model, batch, ranked, accelerator)
    if args.stage == "pretrain":
        outputs = model(**batch)
        values = {
            name: outputs[name] for name in ("loss", "mlm_loss", "patch_loss", "matching_loss") if name in outputs
        }
        accelerator.backward(values["loss"])
        return values
    loss_of = partial(compute_loss, model=model, batch=batch, accelerator=accelerator, strength=strength)
    if args.cached_chunk_size:
        return cached_backward(model, batch, loss_of, accelerator)
    values = loss_of(*encode_chunks(model, batch))
    accelerator.backward(values["loss"])
    return values


def compute_loss(
    query_embeds: torch.Tensor,
    product_embeds: torch.Tensor,
    model: torch.nn.Module,
    batch: dict[str, Any],
    accelerator: Accelerator,
    strength: float,
) -> dict[str, torch.Tensor]:
    """The retrieval loss of one batch from this process's vectors, and what is logged of it.

    Every process computes the same loss, that of all processes' vectors. The backward pass of the gather sums what the
    processes send back and data parallelism averages it, so the gradient is that of one process with the whole batch.
    """
    if accelerator.num_processes > 1:
        query_embeds, product_embeds = GatherRows.apply(query_embeds), GatherRows.apply(product_embeds)
    positives = gathered_positives(batch, accelerator)
    values = accelerator.unwrap_model(model).compute_loss(query_embeds, product_embeds, positives, strength)
    with torch.no_grad():
        values["recall@1"] = capped_recall(query_embeds @ product_embeds.t(), positives, k=1).mean()
        values["modality_gap"] = modality_gap(query_embeds, product_embeds)
    return values


def contrast_with_catalog(
    model: torch.nn.Module, batch: dict[str, Any], ranked: RankedProducts, accelerator: Accelerator
) -> dict[str, torch.Tensor]:
    """Adds the gradients of a batch of queries against the whole catalogue, chunk by chunk.

    Every process has queries of its own; data parallelism averages their gradients, and the values are averaged here.
    """
    chunks, scale = batch["chunks"], accelerator.unwrap_model(model).acebert.scale.detach()
    queries = sum(len(chunk["query_id"]) for chunk in chunks)
    values: dict[str, torch.Tensor] = {}
    for i, chunk in enumerate(chunks):
        products, answers = ranked.ranked_for(chunk)
        inputs = {name: chunk[name] for name in ("query_input_ids", "query_attention_mask")}
        with accelerator.no_sync(model) if i < len(chunks) - 1 else nullcontext():
            outputs = model(**inputs, product_embeds=products[0], return_loss=False)
            share = len(answers) / queries
            loss, first = matryoshka_answer_loss(outputs.query_embeds, products, answers, scale)
            accelerator.backward(share * loss)
        found = {"loss": loss.detach(), "precision@1": answers.gather(1, first[:, None]).float().mean()}
        values = {name: share * value + values.get(name, 0.0) for name, value in found.items()}
    return accelerator.reduce(values, "mean")


def gathered_positives(batch: dict[str, Any], accelerator: Accelerator) -> torch.Tensor:
    names = ("product_ids", "query_ids", "product_attributes", "query_attributes")
    return find_positives(**{name: accelerator.gather(batch[name]) for name in names})


def capped_recall(scores: torch.Tensor, positives: torch.Tensor, k: int) -> torch.Tensor:
    """Recall@k of each query, where more than k matches count as k (as BEIR does, arXiv 2104.08663): (queries,)."""
    k = min(k, scores.shape[1])
    top = scores.topk(k, dim=1).indices
    return positives.gather(1, top).sum(1) / positives.sum(1).clamp(max=k)


# ----------------------------------------------------------------------------------------------------------------------
# Around the steps: hard negatives, patience, learning rate
# ----------------------------------------------------------------------------------------------------------------------


def mining_is_due(progress: Progress, sampler: NearMissSampler, args: RunArguments) -> bool:
    """At the beginning of the second epoch, when the model tells products apart, and then of every N-th."""
    every = args.mine_hard_negatives_every
    due = every and progress.epoch > 0 and (progress.epoch - 1) % every == 0
    return bool(due and progress.batch == 0 and sampler.mined_in != progress.epoch)


@torch.no_grad()
def mine_hard_negatives(
    model: AceBertForRetrieval,
    data: ProductPairs,
    processor: AceBertProcessor,
    sampler: NearMissSampler,
    progress: Progress,
    args: RunArguments,
    accelerator: Accelerator,
) -> None:
    """Encodes the whole catalogue, all processes a part of it, and gives the sampler every product's near misses."""
    loader = DataLoader(
        WholeProducts(data), args.per_device_batch_size, collate_fn=PairCollator(processor), **worker_options(1)
    )
    # Not by `accelerator.prepare`, which would make this loader a part of the checkpoints.
    loader = prepare_data_loader(
        loader, accelerator.device, accelerator.num_processes, accelerator.process_index, put_on_device=True
    )
    collected: dict[str, list[torch.Tensor]] = {}
    model.eval()
    try:
        for batch in tqdm(loader, "mining", leave=False, disable=not accelerator.is_local_main_process):
            with accelerator.autocast():
                query_embeds, product_embeds = encode_chunks(model, batch)
            parts = {"query_embeds": query_embeds.float(), "product_embeds": product_embeds.float()}
            parts |= {name: batch[name] for name in ("product_ids", "query_ids")}
            for name, value in accelerator.gather_for_metrics(parts).items():
                collected.setdefault(name, []).append(value)
    finally:
        model.train()
    # Every process searches for all rows: one product of matrices, against the whole encoding above.
    found = find_near_misses(
        **{name: torch.cat(values) for name, values in collected.items()},
        count=4 * args.hard_negatives,
        margin=args.hard_negative_margin,
    )
    sampler.near_misses, sampler.mined_in = found.cpu(), progress.epoch
    share = float((found >= 0).any(1).float().mean())
    accelerator.print(f"Epoch {progress.epoch}: near misses found for {share:.0%} of {len(found)} products.")


def out_of_patience(progress: Progress, args: RunArguments) -> bool:
    patience = args.early_stopping_patience
    return bool(patience) and progress.checks_without_gain >= (patience or 0)


def suggest_learning_rate(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: DataLoader,
    args: RunArguments,
    accelerator: Accelerator,
    ranked: RankedProducts | None,
) -> dict[str, float]:
    """Runs the learning-rate range test in place of training. Returns the suggested factor of all rates given."""

    def step(batch: dict[str, Any]) -> float:
        values = forward_and_backward(model, batch, args, accelerator, args.adversarial_strength, ranked)
        accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return values["loss"].item()

    batches = chain.from_iterable(repeat(train_loader))
    steps = args.find_learning_rate or 0
    factor = find_learning_rate(batches, step, optimizer, steps, args.output_dir, accelerator)
    trained = ("learning_rate", "image_learning_rate", "query_learning_rate", "head_learning_rate")
    names = [name for name in trained if getattr(args, name) and not (args.stage == "queries" and name in OF_PRODUCTS)]
    rates = " ".join(f"--{name} {getattr(args, name) * factor:.2g}" for name in names)
    accelerator.print(f"The loss falls fastest at {factor:.2g} times the rates given: {rates}")
    accelerator.print(f"The curve is in {args.output_dir}/learning_rate.png.")
    return {"factor": factor}


# ----------------------------------------------------------------------------------------------------------------------
# Validation
# ----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def validate(
    inner: torch.nn.Module,
    loader: DataLoader,
    stage: str,
    accelerator: Accelerator,
    everything: RankedProducts | None = None,
) -> dict[str, float]:
    """Metrics on the validation split, drawn the same way every time. `score` is what picks the best model.

    Fine-tuning: capped recall@10 of each query among all validation products, apart for titles (the product shows its
    photo alone) and for other queries; the score is their mean. The stage of queries: the same among `everything`, the
    products trained against and then those of the validation split. Pre-training: the losses; the score is minus the
    loss.
    """
    inner.eval()
    try:
        if stage == "pretrain":
            sums: dict[str, float] = {}
            for batch in loader:
                with accelerator.autocast():
                    outputs = inner(**to_device(batch, accelerator.device))
                for name in ("loss", "mlm_loss", "patch_loss", "matching_loss"):
                    sums[name] = sums.get(name, 0.0) + float(outputs.get(name, 0.0)) / len(loader)
            return broadcast_object_list([{**sums, "score": -sums["loss"]}])[0]
        if everything is not None:
            return broadcast_object_list([rank_queries(inner, loader, accelerator, everything)])[0]
        collected: dict[str, list[torch.Tensor]] = {}
        for batch in loader:
            batch = to_device(batch, accelerator.device)
            with accelerator.autocast():
                query_embeds, product_embeds = encode_chunks(inner, batch)
            batch |= {"query_embeds": query_embeds.float(), "product_embeds": product_embeds.float()}
            for name, value in batch.items():
                if name not in ("chunks", "query_order", "product_order"):
                    collected.setdefault(name, []).append(value)
        whole = {name: torch.cat(values) for name, values in collected.items()}
        query_embeds, product_embeds = whole.pop("query_embeds"), whole.pop("product_embeds")
        from_title = whole.pop("from_titles").bool()
        recall = capped_recall(query_embeds @ product_embeds.t(), find_positives(**whole), k=10)
        metrics = mean_recalls(recall, from_title)
        metrics["modality_gap"] = float(modality_gap(query_embeds, product_embeds))
        # Every process computes all of it; the main one's numbers count, so that all agree on what is best.
        return broadcast_object_list([metrics])[0]
    finally:
        inner.train()


def rank_queries(
    inner: torch.nn.Module, loader: DataLoader, accelerator: Accelerator, everything: RankedProducts
) -> dict[str, float]:
    """The metrics of [`validate`] in the stage of queries, which are drawn from the products joined last."""
    embeds, recalls, from_titles = [], [], []
    for batch in loader:
        for chunk in to_device(batch["chunks"], accelerator.device):
            with accelerator.autocast():
                outputs = inner.acebert.get_text_features(chunk["query_input_ids"], chunk["query_attention_mask"])
            embeds.append(outputs.pooler_output.float())
            products, answers = everything.ranked_for(chunk)
            recalls.append(capped_recall(embeds[-1] @ products[0].t(), answers, k=10))
            from_titles.append(chunk["from_title"].bool())
    metrics = mean_recalls(torch.cat(recalls), torch.cat(from_titles))
    return metrics | {"modality_gap": float(modality_gap(torch.cat(embeds), everything.vectors[0][0]))}


def mean_recalls(recall: torch.Tensor, from_title: torch.Tensor) -> dict[str, float]:
    """Means of (queries,) recalls, apart for titles and for other queries, and the `score`: their mean."""
    parts = {"title_to_image_recall@10": recall[from_title], "query_to_product_recall@10": recall[~from_title]}
    metrics = {name: float(values.mean()) for name, values in parts.items() if len(values)}
    return metrics | {"score": sum(metrics.values()) / len(metrics)}


def to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return [to_device(value, device) for value in batch]


# ----------------------------------------------------------------------------------------------------------------------
# The model's folder
# ----------------------------------------------------------------------------------------------------------------------


def save_model(
    model: torch.nn.Module, processor: AceBertProcessor, args: RunArguments, accelerator: Accelerator
) -> None:
    """Model and processor as a complete Hub folder, in `--output_dir` itself."""
    if accelerator.is_main_process:
        # A copy of the whole model, not of its tensors one by one, keeps tied weights tied: they are saved once.
        dtype = getattr(torch, args.save_dtype)
        saved = copy.deepcopy(model).to("cpu", dtype)
        saved.config.text_config.dtype = saved.config.query_config.dtype = dtype
        unfinished = Path(args.output_dir, f"model{UNFINISHED}")
        with writing("The model", args.output_dir, unfinished):
            saved.save_pretrained(unfinished)
            processor.save_pretrained(unfinished)
            replace_model(unfinished, Path(args.output_dir))
    accelerator.wait_for_everyone()


def create_repository(args: RunArguments) -> str:
    name = args.hub_model_id or Path(args.output_dir).resolve().name
    try:
        return open_repository(HfApi(), name, "model", args.hub_private_repo or None)
    except PublishError as error:
        raise SystemExit(f"--push_to_hub: {error}") from error


def push_to_hub(repository: str, args: RunArguments) -> None:
    """Publishes the model with a card written from the run."""
    folder = Path(args.output_dir)
    card = partial(write_card, repository, read_stages(folder), None, flags=default_settings())
    try:
        published = publish_model(
            HfApi(), folder, repository, lambda revision: card(revision=revision), message=f"Publish after {args.stage}"
        )
    except (PublishError, ValueError) as error:
        raise SystemExit(
            f"{error}\nThe model is whole in {folder}. `python publish.py --model_dir {folder} --repo_id {repository}` "
            "publishes it."
        ) from error
    print(f"Pushed to {repository}: load it with revision={published.revision!r}.")


def default_settings() -> dict[str, Any]:
    """What each flag is where it isn't given."""
    every = [f for arguments in (ModelArguments, DataArguments, RunArguments) for f in fields(arguments)]
    return {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in every}


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_warning()
    main()
