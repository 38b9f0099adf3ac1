"""What is measured: tasks of queries with their relevant products, and which products are ranked for them.

Queries that aren't judged are synthetic: made from a catalogue's own titles, attributes and photos. A task says so in
its description, which the report repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from transformers.utils import logging

from acebert.data.corpus import Corpus
from acebert.data.grouping import group_products
from acebert.data.query_templates import QueryTemplates
from acebert.encoding.knowledge import draw_title_phrases
from acebert.evaluation.queries import Judgements

logger = logging.get_logger(__name__)
Kind = Literal["natural", "text benchmark", "title phrases", "synthetic"]
TITLE_AND_PHOTO = ("title", "image")
UNSEEN = ", unseen products"  # ends the names of tasks that rank only what the model wasn't trained on
JUDGED_METRICS = ("ndcg@10", "recall@10", "mrr@10")
ATTRIBUTE_METRICS = ("precision@1", "precision@10", "AvgP", "mrr@10")


@dataclass(frozen=True, eq=False)
class Task:
    """Queries, their relevant products, and what of which products is ranked.

    Args:
        name: as in the report.
        description: what a query is and what is ranked, for the report.
        queries: the queries' texts; of photo queries the products' ids.
        relevance: for each query {product id: grade}.
        corpus: the products with the titles to be seen.
        rows: the catalogue's rows that are ranked, ascending.
        metrics: the metrics to report, such as "recall@10".
        main_metric: the one for paired tests, slices and plots.
        kind: natural queries that were judged; those of a text benchmark, another catalogue's; title phrases; or
            queries made from the catalogue.
        modalities: what the model sees of a product: "title", "image" or both.
        photo_queries: the rows whose photos are the queries; None for queries of text.
        excluded: for each query the rows that it must not find, such as its own; None for none.
        hidden_columns: the columns whose words are taken out of the titles.
        slices: name of a slicing to the label of each query.
        no_titles: why systems that read titles don't apply; empty where they do.
        plain: the same queries in the catalogue's own words; None for a task that has no such twin.
        num_dropped_ids: relevant ids that were dropped because the catalogue lacks them.
        num_dropped_queries: queries that were dropped because no relevant product is ranked.
    """

    name: str
    description: str
    queries: list[str]
    relevance: list[dict[str, float]]
    corpus: Corpus
    rows: np.ndarray
    metrics: tuple[str, ...]
    main_metric: str
    kind: Kind = "synthetic"
    modalities: tuple[str, ...] = TITLE_AND_PHOTO
    photo_queries: list[int] | None = None
    excluded: list[set[int]] | None = None
    hidden_columns: tuple[str, ...] = ()
    slices: dict[str, list[str]] = field(default_factory=dict)
    no_titles: str = ""
    plain: "Task | None" = None
    num_dropped_ids: int = 0
    num_dropped_queries: int = 0


def length_slice(queries: Sequence[str]) -> list[str]:
    """Labels queries by their number of words."""
    lengths = [len(query.split()) for query in queries]
    return ["1 word" if n == 1 else f"{n} words" if n < 5 else "5 words or more" for n in lengths]


# ----------------------------------------------------------------------------------------------------------------------
# Judged queries
# ----------------------------------------------------------------------------------------------------------------------


def judged_task(
    queries: Mapping[str, Mapping[str, float]], source: str, corpus: Corpus, drop_missing: bool, **fields: Any
) -> Task:
    """A task of judged queries.

    Args:
        queries: {query: {product id: grade}}.
        source: where they come from, for messages.
        corpus: the products.
        drop_missing: drop judged products that the catalogue lacks, and queries left without a product of grade 1 or
            more, instead of raising.
        fields: the rest of the `Task`.

    Raises:
        ValueError: if a judged product isn't in the catalogue, a query has no relevant one, or nothing is left.
    """
    known = set(corpus.ids)
    missing = [(query, product) for query, grades in queries.items() for product in grades if product not in known]
    if missing and not drop_missing:
        query, product = missing[0]
        raise ValueError(
            f"{source}: {len(missing)} judged product ids, of {len({query for query, _ in missing})} queries, are not "
            f"in the catalogue; the first is {product!r} of query {query!r}. Add the split that holds them to --split, "
            "or leave them out with --drop_missing_relevant."
        )
    hopeless = [query for query, grades in queries.items() if not any(grade >= 1 for grade in grades.values())]
    if hopeless and not drop_missing:
        raise ValueError(
            f"{source}: {len(hopeless)} queries have no product of grade 1 or more, the first is {hopeless[0]!r}: "
            "judge some, or leave the queries out with --drop_missing_relevant."
        )
    kept = {query: {p: grade for p, grade in grades.items() if p in known} for query, grades in queries.items()}
    if drop_missing:
        kept = {query: grades for query, grades in kept.items() if any(grade >= 1 for grade in grades.values())}
        if not kept:
            raise ValueError(f"{source}: no relevant product is in the catalogue. Do --id_column and --split fit?")
    return Task(
        queries=list(kept),
        relevance=list(kept.values()),
        corpus=corpus,
        slices={"query length": length_slice(list(kept))},
        num_dropped_ids=len(missing),
        num_dropped_queries=len(queries) - len(kept),
        **fields,
    )


def restrict_task(task: Task, rows: np.ndarray, suffix: str) -> Task | None:
    """The same judged queries where only some products are ranked, and judgements of others don't count.

    Args:
        task: of [`judged_task`].
        rows: the products ranked, ascending.
        suffix: of the task's name.

    Returns:
        The task, without queries that have no relevant product among those ranked; None if no query has one.
    """
    ranked = {task.corpus.ids[row] for row in rows}
    relevance = [
        {product: grade for product, grade in grades.items() if product in ranked} for grades in task.relevance
    ]
    kept = [number for number, grades in enumerate(relevance) if any(grade >= 1 for grade in grades.values())]
    if not kept:
        logger.warning(f"{task.name}{suffix}: not measured, since no query has a relevant product there.")
        return None
    queries = [task.queries[number] for number in kept]
    return replace(
        task,
        name=f"{task.name}{suffix}",
        queries=queries,
        relevance=[relevance[number] for number in kept],
        rows=rows,
        slices={"query length": length_slice(queries)},
        num_dropped_ids=0,
        num_dropped_queries=len(task.queries) - len(kept),
    )


# ----------------------------------------------------------------------------------------------------------------------
# Title phrases
# ----------------------------------------------------------------------------------------------------------------------


def title_phrases_task(corpus: Corpus, rows: np.ndarray, suffix: str, num_phrases: int, seed: int) -> Task | None:
    """Neighbouring words of titles, against titles alone; None if no title has words.

    Args:
        corpus, rows: the products ranked, as far as they have titles.
        suffix: of the task's name, for the products ranked.
        num_phrases: at most so many.
        seed: of the draw.
    """
    rows = rows[corpus.shows(["title"])[rows]]
    drawn = draw_title_phrases([corpus.titles[row] or "" for row in rows], num_phrases, seed=seed)
    if not drawn.phrases:
        return None
    return Task(
        name=f"title phrases{suffix}",
        description="One to three neighbouring words of a title, drawn at random, against titles alone. The products "
        "whose titles hold all of the words are relevant, so a system that compares words has it easy: it is the "
        "text backbone that the model is to be compared with.",
        queries=drawn.phrases,
        relevance=[{corpus.ids[rows[title]]: 1.0 for title in sorted(titles)} for titles in drawn.relevant],
        corpus=corpus,
        rows=rows,
        metrics=JUDGED_METRICS,
        main_metric="ndcg@10",
        kind="title phrases",
        modalities=("title",),
        slices={"query length": length_slice(drawn.phrases)},
    )


# ----------------------------------------------------------------------------------------------------------------------
# Queries made from attributes
# ----------------------------------------------------------------------------------------------------------------------


def template_queries(
    corpus: Corpus, rows: Sequence[int], templates: QueryTemplates, num_queries: int, rng: np.random.Generator
) -> Judgements:
    """Queries that templates make from the attributes of some products, each with all products that have what it asks.

    Args:
        corpus: with the templates' attributes.
        rows: the products to make queries from, in this order.
        templates: a template with words of its own makes no query, since more than its attributes may be asked.
        num_queries: at most so many.
        rng: draws templates and attributes.

    Returns:
        Query to product id to grade 1.
    """
    relevance: Judgements = {}
    for row in rows:
        if len(relevance) == num_queries:
            break
        values: dict[str, Any] = {column: corpus.attributes[column][row] for column in templates.attributes}
        query, stated = templates.make(values, rng) or ("", [])
        if stated:
            found = set.intersection(*(corpus.members[column][values[column]] for column in stated))
            relevance[query] = {corpus.ids[member]: 1.0 for member in sorted(found)}
    return relevance


def attribute_task(column: str, corpus: Corpus, rows: np.ndarray, suffix: str, bands: Mapping[str, str]) -> Task:
    """Each distinct value of a column as a query, relevant to the products that have it.

    Args:
        column: of the catalogue.
        corpus, rows: the products ranked.
        suffix: of the task's name, for the products ranked.
        bands: value to its frequency in training; empty where that isn't known.
    """
    ranked = set(rows.tolist())
    relevant = {value: members & ranked for value, members in corpus.members[column].items()}
    queries = sorted(value for value, members in relevant.items() if members)
    if not queries:
        raise ValueError(f"--attribute_columns holds {column!r}, but no product has a value in that column.")
    slices = {"query length": length_slice(queries)}
    if bands:
        slices[f"{column} in training"] = [bands.get(query, "not in training") for query in queries]
    return Task(
        name=f"{column}-to-product{suffix}",
        description=f"Synthetic queries: the values of `{column}`, against title and photo together. The products with "
        "the value are relevant.",
        queries=queries,
        relevance=[{corpus.ids[row]: 1.0 for row in sorted(relevant[query])} for query in queries],
        corpus=corpus,
        rows=rows,
        metrics=ATTRIBUTE_METRICS,
        main_metric="precision@10",
        slices=slices,
    )


# ----------------------------------------------------------------------------------------------------------------------
# Photos as queries
# ----------------------------------------------------------------------------------------------------------------------


def image_task(
    corpus: Corpus,
    rows: np.ndarray,
    query_rows: np.ndarray,
    suffix: str,
    columns: Sequence[str],
    num_queries: int,
    min_relevant: int,
    seed: int,
    bands: Mapping[str, str],
) -> Task:
    """Photos that have to find other products with the same values of some columns.

    A query must not find its own product, nor one with the same title, which often is the same product in another
    size.

    Args:
        corpus, rows: the products ranked.
        query_rows: the products to draw the query photos from.
        suffix: of the task's name.
        columns: kind and colour, by which products are alike.
        num_queries: at most so many.
        min_relevant: products that a query needs.
        seed: of the draw.
        bands: kind to its frequency in training; empty where that isn't known.
    """
    groups = group_products(corpus.ids, corpus.titles)
    in_group: dict[int, set[int]] = {}
    for row, group in enumerate(groups):
        in_group.setdefault(group, set()).add(row)
    ranked = set(rows.tolist())
    alike: dict[tuple[str | None, ...], set[int]] = {}
    for row in rows.tolist():
        alike.setdefault(tuple(corpus.attributes[column][row] for column in columns), set()).add(row)

    queries, relevance, excluded = [], [], []
    for row in np.random.default_rng(seed).permutation(query_rows).tolist():
        values = tuple(corpus.attributes[column][row] for column in columns)
        found = alike.get(values, set()) - in_group[groups[row]]
        if None not in values and corpus.has_photo[row] and len(found) >= min_relevant:
            queries.append(row)
            relevance.append({corpus.ids[other]: 1.0 for other in sorted(found)})
            excluded.append(in_group[groups[row]] & ranked)
        if len(queries) == num_queries:
            break
    if not queries:
        raise ValueError(
            f"No product has a photo and {min_relevant} others with the same {' and '.join(columns)}: lower "
            "--min_relevant."
        )
    kinds, colours = ([corpus.attributes[column][row] for row in queries] for column in columns)
    slices = {"colour": colours}
    if bands:
        slices[f"{columns[0]} in training"] = [bands.get(kind, "not in training") for kind in kinds]
    return Task(
        name=f"photo to product{suffix}",
        description="Queries are photos of products, without their titles. Products of the same "
        f"{' and '.join(f'`{column}`' for column in columns)} are relevant; the product itself and those with its "
        "title are left out. Labels are the shop's, and coarse: two black shirts may look nothing alike.",
        queries=[corpus.ids[row] for row in queries],
        relevance=relevance,
        corpus=corpus,
        rows=rows,
        metrics=("precision@10", "precision@1", "mrr@10"),
        main_metric="precision@10",
        photo_queries=queries,
        excluded=excluded,
        slices=slices,
        no_titles="not applicable: the query is a photo",
    )
