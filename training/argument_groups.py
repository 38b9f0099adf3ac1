"""The flags of training in groups, each of which one stage takes or several."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from acebert.utils.arguments import Bound, Count, Probability


@dataclass(kw_only=True)
class RunArguments:
    """How long to train, on what hardware, and what to keep."""

    _argument_group_name: ClassVar[str] = "run"

    stage: str = field(metadata={"help": "Stage of training to run: align, pretrain, finetune or query_side."})
    output_dir: str = field(metadata={"help": "Folder of the run: best model, checkpoints and logs."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start over instead of resuming from the checkpoints in --output_dir."}
    )
    seed: int = field(
        default=0, metadata={"help": "Random seed (initialisation, data order, augmentation, masking, dropout)."}
    )
    num_train_epochs: float = field(default=5, metadata={"help": "Number of passes over the training split."})
    max_train_steps: Count | None = field(
        default=None, metadata={"help": "Number of optimizer steps; overrides --num_train_epochs."}
    )
    per_device_batch_size: Count = field(
        default=256,
        metadata={
            "help": "Batch size of each process. In fine-tuning all other products of a step, over all processes, are "
            "the in-batch negatives. Where it isn't given, a small catalogue has smaller ones."
        },
    )
    gradient_accumulation_steps: Count = field(
        default=1,
        metadata={"help": "Batches per optimizer step. Adds no negatives: each batch is contrasted on its own."},
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "help": "Worker processes of each process that read and prepare data. Default: 1 on a CPU, which the steps "
            "need; with GPUs, all cores but one for each process."
        },
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = field(
        default=None,
        metadata={"help": "Autocast type; overrides accelerate's configuration. Default: bf16 where supported."},
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention implementation of transformers. Default: 'eager' on CPUs, where it trains fastest, else "
            "'sdpa'."
        },
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Recompute activations in the backward pass: less memory, about 30 %% slower."}
    )
    ema_decay: Annotated[float, Bound("lie in (0, 1)", lambda value: 0 < value < 1)] | None = field(
        default=None,
        metadata={
            "help": "Keep an exponential moving average (EMA) of the weights with this decay per step; validate and "
            "save it instead of the weights. Default: no average."
        },
    )
    early_stopping_patience: Count | None = field(
        default=None, metadata={"help": "Stop after this many validations without improvement. Default: never."}
    )
    eval_steps: Count = field(
        default=500,
        metadata={"help": "Optimizer steps between validations. Where it isn't given, a short run has fewer."},
    )
    checkpointing_steps: Count = field(default=200, metadata={"help": "Optimizer steps between checkpoints."})
    checkpoints_total_limit: Count = field(default=2, metadata={"help": "Number of newest checkpoints to keep."})
    logging_steps: Count = field(default=10, metadata={"help": "Optimizer steps between log entries."})
    report_to: str = field(default="none", metadata={"help": "Experiment tracker: tensorboard, wandb or trackio."})
    save_dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "Data type of the saved model's weights."}
    )


@dataclass(kw_only=True)
class OptimizationArguments:
    """AdamW and its schedule."""

    _argument_group_name: ClassVar[str] = "optimization"

    learning_rate: float = field(
        default=2e-4, metadata={"help": "Peak learning rate of the BERT layers and text embeddings."}
    )
    head_learning_rate: float = field(
        default=5e-4,
        metadata={"help": "Peak learning rate of projections, heads, domain classifier and temperature."},
    )
    lr_scheduler_type: str = field(
        default="linear", metadata={"help": "Learning-rate schedule: any name of transformers' get_scheduler."}
    )
    warmup_ratio: Probability = field(
        default=0.05,
        metadata={
            "help": "Share of the steps over which the learning rates warm up. Where it isn't given, a short run has "
            "more."
        },
    )
    weight_decay: float = field(
        default=0.01, metadata={"help": "Weight decay of matrices; biases, norms and temperature have none."}
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm that gradients are clipped to."})


@dataclass(kw_only=True)
class HubArguments:
    """Publishing the result."""

    _argument_group_name: ClassVar[str] = "Hub"

    push_to_hub: bool = field(default=False, metadata={"help": "Upload the best model when the run ends."})
    hub_private_repo: bool = field(default=False, metadata={"help": "Make a new Hub repository private."})
    hub_model_id: str | None = field(
        default=None, metadata={"help": "Hub repository to upload to. Default: the name of --output_dir."}
    )


@dataclass(kw_only=True)
class ModelArguments:
    """Which model to train."""

    _argument_group_name: ClassVar[str] = "model"

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "ACE-BERT checkpoint to start from: a folder or a Hub id."}
    )
    matryoshka_dims: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Smaller embedding dimensions to train as well (Matryoshka representation learning), e.g. 64 128."
        },
    )
    dropout: float | None = field(
        default=None, metadata={"help": "Dropout probability of hidden states. Default: that of the model."}
    )
    attention_dropout: float | None = field(
        default=None, metadata={"help": "Dropout probability of attention weights. Default: that of the model."}
    )


@dataclass(kw_only=True)
class NewModelArguments:
    """A new model around a text backbone; not for a model from `--model_name_or_path`."""

    _argument_group_name: ClassVar[str] = "new model (with --backbone, not with --model_name_or_path)"

    backbone: str | None = field(
        default=None, metadata={"help": "Pre-trained BERT to build a new model around: a folder or a Hub id."}
    )
    product_layers: int | None = field(
        default=None, metadata={"help": "Number of layers of the product encoder. Default: all of the backbone's."}
    )
    query_layers: int | None = field(
        default=None, metadata={"help": "Number of layers of the query encoder. Default: all of the backbone's."}
    )
    share_encoders: bool = field(
        default=False, metadata={"help": "Encode queries with the product encoder instead of one of their own."}
    )
    pooling: Literal["mean", "cls"] = field(
        default="mean", metadata={"help": "How token embeddings are pooled: their mean, or that of [CLS]."}
    )
    projection_dim: int = field(
        default=384,
        metadata={
            "help": "Dimension of the query and product embeddings. With --image_backbone and the text encoder's own "
            "width, texts are not projected, and start where the backbone has them."
        },
    )
    patch_size: int = field(default=16, metadata={"help": "Side of an image patch, in pixels of the resized photo."})
    max_num_patches: int = field(default=196, metadata={"help": "Maximum number of patches of a photo."})
    pixel_group_size: int = field(
        default=4, metadata={"help": "Side of a pixel group within a patch, in pixels; has to divide --patch_size."}
    )
    use_patch_features: bool = field(default=True, metadata={"help": "Feed patch features into the image tokens."})
    use_pixel_features: bool = field(default=True, metadata={"help": "Feed pixel features into the image tokens."})
    crop_to_object: bool = field(
        default=True, metadata={"help": "Crop photos with a uniform background to the object; drop background patches."}
    )
    query_max_length: int = field(default=32, metadata={"help": "Maximum number of tokens of a query."})
    title_max_length: int = field(default=64, metadata={"help": "Maximum number of tokens of a title."})
    loss: Literal["info_nce", "sigmoid"] = field(
        default="info_nce", metadata={"help": "Contrastive loss of fine-tuning: InfoNCE, or SigLIP's sigmoid loss."}
    )


@dataclass(kw_only=True)
class NewImageEncoderArguments:
    """A new model's own image encoder; not for a model from `--model_name_or_path`."""

    _argument_group_name: ClassVar[str] = "new image encoder (with --backbone, not with --model_name_or_path)"

    image_backbone: str | None = field(
        default=None,
        metadata={
            "help": "Pre-trained Vision Transformer that reads the photos (ViT, DINOv2, CLIP, SigLIP or SigLIP 2): a "
            "folder or a Hub id. Default: raw patches go straight into BERT."
        },
    )
    image_layers: int | None = field(
        default=None, metadata={"help": "Number of layers of --image_backbone to take. Default: all."}
    )


@dataclass(kw_only=True)
class SplitArguments:
    """What to train on, and what to pick the best checkpoint by."""

    _argument_group_name: ClassVar[str] = "splits"

    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    validation_split: str | None = field(
        default=None,
        metadata={"help": "Split to pick the best checkpoint by. Default: a held-out part of --train_split."},
    )
    validation_share: Annotated[float, Bound("lie in [0, 1)", lambda value: 0 <= value < 1)] = field(
        default=0.05,
        metadata={
            "help": "Share of --train_split to hold out for validation if there is no --validation_split; products "
            "with one id or title stay on one side. 0 for no validation. Where it isn't given, a small catalogue has "
            "up to a fifth."
        },
    )
    validation_size: int = field(
        default=2000, metadata={"help": "Number of validation products to use, sampled evenly; 0 for all."}
    )


@dataclass(kw_only=True)
class ProductSideArguments:
    """For stages that train the product encoder."""

    _argument_group_name: ClassVar[str] = "product side"

    freeze_word_embeddings: bool = field(
        default=False,
        metadata={"help": "Freeze the backbone's word embeddings, which keeps synonyms near each other."},
    )
    image_learning_rate: float = field(
        default=1e-3,
        metadata={"help": "Peak learning rate of the embeddings of raw patches, without --image_backbone."},
    )
    downscale_probability: Probability = field(
        default=0.0,
        metadata={"help": "Probability of shrinking a photo at random, so that its sharpness tells nothing."},
    )
    flip_probability: Probability = field(
        default=0.5, metadata={"help": "Probability of flipping a photo horizontally."}
    )
    crop_probability: Probability = field(
        default=0.0, metadata={"help": "Probability of cropping up to a fifth off a photo's width and height."}
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "Label smoothing of the classification losses."})

    def photo_options(self) -> dict[str, float]:
        """How photos change at random, by the arguments of `PairDataset`."""
        return {
            "flip_probability": self.flip_probability,
            "crop_probability": self.crop_probability,
            "downscale_probability": self.downscale_probability,
        }


@dataclass(kw_only=True)
class ImageEncoderArguments:
    """For stages that train a pre-trained image encoder."""

    _argument_group_name: ClassVar[str] = "pre-trained image encoder"

    image_encoder_learning_rate: float = field(
        default=1e-4, metadata={"help": "Peak learning rate of a pre-trained image encoder's last layer."}
    )
    image_layer_decay: float = field(
        default=0.8,
        metadata={"help": "Layer-wise learning-rate decay of a pre-trained image encoder, from its last layer down."},
    )
    freeze_image_layers: int = field(
        default=0, metadata={"help": "Number of a pre-trained image encoder's first layers to freeze."}
    )
    freeze_image_encoder: bool = field(
        default=False,
        metadata={
            "help": "Leave the pre-trained image encoder and its projection as they are. Photos are then encoded once, "
            "before the first step, uncropped and unflipped, and a step costs no more than its texts."
        },
    )


@dataclass(kw_only=True)
class ChunkArguments:
    """For stages that encode a batch in parts."""

    _argument_group_name: ClassVar[str] = "micro-batches"

    chunk_size: Count | None = field(
        default=None,
        metadata={
            "help": "Micro-batch size: rows of similar length (length bucketing) encoded together. Default: 64 on a "
            "CPU, the whole batch on a GPU, which many small products would leave idle."
        },
    )


@dataclass(kw_only=True)
class PairArguments:
    """For stages that draw a query for each product, and what the product shows."""

    _argument_group_name: ClassVar[str] = "pairs of query and product"

    query_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the query encoder's layers. Default: --learning_rate."}
    )
    title_query_probability: Probability = field(
        default=0.5,
        metadata={
            "help": "Share of rows whose query is the title; the product then has its photo alone. Where it isn't "
            "given, --freeze_image_encoder asks by title only for products that have no other query."
        },
    )
    drop_title_probability: Probability = field(
        default=0.2,
        metadata={"help": "Modality dropout: probability of hiding the title of a product with a photo (other rows)."},
    )
    drop_image_probability: Probability = field(
        default=0.1,
        metadata={"help": "Modality dropout: probability of hiding the photo of a product with a title (other rows)."},
    )


@dataclass(kw_only=True)
class MaskingArguments:
    """The losses of pre-training."""

    _argument_group_name: ClassVar[str] = "pre-training"

    mlm_probability: Probability = field(
        default=0.15, metadata={"help": "Share of words to mask (masked language modelling)."}
    )
    patch_mask_probability: Probability = field(
        default=0.5, metadata={"help": "Share of image patches to mask (masked patch modelling)."}
    )
    mismatch_probability: Probability = field(
        default=0.25,
        metadata={"help": "Share of rows that get another product's photo or hot query (product matching)."},
    )


@dataclass(kw_only=True)
class ContrastiveArguments:
    """Adversary, anchor and memory of stages that contrast products within a batch."""

    _argument_group_name: ClassVar[str] = "contrast within batches"

    adversarial_strength: float = field(
        default=0.1,
        metadata={"help": "Final factor of the domain classifier's reversed gradient; 0 to train without adversary."},
    )
    anchor_weight: float = field(
        default=0.5,
        metadata={
            "help": "Weight of the anchor: one minus the cosine of titles and open texts to their vectors by "
            "--text_teacher, so that words which no query of training says are not forgotten. 0 for none."
        },
    )
    text_teacher: str | None = field(
        default=None,
        metadata={"help": "Frozen text encoder of the anchor: a folder or a Hub id, or none. Default: --backbone."},
    )
    patch_budgets: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Maximum numbers of patches to draw from, one for each batch, so that one model serves them all. "
            "Default: always the processor's own."
        },
    )
    drop_patch_probability: Probability = field(
        default=0.0,
        metadata={"help": "Patch dropout (FLIP): probability of leaving out each patch; faster, and regularises."},
    )
    cached_chunk_size: Count | None = field(
        default=None,
        metadata={
            "help": "Gradient caching (GradCache): keep the activations of one micro-batch of this size at a time, "
            "whatever --per_device_batch_size; replaces --chunk_size. Same gradients, about a third slower."
        },
    )


@dataclass(kw_only=True)
class RetrievalArguments:
    """Hard negatives, and an encoder of their own for queries."""

    _argument_group_name: ClassVar[str] = "fine-tuning"

    split_encoders: bool = field(
        default=False,
        metadata={"help": "Give queries an encoder of their own, starting as a copy of the one shared with titles."},
    )
    mine_hard_negatives_every: Count | None = field(
        default=None,
        metadata={
            "help": "Hard-negative mining: epochs between searches over the whole catalogue, the first at the start of "
            "the second epoch. Products and their hard negatives share batches. Default: no mining."
        },
    )
    hard_negatives: Count = field(
        default=3, metadata={"help": "Maximum number of hard negatives to put in a product's batch."}
    )
    hard_negative_margin: float = field(
        default=0.05,
        metadata={
            "help": "Cosine by which a hard negative has to score below the product itself; closer products may be "
            "unlabelled positives."
        },
    )


@dataclass(kw_only=True)
class BalancedQueryArguments:
    """Queries of query-side fine-tuning."""

    _argument_group_name: ClassVar[str] = "query-side fine-tuning"

    balanced_query_probability: Probability = field(
        default=0.5,
        metadata={
            "help": "Share of template queries whose attribute values are drawn uniformly from all combinations in the "
            "catalogue, rare ones as often as common ones, instead of from the row."
        },
    )
