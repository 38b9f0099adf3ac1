"""The loop by which everything is encoded, and an encoder of one process that is safe in several threads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from acebert.data.batching import split_by_length
from acebert.modeling_acebert import join_sides
from acebert.utils.fingerprints import processor_sha256, product_weights_sha256


@torch.inference_mode()
def encode_batches(
    features: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, dict[str, torch.Tensor]]],
) -> torch.Tensor:
    """Encodes length-bucketed micro-batches and puts their rows back in order.

    Args:
        features: from the model inputs of a micro-batch to its vectors, a tensor of (rows, ...).
        batches: of [`split_by_length`]: each the row numbers and the inputs of a micro-batch. Together they hold every
            row once.

    Returns:
        (rows, ...) of all micro-batches, in the order of the row numbers.
    """
    rows, vectors = zip(*((numbers, features(inputs)) for numbers, inputs in batches), strict=True)
    return torch.cat(vectors)[torch.cat(rows).argsort()]


class Encoder:
    """A model and its processor, from words, photos and products to unit vectors. Threads may share one.

    Args:
        model: an `AceBertModel`, or an `OnnxAceBertModel` that was exported from one.
        processor: the `AceBertProcessor` that came with it.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        self.model, self.processor = model.eval(), processor

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.model.config.projection_dim

    def describe(self) -> dict[str, str | None]:
        """Name, revision, precision and fingerprints, as a catalogue remembers them."""
        return {
            "name": self.model.config._name_or_path or None,
            "revision": getattr(self.model.config, "_commit_hash", None),
            # An OnnxAceBertModel names its precision itself.
            "precision": getattr(self.model, "precision", None) or str(self.model.dtype).removeprefix("torch."),
            "product_weights_sha256": product_weights_sha256(self.model),
            "processor_sha256": processor_sha256(self.processor),
        }

    @torch.inference_mode()
    def encode_queries(self, texts: Sequence[str] | None, photos: Sequence[Any] | None) -> np.ndarray:
        """(queries, dim) float32 unit vectors of words or photos; of both, the unit vector of their mean.

        Args:
            texts: words.
            photos: each a photo, or a list of photos of one thing.
        """
        vectors = []
        if texts is not None:
            inputs = self.processor.process_queries(list(texts), return_tensors="pt")
            vectors.append(self.model.get_text_features(**inputs.to(self.model.device)).pooler_output)
        if photos is not None:
            inputs = self.processor.process_products(images=list(photos), return_tensors="pt")
            vectors.append(self.model.get_image_features(**inputs.to(self.model.device)).pooler_output)
        mean = torch.stack(vectors).float().mean(0)
        return torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()

    def knows_word(self, word: str) -> bool:
        """Whether the vocabulary has a word whole, rather than in pieces of which its vector says little."""
        tokenizer = self.processor.tokenizer
        pieces = tokenizer.tokenize(word)
        return len(pieces) == 1 and pieces[0] != tokenizer.unk_token

    def encode_products(
        self, titles: Sequence[str | None], photos: Sequence[Any | None], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As [`Encoder.encode`], of products that each have a title, a photo (or a list of photos) or both."""
        return self.encode(prepare(self.processor, titles, photos), names)

    def encode(
        self, inputs: Mapping[str, torch.Tensor], names: Sequence[str], batch_size: int | None = None
    ) -> dict[str, np.ndarray]:
        """Product vectors of prepared inputs.

        Args:
            inputs: of [`prepare`].
            names: "product" for title and photo together, "title" and "image" for either alone.
            batch_size: products in a forward pass, in length-bucketed micro-batches; all at once by default.

        Returns:
            Name to (products, dim) float32, rounded to half precision as the catalogue keeps them; a row of NaN where a
            product lacks the title or the photo.
        """
        if batch_size is None:
            batches = [(torch.arange(len(next(iter(inputs.values())))), dict(inputs))]
        else:
            batches = split_by_length(inputs, batch_size)
        vectors = encode_batches(lambda batch: self._product_vectors(batch, names), batches)
        return dict(zip(names, vectors.half().float().cpu().numpy().swapaxes(0, 1), strict=True))

    def _product_vectors(self, inputs: Mapping[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
        """(products, names, dim) float32; NaN for what a product lacks."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        text = {name: tensor for name, tensor in inputs.items() if name in ("input_ids", "attention_mask")}
        image = {name: tensor for name, tensor in inputs.items() if name not in text}
        none = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.bool, device=self.model.device)
        # [CLS] [SEP] alone is the title of a product that has none.
        shown = {"title": inputs["attention_mask"].sum(1) > 2 if text else none}
        shown["image"] = inputs["pixel_attention_mask"].flatten(1).any(1) if image else none
        # Where title and photo have an encoder each, the product's vector is made of theirs: each is read once.
        is_joined = getattr(self.model.config, "vision_config", None) is not None and len(names) > 1
        parts = {}
        for name, columns in (("title", text), ("image", image)):
            if name in names or is_joined:
                parts[name] = torch.full((len(none), self.dim), torch.nan, device=self.model.device)
                if shown[name].any():
                    part = {key: tensor[shown[name]] for key, tensor in columns.items()}
                    parts[name][shown[name]] = self._unit_vectors(part)
        if "product" in names and is_joined:
            title, image = (parts[name].nan_to_num(0.0) for name in ("title", "image"))
            parts["product"] = join_sides(title, image, self.model.config.image_weight, shown["title"])
        elif "product" in names:
            parts["product"] = self._unit_vectors(inputs)
        return torch.stack([parts[name] for name in names], dim=1)

    def _unit_vectors(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        # A vector of bfloat16 is of unit length only to 0.2 %, by which readers of the files would rank some too high.
        vectors = self.model.get_product_features(**inputs).pooler_output.float()
        return torch.nn.functional.normalize(vectors, dim=-1)


def prepare(
    processor: ProcessorMixin, titles: Sequence[str | None], photos: Sequence[Any | None]
) -> dict[str, torch.Tensor]:
    """Model inputs of products, each with a title, a photo (or a list of photos) or both."""
    return dict(processor.process_products(list(titles), list(photos), return_tensors="pt"))


def find_title_error(processor: ProcessorMixin, title: str) -> str | None:
    """Why the processor can't read a title, None if it can."""
    try:
        processor.process_products([title])
    except ValueError as error:
        return str(error).removeprefix("title[0] ")
    return None
