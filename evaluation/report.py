"""From scores of every query to a report for JSON: intervals, paired tests, slices, and what made the numbers."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils.hub import cached_file, extract_commit_hash

from acebert.data.corpus import Corpus
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.evaluation.arguments import EvaluationArguments
from acebert.evaluation.baselines import TextEncoderBaseline
from acebert.evaluation.leaderboards import LEADERBOARDS, Leaderboard
from acebert.evaluation.markdown import to_markdown
from acebert.evaluation.rankers import LATE_FUSION, MODEL, PHOTO_ONLY, RAW_PATCHES, TITLE_ONLY
from acebert.evaluation.scoring import RankerResult, TaskResult
from acebert.evaluation.statistics import bootstrap_interval, holm, randomisation_test
from acebert.losses_acebert import modality_gap
from acebert.utils.bm25 import Bm25Baseline
from acebert.utils.fingerprints import json_sha256, weights_sha256

# Rankers that a table of slices has room for.
SLICED = (
    MODEL, TITLE_ONLY, PHOTO_ONLY, LATE_FUSION, Bm25Baseline.name, TextEncoderBaseline.name,
    TextEncoderBaseline.adapted_name, RAW_PATCHES,
)  # fmt: skip
SMALLEST_SLICE = 20  # queries
SLICE_ORDER = {"head": 1, "torso": 2, "tail": 3, "not in training": 4, "none asked": 5}  # others come first, by name
KNOWLEDGE = ("title phrases", "text benchmark")  # kinds of tasks that tell what the model keeps of its backbone
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "scipy", "bm25s", "sentence-transformers")


@dataclass(frozen=True)
class Statistics:
    """How intervals and tests are computed.

    Args:
        resamples: of the queries, for intervals.
        permutations: of signs, for tests.
        seed: of both.
    """

    resamples: int
    permutations: int
    seed: int

    def interval(self, scores: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
        return asdict(bootstrap_interval(scores, weights, resamples=self.resamples, seed=self.seed))

    def paired(self, pairs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """Mean differences with intervals, p-values, and these corrected for the number of pairs.

        Args:
            pairs: ranker to differences (queries,).
        """
        p_values = [
            randomisation_test(differences, permutations=self.permutations, seed=self.seed)
            for differences in pairs.values()
        ]
        return [
            {"system": ranker, **self.interval(differences), "p": p, "p_holm": p_holm}
            for (ranker, differences), p, p_holm in zip(pairs.items(), p_values, holm(p_values), strict=True)
        ]


def task_report(
    result: TaskResult, plain: TaskResult | None, statistics: Statistics, leaderboard: Leaderboard | None
) -> dict[str, Any]:
    """What the report says about one task, ready for JSON.

    Args:
        result: its scores.
        plain: those of the same queries in the catalogue's own words, if there are such.
        statistics: how to compute intervals and tests.
        leaderboard: whose published numbers stand beside those measured.
    """
    task, applied = result.task, result.applied
    ours = result.scores(MODEL)
    relevance = [sorted(grades.items()) for grades in task.relevance]
    return {
        "task": task.name,
        "kind": task.kind,
        "description": task.description,
        "num_queries": len(task.queries),
        "num_candidates": len(task.rows),
        "num_dropped_queries": task.num_dropped_queries,
        "num_dropped_ids": task.num_dropped_ids,
        "queries_sha256": json_sha256([task.queries, relevance]),
        "main_metric": task.main_metric,
        "ceiling": result.ceiling,
        "systems": [
            {
                "system": one.ranker,
                "note": one.note,
                "seconds": round(one.seconds, 2),
                "metrics": {metric: statistics.interval(scores) for metric, scores in one.per_query.items()},
            }
            for one in result.rankers
        ],
        "lead": statistics.paired(
            {one.ranker: ours - result.scores(one.ranker) for one in applied if one.ranker != MODEL}
        ),
        "slices": _slices(result, [one for one in applied if one.ranker in SLICED], statistics),
        "unseen": _unseen(result, statistics) if result.unseen else [],
        "widths": [{"width": width, **statistics.interval(scores)} for width, scores in result.widths.items()],
        "synonym_cost": _synonym_cost(result, plain, statistics) if plain else {},
        "published": leaderboard.scores.get(task.name, {}) if leaderboard else {},
    }


def knowledge_report(result: TaskResult, statistics: Statistics) -> dict[str, Any] | None:
    """How much of the text backbone's nDCG@10 the model keeps on one task; None where there is nothing to keep.

    Args:
        result: of title phrases or of a text benchmark.
        statistics: how to compute intervals.

    Returns:
        The means of both, and the ratio of the model's to the backbone's as "kept", each with its interval.
    """
    names = {one.ranker for one in result.applied}
    if TextEncoderBaseline.name not in names or not result.scores(TextEncoderBaseline.name).any():
        return None
    ours, backbone = result.scores(MODEL), result.scores(TextEncoderBaseline.name)
    return {
        "task": result.task.name,
        "num_queries": len(ours),
        "num_candidates": len(result.task.rows),
        "model": statistics.interval(ours),
        "backbone": statistics.interval(backbone),
        "kept": statistics.interval(ours, backbone),
    }


def _slices(result: TaskResult, rankers: Sequence[RankerResult], statistics: Statistics) -> dict[str, Any]:
    slices: dict[str, Any] = {}
    for name, labels in result.task.slices.items():
        labels = np.array(labels)
        slices[name] = [
            {
                "label": label,
                "num_queries": int((labels == label).sum()),
                "too_small": bool((labels == label).sum() < SMALLEST_SLICE),
                "systems": {
                    one.ranker: statistics.interval(result.scores(one.ranker)[labels == label]) for one in rankers
                },
            }
            for label in sorted(set(labels.tolist()), key=lambda label: (SLICE_ORDER.get(label, 0), label))
        ]
    return slices


def _unseen(result: TaskResult, statistics: Statistics) -> list[dict[str, Any]]:
    """How the first ten divide into products that were trained on and others, and how often each are relevant."""
    task = result.task
    ids = [task.corpus.ids[row] for row in task.rows]
    share = sum(product in result.unseen for product in ids) / len(ids)
    rows = []
    for one in result.applied:
        counts = np.zeros((len(task.queries), 4))  # seen, seen and relevant, unseen, unseen and relevant
        for row, (ranking, grades) in enumerate(zip(one.top10, task.relevance, strict=True)):
            for product in ranking:
                column = 2 * (product in result.unseen)
                counts[row, column] += 1
                counts[row, column + 1] += grades.get(product, 0) >= 1
        seen, seen_relevant, unseen, unseen_relevant = counts.T
        rows.append(
            {
                "system": one.ranker,
                "unseen_share_ranked": share,
                "unseen_share": statistics.interval(unseen, seen + unseen) if (seen + unseen).any() else None,
                "precision_seen": statistics.interval(seen_relevant, seen) if seen.any() else None,
                "precision_unseen": statistics.interval(unseen_relevant, unseen) if unseen.any() else None,
            }
        )
    return rows


def _synonym_cost(result: TaskResult, plain: TaskResult, statistics: Statistics) -> dict[str, Any]:
    """What synonyms cost each ranker, over the queries that ask for the same in both wordings."""
    same = np.array([a == b for a, b in zip(result.task.relevance, plain.task.relevance, strict=True)])
    if not same.any():
        return {}
    pairs = {one.ranker: (plain.scores(one.ranker) - result.scores(one.ranker))[same] for one in result.applied}
    return {"num_queries": int(same.sum()), "systems": statistics.paired(pairs)}


def make_report(
    args: EvaluationArguments,
    encoder: CorpusEncoder,
    corpus: Corpus,
    results: Sequence[TaskResult],
    gap_vectors: Sequence[tuple[str, torch.Tensor, torch.Tensor]],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """All that is needed to read the numbers and to get them again, ready for JSON."""
    statistics = Statistics(args.bootstrap_resamples, args.permutations, args.seed)
    leaderboard = LEADERBOARDS[args.reference] if args.reference else None
    tasks = [task_report(result, _find_plain(result, results), statistics, leaderboard) for result in results]
    knowledge = [knowledge_report(result, statistics) for result in results if result.task.kind in KNOWLEDGE]
    notes = []
    if args.train_split is None:
        notes.append(
            "Without --train_split, no adapters were trained, no weight of late fusion was chosen, and slices by "
            "training frequency and new words are left out."
        )
    if any(task["published"] for task in tasks) and leaderboard:
        notes.append(leaderboard.caveat)
    return {
        "model": {
            "name": args.model_name_or_path,
            "revision": resolve_commit(args.model_name_or_path, args.revision),
            "num_parameters": encoder.model.num_parameters(),
            "weights_sha256": weights_sha256(encoder.model),
        },
        "dataset": {
            "name": " + ".join(args.dataset_name),
            "local": Path(args.dataset_name[0]).exists(),
            "split": args.split or "+".join(sorted(set(corpus.splits))),
            "num_products": len(corpus),
            "sha256": corpus.sha256,
        },
        "knowledge": {
            "backbone": args.text_baselines[0] if args.text_baselines else None,
            "tasks": [kept for kept in knowledge if kept],
        },
        "tasks": tasks,
        "modality_gaps": [
            {
                "checkpoint": name,
                "gap": float(modality_gap(queries, products)),
                "num_queries": len(queries),
                "num_products": len(products),
            }
            for name, queries, products in gap_vectors
        ],
        "notes": notes,
        "arguments": asdict(args),
        "seconds": seconds,
        "hardware": {
            "device": str(encoder.accelerator.device),
            "processes": encoder.accelerator.num_processes,
        },
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
    }


def _find_plain(result: TaskResult, results: Sequence[TaskResult]) -> TaskResult | None:
    return next((other for other in results if result.task.plain is other.task), None)


def resolve_commit(model_name_or_path: str, revision: str | None) -> str | None:
    """The commit on the Hub that a checkpoint was loaded from, None for a folder outside the Hub's cache."""
    return extract_commit_hash(cached_file(model_name_or_path, "config.json", revision=revision), None)


def write_report(report: dict[str, Any], results: Sequence[TaskResult], folder: Path) -> None:
    """Prints the report and saves it as report.json, report.md and, for every query, queries.jsonl."""
    markdown = to_markdown(report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as file:
        for result in results:
            task, applied = result.task, result.applied
            for row, query in enumerate(task.queries):
                entry = {
                    "task": task.name,
                    "query": query,
                    "num_relevant": len(task.relevance[row]),
                    "slices": {name: labels[row] for name, labels in task.slices.items()},
                    task.main_metric: {one.ranker: float(one.per_query[task.main_metric][row]) for one in applied},
                    "top10": {one.ranker: one.top10[row] for one in applied},
                }
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    print(markdown)
