"""What a service serves, and its limits: flags of `acebert serve`, which every worker process reads."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from acebert.utils.arguments import Count, check_bounds

VARIABLE = "ACEBERT_SERVE"  # the settings as JSON, for the worker processes
SEARCH_KEY, WRITE_KEY = "ACEBERT_SEARCH_KEY", "ACEBERT_WRITE_KEY"


@dataclass(frozen=True)
class Settings:
    """What is served, and how much of it at a time."""

    _argument_group_name: ClassVar[str] = "service"

    catalog: str = field(metadata={"help": "Folder of `acebert build-catalog`; the name --catalog may be left out."})
    model_name_or_path: str = field(
        default=".", metadata={"help": "Checkpoint: a folder or a Hub id; or a folder of `acebert export-onnx`."}
    )
    revision: str | None = field(
        default=None,
        metadata={"help": "Branch, tag or commit of a checkpoint on the Hub. By default its newest commit."},
    )
    threads: Count = field(default=1, metadata={"help": "Threads of a worker's arithmetic."})
    allow_origins: list[str] = field(
        default_factory=list,
        metadata={"help": "Origins of web pages that may call the service from a browser, as https://shop.example."},
    )
    max_body_bytes: Count = field(default=12_000_000, metadata={"help": "Bytes of a request, a photo in base64."})
    max_query_length: Count = field(default=500, metadata={"help": "Characters of a query."})
    max_top_k: Count = field(default=200, metadata={"help": "Hits of a search."})
    max_products: Count = field(default=256, metadata={"help": "Products of one change."})
    max_waiting: Count = field(
        default=64, metadata={"help": "Requests that a worker has at once; more are refused, to be tried again."}
    )

    def __post_init__(self) -> None:
        check_bounds(self)

    def to_environment(self) -> None:
        """Leaves the settings where worker processes find them."""
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> "Settings":
        # Not by pydantic: the parser of flags changes the types of the fields, in a single worker's process too.
        return cls(**json.loads(os.environ[VARIABLE]))


@dataclass(frozen=True)
class Keys:
    """What a client has to show.

    Args:
        search: to search, and nothing for None.
        write: to change the catalogue, which nobody may for None.
    """

    search: str | None = field(default=None, repr=False)
    write: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls) -> "Keys":
        return cls(os.environ.get(SEARCH_KEY) or None, os.environ.get(WRITE_KEY) or None)
