"""Configuration of ACE-BERT: every size and switch of the model, validated, with no access to network or files."""

import copy
import difflib
import json
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import BertConfig, __version__

# No packaging guards code that comes from the Hub. Older releases lack the dataclass that configurations are and the
# image processors' base class (tests/versions).
if tuple(map(int, __version__.split(".")[:2])) < (5, 4):
    raise ImportError(f"transformers>=5.4.0 is required by ACE-BERT, but {__version__} is installed: upgrade it.")

from transformers.configuration_utils import PreTrainedConfig

LOSSES = ("info_nce", "sigmoid")
POOLINGS = ("mean", "cls")
INTERPOLATIONS = ("bicubic", "bilinear")

# One folder serves every Auto class, whichever of the model classes was saved in it.
AUTO_MAP = {
    "AutoConfig": "configuration_acebert.AceBertConfig",
    "AutoModel": "modeling_acebert.AceBertModel",
    "AutoModelForPreTraining": "modeling_acebert.AceBertForPreTraining",
}
# The same for sentence-transformers, in the `modules.json` that it looks for.
SENTENCE_TRANSFORMERS_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers_acebert.AceBertModule"}
]


@strict
class AceBertVisionConfig(PreTrainedConfig):
    r"""
    Configuration of [`AceBertVisionModel`], a Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) on raw
    patches. The defaults are the sizes of DINOv2 ViT-S/14; `AceBertModel.from_backbone` reads them from the image
    backbone.

    Args:
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size (`int`):
            Sizes of the Transformer.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLPs, by its name in `transformers.activations.ACT2FN`.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Of all layer norms.
        patch_size, num_channels (`int`, *optional*, default to 14 and 3):
            A patch holds `patch_size`² · `num_channels` values.
        position_grid_size (`int`, *optional*, defaults to 37):
            Learned positions along each axis. They are interpolated to the grid of each photo.
        position_interpolation (`str`, *optional*, defaults to `"bicubic"`):
            `"bicubic"` or `"bilinear"`.
        antialias_positions (`bool`, *optional*, defaults to `False`):
            Widen the interpolation's kernel where a photo has fewer patches than there are positions.
        use_class_token (`bool`, *optional*, defaults to `True`):
            A class token before the patches. The photo's features are then this token and the mean of the patches.
        num_register_tokens (`int`, *optional*, defaults to 0):
            Registers (Darcet et al. 2024, arXiv 2309.16588) after the class token.
        use_pre_norm (`bool`, *optional*, defaults to `False`):
            A layer norm before the first layer, as in CLIP.
        use_layer_scale (`bool`, *optional*, defaults to `False`):
            A learned factor for each channel of each residual branch (Touvron et al. 2021, arXiv 2103.17239).
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of weights that are drawn.

    Raises:
        `ValueError`: where sizes don't fit each other or a name is unknown.
    """

    model_type = "acebert_vision"
    base_config_key = "vision_config"

    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    hidden_act: str = "gelu"
    layer_norm_eps: float | int = 1e-6
    patch_size: int = 14
    num_channels: int = 3
    position_grid_size: int = 37
    position_interpolation: str = "bicubic"
    antialias_positions: bool = False
    use_class_token: bool = True
    num_register_tokens: int = 0
    use_pre_norm: bool = False
    use_layer_scale: bool = False
    initializer_range: float | int = 0.02

    @property
    def feature_size(self) -> int:
        """Width of a photo's features: the mean of its patches, and the class token where there is one."""
        return self.hidden_size * (1 + self.use_class_token)

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: refuses sizes that don't fit each other, before any weight exists."""
        sizes = ("hidden_size", "num_attention_heads", "intermediate_size", "patch_size", "num_channels")
        for name in (*sizes, "position_grid_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`vision_config.{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("num_hidden_layers", "num_register_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"`vision_config.{name}` must not be negative, got {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"`vision_config.hidden_size` ({self.hidden_size}) must be a multiple of "
                f"`vision_config.num_attention_heads` ({self.num_attention_heads})."
            )
        if self.position_interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"`vision_config.position_interpolation` must be one of {INTERPOLATIONS}, not "
                f"'{self.position_interpolation[:80]}'."
            )


@strict
class AceBertConfig(PreTrainedConfig):
    r"""
    Configuration of [`AceBertModel`], [`AceBertForPreTraining`] and [`AceBertForRetrieval`]. The defaults give a model
    of BERT-base size; `AceBertConfig.small()` gives one that trains on a laptop.

    The papers (arXiv 2112.07209; APWeb-WAIM 2023) are known here by their abstracts alone. They name patch features,
    pixel features, a BERT backbone, separate query and title networks, hot queries and a domain classifier; every size,
    weight and schedule below is this project's choice.

    Args:
        text_config (`BertConfig` or `dict`, *optional*):
            The product encoder: BERT's layers over title tokens and image tokens.
        query_config (`BertConfig` or `dict`, *optional*, defaults to `text_config`):
            The query encoder. It may have fewer layers or another width than the product encoder.
        vision_config ([`AceBertVisionConfig`] or `dict`, *optional*):
            A Vision Transformer of its own for the photo. A product's vector is then the unit vector of
            title + `image_weight` · photo, both unit vectors; of a product that lacks one, it is the other's. Left out,
            or with 0 layers, the raw patches go straight into the product encoder, beside the title's tokens.
        image_weight (`float`, *optional*, defaults to 0.6):
            Weight of the photo's vector beside the title's. With `vision_config` only.
        image_head_size (`int`, *optional*, defaults to 1024):
            Hidden width of the two linear layers that turn a photo's features into its vector. With `vision_config`
            only.
        share_encoders (`bool`, *optional*, defaults to `False`):
            Encode queries with the product encoder. `query_config` then equals `text_config`.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`):
            One matrix of word embeddings for product encoder, query encoder and masked-language-modelling decoder.
        patch_size (`int`, *optional*, defaults to 16):
            Side of a square patch, in pixels of the resized photo. Must equal the image processor's.
        num_channels (`int`, *optional*, defaults to 3):
            Colour channels of a photo.
        use_patch_features (`bool`, *optional*, defaults to `True`):
            Without `vision_config`, as the four below: give each image token a linear projection of its raw patch.
        use_pixel_features (`bool`, *optional*, defaults to `True`):
            Give each image token an embedding of the pixel groups inside its patch, mixed among themselves.
        pixel_group_size (`int`, *optional*, defaults to 4):
            Side of a square pixel group, in pixels. Divides `patch_size`.
        pixel_hidden_size (`int`, *optional*, defaults to 32):
            Width of one pixel group's embedding.
        position_grid_size (`int`, *optional*, defaults to 16):
            Learned positions along each axis of a photo. Positions in between are interpolated, so any grid is served.
        projection_dim (`int`, *optional*, defaults to 512):
            Width of the query and product vectors.
        text_projection (`bool`, *optional*, defaults to `True`):
            Project pooled text to `projection_dim`. Without it, that must be the text encoders' width.
        pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"` over all tokens that are not padding, or `"cls"`.
        matryoshka_dims (`list[int]`, *optional*):
            Widths below `projection_dim` at which the retrieval loss is taken as well (arXiv 2205.13147), so that
            vectors can be cut there.
        loss (`str`, *optional*, defaults to `"info_nce"`):
            `"info_nce"` (arXiv 1807.03748, both ways) or `"sigmoid"` (arXiv 2303.15343).
        logit_scale_init_value (`float`, *optional*, defaults to 2.6592):
            Logarithm of the inverse temperature at the start: ln(1 / 0.07), as in CLIP.
        logit_scale_max_value (`float`, *optional*, defaults to 4.6052):
            Upper bound of that logarithm: ln(100), as in CLIP.
        logit_bias_init_value (`float`, *optional*, defaults to -10.0):
            Bias of the logits at the start, for the sigmoid loss only, as in SigLIP.
        domain_hidden_sizes (`list[int]`, *optional*, defaults to `[256]`):
            Hidden widths of the domain classifier (query or product?).
        adversarial_strength (`float`, *optional*, defaults to 0.1):
            Largest factor of the reversed gradient; 0 switches the adversary off.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Of the classification losses: masked language modelling, matching, domain.
        mlm_loss_weight, patch_loss_weight, matching_loss_weight (`float`, *optional*, default to 1.0):
            Weights of the pre-training losses; 0 switches one off.
        cls_token_id, sep_token_id (`int`, *optional*, default to 101 and 102):
            The tokens that stand in for the title of a product that has only a photo.
        backbone (`dict`, *optional*):
            Which layers of a pre-trained BERT were copied, as `AceBertModel.from_backbone` recorded it.

    Raises:
        `ValueError`: where sizes don't fit each other, a name is unknown or an argument looks misspelt.

    Example:

    ```python
    >>> from acebert.configuration_acebert import AceBertConfig

    >>> config = AceBertConfig.small(vocab_size=30522)
    >>> config.text_config.num_hidden_layers, config.query_config.num_hidden_layers
    (6, 4)
    ```
    """

    model_type = "acebert"
    sub_configs = {  # noqa: RUF012 - the library reads a plain class attribute
        "text_config": BertConfig,
        "query_config": BertConfig,
        "vision_config": AceBertVisionConfig,
    }

    # `Trainer` gathers all other outputs of an evaluation: the encoders' token vectors would fill the memory.
    keys_to_ignore_at_inference = [  # noqa: RUF012
        "query_model_output",
        "product_model_output",
        "matching_loss",
        "domain_loss",
        "domain_accuracy",
    ]

    text_config: dict | PreTrainedConfig | None = None
    query_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    image_weight: float | int = 0.6
    image_head_size: int = 1024
    share_encoders: bool = False
    tie_word_embeddings: bool = True
    patch_size: int = 16
    num_channels: int = 3
    use_patch_features: bool = True
    use_pixel_features: bool = True
    pixel_group_size: int = 4
    pixel_hidden_size: int = 32
    position_grid_size: int = 16
    projection_dim: int = 512
    text_projection: bool = True
    pooling: str = "mean"
    matryoshka_dims: list[int] | None = None
    loss: str = "info_nce"
    logit_scale_init_value: float | int = 2.6592
    logit_scale_max_value: float | int = 4.6052
    logit_bias_init_value: float | int = -10.0
    domain_hidden_sizes: list[int] | None = None
    adversarial_strength: float | int = 0.1
    label_smoothing: float | int = 0.0
    mlm_loss_weight: float | int = 1.0
    patch_loss_weight: float | int = 1.0
    matching_loss_weight: float | int = 1.0
    cls_token_id: int = 101
    sep_token_id: int = 102
    backbone: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_misspelt(kwargs)
        if self.query_config is None and self.text_config is not None:
            self.query_config = copy.deepcopy(self.text_config)
        self.text_config = _as_bert_config("text_config", self.text_config)
        self.query_config = _as_bert_config("query_config", self.query_config)
        if isinstance(self.vision_config, dict):
            self.vision_config = AceBertVisionConfig(**self.vision_config)
        if self.vision_config is not None and self.vision_config.num_hidden_layers == 0:
            self.vision_config = None
        if self.domain_hidden_sizes is None:
            self.domain_hidden_sizes = [256]
        super().__post_init__(**kwargs)

    def _refuse_misspelt(self, kwargs: dict[str, Any]) -> None:
        # The library keeps unknown arguments as attributes, so a misspelt size would be lost without a word.
        fields = [*self.__dataclass_fields__, "model_type"]
        for name in kwargs:
            close = difflib.get_close_matches(name, fields, n=1, cutoff=0.8)
            if close and close[0] != name and name != "torch_dtype":
                raise ValueError(f"Unknown argument `{name}` of AceBertConfig: did you mean `{close[0]}`?")

    @classmethod
    def small(cls, vocab_size: int = 30522, **kwargs: Any) -> "AceBertConfig":
        """A model of MiniLM's size (6 product layers and 4 query layers, 384 wide, about 30 million parameters).

        It trains on a laptop. With `max_num_patches=36` in the processor, its patches show as many pixels as a photo of
        60x80 has.
        """
        layers = {
            "vocab_size": vocab_size,
            "hidden_size": 384,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
        }
        sizes = {
            "text_config": {**layers, "num_hidden_layers": 6},
            "query_config": {**layers, "num_hidden_layers": 4},
            "patch_size": 12,
            "projection_dim": 384,
        }
        return cls(**{**sizes, **kwargs})

    @property
    def hidden_size(self) -> int:
        """Width of the product encoder, where the library asks a configuration for one width."""
        return self.text_config.hidden_size

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: refuses sizes that don't fit each other, before any weight exists."""
        text, query = self.text_config, self.query_config
        sizes = ("patch_size", "num_channels", "pixel_group_size", "pixel_hidden_size", "position_grid_size")
        for name in (*sizes, "projection_dim", "image_head_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if min([1, *(self.domain_hidden_sizes or [])]) < 1:
            raise ValueError(f"`domain_hidden_sizes` must be at least 1 each, got {self.domain_hidden_sizes}.")
        for name, encoder in (("text_config", text), ("query_config", query)):
            if encoder.num_attention_heads < 1 or encoder.hidden_size % encoder.num_attention_heads != 0:
                raise ValueError(
                    f"`{name}.hidden_size` ({encoder.hidden_size}) must be a multiple of "
                    f"`{name}.num_attention_heads` ({encoder.num_attention_heads})."
                )
        if text.vocab_size != query.vocab_size:
            raise ValueError(
                f"Queries and titles share one tokenizer: `text_config.vocab_size` ({text.vocab_size}) must equal "
                f"`query_config.vocab_size` ({query.vocab_size})."
            )
        if self.share_encoders:
            different = [name for name in _ENCODER_SIZES if getattr(text, name) != getattr(query, name)]
            if different:
                raise ValueError(
                    f"`share_encoders=True` has one encoder: leave `query_config` out or make its {different} equal "
                    "those of `text_config`."
                )
        elif self.tie_word_embeddings and text.hidden_size != query.hidden_size:
            raise ValueError(
                f"Shared word embeddings need equal widths, but `text_config.hidden_size` is {text.hidden_size} and "
                f"`query_config.hidden_size` is {query.hidden_size}: make them equal or set "
                "`tie_word_embeddings=False`."
            )
        if self.vision_config is None:
            if not (self.use_patch_features or self.use_pixel_features):
                raise ValueError("An image token needs `use_patch_features`, `use_pixel_features` or both.")
            if self.patch_size % self.pixel_group_size != 0:
                raise ValueError(
                    f"`pixel_group_size` ({self.pixel_group_size}) must divide `patch_size` ({self.patch_size})."
                )
        else:
            for name in ("patch_size", "num_channels"):
                if getattr(self, name) != getattr(self.vision_config, name):
                    raise ValueError(
                        f"`{name}` ({getattr(self, name)}) must equal `vision_config.{name}` "
                        f"({getattr(self.vision_config, name)})."
                    )
        if not self.text_projection:
            for name, encoder in (("text_config", text), ("query_config", query)):
                if encoder.hidden_size != self.projection_dim:
                    raise ValueError(
                        f"`text_projection=False` needs `projection_dim` ({self.projection_dim}) to equal "
                        f"`{name}.hidden_size` ({encoder.hidden_size})."
                    )
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {POOLINGS}, not '{self.pooling}'.")
        if self.loss not in LOSSES:
            raise ValueError(f"`loss` must be one of {LOSSES}, not '{self.loss}'.")
        for width in self.matryoshka_dims or []:
            if not 0 < width < self.projection_dim:
                raise ValueError(
                    f"`matryoshka_dims` must lie between 1 and `projection_dim` - 1 ({self.projection_dim - 1}), "
                    f"got {width}."
                )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must lie in [0, 1), got {self.label_smoothing}.")
        for name in (
            "image_weight",
            "adversarial_strength",
            "mlm_loss_weight",
            "patch_loss_weight",
            "matching_loss_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        for name in ("cls_token_id", "sep_token_id"):
            if not 0 <= getattr(self, name) < text.vocab_size:
                raise ValueError(
                    f"`{name}` ({getattr(self, name)}) is outside the vocabulary (`text_config.vocab_size` is "
                    f"{text.vocab_size}): set it to the tokenizer's own id."
                )

    def save_pretrained(self, save_directory: str, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Saves `config.json` and `modules.json` with the code references of all that the folder serves."""
        self.auto_map = dict(AUTO_MAP)
        if self.vision_config is not None:  # pre-training needs title and photo in one encoder
            del self.auto_map["AutoModelForPreTraining"]
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        modules = Path(save_directory, "modules.json")
        if not modules.exists():  # one that is there may list modules that a user has added
            modules.write_text(json.dumps(SENTENCE_TRANSFORMERS_MODULES, indent=2) + "\n", encoding="utf-8")


def _as_bert_config(name: str, config: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    """A configuration of BERT from what `AceBertConfig` may be given for one; BERT's defaults where nothing is."""
    model_type = config.get("model_type", "bert") if isinstance(config, dict) else getattr(config, "model_type", "bert")
    if model_type != "bert":
        raise ValueError(f"`{name}` must be of BERT's kind (model_type 'bert'), not '{model_type}'.")
    return config if isinstance(config, PreTrainedConfig) else BertConfig(**(config or {}))


_ENCODER_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")

AceBertConfig.register_for_auto_class()

__all__ = ["AceBertConfig", "AceBertVisionConfig"]
