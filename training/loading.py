"""What a stage starts from: the splits of a catalogue, and a model with its processor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer

from acebert.configuration_acebert import AceBertConfig
from acebert.data.arguments import QueryArguments, QueryLogArguments
from acebert.data.cleaning import have_photos, keep_good_rows, read_texts
from acebert.data.columns import Columns
from acebert.data.notes import tell
from acebert.data.query_log import QueryLog, load_query_log, weight_transform
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import hold_out, load_products
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.modeling_acebert import AceBertForPreTraining, AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.training.argument_groups import NewImageEncoderArguments
from acebert.training.arguments import FromBackboneArguments, TrainingArguments
from acebert.training.choices import settle
from acebert.utils.fingerprints import products_sha256
from acebert.utils.words import cut

Model = AceBertForPreTraining | AceBertForRetrieval


# ----------------------------------------------------------------------------------------------------------------------
# Data
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Splits:
    """What to train on and, where there is a validation, what to pick the best model by.

    Args:
        train, validation: products of [`load_products`].
        columns: which column holds what.
        templates: make queries from attributes.
        fingerprints: of the splits that were read, by which a resumed run knows its data again.
        log: real queries to train on.
        held_out_log: real queries to validate on, no text of which is in `log`.
    """

    train: Dataset
    validation: Dataset | None
    columns: Columns
    templates: QueryTemplates | None
    fingerprints: dict[str, str]
    log: QueryLog | None = None
    held_out_log: QueryLog | None = None


def load_splits(args: TrainingArguments, accelerator: Accelerator, learns_from_pairs: bool) -> Splits:
    """Loads the catalogue's splits, and settles what their size decides of the flags that weren't given.

    Bad rows are refused or left out, as `--on_bad_row` says.

    Args:
        args: flags.
        accelerator: says which process fills the cache.
        learns_from_pairs: whether a row that has neither a query nor both title and photo is a bad one.
    """
    queries = args if isinstance(args, QueryArguments) else QueryArguments()  # a stage without such flags has none
    templates = queries.make_templates()
    if templates:
        accelerator.print(
            "The queries made by --query_templates are synthetic: measure on real ones before you decide."
        )
    columns = args.columns(templates.attributes if templates else (), queries.query_column, queries.hot_query_column)
    log = held_out_log = None
    if isinstance(args, QueryLogArguments) and args.query_log:
        with accelerator.main_process_first():
            log = load_query_log(
                args.query_log, args.log_columns(), args.on_bad_row, Path(args.output_dir, "bad_rows_query_log.jsonl")
            )

    def load(split: str) -> Dataset:
        with accelerator.main_process_first():  # it fills the cache, the others read it
            products = load_products(
                args.dataset_name,
                split,
                columns,
                args.dataset_revision,
                args.dataset_config_name,
                args.on_bad_row,
                options=args.read_options(),
            )
        if args.on_bad_row == "raise":
            return products
        query_columns = (columns.query, columns.hot_query, *columns.attributes)
        file = Path(args.output_dir, f"bad_rows_{split}.jsonl")
        learns_from = query_columns if learns_from_pairs and log is None else None  # a log may have what they lack
        return keep_good_rows(products, columns, file, learns_from=learns_from)[0]

    train = load(args.train_split)
    fingerprints = {"train_data": _describe(train)}
    validation = None
    if args.validation_split:
        validation = load(args.validation_split)
        fingerprints["validation_data"] = _describe(validation)
    settle(args, len(train), None if validation is None else len(validation), accelerator)
    if validation is None and args.validation_share:
        train, validation = hold_out(train, columns, args.validation_share)
    if log is not None and isinstance(args, QueryLogArguments):
        fingerprints["query_log_data"] = f"{len(log)} pairs, SHA-256 {log.sha256()[:16]}"
        parts = [train] if validation is None else [train, validation]
        log = log.restrict({text for part in parts for text in read_texts(part, columns.id) if text is not None})
        log = log.transform(weight_transform(args.query_log_weight_transform))
        if validation is not None and args.validation_query_share:
            log, held_out_log = log.hold_out(args.validation_query_share)
        train = _keep_asked(train, columns, log, "train on")
        validation = None if validation is None else _keep_asked(validation, columns, log, "validate on")
    if validation is not None and 0 < args.validation_size < len(validation):
        spacing = len(validation) / args.validation_size
        validation = validation.select([int(i * spacing) for i in range(args.validation_size)])
    return Splits(train, validation, columns, templates, fingerprints, log, held_out_log)


def _keep_asked(products: Dataset, columns: Columns, log: QueryLog, what_for: str) -> Dataset:
    """The products that have a query, or both a title to ask by and a photo to find; the others are told."""
    ids, titles = read_texts(products, columns.id), read_texts(products, columns.title)
    logged = set(log.ids)
    queries = [read_texts(products, name) for name in (columns.query, columns.hot_query, *columns.attributes)]
    has_query = np.array([product_id in logged for product_id in ids])
    for texts in queries:
        has_query |= np.array([text is not None for text in texts])
    has_title = np.array([title is not None for title in titles])
    kept = has_query | (has_title & have_photos(products, columns.image))
    if kept.all():
        return products
    tell(
        f"{int((~kept).sum()):,} of {len(products):,} products to {what_for} have neither a query in the log nor both "
        f"title and photo, such as {cut(ids[int(kept.argmin())])!r}: they are left out."
    )
    return products.select(np.flatnonzero(kept))


def _describe(products: Dataset) -> str:
    return f"{len(products)} products, SHA-256 {products_sha256(products)[:16]}"


# ----------------------------------------------------------------------------------------------------------------------
# Model
# ----------------------------------------------------------------------------------------------------------------------


def load_checkpoint(
    args: TrainingArguments, model_class: type[Model], **config_changes: Any
) -> tuple[Model, AceBertProcessor]:
    """The model and the processor of `--model_name_or_path`, in float32.

    Args:
        args: flags.
        model_class: heads that the checkpoint lacks are initialised.
        config_changes: settings of losses, in place of the checkpoint's.
    """
    assert args.model_name_or_path is not None, "`args.check` asks for it"
    config = AceBertConfig.from_pretrained(args.model_name_or_path)
    for name, value in _dropouts(args).items():
        setattr(config.text_config, name, value)
        setattr(config.query_config, name, value)
    for name, value in config_changes.items():
        setattr(config, name, value)
    if args.matryoshka_dims:
        config.matryoshka_dims = args.matryoshka_dims
    config.validate_architecture()
    model = model_class.from_pretrained(
        args.model_name_or_path, config=config, dtype=torch.float32, use_safetensors=True
    )
    return model, AceBertProcessor.from_pretrained(args.model_name_or_path)


def build_model(
    args: FromBackboneArguments, model_class: type[Model], **config_changes: Any
) -> tuple[Model, AceBertProcessor]:
    """A new model around `--backbone`, and its processor.

    Args:
        args: flags.
        model_class: heads are initialised.
        config_changes: settings of losses.
    """
    assert args.backbone is not None, "`args.check` asks for it"
    tokenizer = AutoTokenizer.from_pretrained(args.backbone)
    layers = {"product": args.product_layers, "query": args.query_layers}
    if args.share_encoders:
        layers["query"] = layers["product"]
    sizes = {side: {"num_hidden_layers": number} if number else {} for side, number in layers.items()}
    eye: dict[str, Any] = {"patch_size": args.patch_size, "pixel_group_size": args.pixel_group_size}
    image = args if isinstance(args, NewImageEncoderArguments) else NewImageEncoderArguments()
    if image.image_backbone:
        eye = {"image": image.image_backbone, "image_layers": image.image_layers}
        if args.projection_dim != AutoConfig.from_pretrained(args.backbone).hidden_size:
            eye["text_projection"] = True
    model = model_class.from_backbone(
        args.backbone,
        **eye,
        text_config={**_dropouts(args), **sizes["product"]},
        query_config={**_dropouts(args), **sizes["query"]},
        share_encoders=args.share_encoders,
        pooling=args.pooling,
        projection_dim=args.projection_dim,
        matryoshka_dims=args.matryoshka_dims or None,
        use_patch_features=args.use_patch_features,
        use_pixel_features=args.use_pixel_features,
        loss=args.loss,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        **config_changes,
    )
    options = {
        "max_num_patches": args.max_num_patches,
        "do_salient_crop": args.crop_to_object,
        "do_drop_background": args.crop_to_object,
    }
    if image.image_backbone:
        image_processor = AceBertImageProcessor.from_backbone(image.image_backbone, **options)
    else:
        image_processor = AceBertImageProcessor(patch_size=args.patch_size, **options)
    processor = AceBertProcessor(
        image_processor,
        tokenizer,
        query_max_length=args.query_max_length,
        title_max_length=args.title_max_length,
    )
    return model, processor


def recompute_activations(model: Model) -> None:
    """Has the backward pass compute the layers' activations again, in place of keeping them."""
    # transformers renamed the method, and warns of the old name where it has the new one.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def _dropouts(args: TrainingArguments) -> dict[str, float]:
    dropouts = {"hidden_dropout_prob": args.dropout, "attention_probs_dropout_prob": args.attention_dropout}
    return {name: value for name, value in dropouts.items() if value is not None}
