"""Encodes a catalogue into a folder that can be searched: `ProductCatalog.load` and the Space open it.

    acebert build-catalog --dataset_name path/to/catalogue.csv --id_column sku --title_column name \
        --image_column photo --output_dir build/my-catalog

Several processes share the work: on GPUs under `accelerate launch -m acebert.commands.build_catalog ...`, on CPUs under
torchrun with ACCELERATE_USE_CPU=true. The same command resumes a build that was stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from transformers import AutoModel, AutoProcessor

from acebert.catalog import ProductCatalog
from acebert.catalog.indexes.connection import ServerOptions
from acebert.data.arguments import CatalogArguments
from acebert.data.exports import GROUP
from acebert.data.photo_columns import concatenate_products
from acebert.data.sources import load_products
from acebert.utils.command_line import make_parser
from acebert.utils.hardware import has_bfloat16, use_loopback

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(kw_only=True)
class ProductArguments(CatalogArguments):
    """Which products to encode, and which of their columns."""

    split: str = field(default="train", metadata={"help": "Splits to encode, joined by '+', as train+validation."})
    attribute_columns: list[str] | None = field(
        default=None,
        metadata={"help": "Columns to filter by and to show: texts, numbers or booleans. By default all others."},
    )
    group_column: str | None = field(
        default=None,
        metadata={
            "help": "Attribute column that the variants of a product share, as their parent's id. By default that of a "
            "shop system's export that is known."
        },
    )

    @property
    def attributes(self) -> list[str] | None:
        """The attribute columns that are named, the group's among them; None for all."""
        if self.attribute_columns is None or self.group_column is None:
            return self.attribute_columns
        return list(dict.fromkeys([*self.attribute_columns, self.group_column]))


@dataclass
class EncodingArguments:
    """By which model, and how fast."""

    _argument_group_name: ClassVar[str] = "encoding"

    model_name_or_path: str = field(default=".", metadata={"help": "Checkpoint: a folder or a Hub id."})
    revision: str | None = field(
        default=None,
        metadata={"help": "Branch, tag or commit of a checkpoint on the Hub. By default its newest commit."},
    )
    mixed_precision: Literal["no", "fp16", "bf16"] | None = field(
        default=None,
        metadata={"help": "Precision to encode in; no: float32. By default bf16 where the hardware has it, else no."},
    )
    per_device_batch_size: int = field(default=64, metadata={"help": "Products in a forward pass of a process."})
    dataloader_num_workers: int = field(
        default=0, metadata={"help": "Worker processes that read photos, for each process that encodes."}
    )


@dataclass
class OutputArguments:
    """What to keep, and where."""

    _argument_group_name: ClassVar[str] = "output"

    output_dir: str = field(metadata={"help": "Folder to write the catalogue to."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace what --output_dir holds, once it is complete."}
    )
    sides: bool = field(
        default=True,
        metadata={
            "help": "Encode title and photo each alone, too, so that hits tell which matched; takes twice the time."
        },
    )
    photo_size: int = field(
        default=512, metadata={"help": "Longest side of the photos to keep for showing, in pixels; 0 keeps none."}
    )
    index: str = field(
        default="edge",
        metadata={
            "help": "Index to search by: edge (embedded Qdrant), memory, or http://host:6333/name (a Qdrant server; "
            "several of its addresses joined by commas)."
        },
    )
    index_options: list[str] = field(
        default_factory=list,
        metadata={"help": "Options of a server's index, as shard_number=6 replication_factor=2 quantization=scalar."},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the catalogue.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: for wrong flags, and after Ctrl-C.
        FileExistsError, ValueError: see [`ProductCatalog.build`] and [`load_products`].
    """
    parser = make_parser(
        "acebert build-catalog", __doc__.splitlines()[0], (ProductArguments, EncodingArguments, OutputArguments)
    )
    source, encoding, output = parser.parse_args_into_dataclasses(argv)
    use_loopback()
    # As `Accelerator` does: on a CPU, processes of torchrun or `accelerate launch --cpu` know of each other only so.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    with state.main_process_first():
        products = read_products(source)
    group = source.group_column
    if group is None and source.attribute_columns is None and GROUP in products.column_names:
        group = GROUP
    options = {"revision": encoding.revision, "trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(encoding.model_name_or_path, **options)
    dtype = DTYPES[encoding.mixed_precision or ("bf16" if has_bfloat16(state.device.type) else "no")]
    state.print(f"Encoding in {str(dtype).removeprefix('torch.')} on {state.device.type}.")
    model = AutoModel.from_pretrained(encoding.model_name_or_path, dtype=dtype, use_safetensors=True, **options)
    try:
        catalog = ProductCatalog.build(
            model.to(state.device),
            processor,
            products,
            output.output_dir,
            id_column=source.id_column,
            title_column=source.title_column,
            image_column=source.image_column,
            attribute_columns=source.attributes,
            sides=output.sides,
            photo_size=output.photo_size,
            index=output.index,
            index_options=ServerOptions.read_flags(output.index_options),
            batch_size=encoding.per_device_batch_size,
            num_workers=encoding.dataloader_num_workers,
            on_bad_row=source.on_bad_row,
            overwrite=output.overwrite_output_dir,
            group_column=group,
            max_images=source.max_images,
        )
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command resumes.")
    if catalog is not None:
        print(f"{len(catalog)} products are in {output.output_dir}.")
        catalog.close()


def read_products(source: ProductArguments) -> Dataset:
    """The products of all splits that are named, one after another."""
    columns = source.columns(source.attributes or ())
    parts = [
        load_products(
            source.dataset_name,
            split,
            columns,
            source.dataset_revision,
            source.dataset_config_name,
            on_bad_row=source.on_bad_row,
            keep_others=source.attributes is None,
            options=source.read_options(),
        )
        for split in source.split.split("+")
    ]
    return concatenate_products(parts, columns.image)


if __name__ == "__main__":
    main()
