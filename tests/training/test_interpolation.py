"""A share of the backbone's weights, in both encoders, by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from acebert.commands import interpolate
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.training.interpolation import interpolate_with_backbone


def perturbed(backbone: str) -> AceBertModel:
    model = AceBertModel.from_backbone(backbone, query_layers=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    return model


def test_weights_lie_between_the_models_and_the_backbones(backbone: str) -> None:
    model, source = perturbed(backbone), BertModel.from_pretrained(backbone)
    projection = model.product_projection.weight.clone()
    interpolate_with_backbone(model, source, 0.4)
    word = source.embeddings.word_embeddings.weight
    torch.testing.assert_close(model.get_input_embeddings().weight, word + 0.6 * 0.5)
    layer = model.config.backbone["query_layers"][0]
    expected = source.encoder.layer[layer].output.dense.weight + 0.6 * 0.5
    torch.testing.assert_close(model.query_encoder.encoder.layer[0].output.dense.weight, expected)
    assert torch.equal(model.product_projection.weight, projection)


def test_what_is_refused(backbone: str) -> None:
    model, source = perturbed(backbone), BertModel.from_pretrained(backbone)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 2"):
        interpolate_with_backbone(model, source, 2)
    other = BertModel(type(source.config)(**{**source.config.to_dict(), "intermediate_size": 8}))
    with pytest.raises(ValueError, match="name the one that the model was built from"):
        interpolate_with_backbone(model, other, 0.5)


def test_the_command_writes_a_folder_that_loads(
    backbone: str, flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from acebert import train_accelerate

    train_accelerate.main(flags(max_train_steps=1))
    command = ["--model_name_or_path", str(tmp_path / "run"), "--backbone", backbone, "--output_dir"]
    out = tmp_path / "averaged"
    interpolate.main([*command, str(out), "--backbone_share", "1", "--save_dtype", "bfloat16"])
    assert "hold 100% of the backbone" in capsys.readouterr().out
    model = AceBertModel.from_pretrained(out)
    assert model.dtype == torch.bfloat16 and AceBertProcessor.from_pretrained(out).title_max_length
    source = BertModel.from_pretrained(backbone)
    torch.testing.assert_close(
        model.get_input_embeddings().weight, source.embeddings.word_embeddings.weight.to(torch.bfloat16)
    )
    with pytest.raises(SystemExit, match="isn't empty: name another"):
        interpolate.main([*command, str(out)])
