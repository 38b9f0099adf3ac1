"""Exports a checkpoint's encoders to ONNX, in float32 and in 8 bits, and checks that they give the same vectors.

[`OnnxAceBertModel`] loads the folder that [`write_export`] writes. Needs `pip install "acebert[onnx]"`.
"""

import json
import logging
import platform
import warnings
from ast import literal_eval
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from acebert.encoding.onnx_model import IMAGE_INPUTS, PARTS, RECORD, OnnxAceBertModel, encoder_file
from acebert.utils.fingerprints import product_weights_sha256, weights_sha256

# The first version with an operator for attention, which ONNX Runtime runs as one kernel.
OPSET = 23
# Weights of a text encoder that share one scale; with 128 the first ten products change a little more.
BLOCK_SIZE = 32
# What may lie between an export and its checkpoint: the largest difference of a number, the smallest cosine.
TOLERANCES = {"float32": (1e-4, 0.999999), "int8": (0.1, 0.98)}


class _QueryGraph(nn.Module):
    """The query encoder as a function of tensors: (batch, tokens) to (batch, projection_dim)."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(input_ids, attention_mask).pooler_output


class _ProductGraph(nn.Module):
    """The product encoder likewise; a missing title is `[CLS] [SEP]`, a missing photo masked patches."""

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
    graph = _QueryGraph(model) if part == "query" else _ProductGraph(model)
    with warnings.catch_warnings():
        # That axes of one name are one axis, and what PyTorch's own code finds deprecated in PyTorch.
        warnings.filterwarnings("ignore", message=".*axis name.*will not be used", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated", category=FutureWarning)
        torch.onnx.export(
            graph.eval(),
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

    Texts are a few tokens: their weights and activations have a scale for each block, so that the few wide channels of
    BERT's layers (Bondarenko et al. 2021, arXiv 2109.12948) coarsen only their own block. Photos are many tokens, and
    products come in batches, for which that is slower than float32, and a Vision Transformer loses next to nothing
    without: its weights, and those of a BERT that reads title and photo in one stream, have a scale for each channel,
    and a batch's activations one. There the weights have 7 bits, since sums of 8 overflow on CPUs without VNNI.
    """
    is_query = part == "query"
    encoder = onnx.load(source)
    matrices = [node for node in encoder.graph.node if node.op_type == "MatMul"]
    of_photos = [node for node in matrices if _module_of(node).startswith("model.image_encoder")]
    in_blocks = [node.name for node in matrices if is_query or (of_photos and node not in of_photos)]
    # The quantizer infers the shapes anew. That of ONNX Runtime 1.23 transposes weights, and fails on the old ones.
    del encoder.graph.value_info[:]
    quantize_dynamic(
        encoder,
        target,
        op_types_to_quantize=["Gather", "MatMul"],
        nodes_to_exclude=in_blocks,
        weight_type=QuantType.QInt8,
        per_channel=not is_query,
        reduce_range=not is_query,
        extra_options={"WeightSymmetric": True, "MatMulConstBOnly": True},
    )
    if in_blocks:
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


def _module_of(node: onnx.NodeProto) -> str:
    """The path of the module that a node was traced in, as "model.image_encoder.layers.0"; "" for none."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
    path: list[str] = literal_eval(scopes)
    return path[-2] if len(path) > 1 else ""  # the last is the node's own name


@contextmanager
def errors_only(*names: str | None) -> Iterator[None]:
    """Silences warnings of the named loggers (None: the root) in its block.

    ONNX Runtime's quantizer makes every library log every step as soon as it is imported.
    """
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def write_export(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    folder: Path,
    *,
    parts: Sequence[str] = PARTS,
    quantize: bool = True,
    source: str = "",
    revision: str | None = None,
) -> dict[str, Any]:
    """Writes the encoders, the configuration, the processor and the record of what was exported.

    Args:
        model: an `AceBertModel` in float32, in evaluation mode.
        processor: the processor that came with it.
        folder: an empty folder.
        parts: encoders to export.
        quantize: also write them in 8 bits.
        source: folder or Hub id of the checkpoint, for the record.
        revision: its branch, tag or commit, where the configuration doesn't name the commit.

    Returns:
        The record, as in `export.json`.
    """
    precisions = ["float32", "int8"] if quantize else ["float32"]
    parts = [part for part in PARTS if part in parts]
    with errors_only(None, "torch.onnx"):
        for part in parts:
            export_encoder(part, model, folder / encoder_file(part, "float32"))
            if quantize:
                quantize_encoder(part, folder / encoder_file(part, "float32"), folder / encoder_file(part, "int8"))
    config = model.config.to_dict()
    # Without it `AutoModel` would look for the checkpoint's code here.
    config.pop("auto_map", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    processor.save_pretrained(folder)
    record = {
        "parts": parts,
        "precisions": precisions,
        "model": source,
        "revision": getattr(model.config, "_commit_hash", None) or revision,
        "weights_sha256": weights_sha256(model),
        "product_weights_sha256": product_weights_sha256(model),
        "opset": OPSET,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


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
    """Compares an export's vectors with its checkpoint's.

    Returns:
        For each encoder its `part`, `precision`, the largest `difference` of a number and the smallest `cosine`.

    Raises:
        ValueError: where a vector differs by more than its precision explains, or its length isn't 1.
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
                    f"{cosine:.6f} ({allowed_cosine:g} is needed). Other versions of torch, onnx "
                    "or onnxruntime may do better, as may --quantize none."
                )
            worst = {"difference": max(worst["difference"], difference), "cosine": min(worst["cosine"], cosine)}
        results.append({"part": part, "precision": exported.precision, **worst})
    return results
