"""The training script, run as users run it: both stages, resume, stop, several processes, bad settings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from helpers import free_port, read_log, read_weights, run_processes, unit_vectors, without_times
from transformers import AutoModel

from acebert import train_accelerate as script
from acebert.commands import find_learning_rate
from acebert.configuration_acebert import AceBertConfig
from acebert.losses_acebert import find_positives
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.training.arguments import FinetuningArguments
from acebert.training.checkpoints import checkpoints_of
from acebert.training.command_line import parse_arguments
from acebert.training.optimization import clamp_temperature, make_optimizer
from acebert.training.run import Progress
from acebert.training.stages.finetune import Finetuning, adversarial_schedule
from acebert.training.validation import capped_recall
from acebert.utils.hardware import use_loopback

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
    script.main([*flags(output="plain", **common), "--learning_rate", "1e-2"])
    script.main([*flags(output="average", ema_decay=0.999, **common), "--learning_rate", "1e-2"])
    plain, average = (read_weights(tmp_path / name) for name in ("plain", "average"))
    state = read_weights(tmp_path / "average" / "checkpoints" / "step_6")
    name = "acebert.query_encoder.encoder.layer.0.output.dense.weight"
    assert torch.equal(state[name], plain[name])  # the same training
    assert not torch.equal(average[name], plain[name])
    frozen = flags(output="frozen", freeze_word_embeddings=True, **common)
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


def test_finding_a_learning_rate_trains_nothing(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    factor = find_learning_rate.main(flags(num_steps=12))
    report = json.loads((tmp_path / "run" / "learning_rate.json").read_text())
    assert report["suggested_factor"] == factor and 2 < len(report["loss"]) <= 12
    assert (tmp_path / "run" / "learning_rate.png").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists() and not checkpoints_of(str(tmp_path / "run"))


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": None}, "--model_name_or_path"),
        ({"title_column": "name"}, "--title_column"),
        ({"per_device_batch_size": 100}, "lower --per_device_batch_size"),
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
        (
            {"stage": "pretrain", "chunk_size": None, "cached_chunk_size": 8},
            "--cached_chunk_size is of align and finetune.",
        ),
        (
            {"stage": "pretrain", "mine_hard_negatives_every": 1},
            "--mine_hard_negatives_every is of align and finetune.",
        ),
        ({"stage": "pretrain", "chunk_size": 8}, "--chunk_size is of align and finetune and query_side."),
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


def test_other_variants_train(flags: Callable[..., list[str]]) -> None:
    variants = {"loss": "sigmoid", "share_encoders": True, "matryoshka_dims": [4, 8], "gradient_checkpointing": True}
    assert script.main(flags(max_train_steps=2, **variants))["score"] >= 0
    no_photos = flags(max_train_steps=2, image_column="none", output="blind")
    assert "title_to_image_recall@10" not in script.main(no_photos)


def test_a_nan_is_never_the_best() -> None:
    progress = Progress()
    assert progress.improve(0.5, {}) and not progress.improve(float("nan"), {}) and progress.best_score == 0.5


def test_temperature_is_clamped_after_the_step(tiny_config: Callable[..., AceBertConfig]) -> None:
    model = AceBertForRetrieval(tiny_config())
    with torch.no_grad():
        model.acebert.logit_scale.fill_(9.0)
    clamp_temperature(model)
    assert model.acebert.logit_scale.item() == pytest.approx(4.6052)


def test_adversarial_schedule() -> None:
    assert adversarial_schedule(0.0, 0.3) == 0.0
    assert adversarial_schedule(0.5, 0.3) == pytest.approx(0.3 * (2 / (1 + 2.718281828**-5) - 1))
    assert adversarial_schedule(1.0, 0.3) == pytest.approx(0.3, rel=1e-3)


def test_capped_recall() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
    positives = torch.tensor([[True, False, True, True], [True, False, False, False]])
    assert capped_recall(scores, positives, k=2).tolist() == [0.5, 0.0]
    assert capped_recall(scores, positives, k=9).tolist() == [1.0, 1.0]


# ----------------------------------------------------------------------------------------------------------------------
# Several processes
# ----------------------------------------------------------------------------------------------------------------------


def two_sided_loss(
    rank: int, processes: int, port: int, folder: str, config: AceBertConfig, cached_chunk_size: int | None
) -> None:
    """Computes the gathered loss of this process's rows and writes it with the averaged gradients."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    use_loopback()
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=60))
    accelerator = Accelerator(cpu=True, mixed_precision="no", kwargs_handlers=[timeout])
    torch.manual_seed(0)
    model = accelerator.prepare(AceBertForRetrieval(config))
    generator = torch.Generator().manual_seed(1)
    rows = slice(rank * 8 // processes, (rank + 1) * 8 // processes)
    ids = torch.randint(5, 20, (8, 5), generator=generator)
    chunk = {
        "query_input_ids": ids[:, :3],
        "input_ids": ids,
        "pixel_values": torch.randn(8, 4, 192, generator=generator),
        "spatial_shapes": torch.full((8, 2), 2),
    }
    batch = {
        "chunks": [{name: value[rows][part] for name, value in chunk.items()} for part in (slice(0, 2), slice(2, 8))],
        "query_order": torch.arange(8 // processes),
        "product_order": torch.arange(8 // processes),
        "product_ids": torch.tensor([0, 1, 2, 3, 0, 5, 6, 7])[rows],  # the first and the fifth are one product
        "query_ids": torch.arange(8)[rows],
        "product_attributes": torch.zeros(8, 1, dtype=torch.long)[rows],
        "query_attributes": torch.full((8, 1), -1)[rows],
    }
    flags = {"adversarial_strength": 0.3, "cached_chunk_size": cached_chunk_size}
    args = FinetuningArguments(stage="finetune", output_dir="", dataset_name=[], **flags)
    values = Finetuning(args, accelerator).backward(model, batch, 1.0)
    if rank == 0:
        gradients = {name: p.grad for name, p in accelerator.unwrap_model(model).named_parameters()}
        torch.save({"loss": values["loss"].detach(), "gradients": gradients}, f"{folder}/{processes}.pt")
    del model, values  # before the group, as in `main`
    accelerator.free_memory()
    accelerator.end_training()


@pytest.mark.parametrize("cached_chunk_size", [None, 8])
def test_two_processes_give_the_loss_and_gradients_of_one(
    cached_chunk_size: int | None, tiny_config: Callable[..., AceBertConfig], tmp_path: Path
) -> None:
    for processes, chunk_size in ((1, None), (2, cached_chunk_size)):
        run_processes(two_sided_loss, processes, str(tmp_path), tiny_config(), chunk_size)
    one, two = (torch.load(tmp_path / f"{processes}.pt", weights_only=True) for processes in (1, 2))
    assert torch.allclose(one["loss"], two["loss"], atol=1e-6)
    assert set(one["gradients"]) == set(two["gradients"])
    for name, gradient in one["gradients"].items():
        assert torch.allclose(gradient, two["gradients"][name], atol=1e-5), name


def test_positives_reach_the_loss(tiny_config: Callable[..., AceBertConfig]) -> None:
    model = AceBertForRetrieval(tiny_config())
    query, product = unit_vectors(4, 16), unit_vectors(4, 16, seed=1)
    positives = find_positives(product_ids=torch.tensor([0, 0, 1, 2]))
    with_them = model.compute_loss(query, product, positives)["matching_loss"]
    assert with_them < model.compute_loss(query, product)["matching_loss"]  # fewer negatives


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
