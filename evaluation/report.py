"""From scores of every query to a report: intervals, paired tests and slices, as JSON and as Markdown."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from acebert.evaluation.baselines import Bm25Baseline, TextEncoderBaseline
from acebert.evaluation.rankers import LATE_FUSION, MODEL, PHOTO_ONLY, RAW_PATCHES, TITLE_ONLY
from acebert.evaluation.statistics import bootstrap_interval, holm, randomisation_test
from acebert.evaluation.tasks import Task
from acebert.utils.markdown import format_mean, table_row

# Systems that a table of slices has room for.
SLICED = (
    MODEL, TITLE_ONLY, PHOTO_ONLY, LATE_FUSION, Bm25Baseline.name, TextEncoderBaseline.name,
    TextEncoderBaseline.adapted_name, RAW_PATCHES,
)  # fmt: skip
SMALLEST_SLICE = 20  # queries
SLICE_ORDER = {"head": 1, "torso": 2, "tail": 3, "not in training": 4, "none asked": 5}  # others come first, by name

# marqo-ai/marqo-FashionCLIP, LEADERBOARD.md, 2024-08-09. What isn't known here is left out.
KAGL = {
    "text-to-image": {
        "Marqo-FashionSigLIP": {"recall@1": 0.179, "recall@10": 0.489, "mrr@10": 0.293},
        "ViT-B-16-SigLIP-webli": {"recall@1": 0.169, "recall@10": 0.468, "mrr@10": 0.272},
        "Marqo-FashionCLIP": {"recall@1": 0.159, "recall@10": 0.446, "mrr@10": 0.265},
        "ViT-B-16-laion2b": {"recall@1": 0.155, "recall@10": 0.435, "mrr@10": 0.259},
        "FashionCLIP2.0": {"recall@1": 0.122, "recall@10": 0.404, "mrr@10": 0.217},
        "OpenFashionCLIP": {"recall@1": 0.091, "recall@10": 0.325, "mrr@10": 0.170},
    },
    "masterCategory-to-product": {
        "Marqo-FashionSigLIP": {"AvgP": 0.629, "precision@10": 0.686},
        "ViT-B-16-SigLIP-webli": {"AvgP": 0.707, "precision@10": 0.700},
        "Marqo-FashionCLIP": {"AvgP": 0.643, "precision@10": 0.571},
        "ViT-B-16-laion2b": {"AvgP": 0.550, "precision@10": 0.529},
        "FashionCLIP2.0": {"AvgP": 0.700, "precision@10": 0.686},
        "OpenFashionCLIP": {"AvgP": 0.493, "precision@10": 0.557},
    },
    "subCategory-to-product": {
        "Marqo-FashionSigLIP": {"AvgP": 0.699, "precision@10": 0.687},
        "ViT-B-16-SigLIP-webli": {"AvgP": 0.667, "precision@10": 0.644},
        "Marqo-FashionCLIP": {"AvgP": 0.640, "precision@10": 0.613},
        "ViT-B-16-laion2b": {"AvgP": 0.598, "precision@10": 0.573},
        "FashionCLIP2.0": {"AvgP": 0.586, "precision@10": 0.571},
        "OpenFashionCLIP": {"AvgP": 0.479, "precision@10": 0.491},
    },
    "articleType-to-product": {
        "Marqo-FashionCLIP": {"precision@1": 0.725, "precision@10": 0.613, "mrr@10": 0.772},
        "Marqo-FashionSigLIP": {"precision@10": 0.629},
    },
    "baseColour-to-product": {
        "Marqo-FashionSigLIP": {"precision@1": 0.587, "precision@10": 0.502, "mrr@10": 0.664}
    },
    "usage-to-product": {
        "ViT-B-16-SigLIP-webli": {"precision@1": 0.500, "precision@10": 0.388, "mrr@10": 0.500}
    },
    "season-to-product": {"Marqo-FashionSigLIP": {"precision@1": 0.500, "precision@10": 0.350, "mrr@10": 0.500}},
}  # fmt: skip
KAGL_CAVEAT = (
    "Published rows are Marqo's KAGL leaderboard (2024-08-09): zero-shot models of 150 to 203 million parameters on "
    "full-size photos (up to 1800x2400), 44,434 products, 2,000 text-to-image queries. They are no like-for-like "
    "comparison: a model trained on a split of this catalogue is in-domain, photos of 60x80 pixels show it far less, "
    "and the products and queries measured here are not all of the leaderboard's."
)


@dataclass
class SystemResult:
    """Scores of one system on one task.

    Args:
        system: its name.
        note: how it works, or why it doesn't apply.
        per_query: metric to scores (queries,); empty where the system doesn't apply.
        top10: for each query the ids of the first ten products.
        seconds: time for ranking, with encoding of queries for baselines.
    """

    system: str
    note: str
    per_query: dict[str, np.ndarray] = field(default_factory=dict)
    top10: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class TaskResult:
    """Scores of all systems on one task.

    Args:
        task: the task.
        systems: the first one is ACE-BERT.
        ceiling: metric to the mean over queries that the best ranking would have.
        widths: width of ACE-BERT's vectors to scores (queries,) in the main metric, the full width last.
        unseen: ids of products that were not trained on; empty where that isn't known, or all of the ranked are.
    """

    task: Task
    systems: list[SystemResult]
    ceiling: dict[str, float]
    widths: dict[int, np.ndarray]
    unseen: set[str]

    def scores(self, system: str) -> np.ndarray:
        """The main metric's scores (queries,) of a system."""
        (found,) = [result for result in self.systems if result.system == system]
        return found.per_query[self.task.main_metric]


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
            pairs: system to differences (queries,).
        """
        p_values = [
            randomisation_test(differences, permutations=self.permutations, seed=self.seed)
            for differences in pairs.values()
        ]
        return [
            {"system": system, **self.interval(differences), "p": p, "p_holm": p_holm}
            for (system, differences), p, p_holm in zip(pairs.items(), p_values, holm(p_values), strict=True)
        ]


def task_report(result: TaskResult, plain: TaskResult | None, statistics: Statistics, kagl: bool) -> dict[str, Any]:
    """What the report says about one task, ready for JSON.

    Args:
        result: its scores.
        plain: those of the same queries in the catalogue's own words, if there are such.
        statistics: how to compute intervals and tests.
        kagl: with Marqo's published numbers.
    """
    task = result.task
    applied = [system for system in result.systems if system.per_query]
    ours = result.scores(MODEL)
    relevance = [sorted(grades.items()) for grades in task.relevance]
    return {
        "task": task.name,
        "description": task.description,
        "num_queries": len(task.queries),
        "num_candidates": len(task.rows),
        "num_dropped_queries": task.num_dropped_queries,
        "num_dropped_ids": task.num_dropped_ids,
        "queries_sha256": hashlib.sha256(json.dumps([task.queries, relevance]).encode()).hexdigest(),
        "main_metric": task.main_metric,
        "ceiling": result.ceiling,
        "systems": [
            {
                "system": system.system,
                "note": system.note,
                "seconds": round(system.seconds, 2),
                "metrics": {metric: statistics.interval(scores) for metric, scores in system.per_query.items()},
            }
            for system in result.systems
        ],
        "lead": statistics.paired(
            {system.system: ours - result.scores(system.system) for system in applied if system.system != MODEL}
        ),
        "slices": _slices(result, [system for system in applied if system.system in SLICED], statistics),
        "unseen": _unseen(result, applied, statistics) if result.unseen else [],
        "widths": [{"width": width, **statistics.interval(scores)} for width, scores in result.widths.items()],
        "synonym_cost": _synonym_cost(result, plain, applied, statistics) if plain else {},
        "published": KAGL.get(task.name, {}) if kagl else {},
    }


def _slices(result: TaskResult, systems: Sequence[SystemResult], statistics: Statistics) -> dict[str, Any]:
    slices: dict[str, Any] = {}
    for name, labels in result.task.slices.items():
        labels = np.array(labels)
        slices[name] = [
            {
                "label": label,
                "num_queries": int((labels == label).sum()),
                "too_small": bool((labels == label).sum() < SMALLEST_SLICE),
                "systems": {
                    system.system: statistics.interval(result.scores(system.system)[labels == label])
                    for system in systems
                },
            }
            for label in sorted(set(labels.tolist()), key=lambda label: (SLICE_ORDER.get(label, 0), label))
        ]
    return slices


def _unseen(result: TaskResult, systems: Sequence[SystemResult], statistics: Statistics) -> list[dict[str, Any]]:
    """How the first ten divide into products that were trained on and others, and how often each are relevant."""
    task = result.task
    ids = [task.catalog.ids[row] for row in task.rows]
    share = sum(product in result.unseen for product in ids) / len(ids)
    rows = []
    for system in systems:
        counts = np.zeros((len(task.queries), 4))  # seen, seen and relevant, unseen, unseen and relevant
        for row, (ranking, grades) in enumerate(zip(system.top10, task.relevance, strict=True)):
            for product in ranking:
                column = 2 * (product in result.unseen)
                counts[row, column] += 1
                counts[row, column + 1] += grades.get(product, 0) >= 1
        seen, seen_relevant, unseen, unseen_relevant = counts.T
        rows.append(
            {
                "system": system.system,
                "unseen_share_ranked": share,
                "unseen_share": statistics.interval(unseen, seen + unseen) if (seen + unseen).any() else None,
                "precision_seen": statistics.interval(seen_relevant, seen) if seen.any() else None,
                "precision_unseen": statistics.interval(unseen_relevant, unseen) if unseen.any() else None,
            }
        )
    return rows


def _synonym_cost(
    result: TaskResult, plain: TaskResult, systems: Sequence[SystemResult], statistics: Statistics
) -> dict[str, Any]:
    """What synonyms cost each system, over the queries that ask for the same in both wordings."""
    same = np.array([a == b for a, b in zip(result.task.relevance, plain.task.relevance, strict=True)])
    if not same.any():
        return {}
    pairs = {s.system: (plain.scores(s.system) - result.scores(s.system))[same] for s in systems}
    return {"num_queries": int(same.sum()), "systems": statistics.paired(pairs)}


# ----------------------------------------------------------------------------------------------------------------------
# Markdown
# ----------------------------------------------------------------------------------------------------------------------


def to_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown: a summary, then for each task its systems and slices, then notes."""
    model, dataset, arguments = report["model"], report["dataset"], report["arguments"]
    lines = [
        f"# Evaluation of {model['name']}",
        "",
        f"{dataset['num_products']:,} products of `{dataset['name']}` ({dataset['split']}). Means over queries with "
        f"95 % bootstrap intervals ({arguments['bootstrap_resamples']:,} resamples of the queries). A lead is "
        f"{MODEL}'s mean minus the other system's, over the same queries; its p is that of a two-sided paired "
        f"randomisation test ({arguments['permutations']:,} sign flips), Holm-corrected for the systems of the task.",
        "",
        "## Summary",
        "",
        f"| task | metric | {MODEL} | best other system | lead | p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_summary_row(task) for task in report["tasks"]]
    for task in report["tasks"]:
        lines += _task_lines(task)
    notes = dict.fromkeys(
        f"- {s['system']}: {s['note']}." for t in report["tasks"] for s in t["systems"] if s["metrics"]
    )
    lines += ["", "## Notes", "", *notes]
    lines += [f"- {note}" for note in report["notes"]]
    if any(task["published"] for task in report["tasks"]):
        lines.append(f"- {KAGL_CAVEAT}")
    lines += [
        f"- Modality gap of {gap['checkpoint']}: {gap['gap']:.3f} between the means of {gap['num_queries']:,} query "
        f"and {gap['num_products']:,} product vectors (0 to 2; Liang et al. 2022, arXiv 2203.02053)."
        for gap in report["modality_gaps"]
    ]
    lines += [
        f"- Model: revision {model['revision'] or 'none (local folder)'}, {model['num_parameters']:,} parameters, "
        f"weights sha256 `{model['weights_sha256'][:12]}`.",
        f"- Catalogue: sha256 of ids and titles `{dataset['sha256'][:12]}`.",
        "- Seconds: " + ", ".join(f"{step} {seconds:g}" for step, seconds in report["seconds"].items()) + ".",
        "- Versions: " + ", ".join(f"{package} {number}" for package, number in report["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _summary_row(task: dict[str, Any]) -> str:
    metric = task["main_metric"]
    means = {s["system"]: s["metrics"][metric] for s in task["systems"] if s["metrics"]}
    cells = [task["task"], metric, format_mean(means[MODEL])]
    if task["lead"]:
        rival = max(task["lead"], key=lambda lead: means[lead["system"]]["mean"])
        shown = means[rival["system"]]
        cells += [f"{rival['system']}: {shown['mean']:.3f}", format_mean(rival, "+"), _p(rival["p_holm"])]
    return table_row(cells + ["–"] * (6 - len(cells)))


def _task_lines(task: dict[str, Any]) -> list[str]:
    metrics, main = list(task["systems"][0]["metrics"]), task["main_metric"]
    lines = ["", f"## {task['task']}", "", task["description"]]
    lines.append(f"{task['num_queries']:,} queries, {task['num_candidates']:,} products ranked.")
    if task["num_dropped_ids"]:
        lines.append(
            f"Dropped, as the catalogue lacks them: {task['num_dropped_ids']} judged products and "
            f"{task['num_dropped_queries']} queries."
        )
    leads = {lead["system"]: lead for lead in task["lead"]}
    bounded = task["ceiling"][main] < 1
    header = ["system", *metrics, *([f"{main} / ceiling"] if bounded else []), f"lead in {main}", "p"]
    lines += ["", table_row(header), table_row(["---"] * len(header))]
    for system in task["systems"]:
        if not system["metrics"]:
            lines.append(table_row([system["system"], system["note"], *[""] * (len(header) - 2)]))
            continue
        cells = [system["system"], *(format_mean(system["metrics"][metric]) for metric in metrics)]
        if bounded:
            cells.append(f"{system['metrics'][main]['mean'] / task['ceiling'][main]:.3f}")
        lead = leads.get(system["system"])
        lines.append(table_row([*cells, format_mean(lead, "+"), _p(lead["p_holm"])] if lead else [*cells, "", ""]))
    if any(value < 1 for value in task["ceiling"].values()):
        cells = ["ceiling: the best ranking", *(f"{task['ceiling'][metric]:.3f}" for metric in metrics)]
        lines.append(table_row(cells + [""] * (len(header) - len(cells))))
    for name, published in task["published"].items():
        cells = [f"published: {name}"]
        cells += [f"{published[metric]:.3f}" if metric in published else "–" for metric in metrics]
        lines.append(table_row(cells + [""] * (len(header) - len(cells))))

    if len(task["widths"]) > 1:
        shown = (f"{width['width']}: {format_mean(width)}" for width in task["widths"])
        lines += ["", f"By width of the vectors, {main}: " + "; ".join(shown) + "."]
    if task["synonym_cost"]:
        lines += [
            "",
            f"What the synonyms cost, in {main}, over the {task['synonym_cost']['num_queries']:,} queries that ask for "
            "the same in both wordings (p Holm-corrected):",
            "",
            "| system | plain minus synonyms | p |",
            "| --- | --- | --- |",
        ]
        lines += [
            table_row([c["system"], format_mean(c, "+"), _p(c["p_holm"])]) for c in task["synonym_cost"]["systems"]
        ]
    if task["unseen"]:
        share = task["unseen"][0]["unseen_share_ranked"]
        lines += [
            "",
            f"Of the ranked products, {100 * share:.1f} % were not trained on. In the first ten:",
            "",
            "| system | share not trained on | precision of those trained on | precision of those not |",
            "| --- | --- | --- | --- |",
        ]
        for row in task["unseen"]:
            values = (row[key] for key in ("unseen_share", "precision_seen", "precision_unseen"))
            lines.append(
                table_row([row["system"], *("–" if value is None else format_mean(value) for value in values)])
            )
    for name, slices in task["slices"].items():
        if len(slices) < 2:
            continue
        systems = list(slices[0]["systems"])
        lines += [
            "",
            f"{main} by {name}:",
            "",
            table_row([name, "queries", *systems]),
            table_row(["---"] * (len(systems) + 2)),
        ]
        for part in slices:
            count = f"{part['num_queries']}{' (too few to tell)' if part['too_small'] else ''}"
            lines.append(table_row([part["label"], count, *(format_mean(part["systems"][s]) for s in systems)]))
    return lines


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
