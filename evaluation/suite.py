"""What the flags of an evaluation ask for: the catalogue, the tasks, and what the model is compared with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from acebert.data.cleaning import keep_good_rows
from acebert.data.corpus import Corpus
from acebert.data.pairs import PairDataset
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import load_products, open_source
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.evaluation.arguments import EvaluationArguments
from acebert.evaluation.baselines import TextAdapters, TextEncoder
from acebert.evaluation.queries import QueryFile, read_queries, read_query_config, read_text_benchmark
from acebert.evaluation.rankers import Baselines
from acebert.evaluation.shopper_queries import (
    Synonyms,
    hidden_words_task,
    hide_attributes,
    make_shopper_queries,
    shopper_tasks,
)
from acebert.evaluation.tasks import (
    JUDGED_METRICS,
    TITLE_AND_PHOTO,
    UNSEEN,
    Task,
    attribute_task,
    image_task,
    judged_task,
    restrict_task,
    template_queries,
    title_phrases_task,
)
from acebert.evaluation.training_texts import TrainingTexts

TUNING_PRODUCTS, TUNING_QUERIES = 2000, 500  # of the training split, to choose the weight of late fusion


# ----------------------------------------------------------------------------------------------------------------------
# Data
# ----------------------------------------------------------------------------------------------------------------------


def load_corpus(args: EvaluationArguments, files: Sequence[QueryFile], accelerator: Accelerator) -> Corpus:
    """The products to rank, with the columns that queries ask for, in all processes.

    Raises:
        ValueError: as `Corpus.load`, and if there is no such split as --validation_split.
    """
    asked = [*args.synthetic_columns, *(column for file in files for column in file.columns)]
    if args.split:
        splits = args.split.split("+")
    else:
        with accelerator.main_process_first():
            source = (args.dataset_name[0], args.dataset_revision, args.dataset_config_name, args.sql_query)
            splits = list(open_source(*source).splits)
    if args.validation_split and args.validation_split not in splits:
        raise ValueError(f"--validation_split is {args.validation_split!r}, but the splits ranked are {splits}.")
    return Corpus.load(
        args.dataset_name,
        splits,
        args.columns(list(dict.fromkeys(asked))),
        args.dataset_config_name,
        args.on_bad_row,
        Path(args.output_dir, "bad_rows.jsonl"),
        args.dataset_revision,
        args.read_options(),
    )


def load_training(args: EvaluationArguments, accelerator: Accelerator) -> TrainingTexts | None:
    """The training split, in all processes; None where --train_split doesn't name it."""
    if args.train_split is None:
        return None
    templates = args.make_templates() or QueryTemplates([])
    attributes = list(dict.fromkeys([*templates.attributes, *args.synthetic_columns]))
    columns = args.columns(attributes, args.query_column, args.hot_query_column)
    source = (args.dataset_revision, args.dataset_config_name, args.on_bad_row)
    with accelerator.main_process_first():
        products = load_products(
            args.train_dataset_name, args.train_split, columns, *source, options=args.read_options()
        )
    if args.on_bad_row == "skip":
        file = Path(args.output_dir, "bad_training_rows.jsonl")
        products, _ = keep_good_rows(products, columns, file)
    return TrainingTexts(products, columns, templates)


# ----------------------------------------------------------------------------------------------------------------------
# Tasks
# ----------------------------------------------------------------------------------------------------------------------


def make_tasks(
    args: EvaluationArguments, files: Sequence[QueryFile], corpus: Corpus, training: TrainingTexts | None
) -> list[Task]:
    """The tasks that the flags ask for, on all products and on the held-out ones alone, natural queries first."""
    galleries = {"": np.flatnonzero(corpus.shows(TITLE_AND_PHOTO))}
    if args.validation_split and set(corpus.splits) != {args.validation_split}:
        held_out = [row for row in galleries[""] if corpus.splits[row] == args.validation_split]
        galleries[UNSEEN] = np.array(held_out, dtype=np.int64)
    tasks = _natural_tasks(args, files, corpus, galleries)
    tasks += _knowledge_tasks(args, corpus, galleries)
    tasks += _judged_synthetic_tasks(args, corpus, galleries)
    synonyms = read_synonyms(args, corpus)
    hidden = hide_attributes(corpus, args.hidden_columns, synonyms) if args.hidden_words else None
    for suffix, rows in galleries.items():
        for column in args.attribute_columns:
            bands = training.frequency_bands(column) if training else {}
            tasks.append(attribute_task(column, corpus, rows, suffix, bands))
        if args.shopper_queries or hidden is not None:
            tasks += _shopper_tasks(args, corpus, hidden, rows, suffix, synonyms, training)
        if args.photo_queries:
            assert args.kind_column and args.colour_column  # as the flags' check has made sure
            bands = training.frequency_bands(args.kind_column) if training else {}
            columns = (args.kind_column, args.colour_column)
            limits = (args.num_photo_queries, args.min_relevant, args.seed)
            query_rows = galleries.get(UNSEEN, galleries[""])
            tasks.append(image_task(corpus, rows, query_rows, suffix, columns, *limits, bands))
    return tasks


def _natural_tasks(
    args: EvaluationArguments, files: Sequence[QueryFile], corpus: Corpus, galleries: dict[str, np.ndarray]
) -> list[Task]:
    tasks = []
    for file in files:
        whole = judged_task(
            file.judge(corpus),
            file.name,
            corpus,
            args.drop_missing_relevant,
            name="natural queries" if len(files) == 1 else f"natural queries ({file.name})",
            description=f"Queries of `{file.name}`, against title and photo together. nDCG has linear gain.",
            rows=galleries[""],
            metrics=JUDGED_METRICS,
            main_metric="ndcg@10",
            kind="natural",
        )
        tasks += [whole, *_restricted(whole, galleries)]
    return tasks


def _restricted(task: Task, galleries: dict[str, np.ndarray]) -> list[Task]:
    parts = [restrict_task(task, rows, suffix) for suffix, rows in galleries.items() if suffix]
    return [part for part in parts if part is not None]


def _knowledge_tasks(args: EvaluationArguments, corpus: Corpus, galleries: dict[str, np.ndarray]) -> list[Task]:
    """Text benchmarks, and title phrases of the held-out products, or of all where none are held out."""
    tasks = []
    for folder in args.text_benchmarks:
        benchmark, judgements = read_text_benchmark(folder)
        task = judged_task(
            judgements,
            folder,
            benchmark,
            drop_missing=False,
            name=f"text benchmark {benchmark.name}",
            description=f"Judged queries of `{benchmark.name}` against its titles alone, those of several products "
            "counted as one. nDCG has linear gain.",
            rows=np.arange(len(benchmark)),
            metrics=JUDGED_METRICS,
            main_metric="ndcg@10",
            kind="text benchmark",
            modalities=("title",),
        )
        tasks.append(task)
    if args.num_title_phrases and args.text_baselines:
        suffix, rows = list(galleries.items())[-1]
        phrases = title_phrases_task(corpus, rows, suffix, args.num_title_phrases, args.seed)
        tasks += [phrases] if phrases else []
    return tasks


def _judged_synthetic_tasks(args: EvaluationArguments, corpus: Corpus, galleries: dict[str, np.ndarray]) -> list[Task]:
    """Judged queries that no shopper typed: those that come with a dataset, and titles that have to find photos."""
    tasks = []
    if args.queries_config:
        source = f"{args.dataset_name[0]}, configuration {args.queries_config}"
        names = (args.dataset_name[0], args.queries_config, args.query_text_column, args.relevant_ids_column)
        whole = judged_task(
            read_query_config(*names),
            source,
            corpus,
            args.drop_missing_relevant,
            name=f"queries of configuration {args.queries_config}",
            description=f"Queries of `{source}`, against title and photo together.",
            rows=galleries[""],
            metrics=JUDGED_METRICS,
            main_metric="ndcg@10",
        )
        tasks += [whole, *_restricted(whole, galleries)]
    if args.text_to_image_file:
        photos = {suffix: rows[corpus.has_photo[rows]] for suffix, rows in galleries.items()}
        whole = judged_task(
            read_queries(args.text_to_image_file),
            args.text_to_image_file,
            corpus,
            args.drop_missing_relevant,
            name="text-to-image",
            description="Queries are the products' own titles, not words of shoppers, against every product's photo "
            "alone. The products with the title are relevant.",
            rows=photos[""],
            modalities=("image",),
            metrics=("recall@1", "recall@10", "AvgRecall", "mrr@10"),
            main_metric="recall@10",
            no_titles="not applicable: the query is the product's own title",
        )
        tasks += [whole, *_restricted(whole, photos)]
    return tasks


def _shopper_tasks(
    args: EvaluationArguments,
    corpus: Corpus,
    hidden: Corpus | None,
    rows: np.ndarray,
    suffix: str,
    synonyms: Synonyms,
    training: TrainingTexts | None,
) -> list[Task]:
    templates = QueryTemplates(args.shopper_templates)
    limits = (args.num_shopper_queries, args.min_relevant, args.seed)
    queries = make_shopper_queries(corpus, rows, templates, synonyms, *limits)
    columns = (args.kind_column, args.colour_column)
    plain, synonym = shopper_tasks(queries, synonyms, corpus, rows, suffix, *columns, training)
    tasks = []
    if args.shopper_queries:
        tasks += [plain, synonym] if synonyms.words else [plain]
    if hidden is not None:
        tasks.append(hidden_words_task(plain, hidden, args.hidden_columns, suffix))
    return tasks


def read_synonyms(args: EvaluationArguments, corpus: Corpus) -> Synonyms:
    return Synonyms.read(args.synonyms_file, corpus) if args.synonyms_file else Synonyms({})


def make_tuning_tasks(args: EvaluationArguments, training: TrainingTexts | None) -> list[Task]:
    """Template queries over a sample of the training products, by which the weight of late fusion is chosen.

    Returns:
        A task with whole titles and one with words hidden, as far as there are such tasks to choose for; none if the
        training split or late fusion isn't asked for, no training product has a title, none has a photo, or no template
        asks for attributes alone.
    """
    if training is None or not args.fusion_baselines:
        return []
    rng = np.random.default_rng(args.seed)
    ids = training.products[training.columns.id][:]
    first = {product_id: row for row, product_id in reversed(list(enumerate(ids)))}
    rows = rng.permutation(sorted(first.values()))[:TUNING_PRODUCTS]
    products = training.products.select(sorted(rows.tolist()))
    corpus = Corpus.from_products(products, ["train"] * len(products), training.columns, "the training split")
    order = rng.permutation(len(corpus)).tolist()
    relevance = template_queries(corpus, order, training.templates, TUNING_QUERIES, rng)
    whole = Task(
        name="tuning",
        description="",
        queries=list(relevance),
        relevance=list(relevance.values()),
        corpus=corpus,
        rows=np.arange(len(corpus)),
        metrics=("ndcg@10",),
        main_metric="ndcg@10",
    )
    tasks = [whole]
    if args.hidden_words:
        hidden = hide_attributes(corpus, args.hidden_columns, read_synonyms(args, corpus))
        tasks.append(hidden_words_task(whole, hidden, args.hidden_columns, ""))
    return [task for task in tasks if relevance and all(task.corpus.shows([name]).any() for name in TITLE_AND_PHOTO)]


# ----------------------------------------------------------------------------------------------------------------------
# Baselines
# ----------------------------------------------------------------------------------------------------------------------


def make_baselines(
    args: EvaluationArguments, tasks: Sequence[Task], encoder: CorpusEncoder, training: TrainingTexts | None
) -> Baselines:
    """What the flags ask for and some task can use, the adapters trained where there are queries to train them on."""
    texts = []
    if not all(task.no_titles for task in tasks):
        device = encoder.accelerator.device
        texts = [TextEncoder(name, device, args.per_device_batch_size) for name in args.text_baselines]
    adapters = None
    learns = args.query_templates or args.query_column or args.hot_query_column
    if texts and training and args.text_adapters and learns:
        products, columns = training.products, training.columns
        if columns.image in products.column_names:
            products = products.remove_columns(columns.image)
        pairs = PairDataset(products, columns, training.templates, seed=args.seed)
        adapters = TextAdapters(texts[0], pairs, seed=args.seed)
    return Baselines(args.bm25, texts, adapters, encoder.processor.image_processor, args.fusion_baselines)
