"""Why this product? What a match rests on: title or photo, which words, which parts of the photo.

A part's contribution is the score that is lost without it; a negative one pulls the score down. Contributions don't add
up to the score: parts repeat each other (a red shirt is red in every patch), and each is taken out on its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from acebert.image_processing_acebert import Photo, open_photo, to_upright_rgb
from acebert.modeling_acebert import pool

NOTHING = 0.0  # the score of a product with neither title nor photo: no vector, so no likeness

# The heat map's colours in Oklab (Ottosson 2020, https://bottosson.github.io/posts/oklab): the photo's own lightness,
# brought into the range in which both hues can be seen on it, and a chroma that grows with the contribution.
LIGHTNESS = (0.35, 0.9)
FOR, AGAINST = np.array([[0.085, 0.145], [-0.045, -0.155]], np.float32)  # orange and blue: (a, b) at full strength
OKLAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]], np.float32
)
LMS_TO_LINEAR_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ],
    np.float32,
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the match of one query and one product rests on, in units of cosine similarity.

    Args:
        score: cosine of the query and the product.
        title_share, image_share: how much of the score the title and the photo carry; they add up to it. Exact Shapley
            values (Shapley 1953) of two players where nothing scores 0: for each side, the mean of what it scores alone
            and of what it adds to the other. A side that is missing has 0.
        words: the title's words as it spells them, in order, each with the score that is lost without it; NaN for a
            word that the model doesn't read, because the processor cuts the title before it or it holds no token.
        patches: (rows, columns) float32, the score that is lost without each patch of the photo; NaN where a patch is
            left out as background. `None` without a photo.
        box: left, top, right, bottom of that grid in the upright photo, in pixels: a photo with a plain backdrop is
            cropped to its object. `None` without a photo.
    """

    score: float
    title_share: float
    image_share: float
    words: list[tuple[str, float]]
    patches: np.ndarray | None
    box: tuple[int, int, int, int] | None


# Not in inference mode, even where the caller is: the patches need a gradient.
@torch.inference_mode(False)
def explain(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    query: torch.Tensor,
    title: str | None = None,
    image: Photo | None = None,
) -> Explanation:
    """Explains the score of one product for one query.

    Words are hidden one at a time and the product is encoded anew (occlusion: Zeiler and Fergus 2014, arXiv 1311.2901,
    section 4.2). Patches are many and each matters little, so the loss of each is taken to first order, all from one
    gradient: see [`patch_contributions`]. Beside a title, a patch's contribution is what it adds to that title; explain
    the product with `title=None` to see what its photo says by itself.

    Args:
        model: an `AceBertModel` in evaluation mode, with "sdpa" or "eager" attention.
        processor: the one saved with it.
        query: (projection_dim,) unit vector: of words, of a photo, or the normalised sum of both.
        title: the product's title, if it has one.
        image: its photo, if it has one, in any form that the processor takes. A product with several is explained by
            one at a time.

    Raises:
        `ValueError`: for a query that is not one unit vector of the model's width, a model in training mode, and a
            product that has nothing or that the processor can't read.
    """
    width = model.config.projection_dim
    if query.shape != (width,):
        raise ValueError(f"query has the shape {tuple(query.shape)}, not ({width},): pass one vector of this model")
    length = query.float().norm().item()
    if not abs(length - 1) < 0.01:
        raise ValueError(f"query has the length {length:.4g}: divide the vector by it, scores are cosines")
    if model.training:
        raise ValueError("the model is in training mode, where dropout changes every score: call model.eval()")
    if title is None and image is None:
        raise ValueError("title and image are both None: a product needs one of them")
    if isinstance(image, list | tuple):
        raise ValueError(f"image holds {len(image)} photos: explain the product with one of them at a time")
    # A copy, because a vector made in inference mode can't take part in a gradient.
    query = query.detach().to(model.device, torch.float32, copy=True)
    inputs = processor.process_products([title], None if image is None else [image], return_tensors="pt")
    inputs = {name: values.to(model.device) for name, values in inputs.items()}

    words = [] if title is None else find_words(title, processor, int(inputs["attention_mask"].sum()) - 2)
    read = [tokens for _, tokens in words if tokens]
    score, title_alone, image_alone, *without_word = score_parts(model, inputs, query, read)
    title_alone = NOTHING if title is None else title_alone
    image_alone = NOTHING if image is None else image_alone
    lost = iter(score - rest for rest in without_word)

    patches = box = None
    if image is not None:
        rows, columns = inputs["spatial_shapes"][0].tolist()
        kept = inputs["pixel_attention_mask"][0].bool()
        patches = np.full(rows * columns, np.nan, dtype=np.float32)
        contributions = patch_contributions(model, inputs, query)
        patches[inputs["pixel_position_ids"][0, kept].cpu().numpy()] = contributions[kept].cpu().numpy()
        patches = patches.reshape(rows, columns)
        box = processor.image_processor.find_box(image)
    return Explanation(
        score=score,
        title_share=(title_alone + score - image_alone) / 2,
        image_share=(image_alone + score - title_alone) / 2,
        words=[(word, next(lost) if tokens else float("nan")) for word, tokens in words],
        patches=patches,
        box=box,
    )


def find_words(title: str, processor: ProcessorMixin, num_tokens: int) -> list[tuple[str, list[int]]]:
    """The words between a title's spaces, each with the positions of its tokens among those that the model reads.

    Args:
        title: as the processor gets it.
        processor: with a tokenizer that gives offsets, as those of the `tokenizers` library do.
        num_tokens: of the title that the model reads, without special tokens.
    """
    starts = [start for start, _ in processor.get_token_offsets(title)[:num_tokens]]
    return [
        (word.group(), [1 + i for i, start in enumerate(starts) if word.start() <= start < word.end()])  # 0 is [CLS]
        for word in re.finditer(r"\S+", title)
    ]


@torch.no_grad()
def score_parts(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], query: torch.Tensor, words: Sequence[list[int]]
) -> list[float]:
    """Scores of the product, of its title alone, of its photo alone, and without each of some words, in one batch.

    A hidden word's tokens are masked and the others keep their positions.

    Args:
        inputs: of one product, with `input_ids`.
        query: (projection_dim,).
        words: for each the positions of its tokens.
    """
    batch = {name: values.repeat_interleave(3 + len(words), dim=0) for name, values in inputs.items()}
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if "pixel_attention_mask" in batch:
        batch["pixel_attention_mask"][1] = 0
    ids[2, 1] = ids[2, mask[2].sum() - 1]  # [CLS] [SEP] stands for no title
    mask[2, 2:] = 0
    for row, positions in enumerate(words, start=3):
        mask[row, positions] = 0
    return (model.get_product_features(**batch).pooler_output.float() @ query).tolist()


def patch_contributions(model: PreTrainedModel, inputs: dict[str, torch.Tensor], query: torch.Tensor) -> torch.Tensor:
    """The score that is lost without each patch, to first order: the score's gradient in the photo's attention mask.

    The mask is made continuous: a token of mask m weighs m times as much in each layer's attention and in the pooling,
    so 1 leaves it as it is and 0 leaves it out. The gradient at 1 tells what each patch is worth for the price of one
    backward pass (Michel et al. 2019, arXiv 1905.10650, section 4.1, for attention heads).

    Args:
        inputs: of one product, with title (which may be `[CLS] [SEP]`) and photo.
        query: (projection_dim,).

    Returns:
        (patches,) float32.
    """
    mask = inputs["pixel_attention_mask"]
    with torch.enable_grad():
        keep = torch.ones(mask.shape, device=mask.device, requires_grad=True)
        encode = _encode_in_one_stream if model.image_encoder is None else _encode_with_an_eye
        (gradient,) = torch.autograd.grad(encode(model, inputs, keep) @ query, keep)
    return gradient[0]


def _encode_in_one_stream(model: PreTrainedModel, inputs: dict[str, torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
    """The product's unit vector (projection_dim,), where patches count by `keep` (1, patches)."""
    encoder = model.product_encoder
    with torch.no_grad():
        title = encoder.bert.embeddings(input_ids=inputs["input_ids"])
        photo = encoder.image_embeddings(inputs["pixel_values"], inputs["spatial_shapes"], inputs["pixel_position_ids"])
    hidden = torch.cat([title, photo], dim=1)  # (1, tokens, hidden_size)
    mask = torch.cat([inputs["attention_mask"], inputs["pixel_attention_mask"]], dim=1).to(hidden.dtype)
    keep = F.pad(keep, (title.shape[1], 0), value=1)
    # The logarithms apart: that of a product with 0 has no gradient.
    bias = (keep.log() + mask.log())[:, None, None, :].expand(-1, -1, hidden.shape[1], -1)
    encoded = encoder.bert.encoder(hidden, attention_mask=bias).last_hidden_state
    pooled = pool(encoded, keep * mask, model.config.pooling)
    return F.normalize(model.product_projection(pooled).float(), dim=-1)[0]


def _encode_with_an_eye(model: PreTrainedModel, inputs: dict[str, torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
    """As [`_encode_in_one_stream`], of a model with an image encoder: its title doesn't depend on the patches."""
    eye = model.image_encoder
    with torch.no_grad():
        title = model.get_product_features(**inputs).title_embeds.float()
        hidden = eye.embeddings(inputs["pixel_values"], inputs["spatial_shapes"], inputs["pixel_position_ids"])
    mask = inputs["pixel_attention_mask"].to(hidden.dtype)
    prefix = hidden.shape[1] - mask.shape[1]  # class token and registers always count
    bias = F.pad(keep.log() + mask.log(), (prefix, 0))[:, None, None, :].expand(-1, -1, hidden.shape[1], -1)
    for layer in eye.layers:
        hidden = layer(hidden, bias)
    image = F.normalize(model.image_projection(eye.pool(eye.norm(hidden), keep * mask)).float(), dim=-1)
    weight = model.config.image_weight if title.any() else 1.0
    return F.normalize(title + weight * image, dim=-1)[0]


def heat_map(image: Photo, explanation: Explanation) -> Image.Image:
    """The photo in grey, with what speaks for the match in orange and what speaks against it in blue.

    Oklab is perceptually uniform, so a colour twice as strong stands for a contribution twice as large. The strongest
    contribution has full colour: maps of different products are not on one scale.

    Args:
        image: the photo that was explained.
        explanation: of a product with that photo.

    Returns:
        RGB, of the upright photo's size.

    Raises:
        `ValueError`: for an explanation without a photo, or of another photo.
    """
    if explanation.patches is None or explanation.box is None:
        raise ValueError("explanation.patches is None: the product was explained without a photo")
    photo = to_upright_rgb(open_photo(image), do_convert_rgb=True)
    left, top, right, bottom = explanation.box
    if right > photo.width or bottom > photo.height:
        raise ValueError(f"explanation.box {explanation.box} is outside this photo of {photo.size}: pass its own photo")
    grid = np.nan_to_num(explanation.patches)
    grid = grid / max(np.abs(grid).max(), np.finfo(np.float32).tiny)
    strength = np.zeros((photo.height, photo.width, 1), dtype=np.float32)
    patch = Image.fromarray(grid).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    strength[top:bottom, left:right, 0] = np.asarray(patch)

    grey = np.asarray(photo.convert("L"), dtype=np.float32)[..., None] / 255
    low, high = LIGHTNESS
    lightness = low + (high - low) * grey
    chroma = strength.clip(min=0) * FOR - strength.clip(max=0) * AGAINST
    lab = np.concatenate([lightness, chroma], axis=2)  # (height, width, 3)
    linear = ((lab @ OKLAB_TO_LMS.T) ** 3 @ LMS_TO_LINEAR_RGB.T).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray(np.rint(255 * srgb).astype(np.uint8))
