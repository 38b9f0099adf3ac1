"""The query encoder as a plain sentence-transformers folder, for engines that run no remote code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

# By the names that sentence-transformers has always read, and other engines look for.
MODULE = "sentence_transformers.models"


def write_query_encoder(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Writes the folder: BERT, pooling, projection (where the model has one) and unit length, in float32.

    `SentenceTransformer(folder)` gives the vectors of [`AceBertModel.get_text_features`], and so does every engine that
    reads such folders. One difference stays: a query that spells a special token, as "[SEP]", is plain text to the
    processor and that token to others.

    Args:
        model: an `AceBertModel`.
        processor: the `AceBertProcessor` that came with it.
        folder: to write to; it must be empty or not exist.

    Raises:
        FileExistsError: for a folder that holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: choose another folder.")
    bert, projection = model.query_encoder, model.query_projection
    if bert is None:  # one encoder for both sides
        bert, projection = model.product_encoder.bert, model.product_projection
    state = {name: value.detach().float().contiguous().cpu() for name, value in bert.state_dict().items()}
    # No pooling here uses BERT's own pooler, but a `BertModel` has one, and would warn that it is missing.
    width = bert.config.hidden_size
    state |= {"pooler.dense.weight": torch.zeros(width, width), "pooler.dense.bias": torch.zeros(width)}
    folder.mkdir(parents=True, exist_ok=True)
    # `save_pretrained` would need a copy of the model to write another type than its own.
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = bert.config.to_dict() | {"architectures": ["BertModel"], "dtype": "float32"}
    _write(folder / "config.json", {name: value for name, value in config.items() if name != "_name_or_path"})
    limit = processor.tokenizer.model_max_length
    processor.tokenizer.model_max_length = processor.query_max_length
    try:
        processor.tokenizer.save_pretrained(folder)
    finally:
        processor.tokenizer.model_max_length = limit
    # The checkpoint's own names its processor's code, which isn't here.
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name in ("auto_map", "processor_class"):
        tokenizer_config.pop(name, None)
    _write(folder / "tokenizer_config.json", tokenizer_config)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": processor.query_max_length, "do_lower_case": False})

    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modes = {
        f"pooling_mode_{mode}": False for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    }
    modes["pooling_mode_cls_token" if model.config.pooling == "cls" else "pooling_mode_mean_tokens"] = True
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if isinstance(projection, nn.Linear):
        modules.append(("2_Dense", "Dense"))
        sizes = {"in_features": projection.in_features, "out_features": projection.out_features, "bias": False}
        identity = "torch.nn.modules.linear.Identity"
        _write(folder / "2_Dense" / "config.json", {**sizes, "activation_function": identity})
        weight = projection.weight.detach().to(torch.float32).contiguous().cpu()
        save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors", {"format": "pt"})
    modules.append((f"{len(modules)}_Normalize", "Normalize"))
    (folder / modules[-1][0]).mkdir()
    _write(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"{MODULE}.{name}"}
            for number, (path, name) in enumerate(modules)
        ],
    )
    _write(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
