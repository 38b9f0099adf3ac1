"""What a run chooses by the size of the catalogue."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from acebert import train_accelerate as script
from acebert.training.arguments import FinetuningArguments
from acebert.training.choices import choose_by_size
from acebert.training.command_line import parse_arguments

CONFIGS = Path(script.__file__).parent / "configs"
DEFAULTS = asdict(FinetuningArguments(stage="finetune", output_dir="", dataset_name=[]))


def values(products: int, validating: int | None = None, processes: int = 1, given: tuple[str, ...] = ()) -> dict:
    chosen = choose_by_size(products, validating, processes, DEFAULTS, set(given))
    return {name: choice.value for name, choice in chosen.items()}


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        (20, {"validation_share": 0.2, "per_device_batch_size": 4, "warmup_ratio": 0.2, "eval_steps": 5}),
        (300, {"validation_share": 0.2, "per_device_batch_size": 60, "warmup_ratio": 0.2, "eval_steps": 5}),
        (5_000, {"eval_steps": 22}),
        (100_000, {}),
    ],
)
def test_by_size(products: int, expected: dict[str, float]) -> None:
    assert values(products) == expected


def test_what_is_given_wins_and_decides_of_the_others() -> None:
    given = ("validation_share", "per_device_batch_size", "warmup_ratio", "eval_steps")
    assert values(300, given=given) == {}
    assert values(300, given=("validation_share",))["per_device_batch_size"] == 71
    assert values(300, processes=4)["per_device_batch_size"] == 15


def test_a_split_of_its_own_is_not_sampled_beyond_need() -> None:
    assert values(5_000, validating=300) == {"eval_steps": 23}
    assert values(300, validating=10_000)["validation_size"] == 300
    assert values(20, validating=10_000)["validation_size"] == 100


@pytest.mark.parametrize("config", ["align", "finetune_aligned"])
@pytest.mark.parametrize("validating", [None, 4407])
def test_the_released_configurations_decide_all(config: str, validating: int | None) -> None:
    args = parse_arguments(["--config", str(CONFIGS / f"{config}.yaml")])
    assert choose_by_size(35_258, validating, 1, asdict(args), args.given) == {}


def test_choices_are_told_recorded_and_kept(
    flags: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free = {"per_device_batch_size": None, "max_train_steps": None, "num_train_epochs": 1, "eval_steps": None}
    arguments = flags(**free, validation_split=None)
    script.main(arguments)
    said = capsys.readouterr().out
    assert "--per_device_batch_size 12, as it isn't given: an epoch of 51 products then has 4 batches or more." in said
    file = tmp_path / "run" / "training_args.json"
    record = json.loads(file.read_text())
    assert record["per_device_batch_size"] == 12 and "4 batches" in record["reasons"]["per_device_batch_size"]
    # A later version might choose otherwise: the run keeps what it began with.
    record |= {"validation_share": 0.15, "per_device_batch_size": 13}
    file.write_text(json.dumps(record))
    script.main(arguments)
    said = capsys.readouterr().out
    assert "--per_device_batch_size 13, as it isn't given" in said and "Resuming from" in said
    with pytest.raises(SystemExit, match="per_device_batch_size"):
        script.main([*arguments, "--per_device_batch_size", "8"])


def test_a_batch_that_nobody_asked_for_is_lowered(
    flags: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acebert.training.choices.choose_by_size", lambda *_: {})
    script.main(flags(per_device_batch_size=None, max_train_steps=1))
    assert (
        "--per_device_batch_size 64, as it isn't given: there are 64 products to train on." in capsys.readouterr().out
    )
