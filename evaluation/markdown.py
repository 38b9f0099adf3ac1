"""The report of an evaluation as Markdown."""

from typing import Any

from acebert.evaluation.baselines import TextEncoderBaseline
from acebert.evaluation.rankers import FUSED_BASELINES, MODEL
from acebert.utils.bm25 import Bm25Baseline
from acebert.utils.markdown import format_mean, table, table_row

# What natural queries are compared on, side by side.
HEADLINE = (MODEL, Bm25Baseline.name, TextEncoderBaseline.name, FUSED_BASELINES)


def to_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown: natural queries first, then what is kept of the backbone, then synthetic queries, notes.

    Args:
        report: as in `report.json`.
    """
    model, dataset, arguments = report["model"], report["dataset"], report["arguments"]
    lines = [
        f"# Evaluation of {model['name']}",
        "",
        f"{dataset['num_products']:,} products of `{dataset['name']}` ({dataset['split']}). Means over queries with "
        f"95 % bootstrap intervals ({arguments['bootstrap_resamples']:,} resamples of the queries). A lead is "
        f"{MODEL}'s mean minus the other system's, over the same queries; its p is that of a two-sided paired "
        f"randomisation test ({arguments['permutations']:,} sign flips), Holm-corrected for the systems of the task.",
    ]
    natural = [task for task in report["tasks"] if task["kind"] == "natural"]
    lines += ["", "## Natural queries", ""]
    if natural:
        lines += _headline(natural)
    else:
        lines.append(
            "None were measured, so nothing here says how well shoppers' own queries are answered: give --queries_file."
        )
    for task in natural:
        lines += _task_lines(task)
    lines += _knowledge_lines(report)
    synthetic = [task for task in report["tasks"] if task["kind"] == "synthetic"]
    if synthetic:
        header = ["task", "metric", MODEL, "best other system", "lead", "p"]
        lines += [
            "",
            "## Synthetic queries",
            "",
            "Made from the catalogue's own titles, attributes and photos. They compare systems on what the templates "
            "of training can say; they don't tell how well shoppers' own words are understood.",
            "",
            *table(header, map(_summary_row, synthetic)),
        ]
    for task in synthetic:
        lines += _task_lines(task)
    return "\n".join(lines + _notes(report)) + "\n"


def _headline(tasks: list[dict[str, Any]]) -> list[str]:
    """nDCG@10 on natural queries, beside what people use instead."""
    measured = {system["system"] for task in tasks for system in task["systems"] if system["metrics"]}
    systems = [name for name in HEADLINE if name in measured]
    rows = []
    for task in tasks:
        found = {system["system"]: system["metrics"] for system in task["systems"]}
        sizes = [f"{task['num_queries']:,}", f"{task['num_candidates']:,}"]
        scores = [format_mean(found[name]["ndcg@10"]) if found.get(name) else "–" for name in systems]
        rows.append([task["task"], *sizes, *scores, *_lead_cells(task)])
    header = ["nDCG@10", "queries", "products", *systems, "best other system", "lead", "p"]
    return table(header, rows)


def _knowledge_lines(report: dict[str, Any]) -> list[str]:
    """How much is kept of what the text backbone knows, and the tasks that tell it."""
    tasks = [task for task in report["tasks"] if task["kind"] in ("title phrases", "text benchmark")]
    if not tasks:
        return []
    knowledge = report["knowledge"]
    lines = ["", "## Knowledge kept", ""]
    if knowledge["tasks"]:
        lines += [
            f"nDCG@10 on titles alone, and the share of it that {MODEL} keeps of what `{knowledge['backbone']}`, "
            "untrained, has. Below 1, training has made it forget words.",
            "",
        ]
        header = ["nDCG@10", "queries", "titles", MODEL, TextEncoderBaseline.name, "kept"]
        rows = (
            [
                kept["task"], f"{kept['num_queries']:,}", f"{kept['num_candidates']:,}",
                *(format_mean(kept[name]) for name in ("model", "backbone", "kept")),
            ]
            for kept in knowledge["tasks"]
        )  # fmt: skip
        lines += table(header, rows)
    else:
        lines.append("Without --text_baselines there is no backbone to compare with.")
    return lines + [line for task in tasks for line in _task_lines(task)]


def _notes(report: dict[str, Any]) -> list[str]:
    model, dataset = report["model"], report["dataset"]
    systems = [system for task in report["tasks"] for system in task["systems"] if system["metrics"]]
    return [
        "",
        "## Notes",
        "",
        *dict.fromkeys(f"- {system['system']}: {system['note']}." for system in systems),
        *(f"- {note}" for note in report["notes"]),
        *(
            f"- Modality gap of {gap['checkpoint']}: {gap['gap']:.3f} between the means of {gap['num_queries']:,} "
            f"query and {gap['num_products']:,} product vectors (0 to 2; Liang et al. 2022, arXiv 2203.02053)."
            for gap in report["modality_gaps"]
        ),
        f"- Model: revision {model['revision'] or 'none (local folder)'}, {model['num_parameters']:,} parameters, "
        f"weights sha256 `{model['weights_sha256'][:12]}`.",
        f"- Catalogue: sha256 of ids and titles `{dataset['sha256'][:12]}`.",
        "- Seconds: " + ", ".join(f"{step} {seconds:g}" for step, seconds in report["seconds"].items()) + ".",
        "- Versions: " + ", ".join(f"{package} {number}" for package, number in report["versions"].items()) + ".",
    ]


def _summary_row(task: dict[str, Any]) -> list[str]:
    metric = task["main_metric"]
    means = {s["system"]: s["metrics"][metric] for s in task["systems"] if s["metrics"]}
    return [task["task"], metric, format_mean(means[MODEL]), *_lead_cells(task)]


def _lead_cells(task: dict[str, Any]) -> list[str]:
    """The best other system, the model's lead over it, and its p."""
    if not task["lead"]:
        return ["–", "–", "–"]
    means = {s["system"]: s["metrics"][task["main_metric"]]["mean"] for s in task["systems"] if s["metrics"]}
    rival = max(task["lead"], key=lambda lead: means[lead["system"]])
    return [f"{rival['system']}: {means[rival['system']]:.3f}", format_mean(rival, "+"), _p(rival["p_holm"])]


def _task_lines(task: dict[str, Any]) -> list[str]:
    metrics, main = list(task["systems"][0]["metrics"]), task["main_metric"]
    lines = ["", f"### {task['task']}", "", task["description"]]
    lines.append(f"{task['num_queries']:,} queries, {task['num_candidates']:,} products ranked.")
    if task["num_dropped_ids"]:
        lines.append(f"Left out: {task['num_dropped_ids']:,} judged products that the catalogue lacks.")
    if task["num_dropped_queries"]:
        lines.append(f"Left out: {task['num_dropped_queries']:,} queries that no product ranked is relevant to.")
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
            *table(
                ["system", "plain minus synonyms", "p"],
                ([c["system"], format_mean(c, "+"), _p(c["p_holm"])] for c in task["synonym_cost"]["systems"]),
            ),
        ]
    if task["unseen"]:
        share = task["unseen"][0]["unseen_share_ranked"]
        lines += [
            "",
            f"Of the ranked products, {100 * share:.1f} % were not trained on. In the first ten:",
            "",
            *table(
                ["system", "share not trained on", "precision of those trained on", "precision of those not"],
                map(_unseen_row, task["unseen"]),
            ),
        ]
    for name, slices in task["slices"].items():
        if len(slices) < 2:
            continue
        systems = list(slices[0]["systems"])
        rows = []
        for part in slices:
            count = f"{part['num_queries']}{' (too few to tell)' if part['too_small'] else ''}"
            rows.append([part["label"], count, *(format_mean(part["systems"][s]) for s in systems)])
        lines += ["", f"{main} by {name}:", "", *table([name, "queries", *systems], rows)]
    return lines


def _unseen_row(row: dict[str, Any]) -> list[str]:
    values = (row[key] for key in ("unseen_share", "precision_seen", "precision_unseen"))
    return [row["system"], *("–" if value is None else format_mean(value) for value in values)]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
