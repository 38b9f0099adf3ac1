"""Encodes a catalogue's products into a folder that `ProductCatalog.load` opens and the Space searches.

    accelerate launch build_catalog.py --dataset_name path/to/catalogue.csv --split train --id_column sku \
        --title_column name --image_column photo --output_dir catalog

Several processes share the work. Stopped at any moment, the same command goes on.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from accelerate import PartialState
from datasets import concatenate_datasets
from transformers import AutoModel, AutoProcessor, HfArgumentParser

from acebert.catalog.product_catalog import ProductCatalog
from acebert.data.columns import Columns
from acebert.data.sources import load_products
from acebert.utils.hardware import has_bfloat16


@dataclass
class BuildArguments:
    """What to encode, by what, and where to."""

    dataset_name: list[str] = field(metadata={"help": "Catalogues: Hub ids, folders, or CSV, JSON or Parquet files."})
    output_dir: str = field(metadata={"help": "Folder to make."})
    model_name_or_path: str = field(default=".", metadata={"help": "Checkpoint: a folder or a Hub id."})
    revision: str | None = field(default=None, metadata={"help": "The checkpoint's branch, tag or commit on the Hub."})
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "To compute in; auto: bfloat16 where the hardware has it, else float32."}
    )
    split: str = field(default="train", metadata={"help": "Splits, joined by '+', as train+validation."})
    id_column: str = field(default="id", metadata={"help": "Texts or integers, unique."})
    title_column: str = field(default="title", metadata={"help": "'none' for a catalogue without titles."})
    image_column: str = field(default="image", metadata={"help": "'none' for a catalogue without photos."})
    attribute_columns: list[str] | None = field(
        default=None, metadata={"help": "To filter by and to show: texts, numbers, booleans. By default all others."}
    )
    sides: bool = field(default=True, metadata={"help": "Encode title and photo alone, too: twice the time."})
    photo_size: int = field(default=512, metadata={"help": "Longest side of the photos kept, in pixels; 0: none."})
    index: str = field(default="edge", metadata={"help": "edge, memory, or http://host:6333/collection (Qdrant)."})
    batch_size: int = field(default=64, metadata={"help": "Products in a forward pass."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Processes that read photos, for each process."})
    on_bad_row: Literal["raise", "skip"] = field(
        default="raise", metadata={"help": "skip: list bad rows in bad_rows.jsonl and go on."}
    )
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Remove what is in the folder."})


def main(argv: Sequence[str] | None = None) -> None:
    (args,) = HfArgumentParser(BuildArguments).parse_args_into_dataclasses(argv)
    state = PartialState()
    title = None if args.title_column == "none" else args.title_column
    image = None if args.image_column == "none" else args.image_column
    splits = args.split.split("+")
    columns = Columns(id=args.id_column, title=title, image=image, attributes=args.attribute_columns or [])
    every = args.attribute_columns is None
    with state.main_process_first():
        dataset = concatenate_datasets(
            [
                load_products(args.dataset_name, split, columns, on_bad_row=args.on_bad_row, keep_others=every)
                for split in splits
            ]
        )
    options = {"revision": args.revision, "trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(args.model_name_or_path, **options)
    dtype = args.dtype
    if dtype == "auto":
        dtype = "bfloat16" if has_bfloat16(state.device.type) else "float32"
    if state.is_main_process:
        print(f"Products are encoded in {dtype}.")
    model = AutoModel.from_pretrained(args.model_name_or_path, dtype=dtype, use_safetensors=True, **options)
    try:
        catalog = ProductCatalog.build(
            model.to(state.device),
            processor,
            dataset,
            args.output_dir,
            id_column=args.id_column,
            title_column=title,
            image_column=image,
            attribute_columns=args.attribute_columns,
            sides=args.sides,
            photo_size=args.photo_size,
            index=args.index,
            batch_size=args.batch_size,
            num_workers=args.dataloader_num_workers,
            on_bad_row=args.on_bad_row,
            overwrite=args.overwrite_output_dir,
        )
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from there.")
    if catalog is not None:
        print(f"{len(catalog)} products are in {args.output_dir}.")
        catalog.close()


if __name__ == "__main__":
    main()
