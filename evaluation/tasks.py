"""What is asked and what answers it: tasks of queries with their relevant products.

But for judged query files, all queries are synthetic: made from a catalogue's own attributes. A task says so in its
description, which the report repeats.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from acebert.data.cleaning import is_blank
from acebert.data.corpus import Corpus
from acebert.data.grouping import group_products
from acebert.data.query_templates import QueryTemplates
from acebert.evaluation.tokenization import WORD, tokenize
from acebert.evaluation.training_texts import TrainingTexts
from acebert.processing_acebert import LONE_SURROGATE

TITLE_AND_PHOTO = ("title", "image")
UNSEEN = ", unseen products"  # ends the names of tasks that rank only what the model wasn't trained on
SHOPPER_METRICS = ("ndcg@10", "precision@1", "precision@10", "recall_cap@10", "mrr@10")
ATTRIBUTE_METRICS = ("precision@1", "precision@10", "AvgP", "mrr@10")


@dataclass(frozen=True, eq=False)
class Task:
    """Queries, their relevant products, and what of which products is ranked.

    Args:
        name: as in the report.
        description: what a query is and what is ranked, for the report.
        queries: the queries' texts; of photo queries the products' ids.
        relevance: for each query {product id: grade}.
        catalog: the products with the titles to be seen.
        rows: the catalogue's rows that are ranked, ascending.
        metrics: the metrics to report, such as "recall@10".
        main_metric: the one for paired tests, slices and plots.
        sides: what the model sees of a product: "title", "image" or both.
        photo_queries: the rows whose photos are the queries; None for queries of text.
        excluded: for each query the rows that it must not find, such as its own; None for none.
        hidden_columns: the columns whose words are taken out of the titles.
        slices: name of a slicing to the label of each query.
        no_titles: why systems that read titles don't apply; empty where they do.
        plain: the same queries in the catalogue's own words; None for a task that has no such twin.
        num_dropped_ids: relevant ids that were dropped because the catalogue lacks them.
        num_dropped_queries: queries that were dropped because no relevant product was left.
    """

    name: str
    description: str
    queries: list[str]
    relevance: list[dict[str, float]]
    catalog: Corpus
    rows: np.ndarray
    metrics: tuple[str, ...]
    main_metric: str
    sides: tuple[str, ...] = TITLE_AND_PHOTO
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


# --- Judged queries ---------------------------------------------------------------------------------------------------


def _read_json(path: str, form: str) -> Any:
    """What a JSON file holds; an object that has a name twice is refused, for the first value would be lost.

    Args:
        path: of the file, in UTF-8.
        form: what was expected, for messages.
    """

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise ValueError(f"{twice!r} is there twice in one object")
        return found

    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=to_dict)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read: {error}; expected {form}, in UTF-8.") from error


def read_queries(path: str) -> dict[str, dict[str, float]]:
    """Reads {query: {product id: grade}} and checks its form.

    Raises:
        ValueError: naming the file and the query that is of another form.
    """
    queries = _read_json(path, "a JSON object {query: {product id: grade}}")
    if not isinstance(queries, dict) or not queries:
        raise ValueError(f"{path} holds no queries; expected a JSON object {{query: {{product id: grade}}}}.")
    for query, grades in queries.items():
        numbers = isinstance(grades, dict) and all(
            type(grade) in (int, float) and math.isfinite(grade) for grade in grades.values()
        )
        if is_blank(query) or LONE_SURROGATE.search(query) or not numbers:
            raise ValueError(f"{path}: query {query!r} has {grades!r}; expected a text and {{product id: grade}}.")
    return queries


def read_query_config(source: str, config_name: str, query_column: str, ids_column: str) -> dict[str, dict[str, float]]:
    """Reads queries that a dataset keeps in a configuration of its own, as the sample catalogue does; grades are 1.

    Args:
        source: folder or Hub id of the dataset.
        config_name: the configuration; all its splits are read.
        query_column: column of the query's text.
        ids_column: column of the list of relevant products' ids.

    Raises:
        ValueError: if a column is missing, a query is empty or repeated, or its ids are no list.
    """
    rows = datasets.concatenate_datasets(list(datasets.load_dataset(source, config_name).values()))
    for column in (query_column, ids_column):
        if column not in rows.column_names:
            raise ValueError(
                f"Configuration {config_name!r} of {source} has no column {column!r}, but {rows.column_names}: name "
                "yours by --query_text_column and --relevant_ids_column."
            )
    queries: dict[str, dict[str, float]] = {}
    for number, (query, ids) in enumerate(zip(rows[query_column], rows[ids_column], strict=True)):
        is_text = isinstance(query, str) and not is_blank(query)
        if not is_text or query in queries or not isinstance(ids, list) or None in ids:
            raise ValueError(
                f"Configuration {config_name!r} of {source}, row {number}: query {query!r} has {ids!r}; expected a "
                "text that no other row has and a list of product ids."
            )
        queries[query] = {str(product): 1.0 for product in ids}
    if not queries:
        raise ValueError(f"Configuration {config_name!r} of {source} holds no queries.")
    return queries


def judged_task(
    queries: Mapping[str, Mapping[str, float]], source: str, catalog: Corpus, drop_missing: bool, **fields: Any
) -> Task:
    """A task of judged queries.

    Args:
        queries: {query: {product id: grade}}.
        source: where they come from, for messages.
        catalog: the products.
        drop_missing: drop judged products that the catalogue lacks, and queries left without a product of grade 1 or
            more, instead of raising.
        fields: the rest of the `Task`.

    Raises:
        ValueError: if a judged product isn't in the catalogue, a query has no relevant one, or nothing is left.
    """
    known = set(catalog.ids)
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
        catalog=catalog,
        slices={"query length": length_slice(list(kept))},
        num_dropped_ids=len(missing),
        num_dropped_queries=len(queries) - len(kept),
        **fields,
    )


# --- Attribute values as queries --------------------------------------------------------------------------------------


def attribute_task(column: str, catalog: Corpus, rows: np.ndarray, suffix: str, bands: Mapping[str, str]) -> Task:
    """Each distinct value of a column as a query, relevant to the products that have it.

    Args:
        column: of the catalogue.
        catalog, rows: the products ranked.
        suffix: of the task's name, for the products ranked.
        bands: value to its frequency in training; empty where that isn't known.
    """
    ranked = set(rows.tolist())
    relevant = {value: members & ranked for value, members in catalog.members[column].items()}
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
        relevance=[{catalog.ids[row]: 1.0 for row in sorted(relevant[query])} for query in queries],
        catalog=catalog,
        rows=rows,
        metrics=ATTRIBUTE_METRICS,
        main_metric="precision@10",
        slices=slices,
    )


# --- Shopper queries --------------------------------------------------------------------------------------------------


class Synonyms:
    """Words that shoppers use for attribute values.

    A word that is listed under several values of a column asks for any of them: "kids" for boys and for girls.

    Args:
        words: {column: {value: [word, ...]}}.
    """

    def __init__(self, words: Mapping[str, Mapping[str, Sequence[str]]]):
        self.words = words
        self.values: dict[str, dict[str, set[str]]] = {}
        for column, listed in words.items():
            meanings = self.values.setdefault(column, {})
            for value, synonyms in listed.items():
                for word in synonyms:
                    meanings.setdefault(word, set()).add(value)

    @classmethod
    def read(cls, path: str, catalog: Corpus) -> "Synonyms":
        """Reads a JSON file; values that no product of the catalogue has are allowed.

        Raises:
            ValueError: if the file is of another form, names a column that the queries don't ask for, or a synonym
                consists of words of the catalogue's own values, so that it is none.
        """
        words = _read_json(path, "{column: {value: [word, ...]}}")
        form = "expected {column: {value: [word, ...]}}."
        if not isinstance(words, dict) or not words:
            raise ValueError(f"{path} holds no synonyms; {form}")
        own = {token for column in words for value in catalog.members.get(column, ()) for token in tokenize(value)}
        for column, listed in words.items():
            if not isinstance(listed, dict):
                raise ValueError(f"{path}: column {column!r} holds {listed!r}; {form}")
            for value, synonyms in listed.items():
                if not isinstance(synonyms, list) or not all(isinstance(word, str) for word in synonyms):
                    raise ValueError(f"{path}: {column} {value!r} has {synonyms!r}; {form}")
                for word in synonyms:
                    if own.issuperset(tokenize(word)):
                        raise ValueError(
                            f"{path}: {word!r}, for {column} {value!r}, consists of words of the catalogue's own "
                            "values, which training queries say: choose a word that is new, or leave it out."
                        )
        if not set(words) & set(catalog.attributes):
            raise ValueError(
                f"{path} has the columns {sorted(words)}, the catalogue's attributes are {sorted(catalog.attributes)}: "
                "give --synonyms_file for yours."
            )
        return cls(words)


@dataclass(frozen=True)
class ShopperQuery:
    """A query in several attributes, in two wordings.

    Args:
        values: column to the value that the plain wording asks for.
        words: column to the synonym in the other wording, where there is one.
        plain, synonym: the two wordings.
    """

    values: dict[str, str]
    words: dict[str, str]
    plain: str
    synonym: str


def make_shopper_queries(
    catalog: Corpus,
    rows: np.ndarray,
    templates: QueryTemplates,
    synonyms: Synonyms,
    num_queries: int,
    min_relevant: int,
    seed: int,
) -> list[ShopperQuery]:
    """Draws combinations of attribute values that enough products have, and words them by templates.

    The templates take turns, and each draws its combinations with equal chances, so that rare kinds are asked for as
    well as common ones. No two queries ask for the same. Each has a synonym for at least one of its values.

    Args:
        catalog, rows: the products ranked.
        templates: with columns of the catalogue as fields.
        synonyms: their words.
        num_queries: at most so many.
        min_relevant: products that a combination needs. With fewer, a miss in the top 10 says as much about a handful
            of products' attributes, which aren't free of errors, as about the system.
        seed: of the draws.

    Raises:
        ValueError: if there is no such combination.
    """
    rng = np.random.default_rng(seed)
    pools: list[list[tuple[str, ...]]] = []
    for fields in templates.fields:
        columns = [catalog.attributes[column] for column in fields]
        counts = Counter(tuple(column[row] for column in columns) for row in rows)
        usable = sorted(
            values
            for values, count in counts.items()
            if count >= min_relevant
            and None not in values
            and any(synonyms.words.get(c, {}).get(v) for c, v in zip(fields, values, strict=True))
        )
        pools.append([usable[i] for i in rng.permutation(len(usable))])

    queries: list[ShopperQuery] = []
    asked = set()
    while len(queries) < num_queries and any(pools):
        for template, fields, pool in zip(templates.templates, templates.fields, pools, strict=True):
            combination: dict[str, str] = {}
            while pool and not combination:
                drawn = dict(zip(fields, pool.pop(), strict=True))
                combination = {} if frozenset(drawn.items()) in asked else drawn
            if not combination or len(queries) == num_queries:
                continue
            asked.add(frozenset(combination.items()))
            words = {}
            for column, value in combination.items():
                choices = synonyms.words.get(column, {}).get(value, [])
                if choices:
                    words[column] = choices[int(rng.integers(len(choices)))]
            plain = {column: value.lower() for column, value in combination.items()}
            queries.append(
                ShopperQuery(combination, words, template.format(**plain), template.format(**{**plain, **words}))
            )
    if not queries:
        raise ValueError(
            f"No combination of {templates.templates} has {min_relevant} products and a synonym: change "
            "--shopper_templates, --synonyms_file or --min_relevant."
        )
    return queries


def shopper_tasks(
    queries: Sequence[ShopperQuery],
    synonyms: Synonyms,
    catalog: Corpus,
    rows: np.ndarray,
    suffix: str,
    kind_column: str,
    colour_column: str,
    training: TrainingTexts | None,
) -> tuple[Task, Task]:
    """The queries in the catalogue's words and in synonyms.

    Returns:
        The plain task, and the one with synonyms, which has it as `plain`.
    """
    ranked = set(rows.tolist())

    def answers(query: ShopperQuery, with_synonyms: bool) -> dict[str, float]:
        found = ranked
        for column, value in query.values.items():
            asked = {value}
            if with_synonyms and column in query.words:
                asked = synonyms.values[column][query.words[column]]
            found = found & set().union(*(catalog.members[column].get(v, set()) for v in asked))
        return {catalog.ids[row]: 1.0 for row in sorted(found)}

    slices = {"colour": [query.values.get(colour_column, "none asked") for query in queries]}
    if training is not None:
        bands = training.frequency_bands(kind_column)
        slices[f"{kind_column} in training"] = [
            bands.get(query.values[kind_column], "not in training") if kind_column in query.values else "none asked"
            for query in queries
        ]
    plain = Task(
        name=f"shopper queries, plain{suffix}",
        description="Synthetic queries: several attributes in the catalogue's own words, which are those of template "
        'queries in training, such as "men black formal shoes". The products with all of them are relevant.',
        queries=[query.plain for query in queries],
        relevance=[answers(query, with_synonyms=False) for query in queries],
        catalog=catalog,
        rows=rows,
        metrics=SHOPPER_METRICS,
        main_metric="ndcg@10",
        slices={"query length": length_slice([query.plain for query in queries]), **slices},
    )
    slices = {"query length": length_slice([query.synonym for query in queries]), **slices}
    if training is not None:
        slices["synonyms"] = [_novelty(query.words.values(), training) for query in queries]
    synonym = replace(
        plain,
        name=f"shopper queries, synonyms{suffix}",
        description="Synthetic queries: the same with synonyms in place of the catalogue's words wherever the list has "
        'one, such as "gents jet oxfords". The products with all of the attributes are relevant.',
        queries=[query.synonym for query in queries],
        relevance=[answers(query, with_synonyms=True) for query in queries],
        slices=slices,
        plain=plain,
    )
    return plain, synonym


def _novelty(words: Collection[str], training: TrainingTexts) -> str:
    """How new a query's synonyms are: that of its newest word."""
    tokens = {token for word in words for token in tokenize(word)} - training.query_words
    if not tokens:
        return "all words in training queries"
    return "all words in training titles" if tokens <= training.title_words else "a word in no training text"


# --- Hidden words -----------------------------------------------------------------------------------------------------


def word_forms(phrases: Collection[str]) -> set[str]:
    """The tokens of all phrases, and neighbouring ones written together: "flip", "flop" and "flipflop"."""
    forms = set()
    for phrase in phrases:
        tokens = tokenize(phrase)
        forms |= set(tokens) | {token for a, b in pairwise(tokens) for token in tokenize(a + b)}
    return forms


def hide_words(title: str, forms: Collection[str]) -> str | None:
    """The title without words that have one of the forms; None if nothing is left.

    Singular or plural, a hyphen, and two words for one ("T Shirt") make no difference.

    Args:
        title: any text.
        forms: of [`word_forms`].
    """
    words = list(WORD.finditer(title))
    hidden = [any(token in forms for token in tokenize(word.group())) for word in words]
    for i, (left, right) in enumerate(pairwise(words)):
        if any(token in forms for token in tokenize((left.group() + right.group()).replace("-", ""))):
            hidden[i] = hidden[i + 1] = True
    if not any(hidden):
        return title
    kept = [word.group() for word, is_hidden in zip(words, hidden, strict=True) if not is_hidden]
    return " ".join(kept) or None


def hide_attributes(catalog: Corpus, columns: Sequence[str], synonyms: Synonyms) -> Corpus:
    """The catalogue with titles that don't say any value of the columns, nor a synonym of one."""
    phrases = {value for column in columns for value in catalog.members[column]}
    phrases |= {word for column in columns for word in synonyms.values.get(column, ())}
    forms = word_forms(phrases)
    return replace(catalog, titles=[title and hide_words(title, forms) for title in catalog.titles])


def hidden_words_task(plain: Task, hidden: Corpus, columns: Sequence[str], suffix: str) -> Task:
    """The plain shopper queries on titles without the words that answer them."""
    return replace(
        plain,
        name=f"hidden words{suffix}",
        description="Synthetic queries: the plain shopper queries. Every word of any value of "
        f"{', '.join(f'`{column}`' for column in columns)}, or of a synonym, is taken out of every title, for every "
        "system, so that the photo has to tell. Brands and other words that are left may still hint.",
        catalog=hidden,
        hidden_columns=tuple(columns),
    )


# --- Photos as queries ------------------------------------------------------------------------------------------------


def image_task(
    catalog: Corpus,
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
        catalog, rows: the products ranked.
        query_rows: the products to draw the query photos from.
        suffix: of the task's name.
        columns: kind and colour, by which products are alike.
        num_queries: at most so many.
        min_relevant: products that a query needs.
        seed: of the draw.
        bands: kind to its frequency in training; empty where that isn't known.
    """
    groups = group_products(catalog.ids, catalog.titles)
    in_group: dict[int, set[int]] = {}
    for row, group in enumerate(groups):
        in_group.setdefault(group, set()).add(row)
    ranked = set(rows.tolist())
    alike: dict[tuple[str | None, ...], set[int]] = {}
    for row in rows.tolist():
        alike.setdefault(tuple(catalog.attributes[column][row] for column in columns), set()).add(row)

    queries, relevance, excluded = [], [], []
    for row in np.random.default_rng(seed).permutation(query_rows).tolist():
        values = tuple(catalog.attributes[column][row] for column in columns)
        found = alike.get(values, set()) - in_group[groups[row]]
        if None not in values and catalog.has_photo[row] and len(found) >= min_relevant:
            queries.append(row)
            relevance.append({catalog.ids[other]: 1.0 for other in sorted(found)})
            excluded.append(in_group[groups[row]] & ranked)
        if len(queries) == num_queries:
            break
    if not queries:
        raise ValueError(
            f"No product has a photo and {min_relevant} others with the same {' and '.join(columns)}: lower "
            "--min_relevant."
        )
    kinds, colours = ([catalog.attributes[column][row] for row in queries] for column in columns)
    slices = {"colour": colours}
    if bands:
        slices[f"{columns[0]} in training"] = [bands.get(kind, "not in training") for kind in kinds]
    return Task(
        name=f"photo to product{suffix}",
        description="Queries are photos of products, without their titles. Products of the same "
        f"{' and '.join(f'`{column}`' for column in columns)} are relevant; the product itself and those with its "
        "title are left out. Labels are the shop's, and coarse: two black shirts may look nothing alike.",
        queries=[catalog.ids[row] for row in queries],
        relevance=relevance,
        catalog=catalog,
        rows=rows,
        metrics=("precision@10", "precision@1", "mrr@10"),
        main_metric="precision@10",
        photo_queries=queries,
        excluded=excluded,
        slices=slices,
        no_titles="not applicable: the query is a photo",
    )
