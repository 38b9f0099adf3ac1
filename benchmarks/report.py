"""A run's rows as a table in Markdown, as JSON and as a plot."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import psutil
import torch
from timing import OURS, Row, Spread
from workload import Workload

from acebert.utils.hardware import has_bfloat16
from acebert.utils.markdown import table
from acebert.utils.plotting import BLACK, BLUE, STYLE

START, END = "<!-- benchmark: start -->", "<!-- benchmark: end -->"
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "accelerate",
    "pillow",
    "numpy",
    "onnxruntime",
)
TIMES = ("ms",)  # units of which less is better


def describe_machine(workload: Workload) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "processor": find_processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if workload.device.type == "cuda" else None,
        "bfloat16": has_bfloat16(),
        "models_compute_in": str(workload.dtype).removeprefix("torch."),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in PACKAGES if (found := find_version(name))},
    }


def find_processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show(spread: Spread, form: Any = number) -> str:
    if spread.low == spread.high:
        return form(spread.median)
    return f"{form(spread.median)} ({form(spread.low)} to {form(spread.high)})"


def results_markdown(machine: Mapping[str, Any], groups: Mapping[str, Sequence[Row]]) -> str:
    """The machine, a table for each group of rows, and what must be known of them."""
    gpu = machine["gpu"] or "no GPU, so the rows of one were not run"
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    arithmetic = "multiplies in bfloat16" if machine["bfloat16"] else "only emulates bfloat16"
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gib']} GiB; "
        f"{gpu}. It {arithmetic}; models compute in {machine['models_compute_in']}. {machine['system']}; {versions}. "
        f"The system's load before the run was {machine['load_before']}.",
        "",
    ]
    for title, rows in groups.items():
        lines += [f"### {title}", ""]
        measured = [row for row in rows if row.skipped is None]
        cells = []
        for row in measured:
            for position, (name, spread) in enumerate(row.figures.items()):
                ratio = show(row.ratios[name]) if name in row.ratios else ""
                share = show(row.shares[name], "{:.0%}".format) if name in row.shares else ""
                work = row.name if position == 0 else ""
                cells.append([work, name, f"{show(spread)} {row.unit}", ratio, share])
        if measured:
            header = ["work", "by", "figure", f"{OURS} / other", "share of the matrix products' rate"]
            lines += table(header, cells)
        notes = [note for row in rows for note in row.notes]
        notes += [f"{row.name} was not run: {row.skipped}" for row in rows if row.skipped is not None]
        lines += ["", *(f"- {note}" for note in notes), ""] if notes else [""]
    return "\n".join(lines)


def plot_ratios(groups: Mapping[str, Sequence[Row]]) -> plt.Figure:
    """How much better this project does than each other contender; the bars span all rounds."""
    ratios = []
    for row in (row for rows in groups.values() for row in rows):
        for name, spread in row.ratios.items():
            values = (spread.low, spread.median, spread.high)
            if row.unit in TIMES:  # a time: less is better
                values = tuple(1 / value for value in reversed(values))
            ratios.append((f"{row.name}: {name}", *values))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 1.2 + 0.32 * len(ratios)), layout="constrained")
        for place, (_, low, median, high) in enumerate(ratios):
            axes.plot((low, high), (place, place), color=BLUE, linewidth=2)
            axes.plot(median, place, "o", color=BLUE)
        axes.axvline(1, color=BLACK, linewidth=1)
        axes.set(xscale="log", xlabel=f"times as fast: {OURS} against the other\n(median, lowest to highest round)")
        axes.set_yticks(range(len(ratios)), [name for name, *_ in ratios])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(axis="x", color="0.9")
        axes.invert_yaxis()
    return figure


def write(folder: Path, machine: dict[str, Any], groups: Mapping[str, Sequence[Row]]) -> str:
    """Writes `performance.json` and `performance.png`; returns the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "groups": {title: [row.to_dict() for row in rows] for title, rows in groups.items()}}
    (folder / "performance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    figure = plot_ratios(groups)
    figure.savefig(folder / "performance.png", dpi=150, facecolor="white")
    plt.close(figure)
    return results_markdown(machine, groups)


def replace_tables(page: Path, tables: str) -> None:
    """Puts a run's tables between a page's markers.

    Raises:
        ValueError: where the page lacks them.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} must hold the lines {START} and {END}, once each: put them where the tables belong.")
    before, rest = text.split(START)
    page.write_text(f"{before}{START}\n\n{tables}\n{END}{rest.split(END)[1]}", encoding="utf-8")
