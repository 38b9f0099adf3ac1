"""Judged queries from files and datasets, and what is relevant to each.

A file holds one of two forms: `{query: {product id: grade}}`, with judgements of products one by one, or a list of
`{"query": text, "where": {column: [value, ...]}}`, for which a product is relevant if every column named holds one of
the values listed. A product is relevant from grade 1 on.
"""

import json
import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from acebert.data.cleaning import clean_text, is_blank
from acebert.data.corpus import Corpus
from acebert.processing_acebert import LONE_SURROGATE

GRADED = "a JSON object {query: {product id: grade}}"
CONDITIONAL = 'a list of {"query": text, "where": {column: [value, ...]}}'
Judgements = dict[str, dict[str, float]]  # query to product id to grade


def read_json(path: str, form: str) -> Any:
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


@dataclass(frozen=True)
class QueryFile:
    """Queries in either of the two forms.

    Args:
        name: of the file, for the report.
        judgements: of a file of graded products; else empty.
        conditions: of a file of conditions, query to column to the values that are relevant; else empty.
    """

    name: str
    judgements: Judgements = field(default_factory=dict)
    conditions: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str) -> "QueryFile":
        """Reads a file and checks its form.

        Raises:
            ValueError: naming the file and the query that is of another form.
        """
        name = "/".join(Path(path).resolve().parts[-2:])  # many benchmarks call their file queries.json
        content = read_json(path, f"{GRADED} or {CONDITIONAL}")
        if isinstance(content, list):
            return cls(name, conditions=_check_conditions(content, path))
        return cls(name, judgements=_check_judgements(content, path, f"{GRADED} or {CONDITIONAL}"))

    @property
    def columns(self) -> list[str]:
        """The columns that conditions name."""
        return list(dict.fromkeys(column for where in self.conditions.values() for column in where))

    def judge(self, corpus: Corpus) -> Judgements:
        """The judgements of a catalogue's products: those of the file, or grade 1 for what meets the conditions.

        Args:
            corpus: with the columns that conditions name.
        """
        if not self.conditions:
            return self.judgements
        return {
            query: {corpus.ids[row]: 1.0 for row in sorted(find_members(corpus, where))}
            for query, where in self.conditions.items()
        }


def find_members(corpus: Corpus, where: Mapping[str, Sequence[str]]) -> set[int]:
    """The rows that have one of the values listed in every column named."""
    rows = (set().union(*(corpus.members[c].get(value, set()) for value in values)) for c, values in where.items())
    return set.intersection(*rows)


def read_queries(path: str) -> Judgements:
    """Reads {query: {product id: grade}} and checks its form.

    Raises:
        ValueError: naming the file and the query that is of another form.
    """
    return _check_judgements(read_json(path, GRADED), path, GRADED)


def _check_judgements(queries: Any, path: str, form: str) -> Judgements:
    if not isinstance(queries, dict) or not queries:
        raise ValueError(f"{path} holds no queries; expected {form}.")
    for query, grades in queries.items():
        numbers = isinstance(grades, dict) and all(
            type(grade) in (int, float) and math.isfinite(grade) for grade in grades.values()
        )
        if is_blank(query) or LONE_SURROGATE.search(query) or not numbers:
            shown = reprlib.repr(grades)
            raise ValueError(f"{path}: query {query!r} has {shown}; expected a text and {{product id: grade}}.")
    return queries


def _check_conditions(entries: list[Any], path: str) -> dict[str, dict[str, list[str]]]:
    queries: dict[str, dict[str, list[str]]] = {}
    for number, entry in enumerate(entries):
        where = entry.get("where") if isinstance(entry, dict) and set(entry) == {"query", "where"} else None
        query = entry["query"] if where else None
        if not isinstance(query, str) or is_blank(query) or LONE_SURROGATE.search(query) or not isinstance(where, dict):
            raise ValueError(f"{path}: entry {number} is {reprlib.repr(entry)}; expected {CONDITIONAL}.")
        if query in queries:
            raise ValueError(f"{path}: entry {number} repeats the query {query!r}: list every query once.")
        queries[query] = {}
        for column, values in where.items():
            # As the catalogue's own values are read, so that 2012 meets a column of floats.
            texts = [clean_text(value) for value in values] if isinstance(values, list) else []
            if not texts or None in texts:
                raise ValueError(
                    f"{path}: query {query!r} asks for {reprlib.repr(values)} in {column!r}; expected a list of values."
                )
            queries[query][column] = [text for text in texts if text is not None]
    if not queries:
        raise ValueError(f"{path} holds no queries; expected {GRADED} or {CONDITIONAL}.")
    return queries


def read_query_config(source: str, config_name: str, query_column: str, ids_column: str) -> Judgements:
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
    queries: Judgements = {}
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


def read_text_benchmark(folder: str) -> tuple[Corpus, Judgements]:
    """Reads judged queries over titles alone, of a catalogue of their own.

    Products with one title become one, with the highest of their grades: a system that reads titles alone can't tell
    them apart, and the order of ties would decide. Queries without a product of grade 1 or more are left out.

    Args:
        folder: with `products.json`, {product id: {"title": text, ...}}, and `queries.json`,
            {query: {product id: grade}}.

    Raises:
        ValueError: naming the file that is of another form, or that judges a product which isn't there.
    """
    path = Path(folder)
    form = 'a JSON object {product id: {"title": text}}'
    products = read_json(str(path / "products.json"), form)
    if not isinstance(products, dict) or not products:
        raise ValueError(f"{path / 'products.json'} holds no products; expected {form}.")
    first: dict[str, str] = {}  # title to the id that stands for all products with it
    stands_for: dict[str, str] = {}
    for product, fields in products.items():
        title = clean_text(fields.get("title")) if isinstance(fields, dict) else None
        if title is None:
            raise ValueError(f"{path / 'products.json'}: product {product!r} has no title; expected {form}.")
        stands_for[product] = first.setdefault(title, product)
    judgements: Judgements = {}
    for query, grades in read_queries(str(path / "queries.json")).items():
        best: dict[str, float] = {}
        for product, grade in grades.items():
            if product not in stands_for:
                raise ValueError(
                    f"{path / 'queries.json'}: query {query!r} judges product {product!r}, which products.json lacks: "
                    "add it, or remove the judgement."
                )
            kept = stands_for[product]
            best[kept] = max(grade, best.get(kept, grade))
        if any(grade >= 1 for grade in best.values()):
            judgements[query] = best
    if not judgements:
        raise ValueError(f"{path / 'queries.json'}: no query has a product of grade 1 or more.")
    titles = {product: title for title, product in first.items()}
    ids = sorted(titles, reverse=True)
    name = path.resolve().name
    return Corpus(name, ids, [titles[product] for product in ids], None, {}, [""] * len(ids)), judgements
