"""Numbers as pictures: an evaluation's systems, slices, widths and modality gap, and the course of a training run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from acebert.evaluation.rankers import MODEL
from acebert.evaluation.report import SMALLEST_SLICE
from acebert.evaluation.tasks import UNSEEN
from acebert.utils.plotting import BLACK, BLUE, GREEN, LINES, MARKERS, ORANGE, PLATE, SKY, STYLE


def save_plots(report: dict[str, Any], vectors: Sequence[tuple[str, torch.Tensor, torch.Tensor]], folder: Path) -> None:
    """Draws all that the report holds.

    Args:
        report: as in `report.json`.
        vectors: checkpoints' names with query vectors (queries, width) and product vectors (products, width).
        folder: is made if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for task in report["tasks"]:
            name = "-".join("".join(c if c.isalnum() else " " for c in task["task"]).split()).lower()
            _save(plot_systems(task), folder / f"systems-{name}.png")
            if any(_shown_slices(task).values()):
                _save(plot_slices(task), folder / f"slices-{name}.png")
        if any(len(task["widths"]) > 1 for task in report["tasks"]):
            _save(plot_widths(report["tasks"]), folder / "widths.png")
        if vectors:
            gaps = [gap["gap"] for gap in report["modality_gaps"]]
            _save(plot_modality_gap(vectors, gaps), folder / "modality-gap.png")


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=150, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def _errors(values: Sequence[dict[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Means (n,), and how far the intervals reach below and above them (2, n), not negative, as Matplotlib asks."""
    means, low, high = (np.array([value[key] for value in values]) for key in ("mean", "low", "high"))
    return means, np.maximum(0, [means - low, high - means])


def _bars(ax: Axes, labels: Sequence[str], values: Sequence[dict[str, float]], colours: Sequence[str]) -> None:
    """Horizontal bars with intervals, the first on top, each with its number."""
    places = np.arange(len(values))
    means, errors = _errors(values)
    ax.barh(places, means, color=colours, xerr=errors, error_kw={"ecolor": BLACK, "capsize": 3, "lw": 1}, height=0.7)
    for place, mean, value in zip(places.tolist(), means, values, strict=True):
        ax.text(max(mean, value["high"]) + 0.012, place, f"{mean:.3f}", va="center", fontsize=9, bbox=PLATE)
    ax.set_yticks(places, labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.1)
    ax.set_xticks(np.arange(0, 1.01, 0.2))
    ax.grid(axis="x", color="#DDDDDD")
    ax.tick_params(axis="y", length=0)


def plot_systems(task: dict[str, Any]) -> plt.Figure:
    """The main metric of all systems that apply: ACE-BERT, what is made of it alone, and the others."""
    metric = task["main_metric"]
    systems = [system for system in task["systems"] if system["metrics"]]
    figure, ax = plt.subplots(figsize=(8, 0.9 + 0.38 * len(systems)))
    names = [system["system"] for system in systems]
    colours = [BLUE if name == MODEL else SKY if MODEL in name and "BM25" not in name else ORANGE for name in names]
    _bars(ax, names, [system["metrics"][metric] for system in systems], colours)
    if task["ceiling"][metric] < 1:
        ax.axvline(task["ceiling"][metric], color=BLACK, ls="--", lw=1)
        ax.text(task["ceiling"][metric], 1.01, "ceiling", ha="center", fontsize=9, transform=ax.get_xaxis_transform())
    ax.set_xlabel(f"{metric}, mean of {task['num_queries']:,} queries, 95 % interval")
    ax.set_title(task["task"], loc="left", pad=16)
    return figure


def _shown_slices(task: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Slicings with two or more slices that are large enough; the report's tables have the small ones too."""
    large = {name: [part for part in parts if not part["too_small"]] for name, parts in task["slices"].items()}
    return {name: parts for name, parts in large.items() if len(parts) > 1}


def plot_slices(task: dict[str, Any]) -> plt.Figure:
    """ACE-BERT and up to three rivals on each slice that is large enough."""
    slicings = _shown_slices(task)
    heights = [len(parts) for parts in slicings.values()]
    figure, axes = plt.subplots(
        len(slicings), 1, figsize=(8, 1 + 0.75 * sum(heights) + 0.5 * len(heights)), squeeze=False,
        gridspec_kw={"height_ratios": heights, "hspace": 0.9 / np.mean(heights)},
    )  # fmt: skip
    for ax, (name, parts) in zip(axes[:, 0], slicings.items(), strict=True):
        others = [system for system in parts[0]["systems"] if system != MODEL]
        whole = {s["system"]: s["metrics"][task["main_metric"]]["mean"] for s in task["systems"] if s["metrics"]}
        systems = [MODEL, *sorted(others, key=whole.__getitem__, reverse=True)[:3]]
        for number, system in enumerate(systems):
            means, errors = _errors([part["systems"][system] for part in parts])
            places = np.arange(len(parts)) + 0.16 * (number - (len(systems) - 1) / 2)
            marker = MARKERS[number]
            ax.errorbar(means, places, xerr=errors, fmt=marker, color=LINES[number], capsize=2, ms=5, label=system)
        ax.set_yticks(range(len(parts)), [f"{part['label']} ({part['num_queries']})" for part in parts])
        ax.set_ylim(len(parts) - 0.5, -0.5)
        ax.set_xlim(0, 1.02)
        ax.grid(axis="x", color="#DDDDDD")
        ax.set_title(f"by {name} (queries)", loc="left", fontsize=10)
    axes[-1, 0].set_xlabel(f"{task['main_metric']}, 95 % interval; slices under {SMALLEST_SLICE} queries left out")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.suptitle(task["task"], x=0.125, ha="left", y=0.995)
    axes[-1, 0].legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0, -0.55 / heights[-1]), ncols=2, frameon=False
    )
    return figure


def plot_widths(tasks: Sequence[dict[str, Any]]) -> plt.Figure:
    """The main metric by width of the vectors, a line for each task; a panel for all products, one for unseen ones."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        panels.setdefault("products not trained on" if task["task"].endswith(UNSEEN) else "all products", []).append(
            task
        )
    names = list(dict.fromkeys(task["task"].removesuffix(UNSEEN) for task in tasks))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 4.5), squeeze=False, sharey=True)
    ticks = sorted({part["width"] for task in tasks for part in task["widths"]})
    for ax, (title, shown) in zip(axes[0], panels.items(), strict=True):
        for task in shown:
            name, parts = task["task"].removesuffix(UNSEEN), task["widths"]
            number = names.index(name)
            # Side by side, so that intervals don't cover each other.
            places = [part["width"] * 1.03 ** (number - len(names) / 2) for part in parts]
            colour, marker = LINES[number % len(LINES)], MARKERS[number % len(MARKERS)]
            label = f"{name} ({task['main_metric']})"
            means, errors = _errors(parts)
            ax.errorbar(places, means, yerr=errors, marker=marker, color=colour, capsize=2, ms=5, lw=1.2, label=label)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_ylim(0, 1.02)
        ax.grid(axis="y", color="#DDDDDD")
        ax.set_xlabel("width of the vectors")
        ax.set_title(title, loc="left", fontsize=10)
    axes[0, 0].set_ylabel("mean over queries, 95 % interval")
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False)
    return figure


def plot_modality_gap(vectors: Sequence[tuple[str, torch.Tensor, torch.Tensor]], gaps: Sequence[float]) -> plt.Figure:
    """Queries and products on the two directions in which they differ most (PCA), for each checkpoint.

    The directions are of both sides' vectors together, each side weighing the same. Axes are equally long in every
    panel, so that distances compare; a distance in the picture is never larger than the true one.
    """
    figure, axes = plt.subplots(1, len(vectors), figsize=(5 * len(vectors), 5), squeeze=False, sharex=True, sharey=True)
    for ax, (name, queries, products), gap in zip(axes[0], vectors, gaps, strict=True):
        centre = (queries.mean(0) + products.mean(0)) / 2
        sides = [(part - centre) for part in (queries, products)]
        weighted = torch.cat([part / len(part) ** 0.5 for part in sides])
        directions = torch.linalg.svd(weighted, full_matrices=False).Vh[:2]
        points = [part @ directions.T for part in (sides[1], sides[0])]
        for (x, y), colour, marker, label in zip(
            (p.T for p in points), (ORANGE, BLUE), "o^", ("products", "queries"), strict=True
        ):
            ax.scatter(x, y, s=9, color=colour, marker=marker, alpha=0.45, lw=0, label=f"{len(x):,} {label}")
        means = torch.stack([p.mean(0) for p in points])
        ax.plot(*means.T, color=BLACK, lw=1.5, marker="+", ms=9, label="their means")
        ax.set_title(f"{name}\nmodality gap {gap:.3f}", fontsize=10)
        ax.set_aspect("equal")
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, markerscale=2, fontsize=9)
    return figure


def plot_training(log: Sequence[dict[str, Any]]) -> plt.Figure:
    """Recall on the validation split and the two sides' distance over the hours of a fine-tuning run.

    Args:
        log: entries of `train_log.jsonl`.
    """
    checks = [{**entry["validation"], "hours": entry["seconds"] / 3600} for entry in log if "validation" in entry]
    steps = [{**entry, "hours": entry["seconds"] / 3600} for entry in log if "modality_gap" in entry]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for part, colour, marker, label in (
        ("title_to_image_recall@10", BLUE, "o", "title to photo"),
        ("query_to_product_recall@10", ORANGE, "s", "query to product"),
    ):
        shown = [(check["hours"], check[part]) for check in checks if part in check]
        if shown:
            left.plot(*zip(*shown, strict=True), color=colour, marker=marker, label=label)
    left.set(ylim=(0, 1), xlabel="hours of training", title="recall@10 among validation products")
    against = [step for step in steps if "domain_accuracy" in step]  # empty without an adversary
    for shown, part, colour, label in (
        (against, "domain_accuracy", GREEN, "accuracy of the domain classifier"),
        (steps, "modality_gap", BLACK, "modality gap"),
    ):
        if shown:
            right.plot([step["hours"] for step in shown], [step[part] for step in shown], color=colour, label=label)
    if against:
        right.axhline(0.5, color="#999999", lw=0.8, ls=":")
    right.set(ylim=(0, 1.05), xlabel="hours of training", title="the two sides, on training batches")
    for ax in (left, right):
        ax.grid(axis="y", color="#DDDDDD")
        ax.legend(frameon=False)
    return figure


def save_training_plot(log: Path, output: Path) -> None:
    """Draws the course of a run of fine-tuning into a PNG from its `train_log.jsonl`."""
    with plt.rc_context(STYLE):
        _save(plot_training([json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]), output)
