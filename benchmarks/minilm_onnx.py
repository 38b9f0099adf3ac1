"""all-MiniLM-L6-v2 in ONNX Runtime: the peer of our own export, made and quantised in the same way.

sentence-transformers' own ONNX backend needs optimum, which doesn't install beside this project's versions.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from acebert.encoding.onnx_export import OPSET, quantize_encoder


class MeanPooled(nn.Module):
    """Ids and mask (batch, tokens) to unit vectors (batch, 384): what the model's modules do one after another."""

    def __init__(self, model: SentenceTransformer):
        super().__init__()
        self.bert = model[0].auto_model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


class OnnxMiniLM:
    """Its tokenizer and a session.

    Args:
        model: in PyTorch.
        folder: to write `float32.onnx` and `int8.onnx` to; kept where they are there.
        precision: "float32" or "int8".
        num_threads: of a session.
    """

    def __init__(self, model: SentenceTransformer, folder: Path, precision: str, num_threads: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = model.tokenizer
        exact, file = folder / "float32.onnx", folder / f"{precision}.onnx"
        if not exact.exists():
            self._export(model, exact)
        if not file.exists():
            quantize_encoder("query", exact, file)
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        self.session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    @staticmethod
    def _export(model: SentenceTransformer, file: Path) -> None:
        inputs = {"input_ids": torch.full((2, 5), 101), "attention_mask": torch.ones(2, 5).long()}
        torch.onnx.export(
            MeanPooled(model).eval(),
            f=file,
            kwargs=inputs,
            input_names=list(inputs),
            output_names=["embeds"],
            dynamic_shapes={name: {0: "batch", 1: "tokens"} for name in inputs},
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )

    def encode(self, texts: list[str]) -> np.ndarray:
        """(texts, 384) unit vectors."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, return_tensors="np")
        return self.session.run(None, {name: inputs[name] for name in ("input_ids", "attention_mask")})[0]
