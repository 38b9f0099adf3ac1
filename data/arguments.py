"""The flags that name a catalogue: one spelling and one default for all commands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from acebert.data.cleaning import OnBadRow
from acebert.data.columns import Columns
from acebert.data.downloads import PhotoDownloads
from acebert.data.photo_columns import MAX_IMAGES
from acebert.data.query_log import LogColumns
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import ReadOptions
from acebert.utils.arguments import Bound, Count, Probability


@dataclass(kw_only=True)
class CatalogArguments:
    """Where the products are, and which columns hold them."""

    _argument_group_name: ClassVar[str] = "catalogue"

    dataset_name: list[str] = field(
        metadata={
            "help": "One or more catalogues: files (CSV, TSV and other separated text, JSON, JSON Lines, Parquet, "
            "Excel; also as .gz), folders, Hub ids, or a database as SQLAlchemy's URL, with --sql_query."
        }
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Configuration to load of a Hub dataset that has several."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit to load of the Hub datasets."}
    )
    id_column: str = field(default="id", metadata={"help": "Column with the product's id."})
    title_column: str | None = field(
        default="title", metadata={"help": "Column with the product's title; 'none' for a catalogue without titles."}
    )
    image_column: str | None = field(
        default="image",
        metadata={
            "help": "Column with the product's photo, its path, or several of them; 'none' for a catalogue without "
            "photos."
        },
    )
    max_images: Count = field(
        default=MAX_IMAGES,
        metadata={
            "help": "Photos of a product to read, the first that are there. Training draws one of them at a time, all "
            "else takes the mean of their vectors."
        },
    )
    sql_query: str | None = field(default=None, metadata={"help": "What to ask a database for: 'select ... from ...'."})
    tag_columns: list[str] = field(
        default_factory=list,
        metadata={"help": "Attribute columns of a table whose cells hold several values, as 'new, sale'."},
    )
    path_columns: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Attribute columns of a table whose cells hold paths of categories, as 'Home > Kitchen': a filter "
            "by 'Home' then finds them, too."
        },
    )
    download_photos: str | None = field(
        default=None,
        metadata={
            "help": "Folder to download photos into that are web addresses, those that it doesn't hold. Without it no "
            "address is opened."
        },
    )
    photo_hosts: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Hosts that --download_photos may ask, private ones too; by default all that have public addresses."
        },
    )
    on_bad_row: OnBadRow = field(
        default="raise",
        metadata={
            "help": "What to do with a row without id, with neither title nor photo, or with a broken photo: stop with "
            "an error (raise), or leave it out and list it in a file in --output_dir (skip), which decodes every photo "
            "once at the start."
        },
    )

    def __post_init__(self) -> None:
        self.title_column = None if self.title_column == "none" else self.title_column
        self.image_column = None if self.image_column == "none" else self.image_column

    def read_options(self) -> ReadOptions:
        downloads = PhotoDownloads(self.download_photos, self.photo_hosts) if self.download_photos else None
        return ReadOptions(self.sql_query, self.tag_columns, self.path_columns, downloads, self.max_images)

    def columns(
        self, attributes: Sequence[str] = (), query: str | None = None, hot_query: str | None = None
    ) -> Columns:
        return Columns(self.id_column, self.title_column, self.image_column, query, hot_query, list(attributes))


@dataclass(kw_only=True)
class QueryArguments:
    """Where the queries come from: a log, hot queries, or templates that are filled with attributes."""

    _argument_group_name: ClassVar[str] = "queries"

    query_column: str | None = field(
        default=None, metadata={"help": "Column with a real query that led to the product, as a search log has it."}
    )
    hot_query_column: str | None = field(
        default=None, metadata={"help": "Column with the query that the product is most often found by."}
    )
    query_templates: list[str] = field(
        default_factory=list,
        metadata={
            "help": 'Templates of synthetic queries, filled with attribute columns: "{gender} {colour} {category}".'
        },
    )
    drop_attribute_probability: Probability = field(
        default=0.3, metadata={"help": "Probability of dropping each attribute from a template query."}
    )

    def make_templates(self) -> QueryTemplates | None:
        if not self.query_templates:
            return None
        return QueryTemplates(self.query_templates, self.drop_attribute_probability)


@dataclass(kw_only=True)
class QueryLogArguments:
    """A shop's query log, as a table of its own."""

    _argument_group_name: ClassVar[str] = "query log"

    query_log: str | None = field(
        default=None,
        metadata={
            "help": "Table with a row for each query and product that it led to: a file, a folder or a Hub id. A "
            "product may have many queries, and a query many products."
        },
    )
    query_log_query_column: str = field(default="query", metadata={"help": "Its column with the query."})
    query_log_id_column: str = field(
        default="product_id", metadata={"help": "Its column with the product's id, as in --id_column."}
    )
    query_log_weight_column: str | None = field(
        default=None,
        metadata={
            "help": "Its column with what a row counts, 0 or more: clicks, orders, or a grade of relevance. Default: "
            "each row counts 1. Rows of one query and product are added up."
        },
    )
    query_log_weight_transform: str = field(
        default="none",
        metadata={
            "help": "What becomes of the sums: none (as they are), log (log(1 + weight)), or clip:N (at most N), so "
            "that a few products that are always clicked don't outweigh all others."
        },
    )
    validation_query_share: Annotated[float, Bound("lie in [0, 1)", lambda value: 0 <= value < 1)] = field(
        default=0.1,
        metadata={
            "help": "Share of the log's queries, by their text, to hold out: validations ask them among products of "
            "both splits. 0 for none."
        },
    )

    def log_columns(self) -> LogColumns:
        return LogColumns(self.query_log_query_column, self.query_log_id_column, self.query_log_weight_column)
