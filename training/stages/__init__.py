"""The stages of training. A new stage is a subclass of [`Stage`] in a module of its own, and a line here."""

from typing import Any

from acebert.training.stages.align import Alignment
from acebert.training.stages.base import Stage
from acebert.training.stages.finetune import Finetuning
from acebert.training.stages.pretrain import Pretraining
from acebert.training.stages.query_side import QuerySideFinetuning

STAGES: dict[str, type[Stage[Any]]] = {
    "pretrain": Pretraining,
    "align": Alignment,
    "finetune": Finetuning,
    "query_side": QuerySideFinetuning,
}
