"""Exports a checkpoint's encoders to ONNX, for CPUs in 8 bits, and checks that they still give the same vectors.

    python export_onnx.py --model_name_or_path . --output_dir build/onnx

The folder holds all that encoding needs; `OnnxAceBertModel` loads it. With a catalogue, the command also measures what
the export costs in recall (it needs the packages of an evaluation):

    python export_onnx.py --output_dir build/onnx \
        --measure_on ashraq/fashion-product-images-small --split validation
"""

import json
import logging
import platform
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from torch import nn
from transformers import AutoModel, AutoProcessor, HfArgumentParser, PreTrainedModel, ProcessorMixin

from acebert.encoding.onnx_model import IMAGE_INPUTS, PARTS, RECORD, OnnxAceBertModel, encoder_file
from acebert.utils.fingerprints import product_weights_sha256, weights_sha256

# The first version with an operator for attention, which ONNX Runtime runs as one kernel.
OPSET = 23
# Weights of the query encoder that share one scale; with 128 the first ten products change a little more.
BLOCK_SIZE = 32
# What may lie between an export and its checkpoint: the largest difference of a number, the smallest cosine.
TOLERANCES = {"float32": (1e-4, 0.999999), "int8": (0.1, 0.98)}


@dataclass
class ExportArguments:
    """What to export, where to, and what to measure it on."""

    output_dir: str = field(metadata={"help": "Folder to make."})
    model_name_or_path: str = field(default=".", metadata={"help": "Checkpoint: a folder or a Hub id."})
    revision: str | None = field(default=None, metadata={"help": "The checkpoint's branch, tag or commit on the Hub."})
    parts: list[str] = field(
        default_factory=lambda: list(PARTS), metadata={"help": "Encoders to export.", "choices": list(PARTS)}
    )
    quantize: Literal["int8", "none"] = field(
        default="int8", metadata={"help": "int8: write the encoders in 8 bits too. none: in float32 alone."}
    )
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Replace the export that the folder holds."})

    measure_on: str | None = field(
        default=None, metadata={"help": "Catalogue to measure recall on: a Hub id, folder or file."}
    )
    split: str = field(default="validation", metadata={"help": "Its splits, joined by '+'."})
    id_column: str = field(default="id", metadata={"help": "Column of the product id."})
    title_column: str = field(default="productDisplayName", metadata={"help": "Column of the title."})
    image_column: str = field(default="image", metadata={"help": "Column of the photo."})
    query_templates: list[str] = field(
        default_factory=lambda: ["{gender} {baseColour} {articleType}", "{usage} {articleType}", "{subCategory}"],
        metadata={"help": "Templates of short queries, in the catalogue's attributes."},
    )
    num_queries: int = field(default=1000, metadata={"help": "Template queries at most."})
    batch_size: int = field(default=64, metadata={"help": "Queries or products in a forward pass."})


# ----------------------------------------------------------------------------------------------------------------------
# Export
# ----------------------------------------------------------------------------------------------------------------------


class QueryEncoder(nn.Module):
    """The query side as a function of tensors: (batch, tokens) to (batch, projection_dim)."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(input_ids, attention_mask).pooler_output


class ProductEncoder(nn.Module):
    """The product side likewise, of title and photo; a missing one is `[CLS] [SEP]` or masked patches."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor,
        spatial_shapes: torch.Tensor,
        pixel_position_ids: torch.Tensor,
    ) -> torch.Tensor:
        return self.model.get_product_features(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            pixel_attention_mask=pixel_attention_mask,
            spatial_shapes=spatial_shapes,
            pixel_position_ids=pixel_position_ids,
        ).pooler_output


def export_encoder(part: str, model: PreTrainedModel, path: Path) -> None:
    """Writes one encoder in float32, for batches, texts and photos of any size."""
    config = model.config
    inputs = {"input_ids": torch.full((2, 5), config.cls_token_id), "attention_mask": torch.ones(2, 5).long()}
    if part == "product":
        width = config.patch_size**2 * config.num_channels
        patches = (torch.zeros(2, 6, width), torch.ones(2, 6).long(), torch.tensor([[2, 3]] * 2))
        inputs |= dict(zip(IMAGE_INPUTS, (*patches, torch.arange(6).repeat(2, 1)), strict=True))
    axes = {name: {0: "batch", 1: "patches"} for name in IMAGE_INPUTS} | {"spatial_shapes": {0: "batch"}}
    encoder = QueryEncoder(model) if part == "query" else ProductEncoder(model)
    with warnings.catch_warnings():
        # That axes of one name are one axis, and what PyTorch's own code finds deprecated in PyTorch.
        warnings.filterwarnings("ignore", message=".*axis name.*will not be used", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated", category=FutureWarning)
        torch.onnx.export(
            encoder.eval(),
            f=path,
            kwargs=inputs,
            input_names=list(inputs),
            output_names=["embeds"],
            dynamic_shapes={name: axes.get(name, {0: "batch", 1: "tokens"}) for name in inputs},
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )


def quantize_encoder(part: str, source: Path, target: Path) -> None:
    """Writes an encoder in 8 bits: the tables of embeddings, the weights, and the activations on the fly.

    A query is a few tokens and comes alone: its weights and activations have a scale for each block, so that the few
    wide channels of BERT's layers (Bondarenko et al. 2021, arXiv 2109.12948) coarsen only their own block. Products
    come in batches, for which that is slower than float32: their weights have a scale for each channel, and a batch's
    activations one. There the weights have 7 bits, since sums of 8 overflow on CPUs without VNNI.
    """
    is_query = part == "query"
    encoder = onnx.load(source)
    # The quantizer infers the shapes anew. That of ONNX Runtime 1.23 transposes weights, and fails on the old ones.
    del encoder.graph.value_info[:]
    quantize_dynamic(
        encoder,
        target,
        op_types_to_quantize=["Gather"] if is_query else ["Gather", "MatMul"],
        weight_type=QuantType.QInt8,
        per_channel=not is_query,
        reduce_range=not is_query,
        extra_options={"WeightSymmetric": True, "MatMulConstBOnly": True},
    )
    if is_query:
        settings = DefaultWeightOnlyQuantConfig(
            bits=8,
            block_size=BLOCK_SIZE,
            is_symmetric=True,
            accuracy_level=4,  # multiply in 8 bits, too
            op_types_to_quantize=("MatMul",),
        )
        quantizer = MatMulNBitsQuantizer(onnx.load(target), algo_config=settings)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))


def write_export(
    args: ExportArguments, model: PreTrainedModel, processor: ProcessorMixin, folder: Path
) -> dict[str, Any]:
    """Writes the encoders, the configuration, the processor and, as it returns, the record of what they are of."""
    precisions = ["float32"] if args.quantize == "none" else ["float32", args.quantize]
    parts = [part for part in PARTS if part in args.parts]
    for part in parts:
        export_encoder(part, model, folder / encoder_file(part, "float32"))
        for precision in precisions[1:]:
            quantize_encoder(part, folder / encoder_file(part, "float32"), folder / encoder_file(part, precision))
    # The configuration alone, for `AutoModel` finds no weights here.
    config = model.config.to_dict()
    config.pop("auto_map", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    processor.save_pretrained(folder)
    record = {
        "parts": parts,
        "precisions": precisions,
        "model": args.model_name_or_path,
        "revision": getattr(model.config, "_commit_hash", None) or args.revision,
        "weights_sha256": weights_sha256(model),
        "product_weights_sha256": product_weights_sha256(model),
        "opset": OPSET,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


# ----------------------------------------------------------------------------------------------------------------------
# Parity
# ----------------------------------------------------------------------------------------------------------------------


def parity_inputs(processor: ProcessorMixin, part: str) -> dict[str, dict[str, torch.Tensor]]:
    """Batches by name: of one and of several, of short and long texts, of products with a title, a photo or both."""
    rng = np.random.default_rng(0)
    sentence = "red striped t-shirt for men, blue cotton summer dress with long sleeves"
    texts = ["watch", "blue t-shirt", sentence, f"{sentence} and {sentence}"]
    if part == "query":
        batches = {"one word": texts[:1], "one query": texts[1:2], "three queries": texts[:3]}
        return {name: processor.process_queries(batch, return_tensors="pt") for name, batch in batches.items()}
    product = np.full((80, 60, 3), 255, np.uint8)
    product[10:70, 15:45] = rng.integers(0, 200, (60, 30, 3))
    photos = [product, rng.integers(0, 256, (40, 120, 3), np.uint8), rng.integers(0, 256, (1, 1, 3), np.uint8)]
    batches = {
        "one product": (texts[1:2], photos[:1]),
        "four products": (texts, [*photos, photos[0]]),
        "title alone": (texts[2:3], None),
        "titles alone": (texts, None),
        "photo alone": (None, photos[:1]),
        "photos alone": (None, photos),
        "some of each": ([texts[0], None, texts[3], texts[1]], [None, *photos]),
    }
    return {
        name: processor.process_products(titles, images, return_tensors="pt")
        for name, (titles, images) in batches.items()
    }


def check_parity(model: PreTrainedModel, exported: OnnxAceBertModel, processor: ProcessorMixin) -> list[dict[str, Any]]:
    """Compares an export with its checkpoint, and prints how near each encoder is.

    Raises:
        ValueError: where a vector is further away than its precision explains, or has another length than 1.
    """
    results = []
    allowed_difference, allowed_cosine = TOLERANCES[exported.precision]
    for part in exported.sessions:
        name = "get_text_features" if part == "query" else "get_product_features"
        worst = {"difference": 0.0, "cosine": 1.0}
        for batch, inputs in parity_inputs(processor, part).items():
            with torch.inference_mode():
                expected = getattr(model, name)(**inputs).pooler_output
            given = getattr(exported, name)(**inputs).pooler_output
            difference = (given - expected).abs().max().item()
            cosine = nn.functional.cosine_similarity(given, expected).min().item()
            length = given.norm(dim=1)
            # Written so that a NaN fails, too.
            if not (difference <= allowed_difference and cosine >= allowed_cosine and (length - 1).abs().max() < 1e-3):
                raise ValueError(
                    f"The {part} encoder in {exported.precision} is not the checkpoint's: on {batch!r} its vectors "
                    f"differ by up to {difference:.2g} ({allowed_difference:g} are allowed), their smallest cosine is "
                    f"{cosine:.6f} ({allowed_cosine:g} is needed). Nothing was written. Other versions of torch, onnx "
                    "or onnxruntime may do better, as may --quantize none."
                )
            worst = {"difference": max(worst["difference"], difference), "cosine": min(worst["cosine"], cosine)}
        results.append({"part": part, "precision": exported.precision, **worst})
        size = (exported.folder / encoder_file(part, exported.precision)).stat().st_size / 1e6
        print(
            f"{part} encoder, {exported.precision}: {size:.0f} MB, largest difference {worst['difference']:.1e}, "
            f"smallest cosine {worst['cosine']:.6f}"
        )
    return results


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def check_output_dir(args: ExportArguments) -> Path:
    """The folder to make; nothing but an export is ever replaced."""
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        if not (folder / RECORD).exists():
            raise FileExistsError(f"--output_dir {folder} is not empty and holds no export: choose another folder.")
        if not args.overwrite_output_dir:
            raise FileExistsError(f"--output_dir {folder} holds an export: replace it with --overwrite_output_dir.")
    return folder


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the export.

    Args:
        argv: command-line arguments; those of the process by default.

    Returns:
        What `export.json` holds.
    """
    (args,) = HfArgumentParser(ExportArguments).parse_args_into_dataclasses(argv)
    # Importing ONNX Runtime's quantizer makes every library log every step.
    for name in (None, "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    output_dir = check_output_dir(args)
    tasks = []
    if args.measure_on:
        # Here, because only this needs what an evaluation needs; and first, because the catalogue may not fit.
        from acebert.evaluation.onnx_recall import load_tasks, measure_recall, to_markdown

        columns = (args.id_column, args.title_column, args.image_column)
        tasks = load_tasks(args.measure_on, args.split.split("+"), columns, args.query_templates, args.num_queries)
    options = {"revision": args.revision, "trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(args.model_name_or_path, **options)
    model = AutoModel.from_pretrained(
        args.model_name_or_path, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, **options
    ).eval()

    # A folder beside the one to make, so that it is there whole or not at all.
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}-", dir=output_dir.parent) as temporary:
        folder = Path(temporary) / output_dir.name
        folder.mkdir()
        record = write_export(args, model, processor, folder)
        exported = {precision: OnnxAceBertModel(folder, precision) for precision in record["precisions"]}
        record["parity"] = [row for one in exported.values() for row in check_parity(model, one, processor)]
        if tasks:
            record["recall"] = measure_recall(tasks, model, exported, processor, args.batch_size)
            print(to_markdown(record["recall"]))
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if output_dir.exists():
            shutil.rmtree(output_dir)
        folder.rename(output_dir)
    print(f"The export is in {output_dir}.")
    return record


if __name__ == "__main__":
    main()
