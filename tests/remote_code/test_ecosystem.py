"""At home with the libraries around transformers: each loads ACE-BERT as a user would, and gives our own vectors."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from helpers import draw, product_rows
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn
from transformers import AutoModel, PreTrainedModel, Trainer, TrainingArguments, pipeline

from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor

METRIC = str(Path(__file__).parents[2] / "metrics" / "retrieval")
PHOTO = draw("shirt", "red", 0)


@pytest.fixture
def saved(tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor, tmp_path: Path) -> str:
    AceBertForRetrieval(tiny_config()).save_pretrained(tmp_path / "saved")
    tiny_processor.save_pretrained(tmp_path / "saved")
    return str(tmp_path / "saved")


@pytest.fixture
def judged(tiny_processor: AceBertProcessor) -> dict[str, Any]:
    """48 products, 16 queries, and which of the products have the colour and the kind of each query."""
    rows = product_rows(48)
    queries = {f"q-{colour}-{kind}": f"{colour} {kind}" for colour, kind in {(r["colour"], r["kind"]) for r in rows}}
    relevant = {
        name: {str(row["id"]) for row in rows if query == f"{row['colour']} {row['kind']}"}
        for name, query in queries.items()
    }
    return {"rows": rows, "queries": queries, "relevant": relevant}


@torch.no_grad()
def rank(model: PreTrainedModel, processor: AceBertProcessor, judged: dict[str, Any]) -> list[dict[str, list]]:
    """Our own ranking, as predictions of the metric."""
    rows = judged["rows"]
    queries = processor(text=list(judged["queries"].values()), return_tensors="pt")
    products = processor(text=[r["title"] for r in rows], images=[r["image"] for r in rows], return_tensors="pt")
    scores = model.get_text_features(**queries).pooler_output @ model.get_product_features(**products).pooler_output.T
    assert len(scores.unique()) == scores.numel()  # no ties, whose order is each library's own
    return [{"ids": [str(row["id"]) for row in rows], "scores": values} for values in scores.tolist()]


def measure(predictions: list[dict[str, list]], judged: dict[str, Any]) -> dict[str, float]:
    references = [{"ids": sorted(ids), "grades": [1] * len(ids)} for ids in judged["relevant"].values()]
    return evaluate.load(METRIC, keep_in_memory=True).compute(
        predictions=predictions, references=references, k=[1, 3, 10]
    )


@torch.no_grad()
def both_sides(model: nn.Module, processor: AceBertProcessor) -> torch.Tensor:
    queries = processor(text=["red shirt", "mug"], return_tensors="pt")
    products = processor(text=["the shirt", None, "green mug"], images=[PHOTO, PHOTO, None], return_tensors="pt")
    vectors = (model.get_text_features(**queries).pooler_output, model.get_product_features(**products).pooler_output)
    return torch.cat(vectors)  # (2 + 3, projection_dim)


# ----------------------------------------------------------------------------------------------------------------------
# sentence-transformers
# ----------------------------------------------------------------------------------------------------------------------


def test_sentence_transformer_gives_our_vectors(saved: str, tiny_processor: AceBertProcessor, tmp_path: Path) -> None:
    expected = both_sides(AceBertModel.from_pretrained(saved), tiny_processor)
    loaded = SentenceTransformer(saved, trust_remote_code=True)
    loaded.save_pretrained(str(tmp_path / "again"))
    in_memory = AceBertModel.from_pretrained(saved).to_sentence_transformer(tiny_processor)
    products = [
        [{"text": "the shirt", "image": PHOTO}, {"image": PHOTO}, {"text": "green mug"}],
        [{"text": "the shirt", "image": np.asarray(PHOTO)}, {"text": None, "image": PHOTO}, "green mug"],
        [{"image": PHOTO, "text": "the shirt"}, PHOTO, {"text": "green mug", "image": None}],
    ]
    for model in (loaded, in_memory, SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True)):
        queries = model.encode_query(["red shirt", "mug"], convert_to_tensor=True)
        torch.testing.assert_close(queries, expected[:2], atol=1e-6, rtol=0)
        for documents in products:
            vectors = model.encode_document(documents, convert_to_tensor=True)
            torch.testing.assert_close(vectors, expected[2:], atol=1e-6, rtol=0)
        without_task = model.encode(["green mug"], convert_to_tensor=True)
        torch.testing.assert_close(without_task, expected[4:], atol=1e-6, rtol=0)
        photo_query = model.encode_query(PHOTO, convert_to_tensor=True)
        torch.testing.assert_close(photo_query, expected[3], atol=1e-6, rtol=0)
        prompted = model.encode_query(["shirt"], prompt="red ", convert_to_tensor=True)
        torch.testing.assert_close(prompted, expected[:1], atol=1e-6, rtol=0)
    assert (model.similarity_fn_name, model.get_embedding_dimension(), model.max_seq_length) == ("cosine", 16, 64)
    assert type(AutoModel.from_pretrained(tmp_path / "again", trust_remote_code=True)).__name__ == "AceBertModel"


@pytest.mark.parametrize(
    ("inputs", "task", "message"),
    [
        ([{"title": "mug"}], "document", r"holds \"text\", \"image\" or both, got the keys \['title'\]"),
        ([{}], "document", "got the keys []"),
        ([{"text": None}], "document", "has nothing"),
        (["mug", " "], "document", "is empty"),
        ([None], "document", "has nothing"),
        ([{"image": "https://shop/mug.jpg"}], "document", "is a URL"),
        ([("mug", "red")], "document", "tuple is no photo"),
        ([{"text": "mug", "image": PHOTO}], "query", "a text or a photo, not both"),
        ([PHOTO, "mug"], "query", "one batch holds one kind"),
        (["mug"], "passage", "task must be"),
    ],
)
def test_sentence_transformer_refuses(
    inputs: list[Any], task: str, message: str, tiny_config: Callable[..., AceBertConfig], tiny_processor: Any
) -> None:
    model = AceBertModel(tiny_config()).to_sentence_transformer(tiny_processor)
    with pytest.raises(ValueError, match=message if "\\" in message else re.escape(message)):
        model.encode(inputs, task=task)


def test_sentence_transformer_refuses_other_backends_and_code_that_is_not_trusted(saved: str) -> None:
    with pytest.raises(ValueError, match='backend must be "torch"'):
        SentenceTransformer(saved, trust_remote_code=True, backend="onnx")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(saved)


def test_a_list_of_modules_that_a_user_made_is_kept(saved: str) -> None:
    model = SentenceTransformer(saved, trust_remote_code=True)
    modules = Path(saved, "modules.json")
    added = {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"}
    own = [*json.loads(modules.read_text()), added]
    modules.write_text(json.dumps(own))
    model.transformers_model.save_pretrained(saved)
    assert json.loads(modules.read_text()) == own


def test_information_retrieval_evaluator_gives_our_metric(
    saved: str, tiny_processor: AceBertProcessor, judged: dict[str, Any]
) -> None:
    ours = measure(rank(AceBertModel.from_pretrained(saved), tiny_processor, judged), judged)
    evaluator = InformationRetrievalEvaluator(
        judged["queries"],
        {str(row["id"]): {"text": row["title"], "image": row["image"]} for row in judged["rows"]},
        judged["relevant"],
        accuracy_at_k=[1, 3, 10],
        precision_recall_at_k=[1, 3, 10],
        mrr_at_k=[1, 3, 10],
        ndcg_at_k=[1, 3, 10],
    )
    theirs = evaluator(SentenceTransformer(saved, trust_remote_code=True))
    names = {"accuracy": "hit_rate", "precision": "precision", "recall": "recall", "mrr": "mrr", "ndcg": "ndcg"}
    for name, our_name in names.items():
        for k in (1, 3, 10):
            assert theirs[f"cosine_{name}@{k}"] == pytest.approx(ours[f"{our_name}@{k}"], abs=1e-12)
    assert 0 < ours["ndcg@10"] < 1


@pytest.mark.slow
def test_sentence_transformer_trainer_trains_both_encoders(saved: str, tmp_path: Path) -> None:
    rows = product_rows(32)
    pairs = Dataset.from_list(
        [{"query": f"{r['colour']} {r['kind']}", "product": {"text": r["title"], "image": r["image"]}} for r in rows],
        features=Features({"query": Value("string"), "product": {"text": Value("string"), "image": Image()}}),
    )
    model = SentenceTransformer(saved, trust_remote_code=True)
    before = {name: value.clone() for name, value in model.named_parameters()}

    def train(**options: Any) -> list[float]:
        args = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "trainer"),
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            max_steps=8,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            **options,
        )
        trainer = SentenceTransformerTrainer(model, args, pairs, loss=MultipleNegativesRankingLoss(model))
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    with pytest.raises(ValueError, match="router_mapping"):
        train()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())  # before the first step
    losses = train(router_mapping={"query": "query", "product": "document"})
    assert losses[-1] < losses[0]
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    for part in ("query_encoder.encoder", "query_projection", "product_encoder.bert.encoder", "image_embeddings"):
        assert any(part in name for name in moved), part


# Run with -I, as in test_remote_code.py.
STRANGER = """
import importlib.util, json, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("acebert") is None
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("acme/acebert", trust_remote_code=True)
photo = Image.open(sys.argv[1])
queries = model.encode_query(["red shirt", "mug"])
documents = model.encode_document([{"text": "the shirt", "image": photo}, photo, "green mug"])
model.save_pretrained(sys.argv[2])
print(json.dumps(queries.tolist() + documents.tolist()))
"""


@pytest.mark.slow
def test_sentence_transformer_from_the_hub_cache_of_a_stranger(
    saved: str, tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hf" / "hub" / "models--acme--acebert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(saved, repository / "snapshots" / commit)
    PHOTO.save(tmp_path / "photo.png")
    result = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(tmp_path / "photo.png"), str(tmp_path / "again")],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    expected = both_sides(AceBertModel.from_pretrained(saved), tiny_processor)
    torch.testing.assert_close(torch.tensor(json.loads(result.stdout)), expected, atol=1e-6, rtol=0)
    again = SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True)
    queries = again.encode_query(["red shirt", "mug"], convert_to_tensor=True)
    torch.testing.assert_close(queries, expected[:2], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_mteb_gives_our_metric(
    saved: str, tiny_processor: AceBertProcessor, judged: dict[str, Any], tmp_path: Path
) -> None:
    mteb = pytest.importorskip("mteb", reason='needs mteb: pip install -e ".[mteb]" -c constraints.txt')
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.models import SentenceTransformerEncoderWrapper

    products = Dataset.from_list(
        [{"id": str(r["id"]), "text": r["title"], "image": r["image"]} for r in judged["rows"]],
        features=Features({"id": Value("string"), "text": Value("string"), "image": Image()}),
    )
    queries = Dataset.from_list([{"id": name, "text": text} for name, text in judged["queries"].items()])

    class Shop(AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name="Shop",
            description="A few drawn products.",
            dataset={"path": "acme/shop", "revision": "1"},
            type="Any2AnyRetrieval",
            category="t2it",
            modalities=["text", "image"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, *args: Any, **kwargs: Any) -> None:
            relevant = {name: dict.fromkeys(ids, 1) for name, ids in judged["relevant"].items()}
            split = {"corpus": products, "queries": queries, "relevant_docs": relevant, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    model = SentenceTransformerEncoderWrapper(SentenceTransformer(saved, trust_remote_code=True))
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update={"modalities": ["text", "image"]})
    results = mteb.evaluate(model, Shop(), cache=None, show_progress_bar=False)
    theirs = results.task_results[0].scores["test"][0]
    ours = measure(rank(AceBertModel.from_pretrained(saved), tiny_processor, judged), judged)
    for name, our_name in {"ndcg_at_10": "ndcg@10", "recall_at_3": "recall@3", "precision_at_1": "precision@1"}.items():
        assert theirs[name] == pytest.approx(ours[our_name], abs=1e-5)  # mteb rounds
    titles_alone = [{**row, "image": None} for row in judged["rows"]]
    assert measure(rank(AceBertModel.from_pretrained(saved), tiny_processor, {**judged, "rows": titles_alone}), judged)[
        "ndcg@10"
    ] != pytest.approx(ours["ndcg@10"], abs=1e-5)


# ----------------------------------------------------------------------------------------------------------------------
# transformers
# ----------------------------------------------------------------------------------------------------------------------


def test_trainer(tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor, tmp_path: Path) -> None:
    rows = product_rows(48)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        queries = tiny_processor(text=[f"{row['colour']} {row['kind']}" for row in rows], return_tensors="pt")
        titles, photos = [row["title"] for row in rows], [row["image"] for row in rows]
        products = tiny_processor(text=titles, images=photos, return_tensors="pt")
        return {**{f"query_{name}": value for name, value in queries.items()}, **products}

    args = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
        learning_rate=3e-3,
        max_steps=12,
        logging_steps=1,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    torch.manual_seed(0)
    trainer = Trainer(
        AceBertForRetrieval(tiny_config()),
        args,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tiny_processor,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert trainer.evaluate()["eval_loss"] < before - 0.1
    assert [values.shape for values in trainer.predict(rows).predictions] == [(48, 16)] * 4  # logits and vectors
    again = AceBertModel.from_pretrained(tmp_path / "checkpoint-12")
    trained = trainer.model.acebert.eval()
    assert torch.equal(both_sides(again, tiny_processor), both_sides(trained, tiny_processor))
    assert SentenceTransformer(str(tmp_path / "checkpoint-12"), trust_remote_code=True).get_embedding_dimension() == 16


def test_pipeline_says_what_to_use(saved: str) -> None:
    extract = pipeline("feature-extraction", model=saved, trust_remote_code=True, device="cpu")
    with pytest.raises(ValueError, match=r"get_text_features.*SentenceTransformer"):
        extract("red shirt")


def test_device_map_and_dtype(saved: str, tiny_processor: AceBertProcessor, tmp_path: Path) -> None:
    expected = both_sides(AceBertModel.from_pretrained(saved), tiny_processor)
    for device_map in ("cpu", "auto"):
        model = AceBertModel.from_pretrained(saved, device_map=device_map)
        assert torch.equal(both_sides(model, tiny_processor), expected)
    # Too little memory: some layers stay on the disk, whole.
    half = sum(value.nbytes for value in model.parameters()) // 2
    model = AceBertModel.from_pretrained(
        saved, device_map="auto", max_memory={"cpu": half}, offload_folder=str(tmp_path / "offload")
    )
    assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    assert torch.equal(both_sides(model, tiny_processor), expected)
    vectors = both_sides(AceBertModel.from_pretrained(saved, dtype=torch.bfloat16), tiny_processor)
    assert vectors.dtype == torch.bfloat16
    torch.testing.assert_close(vectors.float(), expected, atol=0.03, rtol=0)


def test_eight_bit(saved: str, tiny_processor: AceBertProcessor) -> None:
    """Where the weights of linear layers are integers, the vectors must not be."""
    model = AceBertModel.from_pretrained(saved)
    expected = both_sides(model, tiny_processor)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, EightBitLinear(child))
    torch.testing.assert_close(both_sides(model, tiny_processor), expected, atol=0.05, rtol=0)


class EightBitLinear(nn.Module):
    """As bitsandbytes' on the CPU: integer weights with a scale per row, inputs of two or three dimensions."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((linear.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.ndim <= 3
        return nn.functional.linear(x, self.weight * self.scale, self.bias)


@pytest.mark.slow
def test_bitsandbytes(saved: str, tiny_processor: AceBertProcessor) -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    model = AceBertModel.from_pretrained(
        saved, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu"
    )
    assert model.product_projection.weight.dtype == torch.int8
    expected = both_sides(AceBertModel.from_pretrained(saved), tiny_processor)
    torch.testing.assert_close(both_sides(model, tiny_processor).float(), expected, atol=0.05, rtol=0)


# ----------------------------------------------------------------------------------------------------------------------
# PEFT
# ----------------------------------------------------------------------------------------------------------------------


def test_lora(saved: str, tiny_processor: AceBertProcessor, tmp_path: Path) -> None:
    plain = both_sides(AceBertModel.from_pretrained(saved), tiny_processor)
    # init_lora_weights=False: random adapters, as if trained.
    lora = LoraConfig(target_modules=["query", "value"], r=4, init_lora_weights=False)
    model = get_peft_model(AceBertModel.from_pretrained(saved), lora).eval()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(".attention.self." in name and "lora_" in name for name in trained)
    assert len(trained) == 2 * 2 * (2 + 1)  # A and B of query and value, in two product layers and one query layer
    adapted = both_sides(model, tiny_processor)
    assert (adapted - plain).abs().amax(1).min() > 1e-3  # each vector, on both sides

    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(AceBertModel.from_pretrained(saved), tmp_path / "adapter").eval()
    assert torch.equal(both_sides(again, tiny_processor), adapted)

    merged = model.merge_and_unload()
    torch.testing.assert_close(both_sides(merged, tiny_processor), adapted, atol=1e-5, rtol=0)
    merged.save_pretrained(tmp_path / "merged")
    merged = AceBertModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(both_sides(merged, tiny_processor), adapted, atol=1e-5, rtol=0)
