"""A Vision Transformer on raw patches of any grid, which takes the weights of ViT, DINOv2, CLIP, SigLIP and SigLIP 2.

Patches come from `AceBertImageProcessor` at the photo's own aspect ratio, any of them left out. The source's table of
positions is interpolated to each photo's grid.
"""

import re
from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import capture_outputs

from .configuration_acebert import AceBertVisionConfig

# ----------------------------------------------------------------------------------------------------------------------
# Positions
# ----------------------------------------------------------------------------------------------------------------------


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    """Keys' cubic convolution kernel (1981, equation 4) at distances from its centre, in entries of the table."""
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, inner, torch.where(distance < 2, outer, 0.0))


def interpolation_weights(
    positions: torch.Tensor, sizes: torch.Tensor, table_size: int, interpolation: str, antialias: bool
) -> torch.Tensor:
    """What each entry of a table counts at each place of a grid along one axis, as `F.interpolate` would resize it.

    Args:
        positions: (places,) integers in [0, size).
        sizes: (places,) patches along the axis, of the grid that each place is in.
        table_size: entries of the table.
        interpolation: "bicubic" or "bilinear".
        antialias: as in `F.interpolate`; `align_corners` is False.

    Returns:
        (places, table_size) float32, rows that sum to 1.
    """
    step = table_size / sizes.float()  # entries to a patch
    centre = ((positions + 0.5) * step)[:, None]
    # Without antialiasing, entries beyond the border are copies of those on it.
    beyond = 0 if antialias else 2
    distance = torch.arange(-beyond, table_size + beyond, device=positions.device) + 0.5 - centre
    if antialias:
        distance = distance / step.clamp(min=1)[:, None]
    distance = distance.abs()
    if interpolation == "bilinear":
        weights = (1 - distance).clamp(min=0)
    else:
        weights = _cubic(distance, -0.5 if antialias else -0.75)
    if antialias:
        return weights / weights.sum(1, keepdim=True)
    before, weights, after = weights.split([beyond, table_size, beyond], dim=1)
    first, last = before.sum(1, keepdim=True), after.sum(1, keepdim=True)
    return weights + F.pad(first, (0, table_size - 1)) + F.pad(last, (table_size - 1, 0))


# ----------------------------------------------------------------------------------------------------------------------
# Layers
# ----------------------------------------------------------------------------------------------------------------------


def check_patch_width(pixel_values: torch.Tensor, config: PreTrainedConfig) -> None:
    """Raises a `ValueError` unless patches (batch, patches, width) have the width that the model takes."""
    width = config.patch_size**2 * config.num_channels
    if pixel_values.shape[-1] != width:
        raise ValueError(
            f"`pixel_values` holds patches of {pixel_values.shape[-1]} values, but this model takes {width} "
            "(patch_size² · channels): use the processor that was saved with it."
        )


class AceBertVisionEmbeddings(nn.Module):
    """Raw patches to tokens: class token and registers, where the model has them, then patches with their positions.

    A class token's own position is part of it.
    """

    def __init__(self, config: AceBertVisionConfig):
        super().__init__()
        self.config = config
        width, grid = config.hidden_size, config.position_grid_size
        self.patch_embedding = nn.Linear(config.patch_size**2 * config.num_channels, width)
        self.position_embedding = nn.Parameter(torch.empty(grid, grid, width))
        self.class_token = nn.Parameter(torch.empty(width)) if config.use_class_token else None
        registers = config.num_register_tokens
        self.register_tokens = nn.Parameter(torch.empty(registers, width)) if registers else None
        self.pre_norm = nn.LayerNorm(width, eps=config.layer_norm_eps) if config.use_pre_norm else None

    def forward(
        self, pixel_values: torch.Tensor, spatial_shapes: torch.Tensor, pixel_position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """(batch, prefix + patches, hidden_size); arguments as in [`AceBertVisionModel.forward`]."""
        check_patch_width(pixel_values, self.config)
        batch, patches, _ = pixel_values.shape
        if pixel_position_ids is None:
            pixel_position_ids = torch.arange(patches, device=pixel_values.device).expand(batch, -1)
        embeddings = self.patch_embedding(pixel_values.to(self.position_embedding.dtype))
        embeddings = embeddings + self.interpolate_positions(spatial_shapes, pixel_position_ids)
        tokens = [None if self.class_token is None else self.class_token[None], self.register_tokens]
        prefix = [token.expand(batch, -1, -1).to(embeddings.dtype) for token in tokens if token is not None]
        embeddings = torch.cat([*prefix, embeddings], dim=1)
        return embeddings if self.pre_norm is None else self.pre_norm(embeddings)

    def interpolate_positions(self, spatial_shapes: torch.Tensor, pixel_position_ids: torch.Tensor) -> torch.Tensor:
        """(batch, patches, hidden_size) from grids (batch, 2) and places in them (batch, patches)."""
        rows, columns = spatial_shapes.clamp(min=1).unbind(-1)  # (batch,) each; a product without a photo has none
        ids = pixel_position_ids
        rows, columns = rows[:, None].expand_as(ids).flatten(), columns[:, None].expand_as(ids).flatten()
        ids, places = ids.flatten(), None
        if not is_tracing(ids):  # few grids occur in a batch, so each place of each grid is interpolated once
            most = 1 + torch.stack([columns.max(), ids.max()])
            keys, places = ((rows * most[0] + columns) * most[1] + ids).unique(return_inverse=True)
            ids, keys = keys % most[1], keys // most[1]
            rows, columns = keys // most[0], keys % most[0]
        size = self.config.position_grid_size
        kernel = self.config.position_interpolation, self.config.antialias_positions
        by_row = interpolation_weights(ids // columns, rows, size, *kernel)
        by_column = interpolation_weights(ids % columns, columns, size, *kernel)
        weights = (by_row[:, :, None] * by_column[:, None, :]).flatten(1)  # (places, size²)
        table = self.position_embedding.flatten(0, 1)
        found = weights.to(table.dtype) @ table
        found = found if places is None else found[places]
        return found.view(*pixel_position_ids.shape, -1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by its definition, for (batch, heads, tokens, head_size); returns (batch, tokens, heads, head_size)."""
    scores = (query * scaling) @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class AceBertVisionAttention(nn.Module):
    """Self-attention of all tokens of a photo."""

    def __init__(self, config: AceBertVisionConfig):
        super().__init__()
        self.config = config
        self.head_size = config.hidden_size // config.num_attention_heads
        self.is_causal = False  # read by the library's attention functions
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, tokens, _ = hidden.shape
        qkv = self.qkv(hidden).view(batch, tokens, 3, -1, self.head_size)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (batch, heads, tokens, head_size) each
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attention_interface(
            self, query, key, value, attention_mask, scaling=self.head_size**-0.5, is_causal=False, **kwargs
        )
        return self.output(attended.reshape(batch, tokens, -1)), weights


class AceBertVisionLayer(GradientCheckpointingLayer):
    """A layer of a Transformer with norms before its parts."""

    def __init__(self, config: AceBertVisionConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = AceBertVisionAttention(config)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, width)
        self.scale1 = nn.Parameter(torch.empty(width)) if config.use_layer_scale else None
        self.scale2 = nn.Parameter(torch.empty(width)) if config.use_layer_scale else None

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        attended, _ = self.attention(self.norm1(hidden), attention_mask, **kwargs)
        hidden = hidden + (attended if self.scale1 is None else attended * self.scale1)
        mixed = self.fc2(self.activation(self.fc1(self.norm2(hidden))))
        return hidden + (mixed if self.scale2 is None else mixed * self.scale2)


class AceBertVisionModel(PreTrainedModel):
    """Raw patches to tokens that know of each other, and to the features of the whole photo."""

    config: AceBertVisionConfig
    base_model_prefix = "image_encoder"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ("AceBertVisionEmbeddings", "AceBertVisionLayer")
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {  # noqa: RUF012 - the library reads a plain class attribute
        "hidden_states": AceBertVisionLayer,
        "attentions": AceBertVisionAttention,
    }

    def __init__(self, config: AceBertVisionConfig):
        super().__init__(config)
        self.embeddings = AceBertVisionEmbeddings(config)
        self.layers = nn.ModuleList(AceBertVisionLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Linear:
        return self.embeddings.patch_embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AceBertVisionEmbeddings):
            for parameter in (module.position_embedding, module.class_token, module.register_tokens):
                if parameter is not None:
                    init.normal_(parameter, std=self.config.initializer_range)
        elif isinstance(module, AceBertVisionLayer) and module.scale1 is not None:
            init.ones_(module.scale1)
            init.ones_(module.scale2)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        pixel_values: torch.Tensor,
        spatial_shapes: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None = None,
        pixel_position_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encodes photos.

        Args:
            pixel_values: (batch, patches, patch_size² · channels) raw patches, normalised by the processor.
            spatial_shapes: (batch, 2) rows and columns of each photo's grid of patches.
            pixel_attention_mask: (batch, patches), 1 for patches, 0 for padding.
            pixel_position_ids: (batch, patches) place of each patch in its grid, row · columns + column. Left out, the
                patches are the whole grid in order.

        Returns:
            `last_hidden_state` (batch, tokens, hidden_size): class token, registers, patches; `pooler_output` (batch,
            `config.feature_size`): class token, where there is one, and mean of the patches.
        """
        hidden = self.embeddings(pixel_values, spatial_shapes, pixel_position_ids)
        prefix = hidden.shape[1] - pixel_values.shape[1]
        if pixel_attention_mask is None:
            pixel_attention_mask = torch.ones_like(pixel_values[..., 0])
        mask = F.pad(pixel_attention_mask, (prefix, 0), value=1)
        if not is_tracing(mask) and bool(mask.all()):
            mask = None
        attention_mask = create_bidirectional_mask(self.config, hidden, mask)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask, **kwargs)
        hidden = self.norm(hidden)
        features = self.pool(hidden, pixel_attention_mask.to(hidden.dtype))
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=features)

    def pool(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Features of whole photos: the class token, where there is one, and the mean of the patches.

        Args:
            hidden: (batch, tokens, hidden_size), normalised.
            weights: (batch, patches), how much each patch counts; 0 for padding.

        Returns:
            (batch, `config.feature_size`).
        """
        patches = hidden[:, hidden.shape[1] - weights.shape[1] :]
        mean = (weights[:, None, :] @ patches)[:, 0] / weights.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([hidden[:, 0], mean], dim=-1) if self.config.use_class_token else mean


# ----------------------------------------------------------------------------------------------------------------------
# Weights of other models
# ----------------------------------------------------------------------------------------------------------------------

# What each kind of source has beyond the sizes, by the model type of its vision model.
_KINDS: dict[str, dict[str, Any]] = {
    "vit": {},
    "dinov2": {"use_layer_scale": True},
    "dinov2_with_registers": {"use_layer_scale": True, "antialias_positions": True},
    "clip_vision_model": {"use_pre_norm": True},
    "siglip_vision_model": {"use_class_token": False},
    "siglip2_vision_model": {
        "use_class_token": False,
        "position_interpolation": "bilinear",
        "antialias_positions": True,
    },
}

# Parts of a layer here, and what they are called there, by different releases of the library too.
_LAYER_PARTS = {
    "norm1": ("norm1", "layernorm_before", "layer_norm1"),
    "norm2": ("norm2", "layernorm_after", "layer_norm2"),
    "query": ("attention.q_proj", "attention.attention.query", "self_attn.q_proj"),
    "key": ("attention.k_proj", "attention.attention.key", "self_attn.k_proj"),
    "value": ("attention.v_proj", "attention.attention.value", "self_attn.v_proj"),
    "attention.output": ("attention.o_proj", "attention.output.dense", "self_attn.out_proj"),
    "fc1": ("mlp.fc1", "intermediate.dense"),
    "fc2": ("mlp.fc2", "output.dense"),
    "scale1": ("layer_scale1.lambda1",),
    "scale2": ("layer_scale2.lambda1",),
}
_LAYER_PART = {there: here for here, names in _LAYER_PARTS.items() for there in names}
_LAYER_WEIGHT = re.compile(r"(?:encoder\.)?layers?\.(\d+)\.(.+?)(\.weight|\.bias)?")


def vision_config_of(source: PreTrainedConfig) -> AceBertVisionConfig:
    """The configuration that takes the weights of a vision model, or of the vision part of a CLIP or SigLIP.

    Raises:
        `ValueError`: for a model of another kind, or with parts that [`AceBertVisionModel`] has not.
    """
    source = getattr(source, "vision_config", source)
    kind = source.model_type
    if kind not in _KINDS:
        raise ValueError(f"An image backbone is one of {', '.join(_KINDS)} (model types), not '{kind[:80]}'.")
    if getattr(source, "use_swiglu_ffn", False):
        raise ValueError("`use_swiglu_ffn` of the image backbone is not supported: take a smaller DINOv2.")
    positions = getattr(source, "num_patches", None)
    if positions is None:
        sides = source.image_size if isinstance(source.image_size, list | tuple) else [source.image_size]
        if len(set(sides)) > 1:
            raise ValueError(f"The image backbone's `image_size` {sides} must be square: its positions are a square.")
        positions = (sides[0] // source.patch_size) ** 2
    width = source.hidden_size
    return AceBertVisionConfig(
        hidden_size=width,
        num_hidden_layers=source.num_hidden_layers,
        num_attention_heads=source.num_attention_heads,
        intermediate_size=getattr(source, "intermediate_size", None) or width * source.mlp_ratio,
        hidden_act=source.hidden_act,
        layer_norm_eps=source.layer_norm_eps,
        patch_size=source.patch_size,
        num_channels=source.num_channels,
        position_grid_size=isqrt(positions),
        num_register_tokens=getattr(source, "num_register_tokens", 0),
        **_KINDS[kind],
    )


def _translate(state: dict[str, torch.Tensor], config: AceBertVisionConfig) -> dict[str, torch.Tensor]:
    """A source's weights by their names in [`AceBertVisionModel`]; what isn't part of it is left out."""
    taken: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        prefix, _, rest = name.partition(".")
        if match := _LAYER_WEIGHT.fullmatch(name):
            number, part, suffix = match.groups()
            if int(number) >= config.num_hidden_layers:
                continue
            taken[f"layers.{number}.{_LAYER_PART[part]}{suffix or ''}"] = value
        elif prefix in ("layernorm", "post_layernorm"):
            taken[f"norm.{rest}"] = value
        elif prefix == "pre_layrnorm":
            taken[f"embeddings.pre_norm.{rest}"] = value
        elif prefix == "embeddings":
            part = rest.removesuffix(".weight")
            if rest.startswith("patch_embedding"):
                # A convolution's weights are (width, channels, rows, columns); a patch lies row, column, channel.
                value = value.permute(0, 2, 3, 1).flatten(1) if value.ndim == 4 else value
                taken[f"embeddings.patch_embedding.{rest.rpartition('.')[2]}"] = value
            elif part in ("position_embedding", "position_embeddings"):
                taken["embeddings.position_embedding"] = value.view(-1, config.hidden_size)
            elif part in ("cls_token", "class_embedding"):
                taken["embeddings.class_token"] = value.flatten()
            elif part == "register_tokens":
                taken["embeddings.register_tokens"] = value[0]

    positions = taken["embeddings.position_embedding"]
    if config.use_class_token:
        taken["embeddings.class_token"] = taken["embeddings.class_token"] + positions[0]
        positions = positions[1:]
    grid = config.position_grid_size
    taken["embeddings.position_embedding"] = positions.reshape(grid, grid, config.hidden_size)
    taken.setdefault("embeddings.patch_embedding.bias", torch.zeros(config.hidden_size))
    for number in range(config.num_hidden_layers):
        layer = f"layers.{number}."
        for suffix in ("weight", "bias"):
            parts = [taken.pop(f"{layer}{part}.{suffix}", None) for part in ("query", "key", "value")]
            if suffix == "bias" and parts[0] is None:  # a ViT may go without
                parts = [torch.zeros(config.hidden_size)] * 3
            taken[f"{layer}attention.qkv.{suffix}"] = torch.cat(parts)
    return taken


def load_image_backbone(
    backbone: str, num_layers: int | None = None
) -> tuple[AceBertVisionConfig, dict[str, torch.Tensor]]:
    """Configuration and float32 weights of an [`AceBertVisionModel`] that equals a pre-trained Vision Transformer.

    Args:
        backbone: Hub id or folder of a ViT, a DINOv2 (with or without registers), a CLIP, a SigLIP or a SigLIP 2.
        num_layers: the first so many layers, under its final norm; all of them by default.

    Raises:
        `ValueError`: for a model of another kind, or with fewer layers.
    """
    config = vision_config_of(AutoConfig.from_pretrained(backbone))
    if num_layers is not None and not 1 <= num_layers <= config.num_hidden_layers:
        raise ValueError(
            f"`image_layers` must lie between 1 and the {config.num_hidden_layers} of '{backbone}', got {num_layers}."
        )
    source = AutoModel.from_pretrained(backbone, dtype=torch.float32, use_safetensors=True)
    source = getattr(source, "vision_model", source)  # a CLIP's or SigLIP's vision part
    config.num_hidden_layers = num_layers or config.num_hidden_layers
    return config, _translate(source.state_dict(), config)


__all__ = ["AceBertVisionModel"]
