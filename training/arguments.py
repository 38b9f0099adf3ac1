"""The flags of each stage of training.

A stage takes the flags of its own dataclass. Those of another stage are unknown to it.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acebert.data.arguments import CatalogArguments, QueryArguments, QueryLogArguments
from acebert.data.query_log import weight_transform
from acebert.training.argument_groups import (
    BalancedQueryArguments,
    ChunkArguments,
    ContrastiveArguments,
    HubArguments,
    ImageEncoderArguments,
    MaskingArguments,
    ModelArguments,
    NewImageEncoderArguments,
    NewModelArguments,
    OptimizationArguments,
    PairArguments,
    ProductSideArguments,
    RetrievalArguments,
    RunArguments,
    SplitArguments,
)
from acebert.utils.arguments import names_of

RECORD = "training_args.json"  # in a run's folder
# Settings that may name a folder or a file of this machine.
PLACES = ("model_name_or_path", "backbone", "image_backbone", "text_teacher", "dataset_name", "query_log", "output_dir")


def find_places(settings: Mapping[str, Any]) -> dict[str, str]:
    """The folders and files among what settings name, and where they lie; the rest are ids on the Hub.

    For `training_args.json`, while all are there: later a name alone doesn't tell which it was.
    """
    values = [settings.get(name) or [] for name in PLACES]
    names = [name for value in values for name in (value if isinstance(value, list) else [value])]
    return {name: str(Path(name).resolve()) for name in names if Path(name).exists()}


def read_record(args: "TrainingArguments") -> dict[str, Any]:
    """The settings of a run that goes on in `--output_dir`; empty for one that begins."""
    folder = Path(args.output_dir)
    file = folder / RECORD
    if args.overwrite_output_dir or not (file.exists() and (folder / "checkpoints").exists()):
        return {}
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


@dataclass(kw_only=True)
class TrainingArguments(
    RunArguments,
    OptimizationArguments,
    ModelArguments,
    CatalogArguments,
    SplitArguments,
    HubArguments,
):
    """What every stage takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.given: Set[str] = frozenset()  # names of flags, be it with their default
        self.reasons: dict[str, str] = {}  # of flags that weren't given, why the run chose what they are

    def check(self, given: Set[str]) -> None:
        """Makes sure that the flags go together.

        Args:
            given: names of the flags that were given.

        Raises:
            ValueError: if they don't, naming them.
        """
        if self.early_stopping_patience and not (self.validation_split or self.validation_share):
            raise ValueError(
                "--early_stopping_patience needs a validation: give --validation_split or --validation_share."
            )


@dataclass(kw_only=True)
class FromBackboneArguments(TrainingArguments, NewModelArguments, ProductSideArguments):
    """What stages take that train the product side, of a new model or of a checkpoint."""

    def check(self, given: Set[str]) -> None:
        super().check(given)
        if (self.model_name_or_path is None) == (self.backbone is None):
            raise ValueError("Give --model_name_or_path to start from a checkpoint, or --backbone for a new model.")
        fixed = sorted(given & (names_of(NewModelArguments) | names_of(NewImageEncoderArguments)))
        if self.model_name_or_path and fixed:
            raise ValueError(f"--{', --'.join(fixed)} can't change the checkpoint of --model_name_or_path: leave out.")
        if self.share_encoders and self.query_layers:
            raise ValueError("--share_encoders has no query encoder of its own: leave --query_layers out.")


@dataclass(kw_only=True)
class PretrainingArguments(FromBackboneArguments, QueryArguments, MaskingArguments):
    """Flags of `--stage pretrain`."""


@dataclass(kw_only=True)
class ContrastingArguments(
    FromBackboneArguments, NewImageEncoderArguments, ImageEncoderArguments, ChunkArguments, ContrastiveArguments
):
    """What stages take that contrast products within a batch."""

    # Gentle, since the text encoders know more words than a catalogue's queries hold (docs/training.md).
    learning_rate: float = field(
        default=5e-5, metadata={"help": "Peak learning rate of the BERT layers and text embeddings."}
    )
    freeze_word_embeddings: bool = field(
        default=True,
        metadata={"help": "Freeze the backbone's word embeddings, which keeps synonyms near each other."},
    )

    def check(self, given: Set[str]) -> None:
        super().check(given)
        if self.per_device_batch_size == 1:
            raise ValueError(
                "--per_device_batch_size 1 leaves nothing to tell a product from: the others of a batch are its "
                "negatives. Give at least 2, and hundreds where memory allows (--cached_chunk_size saves it)."
            )


@dataclass(kw_only=True)
class AlignmentArguments(ContrastingArguments):
    """Flags of `--stage align`."""

    adversarial_strength: float = field(
        default=0.0,
        metadata={"help": "Final factor of the domain classifier's reversed gradient; 0 to train without adversary."},
    )


@dataclass(kw_only=True)
class FinetuningArguments(ContrastingArguments, QueryArguments, QueryLogArguments, PairArguments, RetrievalArguments):
    """Flags of `--stage finetune`."""

    def check(self, given: Set[str]) -> None:
        super().check(given)
        weight_transform(self.query_log_weight_transform)
        if self.query_log and self.query_column:
            raise ValueError("--query_column and --query_log are two places for real queries: give one of them.")
        of_the_log = sorted(given & (names_of(QueryLogArguments) - {"query_log"}))
        if of_the_log and not self.query_log:
            raise ValueError(f"--{', --'.join(of_the_log)} say how --query_log is read: give it, or leave them out.")
        if self.split_encoders and self.backbone:
            raise ValueError("--split_encoders is for a checkpoint: a new model has two without --share_encoders.")


@dataclass(kw_only=True)
class QuerySideArguments(TrainingArguments, QueryArguments, ChunkArguments, PairArguments, BalancedQueryArguments):
    """Flags of `--stage query_side`."""

    def check(self, given: Set[str]) -> None:
        super().check(given)
        if self.model_name_or_path is None:
            raise ValueError("Query-side fine-tuning needs a fine-tuned checkpoint: give --model_name_or_path.")
        if "balanced_query_probability" in given and not self.query_templates:
            raise ValueError(
                "--balanced_query_probability draws values for --query_templates: give some, or leave it out."
            )
