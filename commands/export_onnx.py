"""Exports a checkpoint's encoders to ONNX, in float32 and 8 bits, and checks that the vectors stay the same.

    acebert export-onnx --model_name_or_path . --output_dir build/onnx

The folder holds all that encoding needs; `OnnxAceBertModel` loads it. With a catalogue, the command also measures what
the export costs in recall, which needs `pip install "acebert[evaluate]"`:

    acebert export-onnx --output_dir build/onnx --dataset_name path/to/catalogue --split validation \
        --query_templates "{colour} {category}"
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from transformers import AutoModel, AutoProcessor

from acebert.encoding.onnx_export import check_parity, write_export
from acebert.encoding.onnx_model import PARTS, RECORD, OnnxAceBertModel, encoder_file
from acebert.utils.command_line import make_parser


@dataclass
class ExportArguments:
    """What to export, and where to."""

    _argument_group_name: ClassVar[str] = "export"

    output_dir: str = field(metadata={"help": "Folder to write the export to."})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Replace the export that --output_dir holds."})
    model_name_or_path: str = field(default=".", metadata={"help": "Checkpoint: a folder or a Hub id."})
    revision: str | None = field(
        default=None,
        metadata={"help": "Branch, tag or commit of a checkpoint on the Hub. By default its newest commit."},
    )
    parts: list[str] = field(
        default_factory=lambda: list(PARTS), metadata={"help": "Encoders to export.", "choices": list(PARTS)}
    )
    quantize: Literal["int8", "none"] = field(
        default="int8", metadata={"help": "int8: also export the encoders in 8 bits; none: in float32 only."}
    )


@dataclass
class RecallArguments:
    """The catalogue that recall is measured on."""

    _argument_group_name: ClassVar[str] = "recall on a catalogue, before and after"

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Catalogue: Hub id, folder, or CSV, TSV, JSON or Parquet file. None by default."},
    )
    split: str = field(default="validation", metadata={"help": "Splits to rank, joined by '+', as train+validation."})
    id_column: str = field(default="id", metadata={"help": "Column of product ids: texts or integers, unique."})
    title_column: str = field(default="title", metadata={"help": "Column of titles, which are also queries."})
    image_column: str = field(default="image", metadata={"help": "Column of photos."})
    query_templates: list[str] = field(
        default_factory=list,
        metadata={"help": 'Templates of short queries from attribute columns, as "{gender} {colour} {category}".'},
    )
    num_queries: int = field(default=1000, metadata={"help": "Number of template queries at most."})
    per_device_batch_size: int = field(default=64, metadata={"help": "Queries or products in a forward pass."})


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the export.

    Args:
        argv: flags; those of the process by default.

    Returns:
        What `export.json` holds.

    Raises:
        FileExistsError: for an `--output_dir` that holds something else, or an export that isn't to be overwritten.
        ValueError: for an export whose vectors are not the checkpoint's; nothing is written then.
    """
    parser = make_parser("acebert export-onnx", __doc__.splitlines()[0], (ExportArguments, RecallArguments))
    args, recall = parser.parse_args_into_dataclasses(argv)
    output_dir = check_output_dir(args)
    tasks = []
    if recall.dataset_name:
        # Here, because only this needs what an evaluation needs; and first, because the catalogue may not fit.
        from acebert.evaluation.onnx_recall import load_tasks, measure_recall, recall_markdown

        columns = (recall.id_column, recall.title_column, recall.image_column)
        splits = recall.split.split("+")
        tasks = load_tasks(recall.dataset_name, splits, columns, recall.query_templates, recall.num_queries)
    options = {"revision": args.revision, "trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(args.model_name_or_path, **options)
    model = AutoModel.from_pretrained(
        args.model_name_or_path, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, **options
    ).eval()

    # Written beside --output_dir and then renamed, so that a half export is never seen there.
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}-", dir=output_dir.parent) as temporary:
        folder = Path(temporary) / output_dir.name
        folder.mkdir()
        record = write_export(
            model,
            processor,
            folder,
            parts=args.parts,
            quantize=args.quantize == "int8",
            source=args.model_name_or_path,
            revision=args.revision,
        )
        exported = {precision: OnnxAceBertModel(folder, precision) for precision in record["precisions"]}
        record["parity"] = [row for one in exported.values() for row in check_parity(model, one, processor)]
        for row in record["parity"]:
            size = (folder / encoder_file(row["part"], row["precision"])).stat().st_size / 1e6
            print(
                f"{row['part']} encoder, {row['precision']}: {size:.0f} MB, largest difference "
                f"{row['difference']:.1e}, smallest cosine {row['cosine']:.6f}"
            )
        if tasks:
            record["recall"] = measure_recall(tasks, model, exported, processor, recall.per_device_batch_size)
            print(recall_markdown(record["recall"]))
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if output_dir.exists():
            shutil.rmtree(output_dir)
        folder.rename(output_dir)
    print(f"The export is in {output_dir}.")
    return record


def check_output_dir(args: ExportArguments) -> Path:
    """The folder to write; only an export is ever replaced.

    Raises:
        FileExistsError: for a folder that holds something else, or an export without `--overwrite_output_dir`.
    """
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        if not (folder / RECORD).exists():
            raise FileExistsError(f"--output_dir {folder} is not empty and holds no export: choose another folder.")
        if not args.overwrite_output_dir:
            raise FileExistsError(f"--output_dir {folder} holds an export: replace it with --overwrite_output_dir.")
    return folder


if __name__ == "__main__":
    main()
