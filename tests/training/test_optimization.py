"""Parameter groups, temperature and moving average."""

from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator

from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.training.arguments import FinetuningArguments
from acebert.training.command_line import parse_arguments
from acebert.training.optimization import average_weights, clamp_temperature, make_optimizer
from acebert.training.stages.finetune import Finetuning


def test_parameter_groups(tiny_config: Callable[..., AceBertConfig], flags: Callable[..., list[str]]) -> None:
    args = parse_arguments(flags())
    assert isinstance(args, FinetuningArguments)
    model = AceBertForRetrieval(tiny_config())
    stage = Finetuning(args, Accelerator(cpu=True))
    stage.config = model.config
    optimizer = make_optimizer(model, stage.learning_rates(), args)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    named = {name: of[id(p)] for name, p in model.named_parameters()}
    assert len(of) == len(named)
    assert optimizer.param_groups[0]["lr"] == args.learning_rate
    for name, parameter in model.named_parameters():
        assert named[name]["weight_decay"] == (args.weight_decay if parameter.ndim >= 2 else 0.0), name
    assert named["acebert.logit_scale"]["lr"] == args.head_learning_rate
    assert named["acebert.product_encoder.image_embeddings.patch_features.weight"]["lr"] == args.image_learning_rate
    assert named["acebert.query_encoder.encoder.layer.0.output.dense.weight"]["lr"] == args.learning_rate


def test_temperature_is_clamped_after_the_step(tiny_config: Callable[..., AceBertConfig]) -> None:
    model = AceBertForRetrieval(tiny_config())
    with torch.no_grad():
        model.acebert.logit_scale.fill_(9.0)
    clamp_temperature(model)
    assert model.acebert.logit_scale.item() == pytest.approx(4.6052)


def test_moving_average() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = average_weights(model, decay=0.5)
    values = [4.0, 8.0, 2.0, 6.0]
    expected = None
    for n, value in enumerate(values):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        keep = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else keep * expected + (1 - keep) * value
        assert average.module.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 6.0
