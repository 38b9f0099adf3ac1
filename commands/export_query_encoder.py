"""Exports the query encoder as a plain sentence-transformers folder, which every engine loads without remote code.

    acebert export-query-encoder --model_name_or_path . --output_dir build/query

Text Embeddings Inference, Infinity and the like serve it as they serve any BERT; its vectors are compared with those of
a catalogue that the whole checkpoint has encoded.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from acebert.encoding.query_export import write_query_encoder
from acebert.utils.command_line import make_parser


@dataclass
class QueryExportArguments:
    """What to export, and where to."""

    output_dir: str = field(metadata={"help": "Folder to write to. It must be empty or not exist."})
    model_name_or_path: str = field(default=".", metadata={"help": "Checkpoint: a folder or a Hub id."})
    revision: str | None = field(
        default=None,
        metadata={"help": "Branch, tag or commit of a checkpoint on the Hub. By default its newest commit."},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the export.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: for wrong flags, and a folder that holds something.
    """
    parser = make_parser("acebert export-query-encoder", __doc__.splitlines()[0], (QueryExportArguments,))
    (args,) = parser.parse_args_into_dataclasses(argv)
    options = {"revision": args.revision, "trust_remote_code": True}
    model = AutoModel.from_pretrained(args.model_name_or_path, use_safetensors=True, **options)
    processor = AutoProcessor.from_pretrained(args.model_name_or_path, **options)
    try:
        write_query_encoder(model, processor, Path(args.output_dir))
    except FileExistsError as error:
        sys.exit(f"acebert export-query-encoder: --output_dir {error}")
    print(f"The query encoder is in {args.output_dir}.")


if __name__ == "__main__":
    main()
