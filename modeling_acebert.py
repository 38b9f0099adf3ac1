"""ACE-BERT: a product encoder over title and photo, a query encoder, and their losses as pure functions of vectors.

What comes from the papers' abstracts (arXiv 2112.07209; APWeb-WAIM 2023): raw image sequences with patch and pixel
features and no CNN, a pre-trained BERT as the backbone, separate networks for query and title, hot queries,
cross-modal pre-training, and a domain classifier that makes the distributions of queries and products consistent.
Everything else is this project's choice; see `AceBertConfig`.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bert.modeling_bert import (
    BertLayer,
    BertLMPredictionHead,
    BertModel,
    BertSelfAttention,
)
from transformers.processing_utils import ProcessorMixin, Unpack
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import capture_outputs

from .configuration_acebert import AceBertConfig
from .losses_acebert import domain_loss, info_nce_loss, reverse_gradient, sigmoid_loss
from .vision_acebert import AceBertVisionModel, check_patch_width, load_image_backbone

logger = logging.get_logger(__name__)


# ----------------------------------------------------------------------------------------------------------------------
# Outputs
# ----------------------------------------------------------------------------------------------------------------------


@dataclass
class AceBertProductOutput(BaseModelOutputWithPooling):
    """
    pooler_output (`torch.Tensor` of shape `(products, projection_dim)`): unit vectors of the products.
    last_hidden_state (`torch.Tensor` of shape `(products, tokens + patches, hidden_size)`): the product encoder's, over
        title and photo; with `vision_config` over the title alone or, without titles, the image encoder's. So are
        `hidden_states` and `attentions`.
    title_embeds, image_embeds (`torch.Tensor` of shape `(products, projection_dim)`, *optional*): with `vision_config`,
        unit vectors of the titles and of the photos; zeros for a product that lacks one.
    image_model_output (`BaseModelOutputWithPooling`, *optional*): with `vision_config`, the image encoder's own output
        for those photos that there are.
    """

    title_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    image_model_output: BaseModelOutputWithPooling | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in self.values())


@dataclass
class AceBertOutput(ModelOutput):
    """
    loss (`torch.Tensor` of shape `()`, *optional*): the retrieval loss; with the adversary in `AceBertForRetrieval`.
    logits_per_query (`torch.Tensor` of shape `(queries, products)`): scaled cosine similarities.
    logits_per_product (`torch.Tensor` of shape `(products, queries)`): their transpose.
    query_embeds (`torch.Tensor` of shape `(queries, projection_dim)`): unit vectors.
    product_embeds (`torch.Tensor` of shape `(products, projection_dim)`): unit vectors.
    matching_loss, domain_loss (`torch.Tensor` of shape `()`, *optional*): the parts of `loss`.
    domain_accuracy (`torch.Tensor` of shape `()`, *optional*): of the domain classifier; 0.5 is the adversary's aim.
    query_model_output, product_model_output (`BaseModelOutputWithPooling`): the encoders' own outputs; none of products
        that came as vectors.
    title_embeds, image_embeds (`torch.Tensor` of shape `(products, projection_dim)`, *optional*): as in
        [`AceBertProductOutput`].
    """

    loss: torch.Tensor | None = None
    logits_per_query: torch.Tensor | None = None
    logits_per_product: torch.Tensor | None = None
    query_embeds: torch.Tensor | None = None
    product_embeds: torch.Tensor | None = None
    matching_loss: torch.Tensor | None = None
    domain_loss: torch.Tensor | None = None
    domain_accuracy: torch.Tensor | None = None
    query_model_output: BaseModelOutputWithPooling | None = None
    product_model_output: BaseModelOutputWithPooling | None = None
    title_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in self.values())


@dataclass
class AceBertForPreTrainingOutput(ModelOutput):
    """
    loss (`torch.Tensor` of shape `()`, *optional*): weighted sum of the losses whose labels were given.
    mlm_loss, patch_loss, matching_loss (`torch.Tensor` of shape `()`, *optional*): its parts, before weighting.
    prediction_logits (`torch.Tensor` of shape `(batch, title tokens, vocab_size)`): word scores; with `labels` given,
        of shape `(masked words, vocab_size)`.
    patch_predictions (`torch.Tensor` of shape `(batch, patches, patch_size² · channels)`, *optional*): predicted
        pixels.
    matching_logits (`torch.Tensor` of shape `(batch, 2)`): scores of "doesn't belong together" and "belongs together".
    """

    loss: torch.Tensor | None = None
    mlm_loss: torch.Tensor | None = None
    patch_loss: torch.Tensor | None = None
    matching_loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    patch_predictions: torch.Tensor | None = None
    matching_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


# ----------------------------------------------------------------------------------------------------------------------
# From raw patches to image tokens
# ----------------------------------------------------------------------------------------------------------------------


class AceBertPixelFeatures(nn.Module):
    """Embeds the pixel groups inside each patch, mixes them among themselves, and joins them to one pixel feature.

    The 2021 abstract names pixel features without a method. Ours: a patch of P x P pixels holds (P / g)² groups of
    g x g pixels; one MLP-Mixer block (Tolstikhin et al. 2021, arXiv 2105.01601) mixes a patch's groups, then their
    channels.
    """

    def __init__(self, config: AceBertConfig):
        super().__init__()
        self.side = config.patch_size // config.pixel_group_size
        self.group_size = config.pixel_group_size
        self.num_channels = config.num_channels
        groups, width = self.side**2, config.pixel_hidden_size
        self.embedding = nn.Linear(self.group_size**2 * self.num_channels, width)
        self.position_embeddings = nn.Parameter(torch.empty(groups, width))
        self.group_norm = nn.LayerNorm(width, eps=config.text_config.layer_norm_eps)
        self.group_mixer = nn.Sequential(nn.Linear(groups, 2 * groups), nn.GELU(), nn.Linear(2 * groups, groups))
        self.channel_norm = nn.LayerNorm(width, eps=config.text_config.layer_norm_eps)
        self.channel_mixer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.projection = nn.Linear(groups * width, config.text_config.hidden_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        batch, patches, _ = pixel_values.shape
        side, size = self.side, self.group_size
        groups = pixel_values.reshape(batch * patches, side, size, side, size, self.num_channels)
        groups = groups.permute(0, 1, 3, 2, 4, 5).reshape(batch * patches, side * side, -1)  # (b·p, groups, g²·c)
        hidden = self.embedding(groups) + self.position_embeddings  # (b·p, groups, width)
        hidden = hidden + self.group_mixer(self.group_norm(hidden).transpose(1, 2)).transpose(1, 2)
        hidden = hidden + self.channel_mixer(self.channel_norm(hidden))
        return self.projection(hidden.flatten(1)).view(batch, patches, -1)  # (b, p, hidden_size)


class AceBertImageEmbeddings(nn.Module):
    """Raw patches to image tokens: patch feature + pixel feature + two-dimensional position + token type.

    Positions are factorised into rows and columns and read at fractional coordinates (Dehghani et al. 2023,
    arXiv 2307.06304, section 3.4). We place the photo in the middle of a square as long as its longer side, so a
    position tells the aspect ratio too, and interpolate linearly between the learned ones: any grid is served.
    """

    def __init__(self, config: AceBertConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.config = config
        patch_width = config.patch_size**2 * config.num_channels
        self.patch_features = nn.Linear(patch_width, width) if config.use_patch_features else None
        self.pixel_features = AceBertPixelFeatures(config) if config.use_pixel_features else None
        self.row_embeddings = nn.Parameter(torch.empty(config.position_grid_size, width))
        self.column_embeddings = nn.Parameter(torch.empty(config.position_grid_size, width))
        self.token_type_embedding = nn.Parameter(torch.empty(width))
        self.LayerNorm = nn.LayerNorm(width, eps=config.text_config.layer_norm_eps)
        self.dropout = nn.Dropout(config.text_config.hidden_dropout_prob)

    def forward(
        self, pixel_values: torch.Tensor, spatial_shapes: torch.Tensor, pixel_position_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        check_patch_width(pixel_values, self.config)
        pixel_values = pixel_values.to(self.row_embeddings.dtype)
        embeddings = (
            self.position_embeddings(pixel_values, spatial_shapes, pixel_position_ids) + self.token_type_embedding
        )
        if self.patch_features is not None:
            embeddings = embeddings + self.patch_features(pixel_values)
        if self.pixel_features is not None:
            embeddings = embeddings + self.pixel_features(pixel_values)
        return self.dropout(self.LayerNorm(embeddings))

    def position_embeddings(
        self, pixel_values: torch.Tensor, spatial_shapes: torch.Tensor, pixel_position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """(batch, patches, hidden_size). Without `pixel_position_ids` the patches are the whole grid, row by row."""
        if pixel_position_ids is None:
            pixel_position_ids = torch.arange(pixel_values.shape[1], device=pixel_values.device)[None, :]
        rows, columns = spatial_shapes.clamp(min=1).unbind(-1)  # (batch,) each
        longer = torch.maximum(rows, columns)[:, None]
        row = pixel_position_ids // columns[:, None]
        column = pixel_position_ids % columns[:, None]
        row = (row + 0.5 + (longer - rows[:, None]) / 2) / longer  # in (0, 1) along the longer side
        column = (column + 0.5 + (longer - columns[:, None]) / 2) / longer
        return _interpolate(self.row_embeddings, row) + _interpolate(self.column_embeddings, column)


def _interpolate(table: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Reads a (size, width) table at positions in [0, 1] (batch, patches), linearly between the entries' centres."""
    size = table.shape[0]
    position = (position * size - 0.5).clamp(0, size - 1)
    weights = (1 - (position[..., None] - torch.arange(size, device=table.device)).abs()).clamp(min=0)
    return weights.to(table.dtype) @ table


# ----------------------------------------------------------------------------------------------------------------------
# Encoders
# ----------------------------------------------------------------------------------------------------------------------


class AceBertPreTrainedModel(PreTrainedModel):
    """Weight initialisation and the library's switches, common to all ACE-BERT classes."""

    config: AceBertConfig
    base_model_prefix = "acebert"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("BertEmbeddings", "BertLayer", "AceBertImageEmbeddings")
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def get_input_embeddings(self) -> nn.Embedding:
        return self._title_bert.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self._title_bert.set_input_embeddings(value)

    @property
    def _title_bert(self) -> BertModel:
        """The BERT that reads titles; its word embeddings are the model's."""
        base = self.base_model
        return getattr(base, "product_encoder", base).bert

    def _resize_token_embeddings(
        self, new_num_tokens: int | None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        resized = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self.config.query_config.vocab_size = resized.num_embeddings
        query_encoder = getattr(self.base_model, "query_encoder", None)
        # Tied embeddings follow by themselves.
        if query_encoder is not None and not self.config.tie_word_embeddings:
            query_encoder.resize_token_embeddings(resized.num_embeddings, mean_resizing=mean_resizing)
        return resized

    @classmethod
    def from_backbone(
        cls, text: str, image: str | None = None, image_layers: int | None = None, **overrides: Any
    ) -> "AceBertPreTrainedModel":
        """Builds the model around a pre-trained BERT, whose weights go into both text encoders, and an eye.

        The sizes are the backbones'. A text encoder with fewer layers takes evenly spaced ones, the first and the last
        among them. With `image`, the photo gets a Vision Transformer of its own, and text is not projected, so that
        queries and titles start as the backbone's own pooled vectors; without, both projections start as the identity,
        cut to `projection_dim`. What was taken is logged and kept in `config.backbone`.

        Args:
            text: Hub id or folder of any checkpoint of model type "bert".
            image: Hub id or folder of a ViT, DINOv2 (with or without registers), CLIP, SigLIP or SigLIP 2, whose vision
                model is taken. Its processor is `AceBertImageProcessor.from_backbone(image)`. Left out, raw patches go
                straight into the product encoder.
            image_layers: take the first so many layers of `image`, by default all; 0 is the same as no `image`.
            overrides: arguments of `AceBertConfig`; `text_config` and `query_config` may be dicts of single changes.

        Raises:
            `ValueError`: if `text` is no BERT, an encoder is to have more layers than it or other widths, the ids of
                its [CLS] and [SEP] are neither given nor told by a tokenizer beside it, or `image` is of another kind.

        Example:

        ```python
        >>> model = AceBertModel.from_backbone("bert-base-uncased", query_config={"num_hidden_layers": 4})
        >>> model = AceBertModel.from_backbone("sentence-transformers/all-MiniLM-L6-v2", image="facebook/dinov2-small")
        ```
        """
        source_config = AutoConfig.from_pretrained(text)
        if source_config.model_type != "bert":
            raise ValueError(
                f"The backbone '{text}' is of type '{source_config.model_type}'; ACE-BERT takes BERT's kind."
            )
        if "cls_token_id" not in overrides or "sep_token_id" not in overrides:
            tokenizer = AutoTokenizer.from_pretrained(text)
            if len(tokenizer) <= len(tokenizer.all_special_ids):  # what the library makes of a folder without one
                raise ValueError(f"'{text}' has no tokenizer: pass `cls_token_id` and `sep_token_id`.")
            overrides = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id, **overrides}
        if overrides.get("share_encoders") and overrides.get("query_config") is None:
            overrides["query_config"] = overrides.get("text_config")
        sizes = {k: v for k, v in source_config.to_dict().items() if k not in ("architectures", "_name_or_path")}
        for name in ("text_config", "query_config"):
            changes = overrides.pop(name, None)
            changes = changes if isinstance(changes, dict | None) else changes.to_dict()
            overrides[name] = {**copy.deepcopy(sizes), **(changes or {}), "dtype": None}
            fixed = [size for size in _FIXED_SIZES if overrides[name][size] != sizes[size]]
            if fixed:
                raise ValueError(f"`{name}` changes {fixed}, but the backbone's weights fix them: leave them out.")
        image_state = None
        if image is not None and image_layers != 0:
            vision_config, image_state = load_image_backbone(image, image_layers)
            eye = {"patch_size": vision_config.patch_size, "num_channels": vision_config.num_channels}
            plain = {"text_projection": False, "projection_dim": source_config.hidden_size}
            overrides = {**eye, **plain, **overrides, "vision_config": vision_config}
        has_head = any(a.endswith(("ForMaskedLM", "ForPreTraining")) for a in source_config.architectures or [])
        auto_class = AutoModelForMaskedLM if has_head else AutoModel
        source = auto_class.from_pretrained(text, dtype=torch.float32, use_safetensors=True)
        model = cls(AceBertConfig(**overrides))
        base = model.base_model
        with torch.no_grad():
            taken: dict[str, Any] = {
                "product_layers": _copy_bert(base.product_encoder.bert, source.base_model, "product encoder")
            }
            if base.query_encoder is not None:
                taken["query_layers"] = _copy_bert(base.query_encoder, source.base_model, "query encoder")
            for projection in (base.product_projection, base.query_projection):
                if isinstance(projection, nn.Linear):
                    nn.init.eye_(projection.weight)
            taken["mlm_head"] = has_head and hasattr(model, "mlm_head")
            if taken["mlm_head"]:
                model.mlm_head.load_state_dict(source.cls.predictions.state_dict())
            if image_state is not None:
                base.image_encoder.load_state_dict(image_state)
                taken["image_layers"] = list(range(model.config.vision_config.num_hidden_layers))
        model.tie_weights()
        model.config.backbone = taken
        logger.info(f"Taken from the backbone {text}{f' and from {image}' if image_state else ''}: {taken}")
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.text_config.initializer_range
        if isinstance(module, BertLMPredictionHead):
            init.zeros_(module.bias)
        elif isinstance(module, AceBertPixelFeatures):
            init.normal_(module.position_embeddings, std=std)
        elif isinstance(module, AceBertImageEmbeddings):
            for parameter in (module.row_embeddings, module.column_embeddings, module.token_type_embedding):
                init.normal_(parameter, std=std)
        elif isinstance(module, AceBertModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if module.logit_bias is not None:
                init.constant_(module.logit_bias, self.config.logit_bias_init_value)


class AceBertProductEncoder(AceBertPreTrainedModel):
    """One Transformer of BERT's layers over `[CLS] title [SEP]` and then the image tokens.

    With `vision_config` the photo has an encoder of its own, and this one reads titles alone.

    Token types tell the parts apart: 0 is the title, 1 a hot query before it; image tokens have a type of their own.
    """

    _can_record_outputs = {"hidden_states": BertLayer, "attentions": BertSelfAttention}  # noqa: RUF012

    def __init__(self, config: AceBertConfig):
        super().__init__(config)
        self.bert = BertModel(config.text_config, add_pooling_layer=False)
        self.image_embeddings = AceBertImageEmbeddings(config) if config.vision_config is None else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        pixel_position_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Arguments as in [`AceBertModel.get_product_features`]; `pooler_output` is (batch, hidden_size)."""
        if input_ids is None and pixel_values is None:
            raise ValueError("A product needs `input_ids` (its title), `pixel_values` (its photo) or both.")
        if input_ids is None:
            alone = [self.config.cls_token_id, self.config.sep_token_id]
            input_ids = torch.tensor([alone], device=pixel_values.device).expand(pixel_values.shape[0], -1)
            attention_mask = None
        hidden = self.bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if pixel_values is not None:
            if self.image_embeddings is None:
                raise ValueError("With `vision_config` the product encoder reads titles alone, but got `pixel_values`.")
            _check_spatial_shapes(spatial_shapes)
            image = self.image_embeddings(pixel_values, spatial_shapes, pixel_position_ids)
            image_mask = torch.ones_like(image[..., 0]) if pixel_attention_mask is None else pixel_attention_mask
            hidden = torch.cat([hidden, image], dim=1)
            mask = torch.cat([mask, image_mask.to(mask.dtype)], dim=1)
        num_tokens = mask.shape[1]
        # What is recorded inside the encoder keeps its places, and a traced graph has one shape for all inputs.
        flags = [f"output_{name}" for name in self._can_record_outputs]
        recorded = any(kwargs.get(flag, getattr(self.config, flag, False)) for flag in flags)
        order = None if recorded or is_tracing(hidden) else _order_without_padding(mask)
        if order is not None:
            hidden, mask = _take(hidden, order), mask.gather(1, order)
        encoded = self.bert.encoder(
            hidden,
            attention_mask=create_bidirectional_mask(
                config=self.config.text_config, inputs_embeds=hidden, attention_mask=mask
            ),
            **kwargs,
        ).last_hidden_state
        pooled = pool(encoded, mask, self.config.pooling)
        if order is not None:
            encoded = _put_back(encoded, order, num_tokens)
        return BaseModelOutputWithPooling(last_hidden_state=encoded, pooler_output=pooled)


def _check_spatial_shapes(spatial_shapes: torch.Tensor | None) -> None:
    if spatial_shapes is None:
        raise ValueError("`pixel_values` needs `spatial_shapes` (batch, 2): pass all that the processor returned.")


def _order_without_padding(mask: torch.Tensor) -> torch.Tensor | None:
    """Places of each row's own tokens, in their order, then of as much padding as the longest row asks for.

    A title's padding stands before its photo, so that a row with a short title would cost as much as one with a long
    title, even where their photos make up for it.

    Returns:
        (batch, longest), or None where nothing is to be gained.
    """
    own = mask.ne(0).int()
    longest = max(1, int(own.sum(1).max()))  # a row may hold nothing but padding
    return None if longest == mask.shape[1] else own.argsort(dim=1, descending=True, stable=True)[:, :longest]


def _take(hidden: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return hidden.gather(1, order[..., None].expand(-1, -1, hidden.shape[-1]))


def _put_back(hidden: torch.Tensor, order: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Undoes `_take`; tokens that were not taken, which are padding, become zeros."""
    places = order[..., None].expand_as(hidden)
    return hidden.new_zeros(hidden.shape[0], num_tokens, hidden.shape[-1]).scatter(1, places, hidden)


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(batch, tokens, width) and its (batch, tokens) mask to (batch, width)."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.to(hidden.dtype)
    return (weights[:, None, :] @ hidden)[:, 0] / weights.sum(1, keepdim=True).clamp(min=1)


def mean_photo(vectors: torch.Tensor) -> torch.Tensor:
    """What stands for several photos of a product: the unit vector of the mean of their unit vectors.

    Args:
        vectors: (products, photos, dim), zeros where a product has fewer photos.

    Returns:
        (products, dim): a product's only photo as it is, zeros for none.
    """
    total = vectors.sum(1)
    has_several = vectors.any(-1).sum(1, keepdim=True) > 1
    return torch.where(has_several, F.normalize(total, dim=-1), total)


def first_photo(*photos: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Model inputs of photos, of several of a product those of its first: a model in one stream reads no more."""
    if photos[0] is None or photos[0].ndim == 3:
        return list(photos)
    logger.warning_once(
        "This model reads titles and photos in one stream (it has no `vision_config`): of a product's several photos "
        "it reads the first alone."
    )
    return [None if values is None else values[:, 0] for values in photos]


def join_sides(
    title: torch.Tensor, image: torch.Tensor, image_weight: torch.Tensor | float, has_title: torch.Tensor
) -> torch.Tensor:
    """Unit vectors (products, dim) of products by those of their titles and photos: of title + w · photo.

    Args:
        title, image: (products, dim) unit vectors, zeros for what a product lacks.
        image_weight: (products,) or one number: w. A photo without a title stands for itself.
        has_title: (products,) booleans.
    """
    weight = torch.as_tensor(image_weight, device=title.device).float().expand(len(title)).masked_fill(~has_title, 1.0)
    return F.normalize(title + weight[:, None] * image, dim=-1)


def _text_projection(width: int, config: AceBertConfig) -> nn.Module:
    return nn.Linear(width, config.projection_dim, bias=False) if config.text_projection else nn.Identity()


_WORD_EMBEDDINGS = "product_encoder.bert.embeddings.word_embeddings.weight"


class AceBertModel(AceBertPreTrainedModel):
    """Query encoder and product encoder with their projections: unit vectors in one space, compared by dot product.

    With `config.vision_config` titles and photos have an encoder each, and a product's vector is the unit vector of
    title + w · photo, of several photos their mean ([`mean_photo`]). So the worst that a photo can do is bounded by w:
    a cosine with the title's own vector of sqrt(1 - w²) for w < 1, however wrong the photo's vector is.
    """

    main_input_name = "query_input_ids"
    # Heads of the classes below, in whose checkpoints this model is found too.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012 - releases before 5.10 add a list to it
        r"^domain_classifier\.",
        r"^(mlm|patch|matching)_head\.",
    ]

    def __init__(self, config: AceBertConfig):
        super().__init__(config)
        self.product_encoder = AceBertProductEncoder(config)
        self.product_projection = _text_projection(config.text_config.hidden_size, config)
        if config.share_encoders:
            self.query_encoder = self.query_projection = None
        else:
            self.query_encoder = BertModel(config.query_config, add_pooling_layer=False)
            self.query_projection = _text_projection(config.query_config.hidden_size, config)
            self._tied_weights_keys = {
                "query_encoder.embeddings.word_embeddings.weight": _WORD_EMBEDDINGS,
            }
        if config.vision_config is None:
            self.image_encoder = self.image_projection = None
        else:
            self.image_encoder = AceBertVisionModel._from_config(config.vision_config)
            self.image_projection = nn.Sequential(
                nn.Linear(config.vision_config.feature_size, config.image_head_size),
                nn.GELU(),
                nn.Linear(config.image_head_size, config.projection_dim),
            )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        has_bias = config.loss == "sigmoid"
        self.logit_bias = nn.Parameter(torch.tensor(float(config.logit_bias_init_value))) if has_bias else None
        self.post_init()

    def split_encoders(self, num_hidden_layers: int | None = None) -> None:
        """Gives queries an encoder of their own, which starts as a copy of the one that they shared with titles.

        Args:
            num_hidden_layers: of the new encoder, evenly spaced ones with the first and the last; all by default.

        Raises:
            `ValueError`: if queries have their own encoder already, or more layers are wanted than there are.
        """
        if self.query_encoder is not None:
            raise ValueError("Queries have an encoder of their own already: leave `split_encoders` out.")
        source, config = self.product_encoder.bert, self.config
        config.share_encoders = False
        config.query_config = copy.deepcopy(config.text_config)
        if num_hidden_layers is not None:
            config.query_config.num_hidden_layers = num_hidden_layers
        self.query_encoder = BertModel(config.query_config, add_pooling_layer=False).to(source.device, source.dtype)
        _copy_bert(self.query_encoder, source, "query encoder")
        self.query_projection = copy.deepcopy(self.product_projection)
        self._tied_weights_keys = {"query_encoder.embeddings.word_embeddings.weight": _WORD_EMBEDDINGS}
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=False)
        self.tie_weights()

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encodes queries.

        Args:
            input_ids: (batch, tokens) ids of `processor(text=queries)`.
            attention_mask: (batch, tokens), 1 for tokens, 0 for padding.

        Returns:
            `pooler_output` (batch, projection_dim), unit length; `last_hidden_state` (batch, tokens, hidden_size).
        """
        photo = [name for name in kwargs if name.startswith("pixel") or name == "spatial_shapes"]
        if photo:
            raise ValueError(
                f"The query side reads text alone, but got {photo}: use `get_product_features` for photos."
            )
        if self.query_encoder is None or self.query_projection is None:
            return self.get_product_features(input_ids, attention_mask, return_dict=True, **kwargs)
        outputs = self.query_encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pooled = pool(outputs.last_hidden_state, mask, self.config.pooling)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=self._to_unit_vector(self.query_projection(pooled)),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @can_return_tuple
    def get_product_features(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        pixel_position_ids: torch.Tensor | None = None,
        image_weight: torch.Tensor | float | None = None,
        image_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AceBertProductOutput:
        """Encodes products: title and photo, title alone or photo alone, in one batch too.

        Args:
            input_ids: (batch, tokens) ids of the titles; `[CLS] [SEP]` for a product without one.
            attention_mask: (batch, tokens), 1 for tokens, 0 for padding.
            token_type_ids: (batch, tokens), 0 title, 1 hot query; needed only with hot queries.
            pixel_values: (batch, patches, patch_size² · channels) raw patches, normalised by the processor. Of several
                photos (batch, photos, patches, patch_size² · channels), and the three below with this dimension, too:
                see [`mean_photo`]. Without `vision_config` the first photo is read alone, with a warning.
            pixel_attention_mask: (batch, patches), 1 for patches, 0 for padding; a row of 0 is no photo.
            spatial_shapes: (batch, 2) rows and columns of each photo's grid of patches.
            pixel_position_ids: (batch, patches) place of each patch in its grid, row · columns + column. Left out, the
                patches are the whole grid in order.
            image_weight: (batch,) or one number: the photo's weight beside the title, `config.image_weight` if left
                out. With `vision_config` only.
            image_embeds: (batch, projection_dim) unit vectors of photos that were made before, in place of
                `pixel_values`; a row of 0 is a product without a photo. With `vision_config` only.

        Returns:
            `pooler_output` (batch, projection_dim), unit length, and what [`AceBertProductOutput`] lists.
        """
        if self.image_encoder is None:
            for name, value in (("image_weight", image_weight), ("image_embeds", image_embeds)):
                if value is not None:
                    raise ValueError(f"`{name}` needs a model with `vision_config`: leave it out.")
            pixel_values, pixel_attention_mask, spatial_shapes, pixel_position_ids = first_photo(
                pixel_values, pixel_attention_mask, spatial_shapes, pixel_position_ids
            )
            outputs = self.product_encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                pixel_values=pixel_values,
                pixel_attention_mask=pixel_attention_mask,
                spatial_shapes=spatial_shapes,
                pixel_position_ids=pixel_position_ids,
                return_dict=True,
                **kwargs,
            )
            outputs.pooler_output = self._to_unit_vector(self.product_projection(outputs.pooler_output))
            return AceBertProductOutput(**outputs)

        if image_embeds is not None and pixel_values is not None:
            raise ValueError("Give `image_embeds` or `pixel_values`, not both.")
        if input_ids is None and pixel_values is None and image_embeds is None:
            raise ValueError("A product needs `input_ids` (its title), `pixel_values` (its photo) or both.")
        title_outputs = image_outputs = title = image = has_title = None
        if input_ids is not None:
            title_outputs = self.product_encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                return_dict=True,
                **kwargs,
            )
            title = F.normalize(self.product_projection(title_outputs.pooler_output).float(), dim=-1)
        if pixel_values is not None:
            image, image_outputs = self._encode_photos(
                pixel_values, pixel_attention_mask, spatial_shapes, pixel_position_ids, **kwargs
            )
        elif image_embeds is not None:
            image = image_embeds.float()
        if title is None or image is None:
            product = title if image is None else image
        else:
            # [CLS] [SEP] alone is the title of a product that has none.
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            has_title = mask.sum(1) > 2
            title = title.masked_fill(~has_title[:, None], 0.0)
            weight = self.config.image_weight if image_weight is None else image_weight
            product = join_sides(title, image, weight, has_title)
        dtype = self.logit_scale.dtype
        outputs = title_outputs or image_outputs or BaseModelOutputWithPooling()
        return AceBertProductOutput(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=product.to(dtype),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            title_embeds=None if title is None else title.to(dtype),
            image_embeds=None if image is None else image.to(dtype),
            image_model_output=image_outputs,
        )

    def _encode_photos(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None,
        spatial_shapes: torch.Tensor | None,
        pixel_position_ids: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, BaseModelOutputWithPooling | None]:
        """Unit vectors (batch, projection_dim) in float32, zeros where there is no photo; and the encoder's output.

        Products without a photo cost nothing. Of several photos it is the vector of [`mean_photo`].
        """
        _check_spatial_shapes(spatial_shapes)
        if pixel_values.ndim == 4:
            several = (pixel_values, pixel_attention_mask, spatial_shapes, pixel_position_ids)
            each = [None if values is None else values.flatten(0, 1) for values in several]
            image, outputs = self._encode_photos(*each, **kwargs)
            return mean_photo(image.unflatten(0, pixel_values.shape[:2])), outputs
        arguments = [pixel_values, spatial_shapes, pixel_attention_mask, pixel_position_ids]
        rows = has_photo = None
        if pixel_attention_mask is not None:
            has_photo = pixel_attention_mask.any(1)
            if not is_tracing(has_photo) and not has_photo.all():
                rows = has_photo.nonzero()[:, 0]
                if len(rows) == 0:
                    if not self.training:
                        return pixel_values.new_zeros(len(pixel_values), self.config.projection_dim).float(), None
                    # Data parallelism wants every process to use the same weights in every step.
                    rows = rows.new_zeros(1)
                arguments = [None if argument is None else argument[rows] for argument in arguments]
        assert self.image_encoder is not None and self.image_projection is not None, "needs `vision_config`"
        outputs = self.image_encoder(*arguments, return_dict=True, **kwargs)
        image = F.normalize(self.image_projection(outputs.pooler_output).float(), dim=-1)
        if rows is not None:
            image = image.new_zeros(len(pixel_values), image.shape[1]).index_copy(0, rows, image)
        return image if has_photo is None else image * has_photo[:, None], outputs

    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        pixel_position_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AceBertProductOutput:
        """Encodes products by their photo alone; arguments and result as in [`AceBertModel.get_product_features`].

        The vectors lie in the products' space. With `vision_config`, that of a product without a photo is zero.
        """
        return self.get_product_features(
            pixel_values=pixel_values,
            pixel_attention_mask=pixel_attention_mask,
            spatial_shapes=spatial_shapes,
            pixel_position_ids=pixel_position_ids,
            **kwargs,
        )

    def to_sentence_transformer(self, processor: ProcessorMixin) -> nn.Module:
        """This model as a `SentenceTransformer`, for that library's evaluators and tools; nothing is copied.

        Its `encode` puts the model into evaluation mode. To keep it, save the model and the processor:
        `SentenceTransformer(folder, trust_remote_code=True)` reads their folder.
        """
        from .sentence_transformers_acebert import to_sentence_transformer

        return to_sentence_transformer(self, processor)

    def _to_unit_vector(self, projected: torch.Tensor) -> torch.Tensor:
        # Under autocast the projection is in half precision: the norm is taken in float32, the result has the weights'
        # type. The scale's, because in an 8-bit model those of the projection are integers.
        return F.normalize(projected.float(), dim=-1).to(self.logit_scale.dtype)

    @property
    def scale(self) -> torch.Tensor:
        """Inverse temperature of the logits, learned and clamped."""
        return self.logit_scale.clamp(max=self.config.logit_scale_max_value).exp()

    def retrieval_loss(
        self,
        query_embeds: torch.Tensor,
        product_embeds: torch.Tensor,
        positives: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The configured loss, as the mean over full width and `matryoshka_dims`; arguments as in [`info_nce_loss`]."""
        query_embeds, product_embeds = query_embeds.float(), product_embeds.float()
        losses = []
        for width in (self.config.projection_dim, *(self.config.matryoshka_dims or [])):
            query = F.normalize(query_embeds[:, :width], dim=-1)
            product = F.normalize(product_embeds[:, :width], dim=-1)
            if self.logit_bias is not None:
                losses.append(sigmoid_loss(query, product, self.scale, self.logit_bias, positives, weights))
            else:
                losses.append(info_nce_loss(query, product, self.scale, positives, weights))
        return torch.stack(losses).mean()

    @can_return_tuple
    def forward(
        self,
        query_input_ids: torch.Tensor | None = None,
        query_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        pixel_position_ids: torch.Tensor | None = None,
        positives: torch.Tensor | None = None,
        product_embeds: torch.Tensor | None = None,
        return_loss: bool | None = None,
        image_weight: torch.Tensor | float | None = None,
        image_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AceBertOutput:
        """Scores a batch of queries against a batch of products.

        Args:
            query_input_ids, query_attention_mask: (queries, tokens), the query side.
            input_ids ... pixel_position_ids: the product side, as in [`AceBertModel.get_product_features`].
            positives: (queries, products) booleans of [`find_positives`], for the loss.
            product_embeds: (products, projection_dim) unit vectors that were made before, in place of the product side.
            return_loss: take query i and product i as a pair and return the retrieval loss.
            image_weight, image_embeds: as in [`AceBertModel.get_product_features`].
        """
        if query_input_ids is None:
            raise ValueError(
                "A forward pass compares queries with products, but `query_input_ids` is missing. For the vectors of "
                "one side call `get_text_features` or `get_product_features`, and in place of `pipeline` use "
                "`SentenceTransformer(folder, trust_remote_code=True)`."
            )
        query_outputs = self.get_text_features(query_input_ids, query_attention_mask, return_dict=True, **kwargs)
        query_embeds, product_outputs = query_outputs.pooler_output, None
        if product_embeds is None:
            product_outputs = self.get_product_features(
                input_ids,
                attention_mask,
                token_type_ids,
                pixel_values,
                pixel_attention_mask,
                spatial_shapes,
                pixel_position_ids,
                image_weight,
                image_embeds,
                return_dict=True,
                **kwargs,
            )
            product_embeds = product_outputs.pooler_output
        elif any(given is not None for given in (input_ids, pixel_values, image_embeds)):
            raise ValueError("Give `product_embeds` or the products' `input_ids` and `pixel_values`, not both.")
        logits = self.scale * query_embeds @ product_embeds.t()
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        return AceBertOutput(
            loss=self.retrieval_loss(query_embeds, product_embeds, positives) if return_loss else None,
            logits_per_query=logits,
            logits_per_product=logits.t(),
            query_embeds=query_embeds,
            product_embeds=product_embeds,
            query_model_output=query_outputs,
            product_model_output=product_outputs,
            title_embeds=None if product_outputs is None else product_outputs.title_embeds,
            image_embeds=None if product_outputs is None else product_outputs.image_embeds,
        )


_FIXED_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings", "type_vocab_size")


def _copy_bert(encoder: nn.Module, source: nn.Module, name: str) -> list[int]:
    """Copies BERT's embeddings and evenly spaced layers into an encoder; returns the layers that were taken."""
    wanted, have = len(encoder.encoder.layer), len(source.encoder.layer)
    if wanted > have:
        raise ValueError(f"The {name} has {wanted} layers, but the backbone only {have}: lower `num_hidden_layers`.")
    taken = torch.linspace(0, have - 1, wanted).round().long().tolist()
    encoder.embeddings.load_state_dict(source.embeddings.state_dict())
    for layer, index in zip(encoder.encoder.layer, taken, strict=True):
        layer.load_state_dict(source.encoder.layer[index].state_dict())
    return taken


# ----------------------------------------------------------------------------------------------------------------------
# Tasks
# ----------------------------------------------------------------------------------------------------------------------


class AceBertForPreTraining(AceBertPreTrainedModel):
    """Pre-training of the product encoder: masked words, masked patches, and whether the parts belong together.

    Words and patches are predicted from each other, so the product encoder has to read both: no `vision_config`.
    """

    _tied_weights_keys = {  # noqa: RUF012 - the library reads a plain class attribute
        "mlm_head.decoder.weight": f"acebert.{_WORD_EMBEDDINGS}",
        "mlm_head.decoder.bias": "mlm_head.bias",
    }

    def __init__(self, config: AceBertConfig):
        if config.vision_config is not None:
            raise ValueError(
                "Pre-training needs title and photo in one encoder, but this model has an image encoder of its own: "
                "leave `vision_config` out, or go on with fine-tuning."
            )
        super().__init__(config)
        width = config.text_config.hidden_size
        self.acebert = AceBertModel(config)
        self.mlm_head = BertLMPredictionHead(config.text_config)
        self.patch_head = nn.Linear(width, config.patch_size**2 * config.num_channels)
        self.matching_head = nn.Linear(width, 2)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.mlm_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.mlm_head.decoder = value
        self.mlm_head.bias = value.bias

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        pixel_position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        matching_labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AceBertForPreTrainingOutput:
        """Predicts masked words and patches, and whether title, hot query and photo belong together.

        Args:
            input_ids ... pixel_position_ids: as in [`AceBertModel.get_product_features`], words already masked.
            labels: (batch, tokens) true ids of the masked words, -100 elsewhere.
            bool_masked_pos: (batch, patches) booleans, the patches to hide and predict. A hidden patch is mid-grey.
                Their loss is the mean squared error of the raw, normalised pixels.
            matching_labels: (batch,) 1 if all parts are one product's, else 0. Rows of 0 take no part in the other
                losses.
        """
        visible = pixel_values
        if pixel_values is not None and bool_masked_pos is not None:
            visible = pixel_values.masked_fill(bool_masked_pos[..., None], 0.0)
        outputs = self.acebert.product_encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            pixel_values=visible,
            pixel_attention_mask=pixel_attention_mask,
            spatial_shapes=spatial_shapes,
            pixel_position_ids=pixel_position_ids,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        text_length = 2 if input_ids is None else input_ids.shape[1]
        text_hidden = hidden[:, :text_length]
        if labels is not None:
            # The vocabulary's scores are by far the widest tensor here: only the words that are asked for get theirs.
            if matching_labels is not None:
                labels = labels.masked_fill(~matching_labels.bool()[:, None], -100)
            text_hidden, labels = text_hidden[labels != -100], labels[labels != -100]
        prediction_logits = self.mlm_head(text_hidden)
        patch_predictions = None if pixel_values is None else self.patch_head(hidden[:, text_length:])
        matching_logits = self.matching_head(outputs.pooler_output)

        config, losses = self.config, {}
        together = None if matching_labels is None else matching_labels.bool()
        if labels is not None:
            losses["mlm_loss"] = _mean_cross_entropy(prediction_logits, labels, config.label_smoothing)
        if bool_masked_pos is not None and pixel_values is not None:
            counted = bool_masked_pos if pixel_attention_mask is None else bool_masked_pos & pixel_attention_mask.bool()
            counted = counted if together is None else counted & together[:, None]
            error = (patch_predictions.float() - pixel_values.float()).pow(2).mean(-1)
            losses["patch_loss"] = (error * counted).sum() / counted.sum().clamp(min=1)
        if matching_labels is not None:
            losses["matching_loss"] = _mean_cross_entropy(matching_logits, matching_labels, config.label_smoothing)
        weights = {name: getattr(config, f"{name}_weight") for name in losses}
        return AceBertForPreTrainingOutput(
            loss=sum(weights[name] * loss for name, loss in losses.items()) if losses else None,
            **losses,
            prediction_logits=prediction_logits,
            patch_predictions=patch_predictions,
            matching_logits=matching_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _mean_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Mean over the rows; 0, not NaN, where there is none."""
    loss = F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)
    return loss / max(labels.shape[0], 1)


class AceBertForRetrieval(AceBertPreTrainedModel):
    """Fine-tuning: query-product matching, and a domain classifier behind a gradient reversal."""

    main_input_name = "query_input_ids"

    def __init__(self, config: AceBertConfig):
        super().__init__(config)
        self.acebert = AceBertModel(config)
        layers, width = [], config.projection_dim
        for hidden in config.domain_hidden_sizes:
            layers += [nn.Linear(width, hidden), nn.GELU()]
            width = hidden
        self.domain_classifier = nn.Sequential(*layers, nn.Linear(width, 1))
        self.post_init()

    def compute_loss(
        self,
        query_embeds: torch.Tensor,
        product_embeds: torch.Tensor,
        positives: torch.Tensor | None = None,
        adversarial_strength: float | None = None,
        weights: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The loss from vectors alone, so that they may come from several processes or from cached gradients.

        Args:
            query_embeds: (n, projection_dim) unit vectors.
            product_embeds: (m, projection_dim) unit vectors, m >= n.
            positives: (n, m) booleans of [`find_positives`].
            adversarial_strength: factor of the reversed gradient, `config.adversarial_strength` if left out. Where both
                are 0 there is no adversary. Where this one is, as when a schedule starts, the domain classifier learns
                but nothing flows back to the encoders.
            weights: (n,) positive: what each row counts in the matching loss; all alike if left out.

        Returns:
            `loss`, `matching_loss` and, with an adversary, `domain_loss`, `domain_accuracy`: scalars.
        """
        strength = self.config.adversarial_strength if adversarial_strength is None else adversarial_strength
        matching = self.acebert.retrieval_loss(query_embeds, product_embeds, positives, weights)
        if not (strength or self.config.adversarial_strength):
            return {"loss": matching, "matching_loss": matching}
        query_logits = self.domain_classifier(reverse_gradient(query_embeds, strength))[:, 0]
        product_logits = self.domain_classifier(reverse_gradient(product_embeds, strength))[:, 0]
        domain, accuracy = domain_loss(query_logits.float(), product_logits.float(), self.config.label_smoothing)
        return {
            "loss": matching + domain,
            "matching_loss": matching,
            "domain_loss": domain,
            "domain_accuracy": accuracy,
        }

    @can_return_tuple
    def forward(
        self,
        query_input_ids: torch.Tensor | None = None,
        query_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        pixel_position_ids: torch.Tensor | None = None,
        positives: torch.Tensor | None = None,
        adversarial_strength: float | None = None,
        product_embeds: torch.Tensor | None = None,
        return_loss: bool | None = True,
        image_weight: torch.Tensor | float | None = None,
        image_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AceBertOutput:
        """As [`AceBertModel.forward`], but with the loss of `compute_loss`, adversary included, by default."""
        outputs = self.acebert(
            query_input_ids,
            query_attention_mask,
            input_ids,
            attention_mask,
            token_type_ids,
            pixel_values,
            pixel_attention_mask,
            spatial_shapes,
            pixel_position_ids,
            product_embeds=product_embeds,
            image_weight=image_weight,
            image_embeds=image_embeds,
            return_dict=True,
            **kwargs,
        )
        if return_loss:
            losses = self.compute_loss(outputs.query_embeds, outputs.product_embeds, positives, adversarial_strength)
            for name, value in losses.items():
                outputs[name] = value
        return outputs


AceBertModel.register_for_auto_class("AutoModel")


AceBertForPreTraining.register_for_auto_class("AutoModelForPreTraining")


# Registered so that its folder gets the code too; the folder's AutoModel stays AceBertModel: AceBertConfig sees to it.
AceBertForRetrieval.register_for_auto_class("AutoModel")


__all__ = [
    "AceBertForPreTraining",
    "AceBertForRetrieval",
    "AceBertModel",
    "AceBertPreTrainedModel",
]
