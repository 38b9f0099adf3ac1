"""Cross-modal pre-training of the product encoder."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from acebert.data.collators import MaskingCollator
from acebert.data.pairs import PairDataset, PretrainingDataset
from acebert.modeling_acebert import AceBertForPreTraining
from acebert.processing_acebert import AceBertProcessor
from acebert.training.arguments import PretrainingArguments
from acebert.training.loading import Model, build_model, load_checkpoint
from acebert.training.stages.base import Stage

LOSSES = ("loss", "mlm_loss", "patch_loss", "matching_loss")


class Pretraining(Stage[PretrainingArguments]):
    """Masked words, masked patches, and whether photo and hot query are the product's own."""

    summary = "cross-modal pre-training of the product encoder: masked words and patches, product matching"
    arguments = PretrainingArguments
    model_class = AceBertForPreTraining
    dataset_class = PretrainingDataset
    learns_from_pairs = False

    def dataset_options(self, is_training: bool) -> dict[str, float]:
        return self.args.photo_options() if is_training else {}

    def make_collator(self, data: PairDataset, is_training: bool) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        args = self.args
        probabilities = (args.mlm_probability, args.patch_mask_probability, args.mismatch_probability)
        return MaskingCollator(self.processor, data, *probabilities, args.seed)

    def load_model_and_processor(self) -> tuple[Model, AceBertProcessor]:
        load = load_checkpoint if self.args.model_name_or_path else build_model
        return load(self.args, self.model_class, label_smoothing=self.args.label_smoothing)

    def is_trainable(self, name: str) -> bool:
        """The query side takes no part; it goes through unchanged."""
        return name.startswith("acebert.product_encoder.") or not name.startswith("acebert.")

    def learning_rates(self) -> dict[str, float]:
        args = self.args
        return {
            ".image_embeddings.": args.image_learning_rate,
            "product_encoder.": args.learning_rate,
            "": args.head_learning_rate,
        }

    def backward(self, model: torch.nn.Module, batch: dict[str, Any], done: float) -> dict[str, torch.Tensor]:
        outputs = model(**batch)
        self.accelerator.backward(outputs.loss)
        return {name: outputs[name] for name in LOSSES if name in outputs}

    def validate(self, model: Model, loader: DataLoader) -> dict[str, float]:
        """The losses; the score is minus their sum."""
        sums = dict.fromkeys(LOSSES, 0.0)
        for batch in loader:
            with self.accelerator.autocast():
                outputs = model(**send_to_device(batch, self.accelerator.device))
            for name in LOSSES:
                sums[name] += float(outputs.get(name, 0.0)) / len(loader)
        return {**sums, "score": -sums["loss"]}
