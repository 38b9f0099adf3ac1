"""Moves a catalogue's index to a Qdrant server, to another one, or back, without encoding anything.

    acebert move-index --catalog build/my-catalog --index http://localhost:6333/products --index_options shard_number=6
    acebert move-index --catalog build/my-catalog --index edge

Nobody may have the catalogue open for changes meanwhile. Stopped at any moment, the same command goes on.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acebert.catalog.indexes.connection import ServerOptions
from acebert.catalog.moving import move_index
from acebert.utils.command_line import make_parser


@dataclass
class MoveArguments:
    """Which index goes where."""

    catalog: str = field(metadata={"help": "Folder of the catalogue."})
    index: str = field(
        metadata={
            "help": "Index to search by from now on: edge (embedded Qdrant), memory, or http://host:6333/name (a "
            "Qdrant server; several of its addresses joined by commas)."
        }
    )
    index_options: list[str] = field(
        default_factory=list,
        metadata={"help": "Options of a server's index, as shard_number=6 replication_factor=2 quantization=scalar."},
    )
    overwrite_index: bool = field(
        default=False,
        metadata={"help": "Take the name on the server from another catalogue, whose collection stays."},
    )
    keep_old_index: bool = field(
        default=False, metadata={"help": "Leave the old collection on its server, for who searches it still."}
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Moves the index.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: for wrong flags, a server that can't be used, and after Ctrl-C.
    """
    parser = make_parser("acebert move-index", __doc__.splitlines()[0], (MoveArguments,))
    (args,) = parser.parse_args_into_dataclasses(argv)
    try:
        options = ServerOptions.read_flags(args.index_options)
        count = move_index(Path(args.catalog), args.index, options, args.overwrite_index, args.keep_old_index)
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on.")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"acebert move-index: {error}")
    print(f"{count} products of {args.catalog} are searched by {args.index} now.")


if __name__ == "__main__":
    main()
