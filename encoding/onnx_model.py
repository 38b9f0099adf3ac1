"""An exported ACE-BERT: the encoders as ONNX files, run by ONNX Runtime behind the calls of `AceBertModel`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import first_photo, join_sides, mean_photo

PARTS = ("query", "product")
PRECISIONS = ("int8", "float32")
RECORD = "export.json"  # what was exported from which checkpoint, and how near its vectors are
IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes", "pixel_position_ids")


def encoder_file(part: str, precision: str) -> str:
    """Name of an encoder's file in an exported folder."""
    return f"{part}_encoder.onnx" if precision == "float32" else f"{part}_encoder_{precision}.onnx"


class OnnxAceBertModel:
    """The encoders of a folder that `acebert export-onnx` wrote. Threads may share one.

    It takes what the processor returns, as NumPy arrays or as tensors, and answers in the same kind. A
    [`ProductCatalog`] takes it in the place of the checkpoint that it was exported from.

    Args:
        folder: the export.
        precision: "int8" or "float32"; by default int8 where the folder has it.
        num_threads: threads that share one call; by default one for each core. A server that answers many calls at
            once does best with 1.
        providers: of ONNX Runtime, best first. int8 is made for "CPUExecutionProvider".

    Attributes:
        config (`AceBertConfig`): the checkpoint's.
        source_product_weights_sha256 (`str`): fingerprint of the weights of the checkpoint's product side, by which a
            catalogue knows its model.

    Raises:
        `ValueError`: where the folder is no export or lacks the precision.

    Example:

    ```python
    >>> processor = AutoProcessor.from_pretrained("build/onnx", trust_remote_code=True)
    >>> model = OnnxAceBertModel("build/onnx", num_threads=1)
    >>> model.get_text_features(**processor(text=["red shoes"], return_tensors="np")).pooler_output.shape
    (1, 384)
    ```
    """

    device = torch.device("cpu")

    def __init__(
        self,
        folder: str | Path,
        precision: str | None = None,
        num_threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ):
        folder = Path(folder)
        if not (folder / RECORD).exists():
            raise ValueError(f"{folder} holds no {RECORD}: write it by `acebert export-onnx --output_dir {folder}`.")
        if precision not in (None, *PRECISIONS):
            raise ValueError(f"`precision` must be one of {PRECISIONS} or None, not {precision!r}.")
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if "product_weights_sha256" not in record:
            raise ValueError(
                f"The {RECORD} of {folder} has no 'product_weights_sha256', by which a catalogue knows its model: an "
                "earlier version made it. Export again."
            )
        if precision is None:
            precision = record["precisions"][-1]
        if precision not in record["precisions"]:
            raise ValueError(
                f"{folder} has the precisions {record['precisions']}, not {precision!r}: export again, with --quantize "
                "int8."
            )
        self.folder, self.precision = folder, precision
        self.config = AceBertConfig.from_pretrained(folder)
        self.source_product_weights_sha256: str = record["product_weights_sha256"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        self.sessions = {
            part: ort.InferenceSession(folder / encoder_file(part, precision), options, providers=list(providers))
            for part in record["parts"]
        }

    def eval(self) -> "OnnxAceBertModel":
        """Itself: an export has no training mode."""
        return self

    def get_text_features(self, input_ids: Any, attention_mask: Any = None) -> BaseModelOutputWithPooling:
        """Encodes queries, as [`AceBertModel.get_text_features`]: `pooler_output` (batch, projection_dim)."""
        return self._run("query", {"input_ids": input_ids, "attention_mask": attention_mask})

    def get_product_features(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        pixel_values: Any = None,
        pixel_attention_mask: Any = None,
        spatial_shapes: Any = None,
        pixel_position_ids: Any = None,
    ) -> BaseModelOutputWithPooling:
        """Encodes products, as [`AceBertModel.get_product_features`]: `pooler_output` (batch, projection_dim)."""
        if input_ids is None and pixel_values is None:
            raise ValueError("A product needs `input_ids` (its title), `pixel_values` (its photo) or both.")
        if pixel_values is not None and spatial_shapes is None:
            raise ValueError("`pixel_values` needs `spatial_shapes` (batch, 2): pass all that the processor returned.")
        if pixel_values is not None and np.ndim(pixel_values) == 4:
            photos = (pixel_values, pixel_attention_mask, spatial_shapes, pixel_position_ids)
            if self.config.vision_config is not None:
                return self._join_photos(input_ids, attention_mask, dict(zip(IMAGE_INPUTS, photos, strict=True)))
            first = dict(zip(IMAGE_INPUTS, first_photo(*photos), strict=True))
            return self.get_product_features(input_ids, attention_mask, **first)
        batch = len(pixel_values if input_ids is None else input_ids)
        if input_ids is None:
            input_ids = np.tile([self.config.cls_token_id, self.config.sep_token_id], (batch, 1))
        if pixel_values is None:
            # The graph has one shape for all products: a masked patch of nothing changes no vector.
            width = self.config.patch_size**2 * self.config.num_channels
            pixel_values = np.zeros((batch, 1, width), np.float32)
            pixel_attention_mask, spatial_shapes = np.zeros((batch, 1)), np.zeros((batch, 2))
        if pixel_attention_mask is None:
            pixel_attention_mask = np.ones(pixel_values.shape[:2])
        if pixel_position_ids is None:
            pixel_position_ids = np.tile(np.arange(pixel_values.shape[1]), (batch, 1))
        image = (pixel_values, pixel_attention_mask, spatial_shapes, pixel_position_ids)
        text = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self._run("product", text | dict(zip(IMAGE_INPUTS, image, strict=True)))

    def get_image_features(self, **inputs: Any) -> BaseModelOutputWithPooling:
        """Encodes products by their photo alone; arguments as in [`OnnxAceBertModel.get_product_features`]."""
        return self.get_product_features(**inputs)

    def _join_photos(self, input_ids: Any, attention_mask: Any, photos: dict[str, Any]) -> BaseModelOutputWithPooling:
        """Products with several photos. The graph reads one, so the vectors are joined here as the model joins them."""
        as_tensors = isinstance(photos["pixel_values"], torch.Tensor)
        given = {name: torch.as_tensor(values) for name, values in photos.items() if values is not None}
        batch, places, patches, _ = given["pixel_values"].shape
        mask = given.get("pixel_attention_mask", torch.ones(batch, places, patches))
        is_photo = mask.any(-1)  # (batch, places)
        image = torch.zeros(batch, places, self.config.projection_dim)
        if is_photo.any():
            encoded = self.get_product_features(**{name: values[is_photo] for name, values in given.items()})
            image[is_photo] = encoded.pooler_output
        product = mean_photo(image)
        if input_ids is not None:
            input_ids = torch.as_tensor(input_ids)
            attention_mask = torch.ones_like(input_ids) if attention_mask is None else torch.as_tensor(attention_mask)
            title = self.get_product_features(input_ids, attention_mask).pooler_output
            product = join_sides(title, product, self.config.image_weight, attention_mask.sum(1) > 2)
        return BaseModelOutputWithPooling(pooler_output=product if as_tensors else product.numpy())

    def _run(self, part: str, inputs: dict[str, Any]) -> BaseModelOutputWithPooling:
        if part not in self.sessions:
            raise ValueError(
                f"{self.folder} has no {part} encoder, only {', '.join(self.sessions)}: export again, with --parts "
                f"{' '.join(PARTS)}."
            )
        if inputs["attention_mask"] is None:
            inputs["attention_mask"] = np.ones(inputs["input_ids"].shape)
        feeds = {
            name: np.asarray(value, dtype=np.float32 if name == "pixel_values" else np.int64)
            for name, value in inputs.items()
        }
        (embeds,) = self.sessions[part].run(None, feeds)
        as_tensors = any(isinstance(value, torch.Tensor) for value in inputs.values())
        return BaseModelOutputWithPooling(pooler_output=torch.from_numpy(embeds) if as_tensors else embeds)
