"""Flags from the command line and from files, and what is wrong with them."""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import FROM_CHECKPOINT

from acebert import train_accelerate as script
from acebert.training.arguments import FinetuningArguments
from acebert.training.command_line import default_settings, parse_arguments
from acebert.training.stages import STAGES
from acebert.utils.arguments import names_of
from acebert.utils.config_file import to_argv


def test_yaml_config_and_flags(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"seed": 5, "query_templates": ["{kind}"], "report_to": None}))
    arguments = [flag for flag in flags(query_templates=None)]
    args = parse_arguments(["--config", str(tmp_path / "run.yaml"), *arguments])
    assert (args.seed, args.query_templates) == (5, ["{kind}"])
    args = parse_arguments([*arguments, f"--config={tmp_path}/run.yaml", "--seed", "6"])
    assert args.seed == 6
    (tmp_path / "run.yaml").write_text("use_pixel_features: false\nmatryoshka_dims: []\ntitle_column: none\n")
    args = parse_arguments([*arguments, "--config", str(tmp_path / "run.yaml")])
    assert isinstance(args, FinetuningArguments)
    assert (args.use_pixel_features, args.matryoshka_dims, args.title_column) == (False, [], None)
    (tmp_path / "run.yaml").write_text("- seed")
    with pytest.raises(SystemExit):
        parse_arguments([*arguments, "--config", str(tmp_path / "run.yaml")])


@pytest.mark.parametrize("stage", STAGES)
def test_a_flag_that_is_not_given_has_the_default_of_the_stage(stage: str) -> None:
    required = {"stage": stage, "dataset_name": ["shop"], "output_dir": "run", "model_name_or_path": "model"}
    args = parse_arguments(to_argv(required))
    assert asdict(args) == default_settings()[stage] | required
    assert type(args)(**required) == args


def test_help_lists_the_stages_and_then_the_flags_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    def help_of(*flags: str) -> str:
        with pytest.raises(SystemExit) as end:
            parse_arguments([*flags, "--help"])
        assert end.value.code == 0
        return capsys.readouterr().out

    assert all(f"  {name} " in help_of() and stage.summary in help_of() for name, stage in STAGES.items())
    for name, stage in STAGES.items():
        text = help_of("--stage", name)
        shown = set(re.findall(r"^  --(\w+)", text, re.MULTILINE)) - {"config"}
        assert shown == names_of(stage.arguments)
        assert "\ncatalogue:\n" in text and ("\nqueries:\n" in text) == (name != "align")
    assert "(default: 5e-05)" in help_of("--stage", "finetune") and "5e-05" not in help_of("--stage", "pretrain")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": None}, "--model_name_or_path"),
        ({"title_column": "name"}, "--title_column"),
        ({"per_device_batch_size": 100}, "lower --per_device_batch_size"),
        ({"per_device_batch_size": 1}, "--per_device_batch_size 1 leaves nothing to tell a product from"),
        ({"validation_split": "dev"}, "has no split 'dev'"),
        ({"validation_split": None, "validation_share": 1.5}, "--validation_share must lie in"),
        ({"chunk_size": 0}, "--chunk_size must be at least 1"),
        ({"checkpointing_steps": 0}, "--checkpointing_steps must be at least 1"),
        ({"max_train_steps": None, "num_train_epochs": 0}, "makes no step"),
        ({"share_encoders": True, "query_layers": 1}, "leave --query_layers out"),
        (
            {"backbone": None, "model_name_or_path": "x"},
            "--max_num_patches, --patch_size, --projection_dim can't change",
        ),
        ({"stage": "pretrain", "cached_chunk_size": 8}, "doesn't take --cached_chunk_size (of align, finetune): leave"),
        ({"stage": "pretrain", "mine_hard_negatives_every": 1}, "--mine_hard_negatives_every (of finetune)"),
        ({"stage": "pretrain", "image_backbone": "b"}, "--image_backbone (of align, finetune): leave out."),
        ({"stage": "pretrain", "freeze_image_encoder": True}, "--freeze_image_encoder (of align, finetune)"),
        ({"stage": "align"}, "doesn't take --query_templates (of pretrain, finetune, query_side): leave out."),
        ({"stage": "align", "query_column": "q"}, "--query_column (of pretrain, finetune, query_side)"),
        ({"stage": "align", "drop_title_probability": 0}, "--drop_title_probability (of finetune, query_side)"),
        ({"stage": "align", "title_query_probability": 1}, "--title_query_probability (of finetune, query_side)"),
        ({"stage": "align", "split_encoders": True}, "--split_encoders (of finetune)"),
        ({"stage": "align", "hard_negatives": 2}, "--hard_negatives (of finetune)"),
        ({"backbone": None, "model_name_or_path": "x", "image_layers": 2}, "--image_layers, "),
        ({"stage": "pretrain", "chunk_size": 8}, "--chunk_size (of align, finetune, query_side): leave out."),
        ({"learning_rat": 1}, "No such flag: --learning_rat 1."),
        ({"stage": "pre"}, "invalid choice: 'pre'"),
        ({"stage": None}, "Give --stage: pretrain, align, finetune, query_side."),
        ({"drop_patch_probability": 1.5}, "--drop_patch_probability must lie in [0, 1], got 1.5"),
        ({"ema_decay": 1.0}, "--ema_decay must lie in (0, 1), got 1.0"),
        ({"early_stopping_patience": 1, "validation_split": None, "validation_share": 0}, "needs a validation"),
        ({"query_templates": ["shoes"]}, "names no attribute"),
        ({"query_templates": ["{material}"]}, "material"),
    ],
)
def test_bad_settings(
    changes: dict, message: str, flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((SystemExit, ValueError)) as error:
        script.main(flags(**changes))
    assert message in str(error.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hard_negatives": 2}, "--stage query_side doesn't take --hard_negatives (of finetune): leave out."),
        ({"adversarial_strength": 0.0}, "--adversarial_strength (of align, finetune)"),
        ({"balanced_query_probability": 1.5}, "--balanced_query_probability must lie in [0, 1], got 1.5"),
        (
            {"stage": "finetune", "balanced_query_probability": 0.5},
            "doesn't take --balanced_query_probability (of query_side)",
        ),
        ({"label_smoothing": 0.1}, "--label_smoothing (of pretrain, align, finetune)"),
        ({"freeze_word_embeddings": True}, "--freeze_word_embeddings (of pretrain, align, finetune)"),
        (
            {"image_learning_rate": 0.1, "mlm_probability": 0.1},
            "--image_learning_rate (of pretrain, align, finetune), --mlm_probability (of pretrain)",
        ),
        ({"balanced_query_probability": 0.5, "query_templates": None}, "for --query_templates: give some"),
        ({"model_name_or_path": None}, "needs a fine-tuned checkpoint: give --model_name_or_path"),
        ({"backbone": "b"}, "--backbone (of pretrain, align, finetune)"),
    ],
)
def test_bad_settings_of_query_side_finetuning(
    changes: dict[str, Any], message: str, flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(flags(**{"stage": "query_side", "model_name_or_path": "m", **FROM_CHECKPOINT, **changes}))
    assert message in capsys.readouterr().err
