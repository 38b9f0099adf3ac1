"""Serves a catalogue over HTTP: searches by words and photos, facets, changes, metrics.

    acebert serve build/my-catalog --workers 2
    ACEBERT_WRITE_KEY=$(openssl rand -hex 24) acebert serve build/my-catalog --model_name_or_path build/onnx

The address /docs describes every call. ACEBERT_SEARCH_KEY and ACEBERT_WRITE_KEY are the keys that clients have to send
as X-API-Key: without the first anybody may search, without the second nobody may change the catalogue.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import uvicorn

from acebert.catalog.store import ProductStore
from acebert.serving.settings import Settings
from acebert.utils.arguments import Count, check_bounds
from acebert.utils.command_line import make_parser

HANGING = 60  # seconds without a sign of life after which a worker is replaced; loading a large model holds it up


@dataclass
class ServerArguments:
    """Where the service listens, and by how many processes it answers."""

    _argument_group_name: ClassVar[str] = "server"

    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 lets other machines in, in plain HTTP."}
    )
    port: int = field(default=8000, metadata={"help": "Port to listen on."})
    workers: Count = field(
        default=1, metadata={"help": "Processes that answer; each holds the model, and an index of its own."}
    )
    stop_seconds: Count = field(default=30, metadata={"help": "Seconds that requests have to end when it is stopped."})

    def __post_init__(self) -> None:
        check_bounds(self)


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until it is stopped, by Ctrl-C or by SIGTERM; requests in progress are answered first.

    Args:
        argv: flags; those of the process by default. The first may be the catalogue's folder alone.

    Raises:
        SystemExit: for wrong flags, and a folder without a catalogue.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        argv.insert(0, "--catalog")
    parser = make_parser("acebert serve", __doc__.splitlines()[0], (Settings, ServerArguments))
    try:
        settings, server = parser.parse_args_into_dataclasses(argv)
        ProductStore(Path(settings.catalog))  # says what is wrong once, and not by every worker
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"acebert serve: {error}")
    settings.to_environment()
    # Read by the libraries when they are loaded, which the workers do: workers with more threads than cores wait for
    # each other.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(settings.threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with tempfile.TemporaryDirectory(prefix="acebert-metrics-") as metrics:
        if server.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        uvicorn.run(
            "acebert.serving.app:create_app",
            factory=True,
            host=server.host,
            port=server.port,
            workers=server.workers,
            timeout_graceful_shutdown=server.stop_seconds,
            timeout_worker_healthcheck=HANGING,
            access_log=False,  # /metrics counts requests; what shoppers type is nobody's to keep
        )


if __name__ == "__main__":
    main()
