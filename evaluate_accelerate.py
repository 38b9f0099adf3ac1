"""Measures a checkpoint on product retrieval, next to BM25 and text embeddings on the same queries.

The KAGL text-to-image task and attribute queries on the catalogue that the published model was trained on:

    accelerate launch evaluate_accelerate.py \
        --model_name_or_path . \
        --dataset_name ashraq/fashion-product-images-small --split train \
        --queries_file text-to-image.json --reference kagl

A catalogue of your own, with judged queries in the form {query: {product id: grade}}:

    accelerate launch evaluate_accelerate.py \
        --model_name_or_path path/to/checkpoint \
        --dataset_name path/to/catalog --title_column title --id_column sku \
        --product_queries_file queries.json --no_attribute_queries

The same lines run on a CPU, a GPU or several processes. The model is loaded as any user of the Hub loads it. The report
is printed as Markdown tables and saved as `report.md` and `report.json`.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModel, AutoProcessor, HfArgumentParser, PreTrainedModel, ProcessorMixin
from transformers.utils.hub import cached_file, extract_commit_hash

from acebert.baselines_acebert import Bm25Baseline, TextEncoderBaseline

METRIC = Path(__file__).parent / "metrics" / "retrieval"
SCORES_PER_CHUNK = 2**24  # query-product scores held at a time: 64 MB in float32
MODEL = "ACE-BERT"

# marqo-ai/marqo-FashionCLIP, LEADERBOARD.md, 2024-08-09. For the attribute tasks the measure in common is P@10.
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
        "Marqo-FashionSigLIP": {"precision@10": 0.686},
        "ViT-B-16-SigLIP-webli": {"precision@10": 0.700},
        "Marqo-FashionCLIP": {"precision@10": 0.571},
        "ViT-B-16-laion2b": {"precision@10": 0.529},
        "FashionCLIP2.0": {"precision@10": 0.686},
        "OpenFashionCLIP": {"precision@10": 0.557},
    },
    "subCategory-to-product": {
        "Marqo-FashionSigLIP": {"precision@10": 0.687},
        "ViT-B-16-SigLIP-webli": {"precision@10": 0.644},
        "Marqo-FashionCLIP": {"precision@10": 0.613},
        "ViT-B-16-laion2b": {"precision@10": 0.573},
        "FashionCLIP2.0": {"precision@10": 0.571},
        "OpenFashionCLIP": {"precision@10": 0.491},
    },
}
KAGL_CAVEAT = (
    "Published rows are Marqo's KAGL leaderboard (2024-08-09): zero-shot models of 150 to 203 million parameters on "
    "full-size photos (up to 1800x2400), 44,434 products, 2,000 text-to-image queries. They are no like-for-like "
    "comparison: a model trained on a split of this catalogue is in-domain, photos of 60x80 pixels show it far less, "
    "and the products and queries measured here are not all of the leaderboard's."
)


@dataclass
class EvaluationArguments:
    """What to measure, on which data. Set the number of processes and devices by `accelerate launch`."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    dataset_name: str = field(metadata={"help": "Folder or Hub id of the catalogue, for `datasets.load_dataset`."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model on the Hub."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    split: str = field(default="train+validation", metadata={"help": "Splits to rank, joined by '+'."})
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
    attribute_queries: bool = field(
        default=True,
        metadata={"help": "Take each value of the attribute columns as a query for its products."},
    )
    attribute_columns: list[str] = field(
        default_factory=lambda: ["subCategory", "articleType"], metadata={"help": "Columns for the attribute queries."}
    )
    drop_missing_relevant: bool = field(
        default=False, metadata={"help": "Drop relevant ids that the catalogue lacks, and queries left with none."}
    )
    bm25: bool = field(default=True, metadata={"help": "Measure BM25 on titles as a baseline."})
    text_baseline: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "sentence-transformers model (folder or Hub id) on titles as a baseline; '' for none."},
    )
    reference: str | None = field(
        default=None, metadata={"help": "'kagl' prints Marqo's published numbers beside ours.", "choices": ["kagl"]}
    )
    batch_size: int = field(default=64, metadata={"help": "Queries or products per process and forward pass."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Worker processes that read and cut photos."})
    bf16: bool = field(default=False, metadata={"help": "Encode under bfloat16 autocast."})
    bootstrap_resamples: int = field(default=1000, metadata={"help": "Resamples of the queries for the intervals."})
    seed: int = field(default=0, metadata={"help": "Seed of the bootstrap."})
    output_dir: str = field(default="outputs/evaluation", metadata={"help": "Where report.json and report.md go."})

    def __post_init__(self) -> None:
        for name, least in [("batch_size", 1), ("dataloader_num_workers", 0), ("bootstrap_resamples", 1000)]:
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; it has to be at least {least}.")
        if not (self.queries_file or self.product_queries_file or (self.attribute_queries and self.attribute_columns)):
            raise ValueError(
                "Nothing to measure: give --queries_file, --product_queries_file, or --attribute_columns without "
                "--no_attribute_queries."
            )


@dataclass
class Catalog:
    """The products to rank.

    They are in descending order of id, as strings: a sort by score that keeps the order of ties then ranks ties as the
    metric and trec_eval do.

    Args:
        rows: the dataset's rows, photos not decoded.
        id_column, title_column, image_column: their names in `rows`.
    """

    rows: datasets.Dataset
    id_column: str
    title_column: str
    image_column: str

    @classmethod
    def load(cls, args: EvaluationArguments) -> "Catalog":
        """Reads the splits as one catalogue.

        Raises:
            ValueError: if a column is missing, titles aren't strings, or an id is missing or repeated.
        """
        rows = datasets.load_dataset(args.dataset_name, args.dataset_config_name, split=args.split)
        for flag in ("id_column", "title_column", "image_column"):
            if getattr(args, flag) not in rows.column_names:
                raise ValueError(
                    f"--{flag} is {getattr(args, flag)!r}, but {args.dataset_name} has the columns {rows.column_names}."
                )
        title_type = rows.features[args.title_column]
        if getattr(title_type, "dtype", None) not in ("string", "large_string", "null"):
            raise ValueError(f"--title_column {args.title_column!r} holds {title_type}; titles are strings.")
        if isinstance(rows.features[args.image_column], datasets.Image):
            rows = rows.cast_column(args.image_column, datasets.Image(decode=False))
        ids = [None if value is None else str(value) for value in rows[args.id_column]]
        if None in ids:
            raise ValueError(f"Row {ids.index(None)} of {args.dataset_name} has no {args.id_column}.")
        order = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
        for left, right in pairwise(order):
            if ids[left] == ids[right]:
                raise ValueError(
                    f"Rows {left} and {right} of {args.dataset_name} share the {args.id_column} {ids[left]!r}: ids "
                    "have to be unique."
                )
        return cls(rows.select(order), args.id_column, args.title_column, args.image_column)

    @cached_property
    def ids(self) -> list[str]:
        return [str(value) for value in self.rows[self.id_column]]

    @cached_property
    def titles(self) -> list[str | None]:
        return [title if title and title.strip() else None for title in self.rows[self.title_column]]

    @cached_property
    def has_image(self) -> list[bool]:
        return [
            bool(image.get("bytes") or image.get("path")) if isinstance(image, dict) else image is not None
            for image in self.rows[self.image_column]
        ]

    @cached_property
    def sha256(self) -> str:
        """Of ids and titles, whatever the order of the rows and the machine. Photos are not part of it."""
        return hashlib.sha256(json.dumps([self.ids, self.titles]).encode()).hexdigest()

    def candidates(self, sides: Sequence[str]) -> list[int]:
        """Rows that have at least one of the sides, "title" and "image", by which they are to be ranked."""
        return [
            row
            for row in range(len(self.rows))
            if ("title" in sides and self.titles[row] is not None) or ("image" in sides and self.has_image[row])
        ]


@dataclass(frozen=True)
class Task:
    """Queries, their relevant products, and by which of their sides the products are ranked.

    Args:
        name: as in the report.
        description: what a query is and what is ranked, for the report.
        queries: the queries' texts.
        relevance: for each query {product id: grade}.
        sides: what the model sees of a product: "title", "image" or both.
        metrics: the metrics to report, such as "recall@10".
        no_text_baseline: why baselines on titles don't apply; empty where they do.
        num_dropped_ids: relevant ids that were dropped because the catalogue lacks them.
        num_dropped_queries: queries that were dropped because no relevant product was left.
    """

    name: str
    description: str
    queries: list[str]
    relevance: list[dict[str, float]]
    sides: tuple[str, ...]
    metrics: tuple[str, ...]
    no_text_baseline: str = ""
    num_dropped_ids: int = 0
    num_dropped_queries: int = 0


@dataclass
class SystemResult:
    """Scores of one system on one task.

    Args:
        system: its name.
        per_query: metric to scores (num_queries,); empty where the system doesn't apply.
        note: how the system works, or why it doesn't apply.
        seconds: time for ranking, with encoding of queries and titles for the text baselines.
    """

    system: str
    per_query: dict[str, np.ndarray]
    note: str
    seconds: float = 0.0


def read_queries(path: str) -> dict[str, dict[str, float]]:
    """Reads {query: {product id: grade}} and checks its form.

    Raises:
        ValueError: naming the file and the query that is of another form.
    """
    queries = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(queries, dict) or not queries:
        raise ValueError(f"{path} holds no queries; expected a JSON object {{query: {{product id: grade}}}}.")
    for query, grades in queries.items():
        numbers = isinstance(grades, dict) and all(type(grade) in (int, float) for grade in grades.values())
        if not query.strip() or not numbers:
            raise ValueError(f"{path}: query {query!r} has {grades!r}; expected a text and {{product id: grade}}.")
    return queries


def restrict_to_catalog(
    queries: dict[str, dict[str, float]], ids: Sequence[str], path: str, drop: bool
) -> tuple[dict[str, dict[str, float]], int]:
    """Makes sure that every judged product is in the catalogue.

    Args:
        queries: {query: {product id: grade}}.
        ids: the catalogue's ids.
        path: the queries' file, for messages.
        drop: drop what is missing, and queries left without a product of grade 1 or more, instead of raising.

    Returns:
        The queries, and how many judgements were dropped.
    """
    known = set(ids)
    missing = [(query, product) for query, grades in queries.items() for product in grades if product not in known]
    if missing and not drop:
        query, product = missing[0]
        raise ValueError(
            f"{path}: {len(missing)} judged product ids, of {len({query for query, _ in missing})} queries, are not in "
            f"the catalogue; the first is {product!r} of query {query!r}. Add the split that holds them to --split, or "
            "leave them out with --drop_missing_relevant."
        )
    kept = {query: {p: grade for p, grade in grades.items() if p in known} for query, grades in queries.items()}
    if drop:
        kept = {query: grades for query, grades in kept.items() if any(grade >= 1 for grade in grades.values())}
        if not kept:
            raise ValueError(f"{path}: no relevant product is in the catalogue. Do --id_column and --split fit?")
    return kept, len(missing)


def file_task(path: str, catalog: Catalog, drop: bool, **fields: Any) -> Task:
    """A task from a file of judged queries; `fields` are the rest of the `Task`."""
    read = read_queries(path)
    queries, num_dropped_ids = restrict_to_catalog(read, catalog.ids, path, drop)
    return Task(
        queries=list(queries),
        relevance=list(queries.values()),
        num_dropped_ids=num_dropped_ids,
        num_dropped_queries=len(read) - len(queries),
        **fields,
    )


def attribute_task(column: str, catalog: Catalog) -> Task:
    """Each distinct value of a column as a query, relevant to the products that have it."""
    if column not in catalog.rows.column_names:
        raise ValueError(
            f"--attribute_columns holds {column!r}, but the catalogue has the columns {catalog.rows.column_names}. "
            "Name others, or leave these queries out with --no_attribute_queries."
        )
    relevant: dict[str, dict[str, float]] = {}
    for product, value in zip(catalog.ids, catalog.rows[column], strict=True):
        if value is not None and str(value).strip():
            relevant.setdefault(str(value), {})[product] = 1.0
    if not relevant:
        raise ValueError(f"--attribute_columns holds {column!r}, but no product has a value in that column.")
    queries = sorted(relevant)
    return Task(
        name=f"{column}-to-product",
        description=f"Synthetic queries: the values of `{column}`, against title and photo together. The products with "
        "the value are relevant.",
        queries=queries,
        relevance=[relevant[query] for query in queries],
        sides=("title", "image"),
        metrics=("precision@1", "precision@10", "mrr@10"),
    )


def make_tasks(args: EvaluationArguments, catalog: Catalog) -> list[Task]:
    """The tasks that the arguments ask for."""
    tasks = []
    if args.queries_file:
        tasks.append(
            file_task(
                args.queries_file,
                catalog,
                args.drop_missing_relevant,
                name="text-to-image",
                description="Queries are the products' own titles, not words of shoppers, against every product's "
                "photo alone. The products with the title are relevant.",
                sides=("image",),
                metrics=("recall@1", "recall@10", "mrr@10"),
                no_text_baseline="not applicable: the query is the product's own title",
            )
        )
    if args.product_queries_file:
        tasks.append(
            file_task(
                args.product_queries_file,
                catalog,
                args.drop_missing_relevant,
                name="query-to-product",
                description=f"Queries and grades from `{Path(args.product_queries_file).name}`, against title and "
                "photo together. nDCG has linear gain.",
                sides=("title", "image"),
                metrics=("ndcg@10", "recall@10", "mrr@10"),
            )
        )
    if args.attribute_queries:
        tasks += [attribute_task(column, catalog) for column in args.attribute_columns]
    return tasks


def collate_products(
    rows: list[int], catalog: Catalog, processor: ProcessorMixin, sides: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Model inputs of some of the catalogue's rows, with their numbers under "rows"."""
    images = catalog.rows[rows][catalog.image_column] if "image" in sides else None
    titles = [catalog.titles[row] for row in rows] if "title" in sides else None
    if images is not None:
        images = [image if catalog.has_image[row] else None for row, image in zip(rows, images, strict=True)]
    try:
        inputs = processor.process_products(titles, images, return_tensors="pt")
    except ValueError as error:
        raise ValueError(f"The products with the ids {[catalog.ids[row] for row in rows]}: {error}") from error
    return {"rows": torch.tensor(rows), **inputs}


def collate_queries(rows: list[int], queries: Sequence[str], processor: ProcessorMixin) -> dict[str, torch.Tensor]:
    """Model inputs of some of the queries, with their numbers under "rows"."""
    inputs = processor.process_queries([queries[row] for row in rows], return_tensors="pt")
    return {"rows": torch.tensor(rows), **inputs}


@torch.inference_mode()
def encode(
    features: Callable[..., Any],
    collate: Callable[[list[int]], dict[str, torch.Tensor]],
    lengths: dict[int, int],
    accelerator: Accelerator,
    args: EvaluationArguments,
    description: str,
) -> torch.Tensor:
    """Encodes items in batches of similar length, shared among the processes.

    Args:
        features: one of the model's `get_*_features`.
        collate: from numbers of items to model inputs and "rows".
        lengths: number of each item to its length in characters; the longest go first, so that a batch that is too
            large for the memory fails at once.
        description: for the progress bar.

    Returns:
        (len(lengths), projection_dim) float32 on every process, in the order of `lengths`.
    """
    order = sorted(lengths, key=lengths.__getitem__, reverse=True)
    loader = accelerator.prepare_data_loader(
        DataLoader(order, batch_size=args.batch_size, collate_fn=collate, num_workers=args.dataloader_num_workers)
    )
    embeds: dict[int, torch.Tensor] = {}
    for batch in tqdm(loader, desc=description, disable=not accelerator.is_local_main_process):
        rows = batch.pop("rows")
        with accelerator.autocast():
            vectors = features(**batch).pooler_output
        # The last batch may repeat items to fill every process; writing by row number makes that harmless.
        rows, vectors = accelerator.gather((rows, vectors.float()))
        embeds.update(zip(rows.tolist(), vectors.cpu(), strict=True))
    return torch.stack([embeds[row] for row in lengths])


def top_k(scores: torch.Tensor, k: int) -> list[list[int]]:
    """The k best columns of each row, best first; equal scores in the order of the columns, -inf left out.

    `torch.topk` alone promises no order among ties.

    Args:
        scores: (rows, columns).
        k: how many; rows may come out shorter.

    Raises:
        ValueError: if a score is NaN.
    """
    if scores.isnan().any():
        raise ValueError("A query-product score is NaN: the model's vectors are not finite. Try without --bf16.")
    k = min(k, scores.shape[1])
    threshold = scores.topk(k, dim=1).values[:, -1:]
    rows, columns = ((scores >= threshold) & (scores > -torch.inf)).nonzero(as_tuple=True)
    by_score = scores[rows, columns].argsort(descending=True, stable=True)
    order = by_score[rows[by_score].argsort(stable=True)]
    counts = torch.bincount(rows, minlength=len(scores)).tolist()
    return [best[:k].tolist() for best in columns[order].split(counts)]


def rank(score: Callable[[slice], torch.Tensor], num_queries: int, ids: Sequence[str], depth: int) -> list[list[str]]:
    """Ranks the products for every query, a chunk of queries at a time.

    Args:
        score: from a slice of the queries to scores (queries, products).
        num_queries: how many queries there are.
        ids: the products' ids, in the order that breaks ties.
        depth: how many products to keep per query.
    """
    step = max(1, SCORES_PER_CHUNK // len(ids))
    rankings = []
    for start in range(0, num_queries, step):
        scores = score(slice(start, min(start + step, num_queries)))
        rankings += [[ids[column] for column in best] for best in top_k(scores, depth)]
    return rankings


def measure(task: Task, score: Callable[[slice], torch.Tensor], ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores of one system on a task: metric to (num_queries,)."""
    cutoffs = sorted({int(metric.split("@")[1]) for metric in task.metrics})
    results = evaluate.load(str(METRIC), keep_in_memory=True).compute(
        predictions=rank(score, len(task.queries), ids, max(cutoffs)),
        references=[{"ids": list(grades), "grades": list(grades.values())} for grades in task.relevance],
        k=cutoffs,
        queries=task.queries,
        per_query=True,
    )["per_query"]
    return {metric: np.array(results[metric]) for metric in task.metrics}


def score_task(
    task: Task,
    catalog: Catalog,
    rows: Sequence[int],
    query_embeds: torch.Tensor,
    product_embeds: torch.Tensor,
    baselines: Sequence[Bm25Baseline | TextEncoderBaseline],
    device: torch.device,
) -> list[SystemResult]:
    """Scores the model and the baselines on one task.

    Args:
        task: the task.
        catalog: the products.
        rows: the products of `product_embeds`.
        query_embeds: (num_queries, projection_dim).
        product_embeds: (len(rows), projection_dim).
        baselines: built on all the catalogue's titles.
        device: where the vectors are multiplied.
    """
    queries, products = query_embeds.to(device), product_embeds.to(device)
    start = time.perf_counter()
    per_query = measure(task, lambda part: queries[part] @ products.T, [catalog.ids[row] for row in rows])
    note = f"cosine similarity of the query vector and the product vector ({' and '.join(task.sides)})"
    results = [SystemResult(MODEL, per_query, note, time.perf_counter() - start)]
    for baseline in baselines:
        if task.no_text_baseline:
            results.append(SystemResult(baseline.name, {}, task.no_text_baseline))
            continue
        start = time.perf_counter()
        per_query = measure(task, lambda part, score=baseline.score: score(task.queries[part]), catalog.ids)
        results.append(SystemResult(baseline.name, per_query, baseline.description, time.perf_counter() - start))
    return results


def bootstrap_intervals(scores: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap intervals of the mean over queries (Efron & Tibshirani 1993, chapter 13).

    The same seed and number of queries draw the same resamples, so differences between systems are paired.

    Args:
        scores: (num_queries, num_metrics).
        resamples: how many samples of num_queries queries, drawn with replacement.
        seed: of the random generator.

    Returns:
        Lower and upper bounds, each (num_metrics,).
    """
    num_queries = len(scores)
    draws = np.random.default_rng(seed).multinomial(num_queries, np.full(num_queries, 1 / num_queries), size=resamples)
    low, high = np.quantile(draws @ scores / num_queries, [0.025, 0.975], axis=0)
    return low, high


def task_report(
    task: Task, results: Sequence[SystemResult], num_candidates: int, args: EvaluationArguments
) -> dict[str, Any]:
    """What the report says about one task, ready for JSON."""
    systems = []
    for result in results:
        entry: dict[str, Any] = {"system": result.system, "note": result.note, "metrics": {}}
        if result.per_query:
            scores = np.stack([result.per_query[metric] for metric in task.metrics], axis=1)
            low, high = bootstrap_intervals(scores, args.bootstrap_resamples, args.seed)
            entry["seconds"] = round(result.seconds, 2)
            entry["metrics"] = {
                metric: {"mean": float(scores[:, i].mean()), "low": float(low[i]), "high": float(high[i])}
                for i, metric in enumerate(task.metrics)
            }
        systems.append(entry)
    return {
        "task": task.name,
        "description": task.description,
        "num_queries": len(task.queries),
        "num_candidates": num_candidates,
        "num_dropped_queries": task.num_dropped_queries,
        "num_dropped_ids": task.num_dropped_ids,
        "queries_sha256": hashlib.sha256(json.dumps([task.queries, task.relevance]).encode()).hexdigest(),
        "systems": systems,
        "published": KAGL.get(task.name, {}) if args.reference == "kagl" else {},
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report as Markdown, one table per task."""
    model, dataset = report["model"], report["dataset"]
    lines = [
        f"# Evaluation of {model['name']}",
        "",
        f"{dataset['num_products']:,} products of `{dataset['name']}` ({dataset['split']}). Means over queries with 95 "
        f"% bootstrap intervals ({report['arguments']['bootstrap_resamples']} resamples of the queries).",
    ]
    for task in report["tasks"]:
        metrics = list(task["systems"][0]["metrics"])
        lines += ["", f"## {task['task']}", "", task["description"]]
        lines.append(f"{task['num_queries']:,} queries, {task['num_candidates']:,} products ranked.")
        if task["num_dropped_ids"]:
            lines.append(
                f"Dropped, as the catalogue lacks them: {task['num_dropped_ids']} judged products and "
                f"{task['num_dropped_queries']} queries."
            )
        lines += ["", f"| system | {' | '.join(metrics)} |", "| --- |" + " --- |" * len(metrics)]
        for system in task["systems"]:
            cells = [_interval(system["metrics"][m]) for m in metrics] if system["metrics"] else [system["note"]]
            lines.append(f"| {system['system']} | " + " | ".join(cells + [""] * (len(metrics) - len(cells))) + " |")
        for name, published in task["published"].items():
            cells = [f"{published[metric]:.3f}" if metric in published else "–" for metric in metrics]
            lines.append(f"| published: {name} | " + " | ".join(cells) + " |")
    notes = {s["system"]: s["note"] for task in report["tasks"] for s in task["systems"] if s["metrics"]}
    lines += ["", "## Notes", "", *(f"- {system}: {note}." for system, note in notes.items())]
    if any(task["published"] for task in report["tasks"]):
        lines.append(f"- {KAGL_CAVEAT}")
    lines += [
        f"- Model: revision {model['revision'] or 'none (local folder)'}, {model['num_parameters']:,} parameters, "
        f"weights sha256 `{model['weights_sha256'][:12]}`.",
        f"- Catalogue: sha256 of ids and titles `{dataset['sha256'][:12]}`.",
        "- Seconds: " + ", ".join(f"{step} {seconds:g}" for step, seconds in report["seconds"].items()) + ".",
        "- Versions: " + ", ".join(f"{package} {number}" for package, number in report["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _interval(metric: dict[str, float]) -> str:
    return f"{metric['mean']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def resolve_commit(model_name_or_path: str, revision: str | None) -> str | None:
    """The commit on the Hub that a checkpoint was loaded from, None for a folder outside the Hub's cache."""
    return extract_commit_hash(cached_file(model_name_or_path, "config.json", revision=revision), None)


def weights_sha256(model: PreTrainedModel) -> str:
    """Tells checkpoints apart, also those that never were on the Hub."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def make_report(
    args: EvaluationArguments,
    accelerator: Accelerator,
    model: PreTrainedModel,
    catalog: Catalog,
    task_reports: list[dict[str, Any]],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """All that is needed to read the numbers and to get them again, ready for JSON."""
    packages = ("torch", "transformers", "accelerate", "datasets", "numpy", "bm25s", "sentence-transformers")
    return {
        "model": {
            "name": args.model_name_or_path,
            "revision": resolve_commit(args.model_name_or_path, args.revision),
            "num_parameters": model.num_parameters(),
            "weights_sha256": weights_sha256(model),
        },
        "dataset": {
            "name": args.dataset_name,
            "split": args.split,
            "num_products": len(catalog.ids),
            "sha256": catalog.sha256,
            "fingerprint": catalog.rows._fingerprint,
        },
        "tasks": task_reports,
        "arguments": asdict(args),
        "seconds": seconds,
        "hardware": {"device": str(accelerator.device), "processes": accelerator.num_processes},
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
    }


def write_report(report: dict[str, Any], output_dir: Path) -> None:
    """Prints the report and saves it as report.json and report.md."""
    markdown = to_markdown(report)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (output_dir / "report.md").write_text(markdown, encoding="utf-8")
    print(markdown)


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Writes the wall-clock seconds of a block under its name."""
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 2)


def load_baselines(
    args: EvaluationArguments, tasks: Sequence[Task], titles: Sequence[str | None], device: torch.device
) -> list[Bm25Baseline | TextEncoderBaseline]:
    """The baselines that the arguments ask for, if any task can use them."""
    if all(task.no_text_baseline for task in tasks):
        return []
    baselines: list[Bm25Baseline | TextEncoderBaseline] = []
    if args.bm25:
        baselines.append(Bm25Baseline(titles))
    if args.text_baseline:
        baselines.append(TextEncoderBaseline(args.text_baseline, titles, device, args.batch_size))
    return baselines


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
        options = {"revision": args.revision, "trust_remote_code": True}
        processor = AutoProcessor.from_pretrained(args.model_name_or_path, **options)
        # Half precision is --bf16's to choose, whatever the weights are saved in.
        model = AutoModel.from_pretrained(args.model_name_or_path, dtype=torch.float32, **options)
        model = model.to(accelerator.device).eval()
    with timed(seconds, "load catalogue"), accelerator.main_process_first():
        catalog = Catalog.load(args)
        tasks = make_tasks(args, catalog)
    baselines = []
    if accelerator.is_main_process:
        baselines = load_baselines(args, tasks, catalog.titles, accelerator.device)

    # 2. Vectors, by all processes: products once for each way to look at them, queries for each task.
    product_embeds, candidates = {}, {}
    for sides in dict.fromkeys(task.sides for task in tasks):
        shown = " + ".join(sides)
        candidates[sides] = catalog.candidates(sides)
        if not candidates[sides]:
            raise ValueError(f"No product of {args.dataset_name} has any of: {', '.join(sides)}.")
        with timed(seconds, f"encode products ({shown})"):
            product_embeds[sides] = encode(
                model.get_product_features,
                partial(collate_products, catalog=catalog, processor=processor, sides=sides),
                {row: len(catalog.titles[row] or "") if "title" in sides else 0 for row in candidates[sides]},
                accelerator,
                args,
                f"products ({shown})",
            )
    with timed(seconds, "encode queries"):
        query_embeds = [
            encode(
                model.get_text_features,
                partial(collate_queries, queries=task.queries, processor=processor),
                {row: len(query) for row, query in enumerate(task.queries)},
                accelerator,
                args,
                f"queries ({task.name})",
            )
            for task in tasks
        ]
    if not accelerator.is_main_process:
        return None

    # 3. Rank and report, on the main process.
    report = None
    if accelerator.is_main_process:
        with timed(seconds, "rank, with baselines"):
            task_reports = []
            for task, queries in zip(tasks, query_embeds, strict=True):
                rows, products = candidates[task.sides], product_embeds[task.sides]
                results = score_task(task, catalog, rows, queries, products, baselines, accelerator.device)
                task_reports.append(task_report(task, results, len(rows), args))
        report = make_report(args, accelerator, model, catalog, task_reports, seconds)
        write_report(report, Path(args.output_dir))
    accelerator.end_training()
    return report


if __name__ == "__main__":
    main()
