"""Between the fine-tuned and the pre-trained weights: WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903, section 3).

What a fine-tuned model forgot of the world comes back with a share of the weights that it started from, often for
nothing of what it learned.
"""

import torch
from torch import nn
from transformers import BertModel

from acebert.modeling_acebert import AceBertModel


@torch.no_grad()
def interpolate_with_backbone(model: AceBertModel, backbone: BertModel, share: float) -> int:
    """Moves a model's text encoders towards the backbone that they started from, in place.

    Args:
        model: its title encoder, and its query encoder if it has one of its own.
        backbone: of the same widths; encoders of fewer layers take those that `config.backbone` names.
        share: of the backbone's weights, in [0, 1]; 0 leaves the model as it is.

    Returns:
        The number of tensors that were moved.

    Raises:
        ValueError: for a share out of range, or a backbone of another shape.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The backbone's share must lie in [0, 1], got {share}.")
    source = dict(backbone.named_parameters())
    origin = model.config.backbone or {}
    encoders: list[tuple[nn.Module, list[int] | None]] = [(model.product_encoder.bert, origin.get("product_layers"))]
    if model.query_encoder is not None:
        encoders.append((model.query_encoder, origin.get("query_layers")))
    moved: set[int] = set()
    for encoder, layers in encoders:
        taken = layers or list(range(encoder.config.num_hidden_layers))
        for name, weight in encoder.named_parameters():
            if id(weight) in moved:  # word embeddings that both encoders share
                continue
            parts = name.split(".")
            if parts[:2] == ["encoder", "layer"]:
                parts[2] = str(taken[int(parts[2])])
            other = source.get(".".join(parts))
            if other is None or other.shape != weight.shape:
                raise ValueError(
                    f"The backbone has no weight '{'.'.join(parts)}' of shape {tuple(weight.shape)}: name the one that "
                    "the model was built from."
                )
            weight.lerp_(other.to(weight.dtype), share)
            moved.add(id(weight))
    return len(moved)
