"""One process that encodes queries and products, safe in several threads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from acebert.data.batching import split_by_length
from acebert.utils.fingerprints import processor_sha256, product_weights_sha256


class ProductEncoder:
    """A model and its processor, from words, photos and products to unit vectors. Threads may share one.

    Args:
        model: an `AceBertModel`.
        processor: the `AceBertProcessor` that came with it.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        self.model, self.processor = model.eval(), processor

    @property
    def dim(self) -> int:
        return self.model.config.projection_dim

    def describe(self) -> dict[str, str | None]:
        """Name, revision, precision and fingerprints, as a catalogue remembers them."""
        return {
            "name": self.model.config._name_or_path or None,
            "revision": getattr(self.model.config, "_commit_hash", None),
            # An OnnxAceBertModel says it itself.
            "precision": getattr(self.model, "precision", None) or str(self.model.dtype).removeprefix("torch."),
            "product_weights_sha256": product_weights_sha256(self.model),
            "processor_sha256": processor_sha256(self.processor),
        }

    @torch.inference_mode()
    def encode_queries(self, texts: Sequence[str] | None, photos: Sequence[Any] | None) -> np.ndarray:
        """(queries, dim) float32 unit vectors of words or photos; of both, the unit vector of their mean."""
        vectors = []
        if texts is not None:
            inputs = self.processor.process_queries(list(texts), return_tensors="pt")
            vectors.append(self.model.get_text_features(**inputs.to(self.model.device)).pooler_output)
        if photos is not None:
            inputs = self.processor.image_processor(list(photos), return_tensors="pt")
            vectors.append(self.model.get_image_features(**inputs.to(self.model.device)).pooler_output)
        mean = torch.stack(vectors).float().mean(0)
        return torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()

    def encode_products(
        self, titles: Sequence[str | None], photos: Sequence[Any | None], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As [`ProductEncoder.encode`], of products that each have a title, a photo or both."""
        return self.encode(prepare(self.processor, titles, photos), names)

    def encode(
        self, inputs: Mapping[str, torch.Tensor], names: Sequence[str], batch_size: int | None = None
    ) -> dict[str, np.ndarray]:
        """Product vectors of prepared inputs.

        Args:
            inputs: of [`prepare`].
            names: "product" for title and photo together, "title" and "image" for either side alone.
            batch_size: products in a forward pass, which are then of about equal length; all at once by default.

        Returns:
            Name to (products, dim) float32, in half precision as the catalogue keeps them; a row of NaN where a product
            lacks the side.
        """
        if batch_size is None:
            return self._encode_batch(inputs, names)
        rows, batches = zip(*split_by_length(inputs, batch_size), strict=True)
        encoded = [self._encode_batch(batch, names) for batch in batches]
        order = torch.cat(rows).argsort().numpy()
        return {name: np.concatenate([vectors[name] for vectors in encoded])[order] for name in names}

    @torch.inference_mode()
    def _encode_batch(self, inputs: Mapping[str, torch.Tensor], names: Sequence[str]) -> dict[str, np.ndarray]:
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        text = {name: tensor for name, tensor in inputs.items() if name in ("input_ids", "attention_mask")}
        image = {name: tensor for name, tensor in inputs.items() if name not in text}
        none = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.bool, device=self.model.device)
        # [CLS] [SEP] alone is the title of a product that has none.
        shown = {"title": inputs["attention_mask"].sum(1) > 2 if text else none}
        shown["image"] = inputs["pixel_attention_mask"].any(1) if image else none
        vectors = {}
        for name in names:
            if name == "product":
                vectors[name] = self._encode_unit(inputs)
                continue
            side = {key: tensor[shown[name]] for key, tensor in (text if name == "title" else image).items()}
            vectors[name] = torch.full((len(shown[name]), self.dim), torch.nan, device=self.model.device)
            if shown[name].any():
                vectors[name][shown[name]] = self._encode_unit(side)
        return {name: tensor.half().float().cpu().numpy() for name, tensor in vectors.items()}

    def _encode_unit(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        # A vector of bfloat16 is of unit length only to 0.2 %, by which readers of the files would rank some too high.
        vectors = self.model.get_product_features(**inputs).pooler_output.float()
        return torch.nn.functional.normalize(vectors, dim=-1)


def prepare(
    processor: ProcessorMixin, titles: Sequence[str | None], photos: Sequence[Any | None]
) -> dict[str, torch.Tensor]:
    """Model inputs of products, each with a title, a photo or both."""
    return dict(processor.process_products(list(titles), list(photos), return_tensors="pt"))


def find_title_error(processor: ProcessorMixin, title: str) -> str | None:
    """Why the processor can't read a title, None if it can."""
    try:
        processor.process_products([title])
    except ValueError as error:
        return str(error).removeprefix("title[0] ")
    return None
