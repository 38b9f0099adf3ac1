"""The training script, run as users run it: both stages, resume, stop, several processes, bad settings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import free_port, read_log, read_weights, without_times
from transformers import AutoModel

from acebert import train_accelerate as script
from acebert.training.checkpoints import checkpoints_of
from acebert.training.stages.finetune import Finetuning

ROOT = Path(script.__file__).parent


def test_pretrain_then_finetune(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    metrics = script.main(flags("pretrain", "pretrained"))
    assert metrics["mlm_loss"] > 0 and metrics["patch_loss"] > 0 and metrics["matching_loss"] > 0
    query_side = [name for name in read_weights(tmp_path / "pretrained") if "query_" in name]
    assert query_side  # it goes through this stage, and into the next

    sizes = {"patch_size": None, "max_num_patches": None, "projection_dim": None}
    start = {"backbone": None, "model_name_or_path": tmp_path / "pretrained", **sizes}
    finetune = flags(**start, num_train_epochs=10, max_train_steps=None)
    metrics = script.main([*finetune, "--learning_rate", "1e-3", "--adversarial_strength", "0.05"])
    assert {"title_to_image_recall@10", "query_to_product_recall@10", "modality_gap"} < set(metrics)
    entries = [entry for entry in read_log(tmp_path / "run") if "loss" in entry]
    assert [entry["step"] for entry in entries] == list(range(1, 41))  # 4 batches of 16 for each of 10 epochs
    assert entries[-1]["matching_loss"] < 0.7 * entries[0]["matching_loss"]
    assert entries[-1]["learning_rate"] == 0.0  # the schedule ends with the run
    assert max(entry["learning_rate"] for entry in entries) == pytest.approx(1e-3)
    assert entries[0]["adversarial_strength"] == 0.0
    assert entries[-1]["adversarial_strength"] == pytest.approx(0.05, rel=0.01)
    assert all(0 <= entry["domain_accuracy"] <= 1 and entry["modality_gap"] > 0 for entry in entries)
    assert len(checkpoints_of(str(tmp_path / "run"))) == 2  # the limit

    folder = tmp_path / "run"
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} < set(os.listdir(folder))
    assert {"modeling_acebert.py", "configuration_acebert.py", "processing_acebert.py"} < set(os.listdir(folder))
    assert AutoModel.from_pretrained(folder, trust_remote_code=True).config.adversarial_strength == 0.05


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_resumed_run_ends_with_the_same_bits(stage: str, flags: Callable[..., list[str]], tmp_path: Path) -> None:
    arguments = flags(stage, checkpoints_total_limit=9)
    script.main(arguments)
    whole, entries = read_weights(tmp_path / "run"), read_log(tmp_path / "run")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{step}")
    script.main(arguments)
    resumed = read_weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(read_log(tmp_path / "run")) == without_times(entries)
    seconds = [[entry["seconds"] for entry in found[:2]] for found in (read_log(tmp_path / "run"), entries)]
    assert seconds[0] == seconds[1]  # these steps were not run again


def test_a_run_computes_in_bfloat16_where_the_hardware_does_and_resumes_with_the_same_bits(
    flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], bfloat16: bool
) -> None:
    arguments = flags(mixed_precision=None, max_train_steps=4, validation_split=None, validation_share=0)
    script.main(arguments)
    computes_in = "bfloat16 autocast" if bfloat16 else "float32"
    assert f"Computing in {computes_in} on " in capsys.readouterr().out
    whole = read_weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_4")
    script.main(arguments)
    assert "Resuming from" in capsys.readouterr().out
    resumed = read_weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resumed_run_with_hard_negatives_and_averages_ends_with_the_same_bits(
    flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    changes = {"mine_hard_negatives_every": 1, "hard_negatives": 2, "ema_decay": 0.9, "cached_chunk_size": 4}
    changes |= {"drop_patch_probability": 0.3, "crop_probability": 0.5, "freeze_word_embeddings": True}
    arguments = flags(**changes, max_train_steps=10, eval_steps=10, checkpoints_total_limit=9)  # 4 batches an epoch
    script.main(arguments)
    whole, entries = read_weights(tmp_path / "run"), read_log(tmp_path / "run")
    for step in (8, 10):  # step 6 is amid the second epoch, whose order comes from the first search
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{step}")
    script.main(arguments)
    resumed = read_weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_times(read_log(tmp_path / "run")) == without_times(entries)
    before = {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}
    script.main(flags(output="plain", **{**changes, "mine_hard_negatives_every": None}, max_train_steps=10))
    plain = {entry["step"]: entry["loss"] for entry in read_log(tmp_path / "plain") if "loss" in entry}
    assert plain[4] == before[4] and plain[5] != before[5]  # the second epoch has another order


def test_the_average_is_what_is_validated_and_saved(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    """With a decay of nearly 1, the average of a few steps stays near the first weights; the weights move on."""
    common = {"max_train_steps": 6, "eval_steps": 6, "checkpointing_steps": 6, "dropout": 0, "attention_dropout": 0}
    trains_words = {**common, "freeze_word_embeddings": False}
    script.main([*flags(output="plain", **trains_words), "--learning_rate", "1e-2"])
    script.main([*flags(output="average", ema_decay=0.999, **trains_words), "--learning_rate", "1e-2"])
    plain, average = (read_weights(tmp_path / name) for name in ("plain", "average"))
    state = read_weights(tmp_path / "average" / "checkpoints" / "step_6")
    name = "acebert.query_encoder.encoder.layer.0.output.dense.weight"
    assert torch.equal(state[name], plain[name])  # the same training
    assert not torch.equal(average[name], plain[name])
    frozen = flags(output="frozen", **common)
    script.main([*frozen, "--learning_rate", "1e-2"])
    words = "acebert.product_encoder.bert.embeddings.word_embeddings.weight"
    backbone = read_weights(Path(dict(zip(frozen[::2], frozen[1::2], strict=False))["--backbone"]))
    assert torch.equal(read_weights(tmp_path / "frozen")[words], backbone["embeddings.word_embeddings.weight"])
    assert not torch.equal(plain[words], backbone["embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_dropout_is_on_in_every_step(
    ema_decay: float | None, flags: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.main(flags("pretrain", "pretrained", max_train_steps=2))
    backward, modes = Finetuning.backward, []

    def spy(stage: Finetuning, model: torch.nn.Module, *rest: Any) -> dict[str, torch.Tensor]:
        modes.append({module.training for module in model.modules()})
        return backward(stage, model, *rest)

    monkeypatch.setattr(Finetuning, "backward", spy)
    sizes = {"patch_size": None, "max_num_patches": None, "projection_dim": None}
    script.main(flags(backbone=None, model_name_or_path=tmp_path / "pretrained", ema_decay=ema_decay, **sizes))
    assert modes == [{True}] * 6


def test_early_stopping(
    flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.4, 0.6, 0.3, 0.2, 0.9])
    monkeypatch.setattr(Finetuning, "validate", lambda *_: {"score": next(scores)})
    arguments = flags(max_train_steps=50, eval_steps=2, early_stopping_patience=2)
    assert script.main(arguments) == {"score": 0.6}
    assert "Stopped early: no gain in 2 validations (best score 0.6000)" in capsys.readouterr().out
    assert read_log(tmp_path / "run")[-1]["step"] == 10
    assert script.main(arguments) == {"score": 0.6}  # the same command again finds the run ended
    assert read_log(tmp_path / "run")[-1]["step"] == 10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tied_weights_are_saved_once(dtype: str, flags: Callable[..., list[str]], tmp_path: Path) -> None:
    script.main(flags(max_train_steps=1, save_dtype=dtype))
    saved = read_weights(tmp_path / "run")
    assert {str(value.dtype) for value in saved.values()} == {f"torch.{dtype}"}
    assert [name for name in saved if "word_embeddings" in name] == [
        "acebert.product_encoder.bert.embeddings.word_embeddings.weight"
    ]
    model = AutoModel.from_pretrained(tmp_path / "run", trust_remote_code=True)
    assert {str(parameter.dtype) for parameter in model.parameters()} == {f"torch.{dtype}"}
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert {config["dtype"], config["text_config"]["dtype"], config["query_config"]["dtype"]} == {dtype}


def test_other_settings_do_not_resume(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    script.main(flags(max_train_steps=2))
    with pytest.raises(SystemExit, match=r"learning_rate.*overwrite_output_dir"):
        script.main([*flags(max_train_steps=2), "--learning_rate", "0.5"])
    script.main([*flags(max_train_steps=2), "--learning_rate", "0.5", "--overwrite_output_dir", "True"])
    assert read_log(tmp_path / "run")[-1]["step"] == 2


def test_accumulation_schedule_and_no_validation(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    no_validation = {"validation_split": None, "validation_share": 0}
    arguments = flags(max_train_steps=None, num_train_epochs=2, gradient_accumulation_steps=2, **no_validation)
    assert script.main(arguments) == {}
    entries = [entry for entry in read_log(tmp_path / "run") if "loss" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]  # 4 batches an epoch, two of them a step
    assert entries[-1]["learning_rate"] == 0.0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_other_variants_train(flags: Callable[..., list[str]]) -> None:
    variants = {"loss": "sigmoid", "share_encoders": True, "matryoshka_dims": [4, 8], "gradient_checkpointing": True}
    assert script.main(flags(max_train_steps=2, **variants))["score"] >= 0
    no_photos = flags(max_train_steps=2, image_column="none", output="blind")
    assert "title_to_image_recall@10" not in script.main(no_photos)


# ----------------------------------------------------------------------------------------------------------------------
# As a command
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), id="Ctrl-C"),  # a terminal sends it to all processes
        pytest.param(lambda pid: os.killpg(pid, signal.SIGTERM), id="a cluster's SIGTERM"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGTERM), id="SIGTERM to the launcher alone"),
    ],
)
def test_a_stop_saves_and_the_same_command_goes_on(
    how: Callable[[int], None], flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    arguments = flags(max_train_steps=60, checkpointing_steps=1000, eval_steps=1000, dataloader_num_workers=1)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
    command = [*launch, str(ROOT / "train_accelerate.py")]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([*command, *arguments], **pipes, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "train_log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    how(process.pid)
    _, stderr = process.communicate(timeout=120)  # until the last process has closed its end
    assert "the same command goes on from there" in stderr
    steps = [int(path.name[5:]) for path in checkpoints_of(str(tmp_path / "run"))]
    assert len(steps) == 1 and steps[0] < 60
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240)
    assert f"Resuming from {tmp_path}/run/checkpoints/step_{steps[0]}" in result.stdout
    assert read_log(tmp_path / "run")[-1]["step"] == 60


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["finetune", "query_side"])
def test_two_processes_train_as_one_with_twice_the_batch(
    stage: str, flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Not bit for bit, since sums run in another order, and without dropout, which each process draws for itself."""
    common: dict[str, Any] = {"max_train_steps": 4, "dropout": 0, "attention_dropout": 0, "eval_steps": 4}
    if stage == "finetune":
        common |= {"flip_probability": 0}
    else:
        script.main(flags(output="start", max_train_steps=1))
        built = dict.fromkeys(("backbone", "patch_size", "max_num_patches", "projection_dim"))
        common |= {"stage": stage, "model_name_or_path": tmp_path / "start", "drop_title_probability": 0.3, **built}
    script.main(flags(output="one", per_device_batch_size=16, **common))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    command = [*launch, str(ROOT / "train_accelerate.py"), *flags(output="two", per_device_batch_size=8, **common)]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "ACCELERATE_USE_CPU": "1"}
    )
    assert result.returncode == 0, result.stderr
    one, two = ([e for e in read_log(tmp_path / name) if "loss" in e] for name in ("one", "two"))
    assert [e["step"] for e in two] == [1, 2, 3, 4]
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-4)
    assert one[-1]["loss"] == pytest.approx(two[-1]["loss"], rel=1e-2)
    assert [e["learning_rate"] for e in one] == pytest.approx([e["learning_rate"] for e in two])


@pytest.mark.slow
def test_trackers(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    script.main(flags(max_train_steps=2, report_to="tensorboard"))
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
