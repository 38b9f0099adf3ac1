"""The flags of an evaluation, in the groups of `--help`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from acebert.data.arguments import CatalogArguments, QueryArguments
from acebert.data.query_templates import QueryTemplates
from acebert.evaluation.leaderboards import LEADERBOARDS
from acebert.utils.arguments import Bound, Count, check_bounds, groups_of, names_of
from acebert.utils.command_line import make_parser
from acebert.utils.config_file import add_config_flag, expand_config

Resamples = Annotated[int, Bound("be at least 1000", lambda value: value >= 1000)]
NONE = "none"


@dataclass(kw_only=True)
class ModelArguments:
    """Which checkpoint to measure, and how it encodes."""

    _argument_group_name: ClassVar[str] = "model"

    model_name_or_path: str = field(metadata={"help": "Checkpoint to measure: a folder or a Hub id."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the checkpoint on the Hub."})
    compare_with: list[str] = field(
        default_factory=list,
        metadata={"help": "Other checkpoints whose modality gap is reported and drawn beside this one's."},
    )
    per_device_batch_size: Count = field(
        default=64, metadata={"help": "Queries or products that each process encodes in one forward pass."}
    )
    dataloader_num_workers: Annotated[int, Bound("be at least 0", lambda value: value >= 0)] = field(
        default=0, metadata={"help": "Worker processes of each process that read and prepare photos."}
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = field(
        default=None, metadata={"help": "Autocast type for encoding. Default: accelerate's configuration."}
    )


@dataclass(kw_only=True)
class SplitArguments:
    """Which splits are ranked, and which the model was trained on."""

    _argument_group_name: ClassVar[str] = "splits"

    split: str | None = field(
        default=None, metadata={"help": "Splits whose products are ranked, joined by '+'. Default: every split."}
    )
    validation_split: str | None = field(
        default=None,
        metadata={
            "help": "Held-out split, one of those ranked: every task is also measured with its products alone as the "
            "ones to rank."
        },
    )
    train_split: str | None = field(
        default=None,
        metadata={
            "help": "Split that the checkpoint was trained on. With it, trained baselines and slices by training "
            "frequency are part of the report."
        },
    )
    train_dataset_name: list[str] = field(
        default_factory=list,
        metadata={"help": "Catalogues that the checkpoint was trained on. Default: those of --dataset_name."},
    )


@dataclass(kw_only=True)
class NaturalQueryArguments:
    """Queries that people typed, and how much of the text backbone's knowledge of words is kept."""

    _argument_group_name: ClassVar[str] = "natural queries"

    queries_file: list[str] = field(
        default_factory=list,
        metadata={
            "help": "JSON files of natural queries: {query: {product id: grade}}, or a list of "
            '{"query": text, "where": {column: [value, ...]}}, for which a product is relevant if every column holds '
            "one of the values."
        },
    )
    text_benchmarks: list[str] = field(
        default_factory=list,
        metadata={
            "help": 'Folders with natural queries over other catalogues\' titles: "products.json", {product id: '
            '{"title": text}}, and "queries.json", {query: {product id: grade}}.'
        },
    )
    num_title_phrases: Annotated[int, Bound("be at least 0", lambda value: value >= 0)] = field(
        default=500,
        metadata={
            "help": "Number of title phrases (one to three neighbouring words) on which the checkpoint is compared "
            "with the first of --text_baselines, its untrained backbone; 0 for none."
        },
    )
    drop_missing_relevant: bool = field(
        default=False,
        metadata={"help": "Drop judged products that the catalogue lacks, and queries left without a relevant one."},
    )


@dataclass(kw_only=True)
class SyntheticQueryArguments:
    """Queries made from the catalogue."""

    _argument_group_name: ClassVar[str] = "synthetic queries"

    queries_config: str | None = field(
        default=None,
        metadata={
            "help": "Configuration of the dataset that holds judged queries, as 'queries' of the sample catalogue."
        },
    )
    query_text_column: str = field(
        default="query", metadata={"help": "Column of --queries_config with the query's text."}
    )
    relevant_ids_column: str = field(
        default="relevant_ids", metadata={"help": "Column of --queries_config with the list of relevant product ids."}
    )
    text_to_image_file: str | None = field(
        default=None,
        metadata={
            "help": "JSON file {title: {product id: grade}}: each title is ranked against every photo alone, as in "
            "Marqo's KAGL leaderboard."
        },
    )
    attribute_columns: list[str] = field(
        default_factory=list,
        metadata={"help": "Columns of which each value is a synthetic query for the products that have it."},
    )
    shopper_queries: bool = field(
        default=False,
        metadata={
            "help": "Measure synthetic queries for several attributes at once, made by --shopper_templates: in the "
            "catalogue's words and, with --synonyms_file, in others."
        },
    )
    hidden_words: bool = field(
        default=False,
        metadata={
            "help": "Measure the same queries on titles from which the words of --hidden_columns are taken out, so "
            "that the photo has to tell."
        },
    )
    shopper_templates: list[str] = field(
        default_factory=list,
        metadata={
            "help": 'Templates of synthetic shopper queries, "{colour} {category}"; relevant products have all of the '
            "attributes."
        },
    )
    synonyms_file: str | None = field(
        default=None,
        metadata={"help": "JSON file {column: {value: [synonym, ...]}} of words that shoppers use for values."},
    )
    hidden_columns: list[str] = field(
        default_factory=list, metadata={"help": "Columns whose values --hidden_words takes out of the titles."}
    )
    num_shopper_queries: Count = field(
        default=500, metadata={"help": "Largest number of synthetic shopper queries to make."}
    )
    photo_queries: bool = field(
        default=False,
        metadata={
            "help": "Measure photos as queries: relevant are other products of the same --kind_column and "
            "--colour_column."
        },
    )
    kind_column: str | None = field(default=None, metadata={"help": "Column with a product's kind."})
    colour_column: str | None = field(default=None, metadata={"help": "Column with a product's colour."})
    num_photo_queries: Count = field(default=1000, metadata={"help": "Largest number of photo queries to draw."})
    min_relevant: Count = field(
        default=5,
        metadata={"help": "Smallest number of relevant products of a synthetic shopper query or a photo query."},
    )


@dataclass(kw_only=True)
class BaselineArguments:
    """What the checkpoint is compared with."""

    _argument_group_name: ClassVar[str] = "baselines"

    bm25: bool = field(default=True, metadata={"help": "Measure BM25 on titles."})
    text_baselines: list[str] = field(
        default_factory=lambda: ["sentence-transformers/all-MiniLM-L6-v2"],
        metadata={
            "help": "sentence-transformers models (folders or Hub ids) to measure on titles as they are; 'none' for "
            "none. Name the checkpoint's backbone first."
        },
    )
    text_adapters: bool = field(
        default=True,
        metadata={"help": "Measure the first of them also with adapters trained on the training split's queries."},
    )
    fusion_baselines: bool = field(
        default=True,
        metadata={
            "help": "Encode titles alone and photos alone as well, and measure either and their late fusion: up to "
            "three times the encoding."
        },
    )
    reference: str | None = field(
        default=None,
        metadata={
            "help": "Leaderboard whose published numbers stand beside those measured.",
            "choices": list(LEADERBOARDS),
        },
    )


@dataclass(kw_only=True)
class ReportArguments:
    """The report and its statistics."""

    _argument_group_name: ClassVar[str] = "report"

    output_dir: str = field(
        default="outputs/evaluation", metadata={"help": "Folder for the report and for the cached product vectors."}
    )
    plots: bool = field(default=True, metadata={"help": "Draw the report's numbers."})
    bootstrap_resamples: Resamples = field(
        default=1000, metadata={"help": "Bootstrap resamples of the queries for each confidence interval."}
    )
    permutations: Resamples = field(
        default=10000, metadata={"help": "Random sign flips of each paired randomisation test."}
    )
    seed: int = field(
        default=0, metadata={"help": "Random seed (drawn queries, trained adapters, bootstrap, randomisation tests)."}
    )


@dataclass(kw_only=True)
class EvaluationArguments(
    ModelArguments,
    CatalogArguments,
    SplitArguments,
    NaturalQueryArguments,
    SyntheticQueryArguments,
    QueryArguments,
    BaselineArguments,
    ReportArguments,
):
    """All flags of `evaluate_accelerate.py`. Processes and devices are set by `accelerate launch`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.train_dataset_name = self.train_dataset_name or list(self.dataset_name)
        self.text_baselines = [name for name in self.text_baselines if name != NONE]
        check_bounds(self)
        given = (self.queries_file, self.text_benchmarks, self.queries_config, self.text_to_image_file)
        given += (self.attribute_columns,)
        if not any((*given, self.shopper_queries, self.hidden_words, self.photo_queries)):
            raise ValueError(
                "Nothing to measure: give --queries_file, or one of --text_benchmarks, --queries_config, "
                "--text_to_image_file, --attribute_columns, --shopper_queries, --hidden_words and --photo_queries."
            )
        needs = {
            "shopper_queries": ("shopper_templates",),
            "hidden_words": ("shopper_templates", "hidden_columns"),
            "photo_queries": ("kind_column", "colour_column"),
        }
        for flag, others in needs.items():
            for other in others:
                if getattr(self, flag) and not getattr(self, other):
                    raise ValueError(f"--{flag} needs --{other}, which names columns of your catalogue.")
        if self.split and self.validation_split and self.validation_split not in self.split.split("+"):
            raise ValueError(
                f"--validation_split is {self.validation_split!r}, but --split ranks {self.split!r} only: name one of "
                "its splits."
            )

    @property
    def synthetic_columns(self) -> list[str]:
        """The columns that synthetic queries ask for."""
        columns = list(self.attribute_columns)
        if self.shopper_queries or self.hidden_words:
            columns += [*QueryTemplates(self.shopper_templates).attributes, *self.hidden_columns]
            columns += [column for column in (self.kind_column, self.colour_column) if column]
        if self.photo_queries:
            columns += [column for column in (self.kind_column, self.colour_column) if column]
        return list(dict.fromkeys(columns))


def parse_arguments(argv: Sequence[str] | None = None, description: str = "") -> EvaluationArguments:
    """Reads the flags, and before them those of the YAML file that `--config` names.

    Args:
        argv: flags; those of the command line by default.
        description: of the command, for `--help`.

    Raises:
        SystemExit: for `--help`, and for flags that are unknown, out of bounds or don't go together, naming them.
    """
    parser = make_parser("acebert evaluate", description, groups_of(EvaluationArguments))
    add_config_flag(parser)
    values = parser.parse_args(expand_config(parser, sys.argv[1:] if argv is None else argv))
    try:
        return EvaluationArguments(**{name: getattr(values, name) for name in names_of(EvaluationArguments)})
    except ValueError as error:
        parser.error(str(error))
        raise  # never reached: the parser has exited
