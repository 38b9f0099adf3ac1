"""The model card, written from the records of the training runs and the report of an evaluation."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from acebert.training.arguments import PLACES, find_places
from acebert.utils.fingerprints import content_sha256
from acebert.utils.markdown import format_interval, format_mean, table_row

TAGS = ["acebert", "e-commerce", "product-search", "retrieval", "multimodal", "image-text"]
HYPERPARAMETERS = (
    "seed", "num_processes", "max_train_steps", "num_train_epochs", "per_device_batch_size",
    "gradient_accumulation_steps", "learning_rate", "query_learning_rate", "image_learning_rate",
    "head_learning_rate", "lr_scheduler_type", "warmup_ratio", "weight_decay", "max_grad_norm", "dropout", "loss",
    "adversarial_strength", "ema_decay", "mine_hard_negatives_every", "mixed_precision",
)  # fmt: skip
MARK = re.compile(
    r"\n<!-- Written by acebert publish \(([0-9a-f]{16})\)\. Edit it freely: an edited card is kept\. -->\n"
)
CITATION = """\
ACE-BERT was proposed in [arXiv 2112.07209](https://arxiv.org/abs/2112.07209) (2021) and extended at APWeb-WAIM 2023.
The code is an independent implementation from the two abstracts, not the authors'; it reproduces none of their numbers.

```bibtex
@misc{zhang2021acebert,
  title = {{ACE-BERT}: Adversarial Cross-modal Enhanced {BERT} for E-commerce Retrieval},
  author = {Zhang, Boxuan and Wei, Chao and Jin, Yan and Zhang, Weiru},
  year = {2021},
  eprint = {2112.07209},
  archivePrefix = {arXiv}
}
@inproceedings{acebert2023,
  title = {{ACE-BERT}: Adversarial Cross-Modal Enhanced {BERT} for E-Commerce Retrieval},
  booktitle = {Web and Big Data (APWeb-WAIM)},
  year = {2023}
}
```
"""


@dataclass(frozen=True)
class Stage:
    """One training run.

    Args:
        settings: its flags, from `training_args.json`.
        seconds: its duration, validation and hard-negative mining included; None if the log doesn't have it.
        steps: number of optimizer steps.
        validation: metrics of the best validation; empty without one.
    """

    settings: Mapping[str, Any]
    seconds: float | None
    steps: int
    validation: Mapping[str, float]


@dataclass(frozen=True)
class Power:
    """The hardware of a training and what its emissions are estimated from.

    Args:
        hardware: description in words.
        watts: average power draw.
        carbon_intensity: grams of CO2 equivalent per kilowatt-hour of the electricity.
    """

    hardware: str | None = None
    watts: float | None = None
    carbon_intensity: float | None = None

    def __post_init__(self) -> None:
        if (self.watts is None) != (self.carbon_intensity is None):
            raise ValueError(
                "Emissions are estimated from both --power_watts and --carbon_intensity: give both or neither."
            )
        for name, value in (("power_watts", self.watts), ("carbon_intensity", self.carbon_intensity)):
            if value is not None and not value > 0:
                raise ValueError(f"--{name} must be positive, got {value}.")

    def emissions(self, seconds: float) -> float | None:
        """Grams of CO2 equivalent: hours x kilowatts x grams per kilowatt-hour."""
        if self.watts is None or self.carbon_intensity is None:
            return None
        return seconds / 3600 * self.watts / 1000 * self.carbon_intensity


def read_stages(folder: Path) -> list[Stage]:
    """The runs that led to a checkpoint, in their order; empty for a folder that training didn't write.

    Folders and files in their settings are absolute paths. An earlier run is found if the later one started from its
    folder and that was not moved.
    """
    stages: list[Stage] = []
    seen: set[Path] = set()
    while (folder / "training_args.json").exists() and folder.resolve() not in seen:
        seen.add(folder.resolve())
        settings = json.loads((folder / "training_args.json").read_text(encoding="utf-8"))
        places = settings.pop("places", None)
        if places is None:  # written by a version that didn't record them
            places = find_places(settings)
        for name in PLACES:
            value = settings.get(name)
            whole = [places.get(each, each) for each in value] if isinstance(value, list) else places.get(value, value)
            settings[name] = whole
        log = folder / "train_log.jsonl"
        entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
        validations = [entry["validation"] for entry in entries if "validation" in entry]
        best: dict[str, Any] = max(validations, key=lambda metrics: metrics["score"], default={})
        seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
        steps = max((entry["step"] for entry in entries), default=0)
        stages.insert(0, Stage(settings, max(seconds, default=None), steps, best))
        before = settings["model_name_or_path"]
        if not before or not _is_local(before):
            break
        folder = Path(before)
    return stages


def is_edited(card: str) -> bool:
    """Whether a card was changed since [`write_card`] wrote it."""
    match = MARK.search(card)
    return match is None or match[1] != _hash(card[: match.start()] + card[match.end() :])


def write_card(
    name: str,
    stages: Sequence[Stage],
    report: Mapping[str, Any] | None,
    *,
    revision: str | None = None,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    license: str = "apache-2.0",
    power: Power = Power(),
    query_encoder: bool = False,
) -> str:
    """The model card as Markdown, with front matter as the Hub reads it.

    Args:
        name: id of the repository.
        stages: training runs, from [`read_stages`].
        report: content of the evaluation's `report.json`.
        revision: commit that the usage snippet pins.
        flags: the defaults of the training flags by stage; the card then has the commands, with the flags that
            differ.
        license: licence of the weights, by its identifier on the Hub.
        power: hardware, and what the emissions are estimated from.
        query_encoder: the repository holds the query encoder alone, too, in its folder `query`.
    """
    title = name.split("/")[-1]
    body = [
        f"# {title}",
        "",
        "Product search that sees the photo as well as it reads the title: one vector stands for a product's title and "
        "photo together, or for either alone; a separate, smaller encoder turns a shopper's words into a vector of the "
        "same space. The architecture is ACE-BERT.",
        *_usage(name, revision),
        *(_query_usage(name, revision) if query_encoder else []),
        *_results(stages, report),
        *_training(stages, flags, power),
        *_limits(stages),
        "",
        "## Citation",
        "",
        CITATION,
    ]
    card = f"---\n{_metadata(title, stages, report, license, power).to_yaml()}\n---\n\n" + "\n".join(body)
    return f"{card}\n<!-- Written by acebert publish ({_hash(card)}). Edit it freely: an edited card is kept. -->\n"


def _hash(text: str) -> str:
    return content_sha256(text)[:16]


# ----------------------------------------------------------------------------------------------------------------------
# Front matter
# ----------------------------------------------------------------------------------------------------------------------


def _metadata(
    title: str, stages: Sequence[Stage], report: Mapping[str, Any] | None, license: str, power: Power
) -> ModelCardData:
    sources = [name for stage in stages for name in stage.settings["dataset_name"]]
    start = stages[0].settings if stages else {}
    base = start.get("backbone") or start.get("model_name_or_path")
    seconds = sum(stage.seconds or 0 for stage in stages)
    emissions = power.emissions(seconds) if seconds else None
    carbon = None
    if emissions is not None:
        carbon = {
            "emissions": round(emissions, 1),
            "source": f"estimate: {seconds / 3600:.2f} h x {power.watts:g} W x {power.carbon_intensity:g} g/kWh",
            "training_type": "fine-tuning",
            **({"hardware_used": power.hardware} if power.hardware else {}),
        }
    return ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=TAGS,
        base_model=base if base and not _is_local(base) else None,
        datasets=list(dict.fromkeys(name for name in sources if not _is_local(name))) or None,
        model_name=title if report else None,
        eval_results=_eval_results(report) if report else None,
        co2_eq_emissions=carbon,
    )


def _eval_results(report: Mapping[str, Any]) -> list[EvalResult]:
    """Every metric of every task, with its interval among the metric's arguments."""
    dataset = report["dataset"]
    return [
        EvalResult(
            task_type="information-retrieval",
            task_name="Product retrieval",
            dataset_type=_shown(_source(report)),
            dataset_name=f"{_shown(_source(report))}, {task['task']}",
            dataset_config=task["task"],  # results that differ in nothing else would be merged
            dataset_split=dataset["split"],
            metric_type=metric,
            metric_name=f"{metric} [{value['low']:.3f}, {value['high']:.3f}]",
            metric_value=round(value["mean"], 4),
            metric_args={
                "confidence_interval": [round(value["low"], 4), round(value["high"], 4)],
                "confidence_level": 0.95,
                "num_queries": task["num_queries"],
            },
        )
        for task in report["tasks"]
        for metric, value in task["systems"][0]["metrics"].items()
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Text
# ----------------------------------------------------------------------------------------------------------------------


def _usage(name: str, revision: str | None) -> list[str]:
    return f'''
## Usage

Loading the model runs the code in this repository on your machine: pin a commit whose code you have read.

```python
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

name, revision = "{name}", "{revision or "<commit>"}"
model = AutoModel.from_pretrained(name, revision=revision, trust_remote_code=True, dtype=torch.float32)
processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=True)

queries = processor(text=["striped red t-shirt"], return_tensors="pt")
products = processor(text=["Cotton t-shirt", None], images=[None, Image.open("photo.jpg")], return_tensors="pt")
with torch.no_grad():
    query_vectors = model.get_text_features(**queries).pooler_output  # unit length
    product_vectors = model.get_product_features(**products).pooler_output
print(query_vectors @ product_vectors.T)
```'''.splitlines()


def _query_usage(name: str, revision: str | None) -> list[str]:
    return f'''
### Queries alone, without remote code

The folder `query` is the query encoder as a plain sentence-transformers model: it runs no code of this repository, so
that engines which serve such models take it as it is. Its vectors are those of `get_text_features`, to be compared with
vectors of products from the model above.

```python
from huggingface_hub import snapshot_download
from sentence_transformers import SentenceTransformer

folder = snapshot_download("{name}", revision="{revision or "<commit>"}", allow_patterns="query/*")
query_vectors = SentenceTransformer(f"{{folder}}/query", trust_remote_code=False).encode(["striped red t-shirt"])
```'''.splitlines()


def _results(stages: Sequence[Stage], report: Mapping[str, Any] | None) -> list[str]:
    lines = ["", "## Results", ""]
    if report:
        dataset = report["dataset"]
        lines += [
            f"On {dataset['num_products']:,} products of {_link(_source(report))} ({dataset['split']}): means over "
            "queries with 95 % bootstrap intervals over queries "
            f"({report['arguments']['bootstrap_resamples']:,} resamples). They don't include the variation "
            "between training seeds.",
            "",
            "| task | queries | metric | this model | best other system | lead |",
            "| --- | --- | --- | --- | --- | --- |",
            *(_result_row(task) for task in report["tasks"]),
            "",
            "All metrics are in this card's front matter. Measured by `acebert evaluate` "
            f"(weights {report['model']['weights_sha256'][:12]}, catalogue {dataset['sha256'][:12]}).",
        ]
    else:
        lines += ["Not measured yet: `acebert evaluate` measures a checkpoint and baselines on the same queries."]
    validation = stages[-1].validation if stages else {}
    if validation:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in validation.items() if name != "score")
        lines += ["", f"On the validation split that selected these weights, and so overestimates them: {shown}."]
    return lines


def _result_row(task: Mapping[str, Any]) -> str:
    metric = task["main_metric"]
    means = {system["system"]: system["metrics"][metric] for system in task["systems"] if system["metrics"]}
    ours = means[task["systems"][0]["system"]]
    cells = [
        task["task"],
        f"{task['num_queries']:,}",
        metric,
        f"**{ours['mean']:.3f}** {format_interval(ours)}",
        "–",
        "–",
    ]
    if task["lead"]:
        rival = max(task["lead"], key=lambda lead: means[lead["system"]]["mean"])
        cells[4] = f"{rival['system']}: {means[rival['system']]['mean']:.3f}"
        cells[5] = format_mean(rival, "+")
    return table_row(cells)


def _training(stages: Sequence[Stage], flags: Mapping[str, Mapping[str, Any]] | None, power: Power) -> list[str]:
    if not stages:
        return ["", "## Training", "", "The folder of this checkpoint has no record of its training."]
    settings = [stage.settings for stage in stages]
    lines = ["", "## Training", "", "### Data", ""]
    for given in settings:
        sources = ", ".join(dict.fromkeys(map(_link, given["dataset_name"])))
        size = f" ({given['train_data']})" if given.get("train_data") else ""
        lines.append(f"- {given['stage']}: the split `{given['train_split']}` of {sources}{size}. {_queries(given)}")
    if flags and all(given["stage"] in flags for given in settings):  # an earlier version may have had other stages
        commands = [_command(given, flags[given["stage"]]) for given in settings]
        lines += ["", "### Commands", "", "```bash", *commands, "```"]
    lines += ["", "### Hyperparameters", ""]
    lines += [table_row(["setting", *(given["stage"] for given in settings)]), table_row(["---"] * (len(settings) + 1))]
    for name in HYPERPARAMETERS:
        values = [given.get(name) for given in settings]
        if any(value is not None for value in values):
            lines.append(table_row([f"`{name}`", *("–" if value is None else str(value) for value in values)]))
    return lines + _time_and_carbon(stages, power)


def _queries(settings: Mapping[str, Any]) -> str:
    if "query_column" not in settings:  # a stage without queries
        return "Titles ask for photos."
    if settings.get("query_log"):
        return f"Queries: those of a log ({settings['query_log_data']})."
    if settings["query_column"]:
        return f"Queries: those of the column `{settings['query_column']}`."
    made = ["titles", *(f"`{template}`" for template in settings["query_templates"])]
    made += [f"the hot queries of `{settings['hot_query_column']}`"] if settings["hot_query_column"] else []
    return f"There was no query log; queries are synthetic: {', '.join(made)}."


def _command(settings: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    parts = ["acebert train"]
    for name, default in flags.items():
        value = settings.get(name)
        if value is None or value == default:
            continue
        values = value if isinstance(value, list) else [value]
        shown = [_shown(str(each)) if name in PLACES else str(each) for each in values]
        parts.append(f"--{name} {shlex.join(shown)}")
    return " \\\n    ".join(parts)


def _time_and_carbon(stages: Sequence[Stage], power: Power) -> list[str]:
    lines = ["", "### Time and emissions", ""]
    for stage in stages:
        took = "a time that its log doesn't have" if stage.seconds is None else f"{stage.seconds / 3600:.2f} h"
        lines.append(f"- {stage.settings['stage']}: {stage.steps:,} steps in {took}, validation and mining included.")
    lines.append(f"- Hardware: {power.hardware or 'not recorded'}.")
    seconds = sum(stage.seconds or 0 for stage in stages)
    emissions = power.emissions(seconds)
    if emissions is None:
        lines.append("- Emissions: not estimated, since the power draw of the hardware isn't known.")
    elif not seconds:
        lines.append("- Emissions: not estimated, since the training time isn't known.")
    else:
        lines.append(
            f"- Emissions: about {emissions:,.0f} g of CO2 equivalent, estimated as {seconds / 3600:.2f} h x "
            f"{power.watts:g} W x {power.carbon_intensity:g} g/kWh. This leaves out the overhead of the data centre, "
            "the production of the hardware, and earlier experiments."
        )
    return lines


def _limits(stages: Sequence[Stage]) -> list[str]:
    lines = ["", "## Limits", ""]
    if stages and not (stages[-1].settings.get("query_column") or stages[-1].settings.get("query_log")):
        lines.append(
            "- It was trained on synthetic queries. Real shoppers word theirs differently: evaluate it on your own "
            "queries before you rely on it."
        )
    lines += [
        "- It is untested on other kinds of products, languages and styles of photos than those of its training data. "
        "It reads the languages of its text backbone and of that data alone: for a shop in another one train with a "
        "multilingual BERT as `--backbone`.",
        "- It reproduces the biases of its training data: check which products are found, and which never are.",
        "- Titles and queries that are longer than the processor's limits are truncated, with a warning.",
        "- Scores are cosine similarities, to rank products by. They are not probabilities, and not comparable between "
        "models.",
    ]
    return lines


def _is_local(source: str) -> bool:
    """Whether a name, as [`read_stages`] returns it, can't be a Hub id."""
    path = Path(source)
    return path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2


def _source(report: Mapping[str, Any]) -> str:
    """The dataset of a report: an absolute path, or a Hub id."""
    name = report["dataset"]["name"]
    local = report["dataset"].get("local")
    if local is None:  # written by a version that didn't record it
        local = Path(name).exists()
    return str(Path(name).resolve()) if local else name


def _shown(source: str) -> str:
    return (Path(source).name or "model") if _is_local(source) else source


def _link(source: str) -> str:
    if _is_local(source):
        return f"a private catalogue (`{_shown(source)}`)"
    return f"[{source}](https://huggingface.co/datasets/{source})"
