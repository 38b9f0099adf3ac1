"""The report of an ablation campaign: what each arm differs in from the base, over seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from acebert.utils.markdown import format_mean, table
from acebert.utils.plotting import BLUE, STYLE

METRICS = {
    "title_to_image_recall@10": "Validation: titles find photos. Higher is better.",
    "query_to_product_recall@10": "Validation: queries from templates find products. Higher is better.",
    "modality_gap": "Validation: distance between the mean query vector and the mean product vector, 0 to 2.",
    "domain_accuracy": "Last logged training steps: the domain classifier's; 0.5 is the adversary's aim.",
    "matching_loss": "Last logged training steps. Not comparable with arms whose batches are easier or harder.",
}


def t_interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its 95 % interval by Student's t with n - 1 degrees of freedom; a single value has no interval."""
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return {"mean": mean, "low": None, "high": None}
    half = float(student_t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def compare_arms(arms: Mapping[str, Mapping[str, Any]], base: str) -> dict[str, dict[str, Any]]:
    """Means over seeds, and differences to the base of the same seed.

    Args:
        arms: by name, in the order of the tables: a `description`, and finished `trials`, each with its `seed`,
            `products`, `seconds` and `metrics`.
        base: the arm that the others are compared with.

    Returns:
        The arms, each with `means` and `differences` by metric, as in [`t_interval`].
    """
    compared: dict[str, dict[str, Any]] = {name: {**arm, "means": {}, "differences": {}} for name, arm in arms.items()}
    for metric in METRICS:
        of_base = _by_seed(arms[base], metric)
        for name, arm in compared.items():
            values = _by_seed(arm, metric)
            paired = {seed: value - of_base[seed] for seed, value in values.items() if seed in of_base}
            if values:
                arm["means"][metric] = t_interval(list(values.values()))
            if paired and name != base:
                by_seed = {str(seed): value for seed, value in paired.items()}  # as JSON has it
                arm["differences"][metric] = {**t_interval(list(paired.values())), "by_seed": by_seed}
    return compared


def _by_seed(arm: Mapping[str, Any], metric: str) -> dict[int, float]:
    return {trial["seed"]: trial["metrics"][metric] for trial in arm["trials"] if metric in trial["metrics"]}


def to_words(difference: Mapping[str, Any]) -> str:
    """What a difference's interval lets one say."""
    if difference["low"] is None:
        return "one seed, no interval"
    if difference["low"] > 0:
        return "higher"
    return "lower" if difference["high"] < 0 else "no difference shown"


def campaign_markdown(arms: Mapping[str, Any], base: str) -> str:
    """What [`compare_arms`] returned, as tables."""
    rows = []
    for name, arm in arms.items():
        trials = arm["trials"]
        cells = [name, arm["description"], str(len(trials))]
        if trials:
            minutes = statistics.fmean(trial["seconds"] for trial in trials) / 60
            cells += [f"{trials[0]['products']:,}", f"{minutes:.1f}"]
        else:
            cells += ["", ""]
        rows.append(cells)
    lines = [
        "# Ablations",
        "",
        *table(["arm", "what it is", "seeds", "products seen", "wall time, min"], rows),
        "",
        "Products are those that one process sees. Both columns count a pre-training with every arm that uses it.",
    ]
    for metric, meaning in METRICS.items():
        rows = []
        for name, arm in arms.items():
            if metric in arm["means"]:
                difference = arm["differences"].get(metric)
                compared = [format_mean(difference, "+"), to_words(difference)] if difference else ["", ""]
                rows.append([name, format_mean(arm["means"][metric]), *compared, str(len(_by_seed(arm, metric)))])
        if rows:
            header = ["arm", "mean", f"difference to {base}", "", "seeds"]
            lines += ["", f"## {metric}", "", meaning, "", *table(header, rows)]
    compared = sum(d["low"] is not None for arm in arms.values() for d in arm["differences"].values())
    lines += [
        "",
        "In brackets are 95 % t-intervals over seeds; differences are paired, each seed with the base of the same "
        "seed. Few seeds make wide intervals (with 3, the half width is 2.5 standard deviations): *no difference "
        "shown* means that these runs can't tell the arm from the base, not that the two are equal. The intervals are "
        "about other seeds, not about other catalogues or longer training. Where there is no difference at all, one "
        f"interval in twenty leaves out 0 by chance, and this report has {compared}.",
        "",
    ]
    return "\n".join(lines)


def plot_differences(arms: Mapping[str, Any], base: str, path: Path) -> None:
    """Differences to the base with their intervals, a panel for each metric; a dot is one seed."""
    metrics = [metric for metric in METRICS if any(metric in arm["differences"] for arm in arms.values())]
    names = [name for name, arm in arms.items() if arm["differences"]]
    with rc_context(STYLE):
        figure = Figure(figsize=(1.5 + 3 * len(metrics), 1.4 + 0.38 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for ax, metric in zip(panels, metrics, strict=True):
            for place, name in enumerate(names):
                difference = arms[name]["differences"].get(metric)
                if difference is None:
                    continue
                colour = BLUE if to_words(difference) in ("higher", "lower") else "0.6"
                if difference["low"] is not None:
                    ax.plot([difference["low"], difference["high"]], [place, place], color=colour, lw=2)
                ax.plot(difference["mean"], place, "o", color=colour)
                seeds = list(difference["by_seed"].values())
                ax.plot(seeds, [place + 0.25] * len(seeds), ".", color="0.6", ms=3)
            ax.axvline(0, color="black", lw=1)
            ax.set_title(metric, fontsize=10)
            ax.grid(axis="x", color="#DDDDDD")
            ax.locator_params(axis="x", nbins=5)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        figure.supxlabel(f"difference to {base}, 95 % t-interval over seeds; blue where it leaves out 0", fontsize=10)
        figure.savefig(path, dpi=150, facecolor="white")
