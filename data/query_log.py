"""A shop's query log: which products each query led to, and how much each of them counts.

A log is a table of its own, with a row for a query and a product that it led to. Rows that share both are added up, so
a log may have one row for each click, or one for each day with the number of clicks.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset

from acebert.data.cleaning import (
    SKIP,
    BadRow,
    OnBadRow,
    clean_value,
    keep_first,
    prepare_columns,
    read_texts,
    refuse_most,
    to_plain_types,
    write_bad_rows,
)
from acebert.data.columns import Columns, column_kind
from acebert.data.grouping import hash_text
from acebert.data.notes import tell
from acebert.data.opening import open_source
from acebert.data.sources import choose_split
from acebert.data.values import parse_numbers, read_values
from acebert.utils.words import cut


@dataclass(frozen=True)
class LogColumns:
    """Which column of a query log holds what. Without one of weights each row counts 1."""

    query: str = "query"
    id: str = "product_id"
    weight: str | None = None

    def names(self) -> list[str]:
        return [name for name in (self.query, self.id, self.weight) if name]


@dataclass(frozen=True, eq=False)
class QueryLog:
    """Pairs of a query and a product, each pair once.

    Args:
        queries: all different, letter case and spacing aside.
        ids: of the products, all different, as texts.
        query_numbers, product_numbers: (pairs,) int64: which of `queries` and which of `ids` a pair is of.
        weights: (pairs,) positive.
    """

    queries: list[str]
    ids: list[str]
    query_numbers: np.ndarray
    product_numbers: np.ndarray
    weights: np.ndarray

    @classmethod
    def from_rows(cls, queries: Sequence[str], ids: Sequence[str], weights: Sequence[float]) -> "QueryLog":
        """A log of rows, those of one query and product added up; pairs that sum up to 0 are left out."""
        texts: dict[int, str] = {}
        keys = [hash_text(query) for query in queries]
        for key, query in zip(keys, queries, strict=True):
            texts.setdefault(key, query)
        query_of = {key: number for number, key in enumerate(texts)}
        product_of = {product_id: number for number, product_id in enumerate(dict.fromkeys(ids))}
        numbers = np.array([query_of[key] for key in keys], dtype=np.int64) * len(product_of)
        numbers += np.array([product_of[product_id] for product_id in ids], dtype=np.int64)
        pairs, row_to_pair = np.unique(numbers, return_inverse=True)
        sums = np.bincount(row_to_pair.ravel(), weights=np.asarray(weights, dtype=np.float64), minlength=len(pairs))
        log = cls(list(texts.values()), list(product_of), *np.divmod(pairs, max(1, len(product_of))), sums)
        return log.select(sums > 0)

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def keys(self) -> list[int]:
        """[`hash_text`] of each query."""
        return [hash_text(query) for query in self.queries]

    @cached_property
    def grades(self) -> np.ndarray:
        """(pairs,) in (0, 1]: a pair's weight over the largest of its query. A query's best products have 1."""
        largest = np.zeros(len(self.queries))
        np.maximum.at(largest, self.query_numbers, self.weights)
        return self.weights / largest[self.query_numbers]

    def sha256(self) -> str:
        digest = hashlib.sha256("\n".join([*self.queries, "", *self.ids]).encode())
        for values in (self.query_numbers, self.product_numbers, self.weights):
            digest.update(values.tobytes())
        return digest.hexdigest()

    def select(self, pairs: np.ndarray) -> "QueryLog":
        """The pairs that a mask (pairs,) marks, with their queries and products."""
        query_numbers, queries = _renumber(self.query_numbers[pairs], self.queries)
        product_numbers, ids = _renumber(self.product_numbers[pairs], self.ids)
        return QueryLog(queries, ids, query_numbers, product_numbers, self.weights[pairs])

    def transform(self, function: Callable[[np.ndarray], np.ndarray]) -> "QueryLog":
        """The log with other weights, of a function of [`weight_transform`]."""
        return replace(self, weights=function(self.weights))

    def hold_out(self, share: float) -> tuple["QueryLog", "QueryLog"]:
        """Splits the log in two by a hash of the queries' texts, so that the same are held out in every run.

        Args:
            share: of the queries to hold out, in (0, 1), met up to chance.

        Returns:
            The rest and the queries held out, each with all of its products.

        Raises:
            ValueError: if nothing would be held out or nothing left.
        """
        held = np.array([hash_text(f"hold out {key}") % 1_000_000 < 1_000_000 * share for key in self.keys])
        if held.all() or not held.any():
            raise ValueError(
                f"Holding out a share of {share} of the query log's {len(self.queries)} queries leaves one side empty: "
                "change --validation_query_share; at 0 none is held out."
            )
        pairs = held[self.query_numbers]
        return self.select(~pairs), self.select(pairs)

    def restrict(self, ids: Collection[str]) -> "QueryLog":
        """The pairs of a catalogue's products. What the catalogue lacks is counted and told with an example.

        Args:
            ids: of the catalogue.

        Raises:
            ValueError: if the catalogue has none of the log's products.
        """
        known = set(ids)
        has = np.array([product_id in known for product_id in self.ids], dtype=bool)
        if has.all():
            return self
        example = cut(self.ids[int(has.argmin())])
        if not has.any():
            raise ValueError(
                f"The catalogue has none of the {len(self.ids):,} products of the query log, which names {example!r}; "
                f"the catalogue has {cut(next(iter(ids)))!r}. Name the ids by --id_column and --query_log_id_column."
            )
        pairs = has[self.product_numbers]
        tell(
            f"The catalogue lacks {int((~has).sum()):,} of the query log's {len(self.ids):,} products, such as "
            f"{example!r}: {int((~pairs).sum()):,} of {len(self):,} pairs of query and product are left out."
        )
        return self.select(pairs)


def _renumber(numbers: np.ndarray, items: list[str]) -> tuple[np.ndarray, list[str]]:
    used, numbers = np.unique(numbers, return_inverse=True)
    return numbers.ravel(), [items[number] for number in used]


# ----------------------------------------------------------------------------------------------------------------------
# Reading
# ----------------------------------------------------------------------------------------------------------------------


def weight_transform(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """What becomes of the weights of pairs: "none", "log" for log(1 + weight), or "clip:N" for at most N.

    Raises:
        ValueError: for another name.
    """
    if name == "none":
        return lambda weights: weights
    if name == "log":
        return np.log1p
    kind, _, number = name.partition(":")
    try:
        most = float(number)
    except ValueError:
        most = float("nan")
    if kind != "clip" or not 0 < most < float("inf"):
        raise ValueError(
            f"--query_log_weight_transform must be none, log, or clip:N with a number N above 0, got {cut(name)!r}."
        )
    return lambda weights: np.minimum(weights, most)


def load_query_log(
    source: str,
    columns: LogColumns = LogColumns(),
    on_bad_row: OnBadRow = "raise",
    bad_rows_file: str | os.PathLike | None = None,
) -> QueryLog:
    """Reads a log of queries.

    Args:
        source: a table's file, a folder or a Hub id, as a catalogue's. It has one split, or one that is named "train".
        columns: which column holds what.
        on_bad_row: "skip" leaves out rows without a query, an id or a weight, counts them and lists them.
        bad_rows_file: the list.

    Raises:
        ValueError: if it can't be read, lacks a column, or has a bad row and `on_bad_row` is "raise", naming the row,
            which counts from 0, and the value.
    """
    opened = open_source(source)
    split = "train" if len(opened.splits) != 1 else next(iter(opened.splits))
    table = choose_split(opened, split, source, on_bad_row)
    missing = [name for name in columns.names() if name not in table.column_names]
    if missing:
        raise ValueError(
            f"No column {missing} in the query log {source!r}: the columns are {sorted(table.column_names)}. Name "
            "yours by --query_log_query_column, --query_log_id_column and --query_log_weight_column."
        )
    table = table.select_columns(list(dict.fromkeys(columns.names())))
    table = prepare_columns(table, Columns(id=columns.id, title=None, image=None, query=columns.query))
    queries, ids = read_texts(table, columns.query), read_texts(table, columns.id)
    weights, bad = _read_weights(table, columns)
    bad += [BadRow(row, ids[row], columns.query, "is missing") for row, query in enumerate(queries) if query is None]
    bad += [BadRow(row, None, columns.id, "is missing") for row, product_id in enumerate(ids) if product_id is None]
    bad = keep_first(bad)
    if bad:
        _leave_out(bad, len(table), source, on_bad_row, bad_rows_file)
    left_out = {found.row for found in bad}
    rows = [
        (query, product_id, weight)
        for row, (query, product_id, weight) in enumerate(zip(queries, ids, weights, strict=True))
        if row not in left_out and query is not None and product_id is not None
    ]
    log = QueryLog.from_rows(*(list(values) for values in zip(*rows, strict=True)))
    if not len(log):
        raise ValueError(f"All weights of the query log {source!r} are 0: nothing can be learned from it.")
    if zeros := sum(weight == 0 for _, _, weight in rows):
        tell(f"{zeros:,} rows of the query log {source!r} have a weight of 0: they are taken for no match.")
    return log


def _read_weights(table: Dataset, columns: LogColumns) -> tuple[list[float], list[BadRow]]:
    """The rows' weights, and the rows whose weight is none."""
    name = columns.weight
    if name is None:
        return [1.0] * len(table), []
    table = to_plain_types(table)
    cells: list[Any] = list(table[name])
    kind = column_kind(table.features[name])
    values = cells
    if kind == "string":
        values, read = parse_numbers(cells), read_values(name, cells)
        if read.kind == "number" and not read.unread and read.note:
            tell(read.note)
    elif kind not in ("integer", "number"):
        raise ValueError(
            f"The weight column {name!r} holds {cut(table.features[name])}, not numbers: name another one by "
            "--query_log_weight_column."
        )
    bad = []
    for row, (cell, value) in enumerate(zip(cells, values, strict=True)):
        if clean_value(value) is None or value < 0:
            what = "is missing" if cell is None else f"is {cut(cell)!r}"
            bad.append(BadRow(row, None, name, f"{what}: a weight is a number of 0 or more, as of clicks"))
    return [0.0 if value is None else float(value) for value in values], bad


def _leave_out(
    bad: Sequence[BadRow], count: int, source: str, on_bad_row: OnBadRow, file: str | os.PathLike | None
) -> None:
    if on_bad_row == "raise":
        raise ValueError(f"The query log {source!r}, row {bad[0].row}: {bad[0].field} {bad[0].reason}. {SKIP}")
    refuse_most(bad, count, f"rows of {source!r}")
    if file is not None and PartialState().is_main_process:
        write_bad_rows(bad, file)
    listed = "" if file is None else f", listed in {file}"
    tell(f"{len(bad):,} of {count:,} rows of the query log are left out{listed}; the first: {bad[0]}.")


# ----------------------------------------------------------------------------------------------------------------------
# Drawing
# ----------------------------------------------------------------------------------------------------------------------


class LoggedQueries:
    """A log by the rows of a catalogue: what led to each row, and which rows answer a query.

    Args:
        log: its products needn't all be in the catalogue.
        ids: of the rows; several rows may be of one product.
        groups: (rows,) integers of [`group_products`][acebert.data.grouping.group_products].
    """

    def __init__(self, log: QueryLog, ids: Sequence[Any], groups: np.ndarray):
        self.log = log
        number_of = {product_id: number for number, product_id in enumerate(log.ids)}
        self.products = np.array([number_of.get(str(clean_value(each)), -1) for each in ids], dtype=np.int64)
        self.query_of = {key: number for number, key in enumerate(log.keys)}
        self.num_groups = len(ids)
        # Pairs in the order of their products, then of their queries, so that one is found by bisection.
        order = np.lexsort((log.query_numbers, log.product_numbers))
        self.queries, self.weights, self.grades = log.query_numbers[order], log.weights[order], log.grades[order]
        self.starts = np.searchsorted(log.product_numbers[order], np.arange(len(log.ids) + 1))
        # Groups in the order of the queries that they answer; -1 for a product that this catalogue lacks.
        group_of = np.full(len(log.ids), -1, dtype=np.int64)
        has_product = self.products >= 0
        group_of[self.products[has_product]] = groups[has_product]
        by_query = np.argsort(log.query_numbers, kind="stable")
        self.answers = group_of[log.product_numbers[by_query]]
        self.answer_starts = np.searchsorted(log.query_numbers[by_query], np.arange(len(log.queries) + 1))

    def pairs_of(self, row: int) -> slice:
        product = self.products[row]
        return slice(0, 0) if product < 0 else slice(self.starts[product], self.starts[product + 1])

    def has_query(self, row: int) -> bool:
        pairs = self.pairs_of(row)
        return bool(pairs.start < pairs.stop)

    def draw(self, row: int, rng: np.random.Generator) -> str | None:
        """A query of a row's product, in proportion to the weights; None for a product that has none."""
        if not self.has_query(row):
            return None
        pairs = self.pairs_of(row)
        sums = self.weights[pairs].cumsum()
        drawn = min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(sums) - 1)
        return self.log.queries[self.queries[pairs][drawn]]

    def grade(self, row: int, query_id: int) -> float:
        """How well a row's product answers a query, in (0, 1]: see [`QueryLog.grades`]; 1 for what the log lacks."""
        query, pairs = self.query_of.get(query_id), self.pairs_of(row)
        if query is None:
            return 1.0
        place = pairs.start + int(np.searchsorted(self.queries[pairs], query))
        return float(self.grades[place]) if place < pairs.stop and self.queries[place] == query else 1.0

    def answering(self, query_id: int) -> np.ndarray:
        """The groups of the products that a query led to."""
        query = self.query_of.get(query_id)
        if query is None:
            return np.empty(0, dtype=np.int64)
        found = self.answers[self.answer_starts[query] : self.answer_starts[query + 1]]
        return found[found >= 0]

    def find_positives(self, query_ids: torch.Tensor, product_ids: torch.Tensor) -> torch.Tensor:
        """Which products the log has for each query.

        Args:
            query_ids: (queries,) of [`hash_text`].
            product_ids: (products,) groups of this catalogue.

        Returns:
            (queries, products) booleans.
        """
        groups = product_ids.cpu().numpy()
        found = np.zeros((len(query_ids), len(groups)), dtype=bool)
        is_answer = np.zeros(self.num_groups, dtype=bool)
        for row, query_id in enumerate(query_ids.tolist()):
            answers = self.answering(query_id)
            is_answer[answers] = True
            found[row] = is_answer[groups]
            is_answer[answers] = False
        return torch.from_numpy(found).to(product_ids.device)
