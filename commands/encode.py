"""Writes products' vectors, ids and attributes for other search engines, as Parquet or JSON lines.

    acebert encode --dataset_name path/to/catalogue.csv --id_column sku --title_column name --image_column photo \
        --output_dir build/vectors
    acebert encode --catalog build/my-catalog --output_dir build/vectors

The second form writes what a catalogue holds already, and encodes nothing. Several processes share the work as for
`acebert build-catalog`. The same command goes on where it was stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env

from acebert.catalog.source import Source
from acebert.catalog.vector_export import encode_dataset, export_catalog
from acebert.catalog.vector_files import FileFormat, Precision
from acebert.commands.build_catalog import EncodingArguments, ProductArguments, read_products
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.utils.command_line import make_parser
from acebert.utils.hardware import has_bfloat16, use_loopback


@dataclass(kw_only=True)
class SourceArguments(ProductArguments):
    """Which products, of a dataset or of a catalogue that is encoded."""

    dataset_name: list[str] = field(
        default_factory=list,
        metadata={"help": "One or more catalogues: Hub ids, folders, or CSV, TSV, JSON or Parquet files."},
    )
    catalog: str | None = field(
        default=None, metadata={"help": "Folder of `acebert build-catalog`, in the place of --dataset_name."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.dataset_name) == bool(self.catalog):
            raise ValueError("Name the products by --dataset_name or by --catalog, and not by both.")


@dataclass
class VectorArguments:
    """What to write, and where."""

    _argument_group_name: ClassVar[str] = "output"

    output_dir: str = field(metadata={"help": "Folder to write the files to."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace what an earlier call with other products or options wrote there."}
    )
    format: FileFormat = field(default="parquet", metadata={"help": "parquet, or jsonl: a JSON object in a line."})
    precision: Precision = field(
        default="float32",
        metadata={"help": "Numbers of the vectors; int8 is scaled for each vector, to be compared by cosine."},
    )
    vectors: list[str] = field(
        default_factory=lambda: ["product"],
        metadata={
            "help": "Vectors to write: product (title and photo), title, image (either alone).",
            "choices": ["product", "title", "image"],
        },
    )
    shard_rows: int = field(default=50_000, metadata={"help": "Products in a file."})

    def options(self) -> dict[str, Any]:
        """Of [`VectorFiles`][acebert.catalog.vector_files.VectorFiles]."""
        return {name: getattr(self, name) for name in ("vectors", "format", "precision", "shard_rows")}


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: for wrong flags, products or a folder that can't be used, and after Ctrl-C.
    """
    groups = (SourceArguments, EncodingArguments, VectorArguments)
    parser = make_parser("acebert encode", __doc__.splitlines()[0], groups)
    try:
        source, encoding, output = parser.parse_args_into_dataclasses(argv)
        if source.catalog:
            folder, overwrite = Path(output.output_dir), output.overwrite_output_dir
            count = export_catalog(Path(source.catalog), folder, overwrite=overwrite, **output.options())
        else:
            count = encode(source, encoding, output)
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command resumes.")
    except FileExistsError as error:
        sys.exit(f"acebert encode: --output_dir {error}")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"acebert encode: {error}")
    if count is not None:
        print(f"The vectors of {count} products are in {output.output_dir}.")


def encode(source: SourceArguments, encoding: EncodingArguments, output: VectorArguments) -> int | None:
    """Encodes a dataset; returns how many products on the main process, None on the others."""
    use_loopback()
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    precision = encoding.mixed_precision or ("bf16" if has_bfloat16() and not on_cpu else "no")
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision)
    with accelerator.main_process_first():
        products = read_products(source)
    columns = (source.id_column, source.title_column, source.image_column, source.attributes)
    encoder = CorpusEncoder.from_pretrained(
        encoding.model_name_or_path,
        accelerator,
        None,
        encoding.revision,
        batch_size=encoding.per_device_batch_size,
        num_workers=encoding.dataloader_num_workers,
    )
    count = encode_dataset(
        encoder,
        Source.of(products, *columns, max_images=source.max_images),
        Path(output.output_dir),
        on_bad_row=source.on_bad_row,
        overwrite=output.overwrite_output_dir,
        **output.options(),
    )
    is_main = accelerator.is_main_process
    accelerator.end_training()
    return count if is_main else None


if __name__ == "__main__":
    main()
