"""SHA-256 of weights, processors, code and products, by which later runs know what they were made of."""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset, Image
from transformers import PreTrainedModel, ProcessorMixin

HASHED_ROWS = 2**16  # at a time


def products_sha256(products: Dataset) -> str:
    """Of the rows of [`load_products`], or of a selection of them, in their order.

    Of a selection, the rows that were left out may count, too. Photos count by their file name and the size of their
    embedded bytes, for the time that reading them all would take: one that changes and keeps both is not noticed. Files
    of their own count by name alone.
    """
    digest = hashlib.sha256()
    for name, feature in sorted(products.features.items()):
        column = products.data.column(name)
        parts = [column]
        if isinstance(feature, Image):
            parts = [pc.binary_length(pc.struct_field(column, "bytes")), pc.struct_field(column, "path")]
        digest.update(f"{name} {len(column)}".encode())
        for part in parts:
            for start in range(0, len(part), HASHED_ROWS):
                values = part.slice(start, HASHED_ROWS).to_pylist()
                if isinstance(feature, Image):
                    values = [os.path.basename(value) if isinstance(value, str) else value for value in values]
                digest.update(json.dumps(values, default=str).encode())
    if products._indices is not None:  # there is no public way to the rows that `Dataset.select` chose
        digest.update(json.dumps(products._indices.column(0).to_pylist()).encode())
    return digest.hexdigest()


# Whatever a wrapper puts before it.
PRODUCT_SIDE = re.compile(r"\bproduct_(encoder|projection)\..*")


def weights_sha256(model: PreTrainedModel, exact: bool = False) -> str:
    """Of the weights rounded to bfloat16: a checkpoint is the same whether it was loaded in float32 or in bfloat16.

    Args:
        model: whose weights.
        exact: not rounded, so that a checkpoint and its copy in bfloat16 differ.
    """
    return _sha256_of(model.state_dict(), exact)


def product_weights_sha256(model: PreTrainedModel, exact: bool = False) -> str:
    """Of the weights that make product vectors: checkpoints that differ in their query side share it.

    Args:
        model: an `AceBertModel`, or one that wraps it, as `torch.compile` and PEFT do. An `OnnxAceBertModel` has the
            fingerprint of the checkpoint that it was exported from.
        exact: as of [`weights_sha256`].

    Raises:
        ValueError: for a model without a product side.
    """
    if hasattr(model, "source_product_weights_sha256"):
        return model.source_product_weights_sha256
    found = ((PRODUCT_SIDE.search(name), tensor) for name, tensor in model.state_dict().items())
    weights = {match.group(): tensor for match, tensor in found if match}
    if not weights:
        raise ValueError(f"{type(model).__name__} has no product encoder: give an AceBertModel.")
    return _sha256_of(weights, exact)


def _sha256_of(weights: Mapping[str, torch.Tensor], exact: bool) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().cpu()
        values = (values if exact else values.bfloat16()).float().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


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
