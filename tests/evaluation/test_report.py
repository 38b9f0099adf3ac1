"""What the report says of scores that are known, and that its pictures show the same."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from acebert.data.corpus import Corpus
from acebert.evaluation.leaderboards import LEADERBOARDS
from acebert.evaluation.markdown import to_markdown
from acebert.evaluation.plots import plot_modality_gap, plot_systems, plot_training, plot_widths, save_plots
from acebert.evaluation.rankers import MODEL
from acebert.evaluation.report import Statistics, knowledge_report, task_report
from acebert.evaluation.scoring import RankerResult, TaskResult
from acebert.evaluation.tasks import Task
from acebert.losses_acebert import modality_gap

STATISTICS = Statistics(resamples=1000, permutations=1000, seed=0)
IDS = ["4", "3", "2", "1"]
CATALOG = Corpus("drawn", IDS, ["a", "b", "c", "d"], None, {}, ["train", "train", "new", "new"])


def make_result(ours: np.ndarray, theirs: np.ndarray, **fields: Any) -> TaskResult:
    n = len(ours)
    defaults: dict[str, Any] = {
        "name": "task", "description": "Synthetic.", "queries": [f"query {i}" for i in range(n)],
        "relevance": [{"4": 1.0, "2": 1.0}] * n, "corpus": CATALOG, "rows": np.arange(4),
        "metrics": ("precision@10",), "main_metric": "precision@10",
    }  # fmt: skip
    systems = [
        RankerResult(MODEL, "ours", {"precision@10": ours}, [["4", "3", "1"]] * n),
        RankerResult("BM25 (titles)", "words", {"precision@10": theirs}, [["2"]] * n),
        RankerResult("Text embeddings (titles)", "not applicable: no reason"),
    ]
    task = Task(**{**defaults, **fields})
    return TaskResult(task, systems, {"precision@10": 0.5}, {8: ours / 2, 16: ours}, {"1", "2"})


def whole_report(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": {"name": "runs/mine", "revision": None, "num_parameters": 7, "weights_sha256": "0" * 64},
        "dataset": {"name": "shop", "split": "train", "num_products": 4, "sha256": "1" * 64},
        "arguments": {"bootstrap_resamples": 1000, "permutations": 1000},
        "knowledge": {"backbone": "a BERT", "tasks": []},
        "tasks": list(tasks), "modality_gaps": [], "notes": ["A caveat."], "seconds": {}, "versions": {},
    }  # fmt: skip


OURS, THEIRS = np.full(40, 0.4), np.tile([0.1, 0.3], 20)
RESULT = make_result(OURS, THEIRS, slices={"colour": ["red"] * 30 + ["blue"] * 10})


def test_leads_are_paired_differences() -> None:
    (lead,) = task_report(RESULT, None, STATISTICS, None)["lead"]
    assert lead["system"] == "BM25 (titles)"
    assert lead["mean"] == pytest.approx(0.2)
    assert 0.1 < lead["low"] < 0.2 < lead["high"] < 0.3
    assert lead["p"] == lead["p_holm"] == pytest.approx(1 / 1001)


def test_small_slices_are_shown_and_marked() -> None:
    report = task_report(RESULT, None, STATISTICS, None)
    blue, red = report["slices"]["colour"]
    assert (blue["label"], blue["num_queries"], blue["too_small"]) == ("blue", 10, True)
    assert (red["label"], red["num_queries"], red["too_small"]) == ("red", 30, False)
    assert red["systems"]["BM25 (titles)"]["mean"] == pytest.approx(0.2)
    markdown = to_markdown(whole_report(report))
    assert "| blue | 10 (too few to tell) | 0.400 [0.400, 0.400] |" in markdown
    assert "| red | 30 | 0.400 [0.400, 0.400] |" in markdown


def test_markdown_has_ceiling_lead_reasons_and_notes() -> None:
    markdown = to_markdown(whole_report(task_report(RESULT, None, STATISTICS, None)))
    assert "| ceiling: the best ranking | 0.500 |" in markdown
    assert "| ACE-BERT | 0.400 [0.400, 0.400] | 0.800 |" in markdown  # 0.4 of 0.5
    assert "| not applicable: no reason |" in markdown
    assert "| task | precision@10 | 0.400 [0.400, 0.400] | BM25 (titles): 0.200 | +0.200 [" in markdown
    assert "8: 0.200 [0.200, 0.200]; 16: 0.400 [0.400, 0.400]" in markdown
    assert "- A caveat." in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    blocks, width = 0, None
    for line in markdown.splitlines():
        cells = line.count("|") if line.startswith("|") else None
        blocks += cells is not None and width is None
        assert width is None or cells is None or cells == width, line  # rows of one table are equally long
        width = cells
    assert blocks == 4 and tables


def test_products_that_were_not_trained_on() -> None:
    ours, theirs = task_report(RESULT, None, STATISTICS, None)["unseen"]
    assert ours["unseen_share_ranked"] == 0.5
    assert ours["unseen_share"]["mean"] == pytest.approx(1 / 3)  # of 4, 3 and 1, the last
    assert ours["precision_seen"]["mean"] == pytest.approx(1 / 2)  # 4 is relevant, 3 isn't
    assert ours["precision_unseen"]["mean"] == 0
    assert theirs["precision_unseen"]["mean"] == 1 and theirs["precision_seen"] is None


def test_the_cost_of_synonyms_is_over_queries_that_ask_for_the_same() -> None:
    relevance = [{"4": 1.0, "2": 1.0}] * 30 + [{"4": 1.0}] * 10
    plain = make_result(np.full(40, 0.9), THEIRS, relevance=relevance)
    cost = task_report(RESULT, plain, STATISTICS, leaderboard=None)["synonym_cost"]
    assert cost["num_queries"] == 30
    means = {row["system"]: row["mean"] for row in cost["systems"]}
    assert means == pytest.approx({MODEL: 0.5, "BM25 (titles)": 0.0})


def test_published_rows_belong_to_their_task() -> None:
    known, kagl = make_result(OURS, THEIRS, name="subCategory-to-product"), LEADERBOARDS["kagl"]
    assert task_report(known, None, STATISTICS, kagl)["published"]["Marqo-FashionSigLIP"]["AvgP"] == 0.699
    assert task_report(known, None, STATISTICS, None)["published"] == {}
    assert task_report(RESULT, None, STATISTICS, kagl)["published"] == {}


def natural_result(kind: str, ours: np.ndarray, theirs: np.ndarray, **fields: Any) -> TaskResult:
    """A task with nDCG@10 of the model, BM25 and text embeddings, which have the backbone's scores."""
    found = make_result(ours, theirs, kind=kind, metrics=("ndcg@10",), main_metric="ndcg@10", **fields)
    scores = {MODEL: ours, "BM25 (titles)": theirs / 2, "Text embeddings (titles)": theirs}
    found.rankers = [RankerResult(name, "how", {"ndcg@10": part}, [["4"]] * len(part)) for name, part in scores.items()]
    found.ceiling = {"ndcg@10": 1.0}
    return found


def test_knowledge_kept_is_the_ratio_of_the_means_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    backbone = rng.random(100)
    kept = knowledge_report(natural_result("title phrases", backbone * 0.6, backbone), STATISTICS)
    assert kept["kept"] == pytest.approx({"mean": 0.6, "low": 0.6, "high": 0.6})
    assert kept["backbone"]["mean"] == pytest.approx(backbone.mean())
    assert (kept["num_queries"], kept["num_candidates"]) == (100, 4)
    noisy = knowledge_report(natural_result("title phrases", rng.random(100), backbone), STATISTICS)
    assert noisy["kept"]["low"] < noisy["kept"]["mean"] < noisy["kept"]["high"]
    assert knowledge_report(natural_result("title phrases", backbone, np.zeros(100)), STATISTICS) is None
    assert knowledge_report(RESULT, STATISTICS) is None  # without text embeddings


def test_report_leads_with_natural_queries_and_calls_the_others_synthetic() -> None:
    backbone = np.tile([0.5, 0.7], 20)
    asked = natural_result("natural", OURS, backbone, name="natural queries")
    phrases = natural_result("title phrases", OURS, backbone, name="title phrases")
    report = whole_report(*(task_report(result, None, STATISTICS, None) for result in (asked, phrases, RESULT)))
    report["knowledge"]["tasks"] = [knowledge_report(phrases, STATISTICS)]
    markdown = to_markdown(report)
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert headings[1:] == [
        "## Natural queries", "### natural queries", "## Knowledge kept", "### title phrases", "## Synthetic queries",
        "### task", "## Notes",
    ]  # fmt: skip
    assert "| nDCG@10 | queries | products | ACE-BERT | BM25 (titles) | Text embeddings (titles) | best" in markdown
    assert "| natural queries | 40 | 4 | 0.400 [0.400, 0.400] | 0.300 [" in markdown
    kept = report["knowledge"]["tasks"][0]["kept"]
    assert f"| {kept['mean']:.3f} [{kept['low']:.3f}, {kept['high']:.3f}] |" in markdown
    assert kept["mean"] == pytest.approx(0.4 / 0.6)


def test_a_report_without_natural_queries_says_so() -> None:
    markdown = to_markdown(whole_report(task_report(RESULT, None, STATISTICS, None)))
    assert "None were measured, so nothing here says how well shoppers' own queries are answered" in markdown
    assert markdown.index("## Natural queries") < markdown.index("## Synthetic queries")
    assert "## Knowledge kept" not in markdown


def test_bars_are_as_long_as_the_means() -> None:
    figure = plot_systems(task_report(RESULT, None, STATISTICS, None))
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0.4, 0.2])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [MODEL, "BM25 (titles)"]
    figure = plot_widths([task_report(RESULT, None, STATISTICS, None)])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[8, 0.2], [16, 0.4]], rtol=0.05)
    plt.close("all")


def test_the_picture_of_the_gap_keeps_distances_in_a_plane() -> None:
    plane = torch.linalg.qr(torch.randn(16, 2)).Q.T
    queries = torch.randn(50, 2) @ plane
    products = (torch.randn(80, 2) + torch.tensor([3.0, 0.0])) @ plane
    gap = float(modality_gap(queries, products))
    figure = plot_modality_gap([("mine", queries, products)], [gap])
    (line,) = figure.axes[0].lines
    (x0, y0), (x1, y1) = line.get_xydata()
    assert np.hypot(x1 - x0, y1 - y0) == pytest.approx(gap, rel=1e-4)
    assert f"{gap:.3f}" in figure.axes[0].get_title()
    plt.close("all")


def test_all_pictures_are_written(tmp_path: Path) -> None:
    slices = {"colour": ["red"] * 20 + ["blue"] * 20}
    report = whole_report(task_report(make_result(OURS, THEIRS, slices=slices), None, STATISTICS, None))
    report["modality_gaps"] = [{"gap": 0.5}]
    save_plots(report, [("mine", torch.randn(9, 4), torch.randn(9, 4))], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "systems-task.png", "slices-task.png", "widths.png", "modality-gap.png",
    }  # fmt: skip
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 200 and picture.convert("L").getextrema() == (0, 255)


def test_the_course_of_a_run() -> None:
    log = [
        {"step": 10, "seconds": 1800.0, "domain_accuracy": 0.9, "modality_gap": 0.8},
        {"step": 10, "seconds": 1800.0, "validation": {"query_to_product_recall@10": 0.5}},
        {"step": 20, "seconds": 5400.0, "domain_accuracy": 0.6, "modality_gap": 0.4},
        {"step": 20, "seconds": 5400.0, "validation": {"query_to_product_recall@10": 0.7}},
    ]
    left, right = plot_training(log).axes
    (recall,) = left.get_lines()  # no photos, so no line for titles
    assert recall.get_xydata().tolist() == [[0.5, 0.5], [1.5, 0.7]]
    assert [line.get_ydata().tolist() for line in right.get_lines()[:2]] == [[0.9, 0.6], [0.8, 0.4]]
    plt.close("all")
