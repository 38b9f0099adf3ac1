"""The learning-rate range test (Smith 2017, arXiv 1506.01186)."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm


def run_range_test(
    batches: Iterable[dict[str, Any]],
    step: Callable[[dict[str, Any]], float],
    optimizer: torch.optim.Optimizer,
    num_steps: int,
    output_dir: str,
    accelerator: Accelerator,
    lowest: float = 0.01,
    highest: float = 30.0,
) -> float:
    """A learning-rate range test (Smith 2017, arXiv 1506.01186, section 3.3), with a plot and a suggestion.

    All rates of the optimizer are multiplied by a factor that grows from step to step. What is suggested is the factor
    at which the smoothed loss falls fastest. The test ends early once the loss has grown half as large again as its
    least. The model is of no further use.

    Args:
        batches: endless, or at least `num_steps` of them.
        step: one optimizer step; returns the loss before it.
        optimizer: its groups' "lr" are the rates to multiply.
        num_steps: at most.
        output_dir: gets `learning_rate.json` and `learning_rate.png`.
        accelerator: tells which process writes.
        lowest, highest: the first and the last factor.

    Returns:
        The suggested factor.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    factors = np.geomspace(lowest, highest, num_steps)
    losses: list[float] = []
    smoothed: list[float] = []
    average, weight = 0.0, 0.0
    progress = tqdm(
        zip(factors, batches, strict=False), total=num_steps, unit="step", disable=not accelerator.is_main_process
    )
    for factor, batch in progress:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        losses.append(step(batch))
        average, weight = 0.9 * average + 0.1 * losses[-1], 0.9 * weight + 0.1
        smoothed.append(average / weight)
        progress.set_postfix(factor=f"{factor:.3g}", loss=f"{smoothed[-1]:.3g}")
        if not math.isfinite(losses[-1]) or smoothed[-1] > 1.5 * min(smoothed):
            break
    if np.isfinite(smoothed).sum() < 2:
        raise SystemExit(f"The loss is {losses[-1]} at {factor:.2g} times the rates given already: lower them.")
    tried = factors[: len(smoothed)]
    slopes = np.gradient(np.array(smoothed), np.log(tried))
    best = float(tried[int(np.nanargmin(slopes))])
    if accelerator.is_main_process:
        _write_learning_rates(Path(output_dir), rates, tried, losses, smoothed, best)
    return best


def _write_learning_rates(
    folder: Path, rates: list[float], factors: np.ndarray, losses: list[float], smoothed: list[float], best: float
) -> None:
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "rates": rates,
        "factor": factors.tolist(),
        "loss": losses,
        "smoothed_loss": smoothed,
        "suggested_factor": best,
        "suggested_rates": [rate * best for rate in rates],
    }
    (folder / "learning_rate.json").write_text(json.dumps(report, indent=2))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(factors, losses, color="0.8", label="loss")
    axes.semilogx(factors, smoothed, color="tab:blue", label="smoothed")
    axes.axvline(best, color="tab:orange", linestyle="--", label=f"falls fastest: {best:.2g}")
    axes.set(xlabel="factor of the learning rates given", ylabel="loss", title="Learning-rate range test")
    axes.legend(frameon=False)
    figure.savefig(folder / "learning_rate.png", dpi=150)
