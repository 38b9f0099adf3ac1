"""Products to vectors, from JPEG bytes and titles, against models that encode image and text each on its own.

The peers have random weights, which compute as fast as trained ones.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import limits
import numpy as np
import operations
import torch
from processor import open_files
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from timing import OURS, REFERENCE, Row, interleave, rates, timed
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedModel, Siglip2Config, Siglip2Model
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from workload import Workload, draw_photos, make_titles

from acebert.encoding.encoder import prepare

CLIP, SIGLIP2, SENTENCE_TRANSFORMERS = (
    "CLIP ViT-B/32",
    "SigLIP 2 base, patch 16",
    "sentence-transformers, CLIP ViT-B/32",
)
PHOTO = (60, 80)
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_clip(workload: Workload) -> CLIPModel:
    """CLIP of the size of openai/clip-vit-base-patch32, with the vocabulary of the tokenizer that stands in."""
    sizes = SMALL if workload.sizes.small_peers else {}
    tokenizer = workload.tokenizer
    text = {**sizes, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.sep_token_id}
    return CLIPModel(CLIPConfig(text_config=text, vision_config={**sizes, "patch_size": 32}))


def make_siglip2(workload: Workload) -> Siglip2Model:
    """SigLIP 2 of the size of google/siglip2-base-patch16-naflex."""
    sizes = SMALL if workload.sizes.small_peers else {}
    return Siglip2Model(
        Siglip2Config(text_config={**sizes, "vocab_size": len(workload.tokenizer)}, vision_config=sizes)
    )


class TwoPhases:
    """A contender that prepares tensors and then runs its model; both are timed, each on its own.

    Args:
        prepare: returns the model's inputs.
        encode: takes them.
    """

    def __init__(self, prepare: Callable[[], Any], encode: Callable[[Any], Any]):
        self.prepare, self.encode = prepare, encode

    def __call__(self) -> tuple[float, float]:
        inputs: list[Any] = []
        preparing = timed(lambda: inputs.append(self.prepare()))()
        return preparing, timed(lambda: self.encode(inputs[0]))()


def make_peer(
    model: PreTrainedModel, image_processor: Callable[..., Any], workload: Workload, texts: dict[str, Any]
) -> TwoPhases:
    """CLIP or SigLIP 2 by transformers: images and titles in one batch each.

    Args:
        model: with `get_image_features` and `get_text_features`.
        image_processor: its own.
        workload: of the run.
        texts: how titles are padded.
    """
    count = workload.sizes.products
    titles, files = make_titles(count), draw_photos(count, PHOTO)
    model.to(workload.device, workload.dtype).eval()

    def prepare_both() -> tuple[Any, Any]:
        images = image_processor(images=open_files(files), return_tensors="pt")
        names = ("input_ids", "attention_mask")
        words = workload.tokenizer(titles, truncation=True, return_tensors="pt", **texts)
        return images, {name: words[name] for name in names}

    def encode_both(inputs: tuple[Any, Any]) -> None:
        images, words = ({name: value.to(workload.device) for name, value in part.items()} for part in inputs)
        images["pixel_values"] = images["pixel_values"].to(workload.dtype)
        model.get_image_features(**images)
        model.get_text_features(**words)

    return TwoPhases(prepare_both, encode_both)


def make_sentence_transformer(workload: Workload, folder: Path) -> Callable[[], tuple[float, float]]:
    """CLIP behind `SentenceTransformer.encode`, which prepares and encodes in one call."""
    make_clip(workload).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(), workload.tokenizer).save_pretrained(folder)
    module = Transformer(str(folder), model_kwargs={"dtype": workload.dtype})
    peer = SentenceTransformer(modules=[module], device=workload.device.type)
    count = workload.sizes.products
    titles, files = make_titles(count), draw_photos(count, PHOTO)
    encode = partial(peer.encode, batch_size=count, show_progress_bar=False)

    def run() -> tuple[float, float]:
        return 0.0, timed(lambda: (encode(open_files(files)), encode(titles)))()

    return run


@torch.inference_mode()
def measure(workload: Workload) -> list[Row]:
    count = workload.sizes.products
    titles, files = make_titles(count), draw_photos(count, PHOTO)
    encoder, tokenizer = workload.encoder, workload.tokenizer
    clip, siglip2 = make_clip(workload), make_siglip2(workload)
    siglip2_processor = Siglip2ImageProcessorPil()
    ours = TwoPhases(
        partial(prepare, encoder.processor, titles, files), lambda inputs: encoder.encode(inputs, ["product"])
    )
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            REFERENCE: limits.measure_reference(workload),
            OURS: ours,
            CLIP: make_peer(clip, CLIPImageProcessorPil(), workload, {"padding": True, "max_length": 77}),
            SIGLIP2: make_peer(siglip2, siglip2_processor, workload, {"padding": "max_length", "max_length": 64}),
            SENTENCE_TRANSFORMERS: make_sentence_transformer(workload, Path(folder)),
        }
        rounds = interleave(calls, workload.sizes.product_repeats)
    reference = rounds.pop(REFERENCE)

    inputs = ours.prepare()
    patches = inputs["pixel_attention_mask"].sum(1).numpy()
    words = inputs["attention_mask"].sum(1).numpy()
    peer_words = np.array([len(ids) for ids in tokenizer(titles)["input_ids"]])
    grids = siglip2_processor(images=open_files(files), return_tensors="np")["pixel_attention_mask"].sum(1)
    work = {
        OURS: operations.acebert_products(workload.config, words, patches),
        CLIP: operations.clip(clip.config, peer_words),
        SIGLIP2: operations.siglip2(siglip2.config, peer_words, grids),
    }
    model_seconds = {name: [encoding for _, encoding in values] for name, values in rounds.items()}
    whole = {name: rates(count, [sum(phases) for phases in values]) for name, values in rounds.items()}
    shares = {name: limits.share(number, model_seconds[name], reference) for name, number in work.items()}
    per_product = ", ".join(f"{name} {number / count / 1e9:.2f}" for name, number in work.items())
    notes = [
        f"{PHOTO[0]}x{PHOTO[1]} photos, titles of {words.mean():.0f} tokens, {count} products in a batch, "
        f"{str(workload.dtype).removeprefix('torch.')}. GFLOP a product: {per_product}.",
        "Shares are of the model alone, without reading photos and titles.",
    ]
    return [Row.of("photo and title to vector", "products/s", whole, shares, notes)]
