"""Arithmetic operations of one forward pass, from a configuration and the lengths of what is read.

A multiplication and an addition are two operations. Matrix products are counted, as `torch.utils.flop_counter` counts
them; norms, activations and look-ups are not. Padding is no work: lengths are those of the tokens themselves.
"""

import numpy as np
from transformers import BertConfig, CLIPConfig, Siglip2Config

from acebert.configuration_acebert import AceBertConfig


def layers(tokens: np.ndarray, count: int, width: int, intermediate: int) -> float:
    """Transformer layers over sequences of `tokens` (batch,): projections, MLP and the two attention products."""
    projections = 2 * tokens * (4 * width**2 + 2 * width * intermediate)
    attention = 4 * tokens**2 * width
    return float(count * (projections + attention).sum())


def bert(config: BertConfig, words: np.ndarray) -> float:
    return layers(words, config.num_hidden_layers, config.hidden_size, config.intermediate_size)


def acebert_queries(config: AceBertConfig, words: np.ndarray) -> float:
    return bert(config.query_config, words) + 2 * len(words) * config.query_config.hidden_size * config.projection_dim


def acebert_products(config: AceBertConfig, words: np.ndarray, patches: np.ndarray) -> float:
    width, channels = config.text_config.hidden_size, config.num_channels
    patch = 0
    if config.use_patch_features:
        patch += config.patch_size**2 * channels * width
    if config.use_pixel_features:
        groups, inner = (config.patch_size // config.pixel_group_size) ** 2, config.pixel_hidden_size
        patch += groups * config.pixel_group_size**2 * channels * inner  # the embedding
        patch += 4 * groups**2 * inner + 4 * groups * inner**2  # mixing groups, then channels
        patch += groups * inner * width  # the projection
    patch += 2 * config.position_grid_size * width  # rows and columns
    embeddings = 2 * float(patches.sum()) * patch
    return embeddings + bert(config.text_config, words + patches) + 2 * len(words) * width * config.projection_dim


def clip(config: CLIPConfig, words: np.ndarray) -> float:
    """As many images as texts."""
    vision, text = config.vision_config, config.text_config
    patches = (vision.image_size // vision.patch_size) ** 2
    embedding = 2 * len(words) * patches * vision.patch_size**2 * 3 * vision.hidden_size
    tokens = np.full(len(words), patches + 1)
    projections = 2 * len(words) * config.projection_dim * (vision.hidden_size + text.hidden_size)
    return (
        embedding
        + layers(tokens, vision.num_hidden_layers, vision.hidden_size, vision.intermediate_size)
        + layers(words, text.num_hidden_layers, text.hidden_size, text.intermediate_size)
        + projections
    )


def siglip2(config: Siglip2Config, words: np.ndarray, patches: np.ndarray) -> float:
    """As many images as texts. The image's pooling head is one attention layer with a single query."""
    vision, text = config.vision_config, config.text_config
    width = vision.hidden_size
    embedding = 2 * float(patches.sum()) * vision.patch_size**2 * 3 * width
    head = 4 * float(patches.sum()) * width * (width + 1)  # keys and values, and the two attention products
    head += 2 * len(words) * (2 * width**2 + 2 * width * vision.intermediate_size)
    return (
        embedding
        + layers(patches, vision.num_hidden_layers, width, vision.intermediate_size)
        + head
        + layers(words, text.num_hidden_layers, text.hidden_size, text.intermediate_size)
        + 2 * len(words) * text.hidden_size * text.projection_size
    )
