"""Measures a checkpoint on product retrieval, next to what people use instead, on the same queries.

All tasks on the catalogue that the published model was trained on, with the products that it wasn't trained on also
ranked alone:

    accelerate launch evaluate_accelerate.py \
        --model_name_or_path . \
        --dataset_name ashraq/fashion-product-images-small --split train+validation \
        --train_split train --unseen_split validation \
        --queries_file text-to-image.json --reference kagl \
        --shopper_queries --hidden_words --photo_queries

A catalogue of your own, with judged queries in the form {query: {product id: grade}}:

    accelerate launch evaluate_accelerate.py \
        --model_name_or_path path/to/checkpoint \
        --dataset_name path/to/catalog --title_column title --id_column sku \
        --product_queries_file queries.json --no_attribute_queries

The same lines run on a CPU, a GPU or several processes. The model is loaded as any user of the Hub loads it. Product
vectors are kept under the output folder, so a second run, or one that goes on after Ctrl-C, encodes only what is new.
The report is printed as Markdown tables and saved as `report.md` and `report.json`, with pictures in `plots` and the
scores of every query in `queries.jsonl`.
"""

import json
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import HfArgumentParser
from transformers.utils.hub import cached_file, extract_commit_hash

from acebert.data.cleaning import find_good_rows
from acebert.data.columns import Columns
from acebert.data.corpus import Corpus
from acebert.data.pairs import ProductPairs
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import load_products
from acebert.encoding.corpus_encoder import CorpusEncoder, collate_products
from acebert.evaluation.baselines import TextAdapters, TextEncoder
from acebert.evaluation.rankers import (
    Baselines,
    Vectors,
    choose_photo_weight,
    dot_products,
    make_systems,
    measure,
    score_rankings,
)
from acebert.evaluation.report import Statistics, SystemResult, TaskResult, task_report, to_markdown
from acebert.evaluation.tasks import (
    TITLE_AND_PHOTO,
    UNSEEN,
    Synonyms,
    Task,
    attribute_task,
    hidden_words_task,
    hide_attributes,
    image_task,
    judged_task,
    make_shopper_queries,
    read_queries,
    read_query_config,
    shopper_tasks,
)
from acebert.evaluation.training_texts import TrainingTexts
from acebert.losses_acebert import modality_gap
from acebert.utils.fingerprints import weights_sha256

SYNONYMS = Path(__file__).parent / "configs" / "synonyms.json"
TUNING_PRODUCTS, TUNING_QUERIES = 2000, 500  # of the training split, to choose the weight of late fusion
GAP_VECTORS = 2000  # products, for the modality gap and its picture


@dataclass
class EvaluationArguments:
    """What to measure, on which data. Set the number of processes and devices by `accelerate launch`."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    dataset_name: str = field(metadata={"help": "Catalogue to rank: Hub id, folder, CSV, TSV, JSON or Parquet file."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model on the Hub."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    split: str = field(default="train+validation", metadata={"help": "Splits to rank, joined by '+'."})
    unseen_split: str | None = field(
        default=None,
        metadata={"help": "That one of --split which the model wasn't trained on; it is also ranked alone."},
    )
    id_column: str = field(default="id", metadata={"help": "Column of the product id."})
    title_column: str = field(default="productDisplayName", metadata={"help": "Column of the title."})
    image_column: str = field(default="image", metadata={"help": "Column of the photo."})

    queries_file: str | None = field(
        default=None,
        metadata={"help": "JSON {title: {product id: grade}}: text-to-image, each title against every photo alone."},
    )
    product_queries_file: str | None = field(
        default=None,
        metadata={"help": "JSON {query: {product id: grade}}: each against title and photo together."},
    )
    product_queries_config: str | None = field(
        default=None,
        metadata={"help": "Likewise, from this configuration of the dataset: 'queries' in the sample catalogue."},
    )
    query_text_column: str = field(default="query", metadata={"help": "Its column of the query's text."})
    relevant_ids_column: str = field(
        default="relevant_ids", metadata={"help": "Its column of the list of relevant products' ids."}
    )
    drop_missing_relevant: bool = field(
        default=False, metadata={"help": "Drop relevant ids that the catalogue lacks, and queries left with none."}
    )
    attribute_queries: bool = field(
        default=True,
        metadata={"help": "Take each value of the attribute columns as a query for its products."},
    )
    attribute_columns: list[str] = field(
        default_factory=lambda: ["subCategory", "articleType"], metadata={"help": "Columns for the attribute queries."}
    )
    shopper_queries: bool = field(
        default=False,
        metadata={"help": "Ask for several attributes at once, in the catalogue's words and in synonyms."},
    )
    hidden_words: bool = field(
        default=False,
        metadata={"help": "Ask likewise, but take the words of --hidden_columns out of all titles."},
    )
    photo_queries: bool = field(
        default=False, metadata={"help": "Find products of the same kind and colour as a photo's."}
    )
    shopper_templates: list[str] = field(
        default_factory=lambda: [
            "{gender} {baseColour} {articleType}",
            "{baseColour} {articleType}",
            "{baseColour} {articleType} for {gender}",
            "{gender} {usage} {articleType}",
            "{usage} {baseColour} {articleType}",
        ],
        metadata={"help": "Templates of the shopper queries, for attributes that a product is to have all of."},
    )
    synonyms_file: str = field(
        default=str(SYNONYMS),
        metadata={"help": "JSON {column: {value: [synonym, ...]}}: words that shoppers use for attribute values."},
    )
    kind_column: str = field(default="articleType", metadata={"help": "Column of a product's kind."})
    colour_column: str = field(default="baseColour", metadata={"help": "Column of a product's colour."})
    hidden_columns: list[str] = field(
        default_factory=lambda: ["baseColour", "articleType", "subCategory"],
        metadata={"help": "Columns whose values --hidden_words takes out of the titles."},
    )
    num_shopper_queries: int = field(default=500, metadata={"help": "Shopper queries at most."})
    num_photo_queries: int = field(default=1000, metadata={"help": "Photo queries at most."})
    min_relevant: int = field(
        default=5, metadata={"help": "Relevant products that a shopper or photo query has at least."}
    )

    train_split: str | None = field(
        default=None,
        metadata={"help": "Split that the model was trained on, for trained baselines and slices; none without it."},
    )
    train_dataset_name: list[str] = field(
        default_factory=list, metadata={"help": "Catalogues that it was trained on; --dataset_name by default."}
    )
    query_templates: list[str] = field(
        default_factory=lambda: [
            "{gender} {baseColour} {articleType}",
            "{usage} {articleType} {gender}",
            "{gender} {subCategory}",
            "{subCategory}",
            "{articleType}",
        ],
        metadata={"help": "Templates of the training queries."},
    )
    query_column: str | None = field(default=None, metadata={"help": "Column of real queries in training."})
    hot_query_column: str | None = field(default=None, metadata={"help": "Column of hot queries in training."})

    bm25: bool = field(default=True, metadata={"help": "Measure BM25 on titles as a baseline."})
    text_baseline: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "sentence-transformers model (folder or Hub id) on titles as a baseline; '' for none."},
    )
    text_adapters: bool = field(
        default=True, metadata={"help": "Measure it also with adapters trained on the training split's queries."}
    )
    fusion_baselines: bool = field(
        default=True, metadata={"help": "Measure either side alone, late fusion of the two, and fused rankings."}
    )
    reference: str | None = field(
        default=None, metadata={"help": "'kagl' prints Marqo's published numbers beside ours.", "choices": ["kagl"]}
    )
    compare_with: list[str] = field(
        default_factory=list, metadata={"help": "Other checkpoints, to show their modality gap beside this one's."}
    )
    plots: bool = field(default=True, metadata={"help": "Draw the report's numbers."})

    batch_size: int = field(default=64, metadata={"help": "Queries or products per process and forward pass."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Worker processes that read and cut photos."})
    on_bad_row: Literal["raise", "skip"] = field(
        default="raise",
        metadata={
            "help": "skip: leave bad rows out and list them in bad_rows.jsonl in --output_dir. Every photo is then "
            "decoded once at the start."
        },
    )
    bf16: bool = field(default=False, metadata={"help": "Encode under bfloat16 autocast."})
    bootstrap_resamples: int = field(default=1000, metadata={"help": "Resamples of the queries for the intervals."})
    permutations: int = field(default=10000, metadata={"help": "Random sign flips for the paired tests."})
    seed: int = field(default=0, metadata={"help": "Seed of samples, adapters, bootstrap and tests."})
    output_dir: str = field(default="outputs/evaluation", metadata={"help": "Where the report and the vectors go."})

    def __post_init__(self) -> None:
        self.train_dataset_name = self.train_dataset_name or [self.dataset_name]
        least = {
            "batch_size": 1,
            "dataloader_num_workers": 0,
            "bootstrap_resamples": 1000,
            "permutations": 1000,
            "num_shopper_queries": 1,
            "num_photo_queries": 1,
            "min_relevant": 1,
        }
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"--{name} is {getattr(self, name)}; it has to be at least {value}.")
        if self.unseen_split and self.unseen_split not in self.split.split("+"):
            raise ValueError(f"--unseen_split is {self.unseen_split!r}, but --split ranks {self.split!r} only.")
        if not (
            self.queries_file
            or self.product_queries_file
            or self.product_queries_config
            or (self.attribute_queries and self.attribute_columns)
            or self.shopper_queries
            or self.hidden_words
            or self.photo_queries
        ):
            raise ValueError(
                "Nothing to measure: give --queries_file, --product_queries_file, --product_queries_config, "
                "--shopper_queries, --hidden_words, --photo_queries, or --attribute_columns without "
                "--no_attribute_queries."
            )

    @property
    def attributes(self) -> list[str]:
        """The columns that the tasks ask for."""
        columns = list(self.attribute_columns) if self.attribute_queries else []
        if self.shopper_queries or self.hidden_words:
            columns += [*QueryTemplates(self.shopper_templates).attributes, *self.hidden_columns]
        if self.photo_queries:
            columns += [self.kind_column, self.colour_column]
        return list(dict.fromkeys(columns))


# ----------------------------------------------------------------------------------------------------------------------
# What to measure
# ----------------------------------------------------------------------------------------------------------------------


def load_training(args: EvaluationArguments, accelerator: Accelerator) -> TrainingTexts | None:
    """The training split, in all processes; None where --train_split doesn't name it."""
    if args.train_split is None:
        return None
    templates = QueryTemplates(args.query_templates)
    columns = Columns(
        id=args.id_column,
        title=args.title_column,
        image=args.image_column,
        query=args.query_column,
        hot_query=args.hot_query_column,
        attributes=list(dict.fromkeys([*templates.attributes, *args.attributes])),
    )
    config_name = args.dataset_config_name
    with accelerator.main_process_first():
        products = load_products(
            args.train_dataset_name, args.train_split, columns, config_name=config_name, on_bad_row=args.on_bad_row
        )
    if args.on_bad_row == "skip":
        file = Path(args.output_dir, "bad_training_rows.jsonl")
        products = products.select(find_good_rows(products, columns, file))
    return TrainingTexts(products, columns, templates)


def make_tasks(args: EvaluationArguments, catalog: Corpus, training: TrainingTexts | None) -> list[Task]:
    """The tasks that the arguments ask for, on all products and on the unseen ones alone."""
    everything = np.flatnonzero(catalog.shows(TITLE_AND_PHOTO))
    tasks = []
    if args.queries_file:
        tasks.append(
            judged_task(
                read_queries(args.queries_file),
                args.queries_file,
                catalog,
                args.drop_missing_relevant,
                name="text-to-image",
                description="Queries are the products' own titles, not words of shoppers, against every product's "
                "photo alone. The products with the title are relevant.",
                rows=np.flatnonzero(catalog.has_photo),
                sides=("image",),
                metrics=("recall@1", "recall@10", "AvgRecall", "mrr@10"),
                main_metric="recall@10",
                no_titles="not applicable: the query is the product's own title",
            )
        )
    judged = {}
    if args.product_queries_file:
        judged[Path(args.product_queries_file).name] = read_queries(args.product_queries_file)
    if args.product_queries_config:
        name = f"{args.dataset_name}, configuration {args.product_queries_config}"
        judged[name] = read_query_config(
            args.dataset_name, args.product_queries_config, args.query_text_column, args.relevant_ids_column
        )
    for source, queries in judged.items():
        tasks.append(
            judged_task(
                queries,
                source,
                catalog,
                args.drop_missing_relevant,
                name="query-to-product" if len(judged) == 1 else f"query-to-product ({source})",
                description=f"Queries and grades from `{source}`, against title and photo together. nDCG has linear "
                "gain.",
                rows=everything,
                metrics=("ndcg@10", "recall@10", "mrr@10"),
                main_metric="ndcg@10",
            )
        )

    galleries = {"": everything}
    if args.unseen_split and args.unseen_split != args.split:
        galleries[UNSEEN] = np.array([row for row in everything if catalog.splits[row] == args.unseen_split])
    if args.shopper_queries or args.hidden_words:
        templates, synonyms = QueryTemplates(args.shopper_templates), Synonyms.read(args.synonyms_file, catalog)
    if args.hidden_words:
        hidden = hide_attributes(catalog, args.hidden_columns, synonyms)
    for suffix, rows in galleries.items():
        if args.attribute_queries:
            for column in args.attribute_columns:
                bands = training.frequency_bands(column) if training else {}
                tasks.append(attribute_task(column, catalog, rows, suffix, bands))
        if args.shopper_queries or args.hidden_words:
            queries = make_shopper_queries(
                catalog, rows, templates, synonyms, args.num_shopper_queries, args.min_relevant, args.seed
            )
            plain, synonym = shopper_tasks(
                queries, synonyms, catalog, rows, suffix, args.kind_column, args.colour_column, training
            )
            if args.shopper_queries:
                tasks += [plain, synonym]
            if args.hidden_words:
                tasks.append(hidden_words_task(plain, hidden, args.hidden_columns, suffix))
        if args.photo_queries:
            tasks.append(
                image_task(
                    catalog,
                    rows,
                    galleries.get(UNSEEN, everything),
                    suffix,
                    (args.kind_column, args.colour_column),
                    args.num_photo_queries,
                    args.min_relevant,
                    args.seed,
                    training.frequency_bands(args.kind_column) if training else {},
                )
            )
    return tasks


def tuning_tasks(args: EvaluationArguments, training: TrainingTexts) -> list[Task]:
    """Template queries over a sample of the training products, by which the weight of late fusion is chosen.

    Returns:
        A task with whole titles and one with words hidden, as far as there are such tasks to choose for; none if no
        training product has a title, none has a photo, or no template asks for attributes alone.
    """
    rng = np.random.default_rng(args.seed)
    ids = training.products[training.columns.id][:]
    first = {product_id: row for row, product_id in reversed(list(enumerate(ids)))}
    rows = rng.permutation(sorted(first.values()))[:TUNING_PRODUCTS]
    products = training.products.select(sorted(rows.tolist()))
    catalog = Corpus.from_products(products, ["train"] * len(products), training.columns, "the training split")
    relevance: dict[str, dict[str, float]] = {}
    for row in rng.permutation(len(catalog)).tolist():
        values = {column: catalog.attributes[column][row] for column in training.templates.attributes}
        query, stated = training.templates.make(values, rng) or ("", [])
        if stated and len(relevance) < TUNING_QUERIES:
            found = set.intersection(*(catalog.members[column][values[column]] for column in stated))
            relevance[query] = {catalog.ids[member]: 1.0 for member in sorted(found)}
    whole = Task(
        name="tuning",
        description="",
        queries=list(relevance),
        relevance=list(relevance.values()),
        catalog=catalog,
        rows=np.arange(len(catalog)),
        metrics=("ndcg@10",),
        main_metric="ndcg@10",
    )
    tasks = [whole]
    if args.hidden_words:
        hidden = hide_attributes(catalog, args.hidden_columns, Synonyms.read(args.synonyms_file, catalog))
        tasks.append(hidden_words_task(whole, hidden, args.hidden_columns, ""))
    return [task for task in tasks if relevance and all(task.catalog.shows([side]).any() for side in TITLE_AND_PHOTO)]


# ----------------------------------------------------------------------------------------------------------------------
# Scores and report
# ----------------------------------------------------------------------------------------------------------------------


def make_baselines(
    args: EvaluationArguments, tasks: Sequence[Task], encoder: CorpusEncoder, training: TrainingTexts | None
) -> Baselines:
    """What the arguments ask for and some task can use, the adapters trained."""
    text = adapters = None
    if args.text_baseline and not all(task.no_titles for task in tasks):
        text = TextEncoder(args.text_baseline, encoder.accelerator.device, args.batch_size)
    if text and training and args.text_adapters:
        products, columns = training.products, training.columns
        if columns.image in products.column_names:
            products = products.remove_columns(columns.image)
        pairs = ProductPairs(products, columns, training.templates, seed=args.seed)
        adapters = TextAdapters(text, pairs, seed=args.seed)
    return Baselines(args.bm25, text, adapters, encoder.processor.image_processor, args.fusion_baselines)


def score_task(
    task: Task, vectors: Vectors, baselines: Baselines, widths: Sequence[int], unseen: set[str]
) -> TaskResult:
    """Scores the model, also at smaller widths, and all that it is compared with on one task."""
    results = []
    for system in make_systems(task, vectors, baselines):
        start = time.perf_counter()
        per_query, top10 = measure(task, system.score) if system.score else ({}, [])
        results.append(SystemResult(system.name, system.note, per_query, top10, time.perf_counter() - start))
    queries, (products, shown) = vectors.of_queries(task), vectors.of_products(task, task.sides)
    by_width = {}
    for width in widths:
        cut = dot_products(F.normalize(queries[:, :width], dim=1), F.normalize(products[:, :width], dim=1), shown)
        by_width[width] = measure(task, cut)[0][task.main_metric]
    by_width[queries.shape[1]] = results[0].per_query[task.main_metric]
    best = [sorted(grades, key=grades.__getitem__, reverse=True)[:10] for grades in task.relevance]
    ceiling = {metric: float(scores.mean()) for metric, scores in score_rankings(task, best).items()}
    ranked = {task.catalog.ids[row] for row in task.rows}
    return TaskResult(task, results, ceiling, by_width, unseen & ranked if ranked - unseen else set())


def resolve_commit(model_name_or_path: str, revision: str | None) -> str | None:
    """The commit on the Hub that a checkpoint was loaded from, None for a folder outside the Hub's cache."""
    return extract_commit_hash(cached_file(model_name_or_path, "config.json", revision=revision), None)


def make_report(
    args: EvaluationArguments,
    encoder: CorpusEncoder,
    catalog: Corpus,
    results: Sequence[TaskResult],
    gap_vectors: Sequence[tuple[str, torch.Tensor, torch.Tensor]],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """All that is needed to read the numbers and to get them again, ready for JSON."""
    statistics = Statistics(args.bootstrap_resamples, args.permutations, args.seed)
    by_task: dict[Task | None, TaskResult] = {result.task: result for result in results}
    notes = []
    if args.train_split is None:
        notes.append(
            "Without --train_split, no adapters were trained, no weight of late fusion was chosen, and slices by "
            "training frequency and new words are left out."
        )
    packages = ("torch", "transformers", "accelerate", "datasets", "numpy", "bm25s", "sentence-transformers")
    return {
        "model": {
            "name": args.model_name_or_path,
            "revision": resolve_commit(args.model_name_or_path, args.revision),
            "num_parameters": encoder.model.num_parameters(),
            "weights_sha256": weights_sha256(encoder.model),
        },
        "dataset": {
            "name": args.dataset_name,
            "local": Path(args.dataset_name).exists(),
            "split": args.split,
            "num_products": len(catalog),
            "sha256": catalog.sha256,
        },
        "tasks": [
            task_report(result, by_task.get(result.task.plain), statistics, args.reference == "kagl")
            for result in results
        ],
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
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
    }


def write_report(report: dict[str, Any], results: Sequence[TaskResult], folder: Path) -> None:
    """Prints the report and saves it as report.json, report.md and, for every query, queries.jsonl."""
    markdown = to_markdown(report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as file:
        for result in results:
            task, applied = result.task, [system for system in result.systems if system.per_query]
            for row, query in enumerate(task.queries):
                entry = {
                    "task": task.name,
                    "query": query,
                    "num_relevant": len(task.relevance[row]),
                    "slices": {name: labels[row] for name, labels in task.slices.items()},
                    task.main_metric: {s.system: float(s.per_query[task.main_metric][row]) for s in applied},
                    "top10": {system.system: system.top10[row] for system in applied},
                }
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    print(markdown)


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Writes the wall-clock seconds of a block under its name."""
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 2)


def encode_gaps(
    args: EvaluationArguments, encoder: CorpusEncoder, catalog: Corpus, tasks: Sequence[Task]
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Vectors of the tasks' text queries and of a sample of products, for the modality gap of every checkpoint."""
    asked = [task for task in tasks if task.photo_queries is None and task.sides == TITLE_AND_PHOTO]
    texts = list(dict.fromkeys(text for task in asked for text in task.queries))
    if not texts:
        return []
    rows = np.flatnonzero(catalog.shows(TITLE_AND_PHOTO))
    rows = sorted(np.random.default_rng(args.seed).permutation(rows)[:GAP_VECTORS].tolist())
    gaps = []
    for name in (args.model_name_or_path, *args.compare_with):
        other = encoder
        if name != args.model_name_or_path:
            other = CorpusEncoder.from_pretrained(name, encoder.accelerator, encoder.cache, batch_size=args.batch_size)
        collate = partial(collate_products, corpus=catalog, processor=other.processor, sides=TITLE_AND_PHOTO)
        products = other.encode(other.model.get_product_features, collate, rows)
        gaps.append((name, torch.stack(list(other.encode_queries(texts).values())), products))
    return gaps


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Runs the evaluation.

    Args:
        argv: command-line arguments; those of the process by default.

    Returns:
        What `report.json` holds; None on processes other than the main one.
    """
    (args,) = HfArgumentParser(EvaluationArguments).parse_args_into_dataclasses(argv)
    accelerator = Accelerator(mixed_precision="bf16" if args.bf16 else None)
    seconds: dict[str, float] = {}

    # 1. The model, the catalogue and the tasks. Whatever is wrong with them shows before the long work starts.
    with timed(seconds, "load model"), accelerator.main_process_first():
        encoder = CorpusEncoder.from_pretrained(
            args.model_name_or_path,
            accelerator,
            Path(args.output_dir) / "vectors",
            args.revision,
            batch_size=args.batch_size,
            num_workers=args.dataloader_num_workers,
        )
    with timed(seconds, "load catalogue and make tasks"):
        columns = Columns(args.id_column, args.title_column, args.image_column, attributes=args.attributes)
        source = ([args.dataset_name], args.split.split("+"), columns, args.dataset_config_name)
        catalog = Corpus.load(*source, args.on_bad_row, Path(args.output_dir, "bad_rows.jsonl"))
        training = load_training(args, accelerator)
        with accelerator.main_process_first():
            tasks = make_tasks(args, catalog, training)
        tuning = tuning_tasks(args, training) if training and args.fusion_baselines else []

    with timed(seconds, "train adapters"):
        baselines = make_baselines(args, tasks, encoder, training) if accelerator.is_main_process else None

    # 2. Vectors, by all processes: each text and each view of a catalogue once.
    with timed(seconds, "encode"):
        vectors = Vectors.encode(encoder, tasks, args.fusion_baselines)
        tuning_vectors = Vectors.encode(encoder, tuning, args.fusion_baselines)
        gap_vectors = encode_gaps(args, encoder, catalog, tasks)

    # 3. Rank, test and report, on the main process.
    report = None
    if baselines is not None:
        with timed(seconds, "rank"):
            for task in tuning:
                baselines.photo_weights[task.hidden_columns] = choose_photo_weight(task, tuning_vectors)
            widths = encoder.model.config.matryoshka_dims or []
            unseen = {i for i, split in zip(catalog.ids, catalog.splits, strict=True) if split == args.unseen_split}
            results = [score_task(task, vectors, baselines, widths, unseen) for task in tqdm(tasks, desc="tasks")]
        report = make_report(args, encoder, catalog, results, gap_vectors, seconds)
        write_report(report, results, Path(args.output_dir))
        if args.plots:
            # Here, because only this needs matplotlib.
            from acebert.evaluation.plots import save_plots

            save_plots(report, gap_vectors, Path(args.output_dir) / "plots")
    accelerator.end_training()
    return report


if __name__ == "__main__":
    main()
