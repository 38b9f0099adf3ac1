"""The evaluation script on a tiny checkpoint and drawn products, against numbers computed in another way."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoModel, AutoProcessor, BertTokenizer

import acebert.encoding.corpus_encoder as encoding
import acebert.evaluate_accelerate as script
from acebert.configuration_acebert import AceBertConfig
from acebert.evaluation.report import resolve_commit
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor

COLOURS = ["red", "green", "blue", "black", "orange", "purple"]
SHAPES = {"circle": "Bags", "bar": "Belts", "box": "Shoes"}
COMMON = ["--per_device_batch_size", "5", "--title_column", "productDisplayName", "--text_baselines", "none"]
ATTRIBUTES = ["--attribute_columns", "subCategory", "articleType"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model of a few thousand parameters, saved with its code as on the Hub."""
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *COLOURS, *SHAPES, "bags", "belts", "shoes", "very", "plain"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    AceBertProcessor(AceBertImageProcessor(patch_size=8, max_num_patches=16), tokenizer).save_pretrained(folder)
    bert = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 128,
        "initializer_range": 0.5,
    }
    sizes = {"patch_size": 8, "pixel_group_size": 4, "pixel_hidden_size": 8, "projection_dim": 16}
    torch.manual_seed(0)
    AceBertModel(AceBertConfig(text_config=bert, cls_token_id=2, sep_token_id=3, **sizes)).save_pretrained(folder)
    return folder


def draw(colour: str, shape: str) -> Image.Image:
    image = Image.new("RGB", (30, 40), "white")
    canvas = ImageDraw.Draw(image)
    if shape == "circle":
        canvas.ellipse((5, 10, 25, 30), fill=colour)
    else:
        canvas.rectangle((2, 15, 27, 20) if shape == "bar" else (5, 5, 25, 35), fill=colour)
    return image


def make_rows() -> list[dict[str, Any]]:
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return [
        {
            "id": 7 * number,
            "productDisplayName": f"{'very ' * (number % 4)}plain {colour} {shape}",
            "image": draw(colour, shape),
            "gender": "Women" if number % 2 else "Men",
            "baseColour": colour.title(),
            "subCategory": SHAPES[shape],
            "articleType": None if number == 4 else colour.title(),
        }
        for number, (colour, shape) in enumerate(pairs)
    ]


def save_catalog(rows: list[dict[str, Any]], folder: Path, num_train: int) -> str:
    features = datasets.Features(
        id=datasets.Value("int64"),
        productDisplayName=datasets.Value("string"),
        image=datasets.Image(),
        gender=datasets.Value("string"),
        baseColour=datasets.Value("string"),
        subCategory=datasets.Value("string"),
        articleType=datasets.Value("string"),
    )
    (folder / "data").mkdir(parents=True)
    for split, part in [("train", rows[:num_train]), ("validation", rows[num_train:])]:
        data = datasets.Dataset.from_list(part, features=features)
        data.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_catalog(make_rows(), tmp_path_factory.mktemp("drawn") / "catalog", num_train=12)


@pytest.fixture
def run(checkpoint: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`main` on the tiny checkpoint, without the text encoder unless it is asked for."""

    def run(dataset_name: str, *flags: str) -> dict[str, Any]:
        common = ["--model_name_or_path", checkpoint, "--output_dir", str(tmp_path / "report")]
        return script.main([*common, *COMMON, "--dataset_name", dataset_name, *flags])

    return run


def write_queries(folder: Path, queries: Any) -> str:
    path = folder / "queries.json"
    path.write_text(json.dumps(queries), encoding="utf-8")
    return str(path)


def metrics_of(report: dict[str, Any], task: str, system: str) -> dict[str, dict[str, float]]:
    (found,) = [entry for entry in report["tasks"] if entry["task"] == task]
    (metrics,) = [entry["metrics"] for entry in found["systems"] if entry["system"] == system]
    return metrics


def without_seconds(report: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same in every run."""
    for task in report["tasks"]:
        for system in task["systems"]:
            del system["seconds"]
    return report


@cache
def load(checkpoint: str) -> tuple[Any, Any]:
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
    return model, AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)


def naive_ranking(
    checkpoint: str, query: str | Image.Image, rows: list[dict[str, Any]], sides: tuple[str, ...] = ("title", "image")
) -> list[str]:
    """Encodes every item on its own through the public interface and sorts."""
    model, processor = load(checkpoint)

    def encode(title: str | None, image: Image.Image | None) -> torch.Tensor:
        inputs = {"text": title and [title], "images": image and [image]}
        given = {name: value for name, value in inputs.items() if value}
        return model.get_product_features(**processor(**given, side="product", return_tensors="pt")).pooler_output[0]

    with torch.no_grad():
        if isinstance(query, str):
            vector = model.get_text_features(**processor(text=[query], return_tensors="pt")).pooler_output[0]
        else:
            vector = encode(None, query)
        scores = {}
        for row in rows:
            seen = (row["productDisplayName"] if "title" in sides else None, row["image"] if "image" in sides else None)
            scores[str(row["id"])] = float(vector @ encode(*seen))
    return sorted(scores, key=scores.__getitem__, reverse=True)


def test_text_to_image_equals_an_independent_computation(
    run: Callable[..., dict[str, Any]], checkpoint: str, catalog: str, tmp_path: Path
) -> None:
    rows = make_rows()
    queries = {row["productDisplayName"]: {str(row["id"]): 1} for row in rows[::3]}
    queries["plain red circle"]["7"] = 1
    report = run(catalog, "--text_to_image_file", write_queries(tmp_path, queries))

    rankings = {query: naive_ranking(checkpoint, query, rows, ("image",)) for query in queries}
    for k in (1, 10):
        recalls = [len(set(rankings[query][:k]) & set(relevant)) / len(relevant) for query, relevant in queries.items()]
        assert metrics_of(report, "text-to-image", "ACE-BERT")[f"recall@{k}"]["mean"] == pytest.approx(np.mean(recalls))
    ranks = [1 + min(rankings[query].index(product) for product in relevant) for query, relevant in queries.items()]
    expected = np.mean([1 / rank if rank <= 10 else 0 for rank in ranks])
    assert metrics_of(report, "text-to-image", "ACE-BERT")["mrr@10"]["mean"] == pytest.approx(expected)
    assert 0 < expected < 1


def test_attribute_and_product_queries_equal_an_independent_computation(
    run: Callable[..., dict[str, Any]], checkpoint: str, catalog: str, tmp_path: Path
) -> None:
    rows = make_rows()
    graded = {"red": {"0": 3, "7": 1, "14": 2}, "very plain box": {"119": 2, "0": 0}}
    report = run(catalog, "--queries_file", write_queries(tmp_path, graded), *ATTRIBUTES)
    assert [task["task"] for task in report["tasks"]] == [
        "natural queries", "subCategory-to-product", "articleType-to-product",
    ]  # fmt: skip

    expected = []
    for query, grades in graded.items():
        ranking = naive_ranking(checkpoint, query, rows)[:10]
        dcg = sum(grades.get(product, 0) / math.log2(rank + 2) for rank, product in enumerate(ranking))
        ideal = sum(grade / math.log2(rank + 2) for rank, grade in enumerate(sorted(grades.values(), reverse=True)))
        expected.append(dcg / ideal)
    assert metrics_of(report, "natural queries", "ACE-BERT")["ndcg@10"]["mean"] == pytest.approx(np.mean(expected))

    for column, num_queries in [("subCategory", 3), ("articleType", 6)]:
        members: dict[str, set[str]] = {}
        for row in rows:
            if row[column] is not None:
                members.setdefault(row[column], set()).add(str(row["id"]))
        hits = [len(set(naive_ranking(checkpoint, value, rows)[:10]) & products) for value, products in members.items()]
        (task,) = [task for task in report["tasks"] if task["task"] == f"{column}-to-product"]
        assert task["num_queries"] == len(members) == num_queries
        assert "Synthetic" in task["description"]
        measured = metrics_of(report, f"{column}-to-product", "ACE-BERT")["precision@10"]
        assert measured["mean"] == pytest.approx(np.mean(hits) / 10)
        assert measured["low"] <= measured["mean"] <= measured["high"]


def ndcg(ranking: list[str], grades: dict[str, float]) -> float:
    dcg = sum(grades.get(product, 0) / math.log2(rank + 2) for rank, product in enumerate(ranking[:10]))
    ideal = sum(grade / math.log2(rank + 2) for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:10]))
    return dcg / ideal


def test_natural_queries_and_what_is_kept_of_the_backbone(
    run: Callable[..., dict[str, Any]], checkpoint: str, catalog: str, minilm: str, tmp_path: Path
) -> None:
    rows = make_rows()
    conditions = {
        "red or black bag": {"baseColour": ["Red", "Black"], "subCategory": ["Bags"]},
        "shoes for ladies": {"gender": ["Women"], "subCategory": ["Shoes"]},
    }
    queries = [{"query": query, "where": where} for query, where in conditions.items()]
    benchmark = tmp_path / "lamps"
    benchmark.mkdir()
    titles = {"1": "plain red box", "2": "very plain bags", "3": "blue belts"}
    (benchmark / "products.json").write_text(json.dumps({i: {"title": title} for i, title in titles.items()}))
    write_queries(benchmark, {"red shoes": {"1": 2}, "belts": {"3": 1, "2": 0}})
    flags = ["--queries_file", write_queries(tmp_path, queries), "--text_benchmarks", str(benchmark), "--no_plots"]
    report = run(catalog, *flags, "--validation_split", "validation", "--text_baselines", minilm)
    tasks = {task["task"]: task for task in report["tasks"]}
    assert {name: task["kind"] for name, task in tasks.items()} == {
        "natural queries": "natural",
        "natural queries, unseen products": "natural",
        "text benchmark lamps": "text benchmark",
        "title phrases, unseen products": "title phrases",
    }
    for suffix, ranked in (("", rows), (", unseen products", rows[12:])):
        scores = []
        for query, where in conditions.items():
            found = {str(row["id"]): 1.0 for row in ranked if all(row[c] in values for c, values in where.items())}
            if found:
                scores.append(ndcg(naive_ranking(checkpoint, query, ranked), found))
        task = tasks[f"natural queries{suffix}"]
        assert (task["num_queries"], task["num_candidates"]) == (len(scores), len(ranked))
        measured = metrics_of(report, task["task"], "ACE-BERT")["ndcg@10"]
        assert measured["mean"] == pytest.approx(np.mean(scores))
        systems = [system["system"] for system in task["systems"]]
        assert {"BM25 (titles)", "Text embeddings (titles)", "Fused ranks of BM25 and text embeddings"} <= set(systems)

    assert report["knowledge"]["backbone"] == minilm
    kept = {task["task"]: task for task in report["knowledge"]["tasks"]}
    assert list(kept) == ["text benchmark lamps", "title phrases, unseen products"]
    for name, row in kept.items():
        ours = metrics_of(report, name, "ACE-BERT")["ndcg@10"]["mean"]
        backbone = metrics_of(report, name, "Text embeddings (titles)")["ndcg@10"]["mean"]
        assert row["kept"]["mean"] == pytest.approx(ours / backbone)
        assert 0 < backbone <= 1
    lines = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()
    assert lines[4] == "## Natural queries"


def test_several_text_baselines_are_told_apart(
    run: Callable[..., dict[str, Any]], catalog: str, minilm: str, backbone: str
) -> None:
    flags = ["--attribute_columns", "subCategory", "--no_plots", "--no_fusion_baselines", "--num_title_phrases", "0"]
    report = run(catalog, *flags, "--text_baselines", minilm, backbone)
    (task,) = report["tasks"]
    assert [system["system"] for system in task["systems"]] == [
        "ACE-BERT", "BM25 (titles)", "Text embeddings (titles)", f"{backbone} (titles)",
        "Fused ranks of BM25 and text embeddings", "Fused ranks of BM25 and ACE-BERT",
    ]  # fmt: skip


def test_flags_from_a_file(run: Callable[..., dict[str, Any]], catalog: str, tmp_path: Path) -> None:
    config = tmp_path / "evaluate.yaml"
    config.write_text("attribute_columns: [subCategory, articleType]\nplots: false\nfusion_baselines: false\n")
    report = run(catalog, "--config", str(config), "--attribute_columns", "subCategory")
    assert [task["task"] for task in report["tasks"]] == ["subCategory-to-product"]
    assert report["arguments"]["fusion_baselines"] is False
    assert not (tmp_path / "report" / "plots").exists()


@pytest.mark.parametrize("content", ["- a list", "{", None])
def test_a_file_of_flags_that_can_not_be_read(
    content: str | None, run: Callable[..., dict[str, Any]], catalog: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = tmp_path / "evaluate.yaml"
    if content is not None:
        config.write_text(content)
    with pytest.raises(SystemExit):
        run(catalog, "--config", str(config))
    assert f"--config {config}" in capsys.readouterr().err


def test_report_is_written_with_published_rows_and_reasons(
    run: Callable[..., dict[str, Any]], catalog: str, tmp_path: Path
) -> None:
    path = write_queries(tmp_path, {"plain red circle": {"0": 1}})
    report = run(catalog, "--text_to_image_file", path, "--reference", "kagl", *ATTRIBUTES)
    assert json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8")) == report
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| BM25 (titles) | not applicable: the query is the product's own title |" in markdown
    assert "| published: Marqo-FashionSigLIP | 0.179 | 0.489 | – | 0.293 |" in markdown
    assert "| published: Marqo-FashionSigLIP | – | 0.687 | 0.699 | – |" in markdown
    assert "no like-for-like comparison" in markdown
    assert report["dataset"]["num_products"] == 18
    assert len(report["model"]["weights_sha256"]) == 64

    without = run(catalog, "--text_to_image_file", path)
    assert without["tasks"][0]["published"] == {}
    assert without["model"]["weights_sha256"] == report["model"]["weights_sha256"]
    assert without["dataset"]["sha256"] == report["dataset"]["sha256"]


def test_commit_of_a_snapshot_in_the_cache_of_the_hub(checkpoint: str, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--acme--acebert" / "snapshots" / commit
    shutil.copytree(checkpoint, snapshot)
    assert resolve_commit(str(snapshot), None) == commit
    assert resolve_commit(checkpoint, None) is None


def test_products_without_photo_or_title(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rows = make_rows()
    rows[0]["image"] = None
    rows[1]["productDisplayName"] = None
    rows[2]["productDisplayName"], rows[2]["image"] = " ", None
    folder = save_catalog(rows, tmp_path / "gaps", num_train=12)
    path = write_queries(tmp_path, {"plain red circle": {"0": 1}, "plain green circle": {"21": 1}})
    report = run(folder, "--text_to_image_file", path, "--attribute_columns", "subCategory")
    assert [task["num_candidates"] for task in report["tasks"]] == [16, 17]
    # A relevant product without a photo can't be found: it counts as a miss.
    assert metrics_of(report, "text-to-image", "ACE-BERT")["recall@10"]["mean"] <= 0.5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Nothing to measure: give --queries_file"),
        ([*ATTRIBUTES, "--per_device_batch_size", "0"], "--per_device_batch_size must be at least 1, got 0"),
        ([*ATTRIBUTES, "--bootstrap_resamples", "10"], "--bootstrap_resamples must be at least 1000, got 10"),
        ([*ATTRIBUTES, "--permutations", "10"], "--permutations must be at least 1000, got 10"),
        (
            [*ATTRIBUTES, "--split", "train", "--validation_split", "validation"],
            "--validation_split is 'validation', b",
        ),
        (["--shopper_queries"], "--shopper_queries needs --shopper_templates"),
        (["--hidden_words", "--shopper_templates", "{gender}"], "--hidden_words needs --hidden_columns"),
        (["--photo_queries", "--kind_column", "subCategory"], "--photo_queries needs --colour_column"),
        ([*ATTRIBUTES, "--reference", "nowhere"], "invalid choice: 'nowhere'"),
        ([*ATTRIBUTES, "--queries", "q.json"], "unrecognized arguments: --queries q.json"),
    ],
)
def test_bad_flags(
    flags: list[str],
    message: str,
    run: Callable[..., dict[str, Any]],
    catalog: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit:
        run(catalog, *flags)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--id_column", "sku"], r"No column \['sku'\] .*--id_column"),
        (["--id_column", "subCategory"], "share the subCategory '.*': ids have to be unique"),
        (["--id_column", "articleType"], "Row 4 has no articleType"),
        (["--title_column", "id"], "The title column 'id' holds .*, not texts"),
        (["--attribute_columns", "season"], r"No column \['season'\]"),
        (["--validation_split", "test"], r"--validation_split is 'test', but the splits ranked are \['train', 'valid"),
    ],
)
def test_flags_that_do_not_fit_the_catalogue(
    flags: list[str], message: str, run: Callable[..., dict[str, Any]], catalog: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(catalog, *ATTRIBUTES, *flags)


def test_a_broken_photo_is_named_with_its_product(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rows = make_rows()
    rows[3]["image"] = {"bytes": b"no photo", "path": None}
    folder = save_catalog(rows, tmp_path / "broken", num_train=12)
    with pytest.raises(ValueError, match=r"The product '21': the photo can't be used"):
        run(folder, *ATTRIBUTES)


SHOPPER = [f"synthetic shopper queries, {part}" for part in ("plain", "synonyms", "hidden words")]
PLAIN, SYNONYMS, HIDDEN = SHOPPER


@pytest.fixture
def shopper_flags(tmp_path: Path) -> list[str]:
    """All tasks on the drawn catalogue, whose kinds are shapes."""
    synonyms = tmp_path / "synonyms.json"
    synonyms.write_text(
        json.dumps({"subCategory": {"Bags": ["purse"], "Shoes": ["very"]}, "gender": {"Men": ["gents"]}})
    )
    return [
        "--shopper_queries", "--hidden_words", "--photo_queries", "--validation_split", "validation",
        "--train_split", "train", "--query_templates", "{baseColour} {subCategory}",
        "--shopper_templates", "{gender} {subCategory}", "--hidden_columns", "baseColour", "subCategory",
        "--kind_column", "subCategory", "--colour_column", "subCategory", "--attribute_columns", "subCategory",
        "--synonyms_file", str(synonyms), "--min_relevant", "1",
    ]  # fmt: skip


def test_all_tasks_on_all_products_and_on_unseen_ones(
    run: Callable[..., dict[str, Any]], catalog: str, checkpoint: str, shopper_flags: list[str], tmp_path: Path
) -> None:
    report = run(catalog, *shopper_flags, "--compare_with", checkpoint)
    tasks = {task["task"]: task for task in report["tasks"]}
    names = ["subCategory-to-product", *SHOPPER, "photo to product"]
    assert list(tasks) == names + [f"{name}, unseen products" for name in names]
    assert {task["num_candidates"] for name, task in tasks.items() if "unseen" in name} == {6}
    # Six pairs of gender and kind, of which women's belts have no synonym.
    assert tasks[PLAIN]["num_queries"] == tasks[f"{HIDDEN}, unseen products"]["num_queries"] == 5

    rows = make_rows()
    relevant = {
        f"{gender} {kind}".lower(): {
            str(row["id"]) for row in rows if (row["gender"], row["subCategory"]) == (gender, kind)
        }
        for gender in ("Men", "Women") for kind in SHAPES.values() if (gender, kind) != ("Women", "Belts")
    }  # fmt: skip
    for system, sides in [
        ("ACE-BERT", ("title", "image")), ("ACE-BERT (title only)", ("title",)), ("ACE-BERT (photo only)", ("image",)),
    ]:  # fmt: skip
        hits = [
            len(set(naive_ranking(checkpoint, query, rows, sides)[:10]) & ids) / 10 for query, ids in relevant.items()
        ]
        measured = metrics_of(report, PLAIN, system)["precision@10"]["mean"]
        assert measured == pytest.approx(np.mean(hits)), system
    assert tasks[PLAIN]["ceiling"]["precision@10"] == pytest.approx(0.3)

    hits = []
    for row in rows[12:]:
        ranking = [other for other in naive_ranking(checkpoint, row["image"], rows) if other != str(row["id"])]
        same = {str(other["id"]) for other in rows if other["subCategory"] == row["subCategory"]}
        hits.append(len(set(ranking[:10]) & same) / 10)
    assert metrics_of(report, "photo to product", "ACE-BERT")["precision@10"]["mean"] == pytest.approx(np.mean(hits))

    for task in tasks.values():
        leads = {lead["system"]: lead for lead in task["lead"]}
        means = {s["system"]: s["metrics"][task["main_metric"]]["mean"] for s in task["systems"] if s["metrics"]}
        assert set(leads) == set(means) - {"ACE-BERT"}
        for system, lead in leads.items():
            assert lead["mean"] == pytest.approx(means["ACE-BERT"] - means[system])
            assert lead["p"] <= lead["p_holm"]
        assert bool(task["unseen"]) == ("unseen" not in task["task"])
    assert tasks[SYNONYMS]["synonym_cost"]["num_queries"] == 5
    ours, again = report["modality_gaps"]
    assert ours["gap"] == pytest.approx(again["gap"]) and ours["gap"] > 0

    folder = tmp_path / "report"
    assert {path.name for path in (folder / "plots").iterdir()} >= {
        "systems-synthetic-shopper-queries-hidden-words.png",
        "modality-gap.png",
    }
    lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == sum(task["num_queries"] for task in tasks.values())
    assert lines[-1]["query"] not in lines[-1]["top10"]["ACE-BERT"]  # a photo never finds itself
    assert without_seconds(run(catalog, *shopper_flags, "--no_plots"))["tasks"] == without_seconds(report)["tasks"]


def test_product_vectors_are_encoded_once_and_an_interrupted_run_goes_on(
    run: Callable[..., dict[str, Any]], catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "SHARD", 4)
    encode, encoded = encoding.CorpusEncoder.encode, []
    interrupt_after = 2

    def count(self: Any, features: Any, collate: Any, items: list[int]) -> torch.Tensor:
        if features.__name__ == "get_product_features" and len(items) <= 4:
            if len(encoded) == interrupt_after:
                raise KeyboardInterrupt
            encoded.append(items)
        return encode(self, features, collate, items)

    monkeypatch.setattr(encoding.CorpusEncoder, "encode", count)
    flags = ["--attribute_columns", "subCategory", "--no_fusion_baselines", "--no_plots"]
    with pytest.raises(KeyboardInterrupt):
        run(catalog, *flags)
    interrupt_after = -1
    first = run(catalog, *flags)
    assert sorted(item for items in encoded for item in items) == list(range(18))  # each product once, over both runs
    second = run(catalog, *flags)
    assert len(encoded) == 5
    expected = without_seconds(first)["tasks"]
    assert without_seconds(second)["tasks"] == expected
    shard = min(tmp_path.rglob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(ValueError, match=f"{shard.name} can't be read: .*Remove it; the same command then encodes"):
        run(catalog, *flags)
    shard.unlink()
    assert without_seconds(run(catalog, *flags))["tasks"] == expected
    rows = make_rows()
    rows[0]["productDisplayName"] = "another title"
    run(save_catalog(rows, tmp_path / "changed", num_train=12), *flags)
    assert len(encoded) == 11  # a changed catalogue is another


@pytest.mark.slow
def test_two_processes_measure_the_same(
    run: Callable[..., dict[str, Any]], checkpoint: str, catalog: str, tmp_path: Path
) -> None:
    alone = run(catalog, *ATTRIBUTES)
    output = tmp_path / "two"
    # `accelerate launch` starts several processes on accelerators only; on a CPU that is torchrun's or MPI's job.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script.__file__]
    flags = ["--model_name_or_path", checkpoint, "--dataset_name", catalog, *COMMON, *ATTRIBUTES]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *flags, "--output_dir", str(output)], check=True, timeout=300, env=environment)
    together = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert together["hardware"]["processes"] == 2
    for left, right in zip(alone["tasks"], together["tasks"], strict=True):
        assert left["systems"][0]["metrics"] == right["systems"][0]["metrics"]
