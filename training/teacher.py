"""The untouched text backbone, to which fine-tuning is anchored."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

MAX_TOKENS = 64
BATCH_SIZE = 512  # texts in a forward pass


class TextTeacher:
    """A frozen sentence encoder: mean over the tokens of its last layer, unit length.

    Args:
        name_or_path: a BERT-like encoder, folder or Hub id.
        device: where it computes.

    Raises:
        ValueError: if it can't be loaded.
    """

    def __init__(self, name_or_path: str, device: torch.device):
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
            model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"The text teacher '{name_or_path[:80]}' can't be loaded ({str(error)[:200]}): name a folder or Hub id "
                "by --text_teacher, or train without an anchor: --text_teacher none."
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = device

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.model.config.hidden_size

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """(texts, dim) unit vectors in float32, on the teacher's device."""
        parts = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
        return torch.cat([self._encode(part) for part in parts])

    def _encode(self, texts: Sequence[str]) -> torch.Tensor:
        inputs = self.tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        inputs = inputs.to(self.device)
        hidden = self.model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None]
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
