"""Gives a fine-tuned model's text encoders back a share of their backbone's weights (WiSE-FT).

    acebert interpolate --model_name_or_path runs/tuned --backbone sentence-transformers/all-MiniLM-L6-v2 \\
        --backbone_share 0.3 --output_dir runs/released

Costs nothing and often wins back words that fine-tuning lost; measure it on natural queries (docs/training.md).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModel, BertModel

from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.training.interpolation import interpolate_with_backbone
from acebert.utils.command_line import make_parser


@dataclass
class InterpolationArguments:
    """What to average, and where to write it."""

    model_name_or_path: str = field(metadata={"help": "Fine-tuned checkpoint: a folder or a Hub id."})
    backbone: str = field(metadata={"help": "Text backbone that it was built from: a folder or a Hub id."})
    output_dir: str = field(metadata={"help": "Folder to write to. It must be empty or not exist."})
    backbone_share: float = field(default=0.3, metadata={"help": "Share of the backbone's weights, in [0, 1]."})
    image_weight: float | None = field(
        default=None, metadata={"help": "Weight of a photo beside its title, to save in the model. Default: as it is."}
    )
    save_dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "Data type of the saved weights."}
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Args:
        argv: flags; those of the process by default.

    Raises:
        SystemExit: for wrong flags, another backbone, and a folder that holds something.
    """
    parser = make_parser("acebert interpolate", __doc__.splitlines()[0], (InterpolationArguments,))
    (args,) = parser.parse_args_into_dataclasses(argv)
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"acebert interpolate: --output_dir {str(folder)[:80]} isn't empty: name another.")
    model = AceBertModel.from_pretrained(args.model_name_or_path, dtype=torch.float32, use_safetensors=True)
    backbone = AutoModel.from_pretrained(args.backbone, dtype=torch.float32, use_safetensors=True)
    if not isinstance(backbone, BertModel):
        sys.exit(f"acebert interpolate: --backbone {args.backbone[:80]} is no BERT, but {type(backbone).__name__}.")
    try:
        moved = interpolate_with_backbone(model, backbone, args.backbone_share)
    except ValueError as error:
        sys.exit(f"acebert interpolate: {error}")
    if args.image_weight is not None:
        model.config.image_weight = args.image_weight
    dtype = getattr(torch, args.save_dtype)
    for part in (model.config.text_config, model.config.query_config, model.config.vision_config):
        if part is not None:
            part.dtype = dtype
    model.to(dtype).save_pretrained(folder)
    AceBertProcessor.from_pretrained(args.model_name_or_path).save_pretrained(folder)
    print(f"{moved} tensors now hold {args.backbone_share:.0%} of the backbone. The model is in {folder}.")


if __name__ == "__main__":
    main()
