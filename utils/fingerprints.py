"""SHA-256 fingerprints, by which a later run knows what a file, a cache or a checkpoint was made of.

Files on disk name these values: a change to any of the functions makes their caches, catalogues and runs unknown.
"""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, Image, List
from transformers import PreTrainedModel, ProcessorMixin

HASHED_ROWS = 2**16  # at a time


# ----------------------------------------------------------------------------------------------------------------------
# Files and values
# ----------------------------------------------------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def content_sha256(content: str | bytes) -> str:
    """Of bytes, or of a text in UTF-8."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def json_sha256(value: Any, **options: Any) -> str:
    """Of a value as `json.dumps` writes it with these options."""
    return content_sha256(json.dumps(value, **options))


# ----------------------------------------------------------------------------------------------------------------------
# Models
# ----------------------------------------------------------------------------------------------------------------------


# Prefixes that wrappers (torch.compile, PEFT) add are ignored.
PRODUCT_SIDE = re.compile(r"\bproduct_(encoder|projection)\..*")


def weights_sha256(model: PreTrainedModel, exact: bool = False) -> str:
    """Of a model's weights, rounded to bfloat16: a checkpoint is the same loaded in float32 or in bfloat16.

    Args:
        model: the model.
        exact: don't round, so that a checkpoint and its copy in bfloat16 differ.
    """
    return _tensors_sha256(model.state_dict(), exact)


def product_weights_sha256(model: PreTrainedModel, exact: bool = False) -> str:
    """Of the weights that make product vectors: checkpoints that differ in their query side share it.

    Args:
        model: an `AceBertModel`, or one that wraps it, as `torch.compile` and PEFT do. An `OnnxAceBertModel` has the
            fingerprint of the checkpoint that it was exported from.
        exact: see [`weights_sha256`].

    Raises:
        ValueError: for a model without a product side.
    """
    if hasattr(model, "source_product_weights_sha256"):
        return model.source_product_weights_sha256
    found = ((PRODUCT_SIDE.search(name), tensor) for name, tensor in model.state_dict().items())
    weights = {match.group(): tensor for match, tensor in found if match}
    if not weights:
        raise ValueError(f"{type(model).__name__} has no product encoder: give an AceBertModel.")
    return _tensors_sha256(weights, exact)


def _tensors_sha256(tensors: Mapping[str, torch.Tensor], exact: bool) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu()
        values = (values if exact else values.bfloat16()).float().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def processor_sha256(processor: ProcessorMixin) -> str:
    """Of the processor's settings and vocabulary, wherever its code was loaded from."""
    settings = json.loads(processor.to_json_string())
    for part in (settings, settings["image_processor"]):
        part.pop("auto_map", None)
    vocabulary = sorted(processor.tokenizer.get_vocab().items())
    return json_sha256([settings, vocabulary], sort_keys=True)


def code_sha256(*objects: Any) -> str:
    """Of the source files that define the objects' classes."""
    files = sorted({inspect.getfile(type(each)) for each in objects})
    return content_sha256(b"".join(Path(file).read_bytes() for file in files))


# ----------------------------------------------------------------------------------------------------------------------
# Products
# ----------------------------------------------------------------------------------------------------------------------


def products_sha256(products: Dataset) -> str:
    """Of the rows of a dataset of products, or of a selection of them, in their order.

    Of a selection, the rows that were left out may count, too. Photos count by their file name and the size of their
    embedded bytes, since reading them all would take too long: a change that keeps both is not noticed. Photos in files
    of their own count by name alone.
    """
    digest = hashlib.sha256()
    for name, feature in sorted(products.features.items()):
        column = products.data.column(name)
        digest.update(f"{name} {len(column)}".encode())
        for part in _parts_to_hash(column, feature):
            for start in range(0, len(part), HASHED_ROWS):
                values = part.slice(start, HASHED_ROWS).to_pylist()
                digest.update(json.dumps(values, default=str).encode())
    if products._indices is not None:  # there is no public way to the rows that `Dataset.select` chose
        digest.update(json.dumps(products._indices.column(0).to_pylist()).encode())
    return digest.hexdigest()


def _parts_to_hash(column: pa.ChunkedArray, feature: Any) -> list[pa.ChunkedArray]:
    """A column as it is; of photos the sizes of their bytes and their files' names, and how many each list has."""
    if isinstance(feature, List) and isinstance(feature.feature, Image):
        return [pc.list_value_length(column), *_parts_to_hash(pc.list_flatten(column), feature.feature)]
    if not isinstance(feature, Image):
        return [column]
    names = pc.replace_substring_regex(pc.struct_field(column, "path"), r"(?s)^.*/", "")
    return [pc.binary_length(pc.struct_field(column, "bytes")), names]


def corpus_sha256(ids: Sequence[str], titles: Sequence[str | None]) -> str:
    """Of the products that are ranked, without their photos: the same on every machine."""
    return json_sha256([ids, titles])


def photos_sha256(photos: Iterable[Mapping[str, Any] | list[Mapping[str, Any]] | None]) -> str:
    """Of the photos' bytes; of path, size and time of change for photos in files of their own.

    Args:
        photos: each {"bytes": ..., "path": ...} as `datasets` holds them, a list of a product's several, None for a
            product without one.
    """
    digest = hashlib.sha256()
    for photo in photos:
        if isinstance(photo, list):
            digest.update(f"{len(photo)} photos {photos_sha256(photo)}".encode())
            continue
        if photo is None or photo.get("bytes") is not None:
            content = b"" if photo is None else photo["bytes"]
        else:
            content = photo["path"].encode()
            if os.path.exists(photo["path"]):
                status = os.stat(photo["path"])
                content += f" {status.st_size} {status.st_mtime_ns}".encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def plan_sha256(settings: Mapping[str, Any], num_rows: int, columns: Iterable[Sequence[Any]]) -> str:
    """Of a catalogue to build: tells whether an unfinished build has the same settings and products.

    Args:
        settings: of the catalogue.
        num_rows: products that are encoded.
        columns: ids, titles and attributes of all rows. Photos are not looked at.
    """
    digest = hashlib.sha256(json.dumps([settings, num_rows], sort_keys=True, default=str).encode())
    for values in columns:
        digest.update(json.dumps(values, default=str).encode())
    return digest.hexdigest()
