"""Saves a backup of a catalogue while it is searched and changed; copied back, it is loaded as it was.

acebert snapshot --catalog build/my-catalog --output_dir backup/monday
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acebert.catalog.indexes.connection import ServerOptions
from acebert.catalog.snapshots import save_snapshot
from acebert.utils.command_line import make_parser


@dataclass
class SnapshotArguments:
    """What to save, and where."""

    catalog: str = field(metadata={"help": "Folder of the catalogue."})
    output_dir: str = field(metadata={"help": "Folder to write the backup to. It must not exist."})
    with_index: bool = field(
        default=False,
        metadata={"help": "Also download the server's own snapshot of the index: restoring is faster by the filling."},
    )
    index_options: list[str] = field(
        default_factory=list, metadata={"help": "Options of the server for this call, as timeout=60."}
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Saves the backup.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: for wrong flags, a folder that can't be used, and after Ctrl-C.
    """
    parser = make_parser("acebert snapshot", __doc__.splitlines()[0], (SnapshotArguments,))
    (args,) = parser.parse_args_into_dataclasses(argv)
    try:
        options = ServerOptions.read_flags(args.index_options)
        changes = save_snapshot(Path(args.catalog), Path(args.output_dir), args.with_index, options)
    except KeyboardInterrupt:
        sys.exit("Stopped; nothing was saved.")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"acebert snapshot: {error}")
    print(f"{args.output_dir} holds {args.catalog} with {changes} changes since it was merged.")


if __name__ == "__main__":
    main()
