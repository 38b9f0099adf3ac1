"""Tells checkpoints, processors and their code apart, also those that never were on the Hub."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin


def weights_sha256(model: PreTrainedModel, exact: bool = False, prefixes: tuple[str, ...] = ("",)) -> str:
    """Of the weights rounded to bfloat16: a checkpoint is the same whether it was loaded in float32 or in bfloat16.

    Args:
        model: whose weights.
        exact: not rounded, so that a checkpoint and its copy in bfloat16 differ.
        prefixes: of the names of the weights that count; all by default.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(prefixes):
            continue
        values = tensor.detach().cpu()
        values = (values if exact else values.bfloat16()).float().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def product_weights_sha256(model: PreTrainedModel) -> str:
    """Of an `AceBertModel`'s weights that make product vectors: checkpoints that differ in their query side share it.

    An `OnnxAceBertModel` has that of the checkpoint that it was exported from.
    """
    if hasattr(model, "source_product_weights_sha256"):
        return model.source_product_weights_sha256
    return weights_sha256(model, prefixes=("product_encoder.", "product_projection."))


def processor_sha256(processor: ProcessorMixin) -> str:
    """Of the settings for texts and photos, and of the vocabulary; wherever the code was loaded from."""
    settings = json.loads(processor.to_json_string())
    for part in (settings, settings["image_processor"]):
        part.pop("auto_map", None)
    vocabulary = sorted(processor.tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps([settings, vocabulary], sort_keys=True).encode()).hexdigest()


def code_sha256(*parts: Any) -> str:
    """Of the files that hold the parts' classes."""
    files = sorted({inspect.getfile(type(part)) for part in parts})
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
