"""Ranked-retrieval metrics as an `evaluate` module: precision, recall, capped recall, MRR, nDCG and hit rate at k.

`retrieval_scores` needs numpy alone; `Retrieval` wraps it for `evaluate.load("metrics/retrieval")`.
"""

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
How well ranked lists of product ids answer queries whose relevant products, with their grades, are known.

For one query with R relevant products, h of them among the first k ranks:

- `precision@k` = h / k, also when fewer than k products were ranked (trec_eval `P_k`).
- `recall@k` = h / R (trec_eval `recall_k`).
- `recall_cap@k` = h / min(k, R): recall that a perfect ranking can bring to 1 (`R_cap@k` in BEIR).
- `hit_rate@k` = 1 if h > 0, else 0 (trec_eval `success_k`).
- `mrr@k` = 1 / rank of the first relevant product if that rank is at most k, else 0 (as in MS MARCO).
- `ndcg@k` = DCG@k / DCG@k of the ideal ranking, DCG@k = sum over ranks i of gain_i / log2(i + 1)
  (trec_eval `ndcg_cut_k`). The gain is the grade itself ("linear", the default, as in trec_eval) or
  2^grade - 1 ("exponential", Burges et al. 2005).

A product is relevant when its grade is at least `relevance_level` (1, as in trec_eval). The gain of a product with
a negative grade, or with none, is 0. Every metric is averaged over queries with equal weight.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list`): one entry per query, either the ranked product ids, best first (`list[str]`), or
        `{"ids": list[str], "scores": list[float]}`. Scored products are ranked here: higher scores first, equal
        scores by id in descending string order, as trec_eval does.
    references (`list`): one `{"ids": list[str], "grades": list[float]}` per query.
    k (`int` or `list[int]`, defaults to `[1, 10]`): the cut-offs.
    gain (`str`, defaults to `"linear"`): `"linear"` or `"exponential"`, for nDCG.
    relevance_level (`float`, defaults to 1): the lowest grade that counts as relevant.
    no_relevant (`str`, defaults to `"error"`): what to do with a query that has no relevant product: `"error"`, or
        `"skip"` to leave it out of every mean and count it in `num_skipped`.
    queries (`list[str]`, *optional*): names of the queries for error messages.
    per_query (`bool`, defaults to `False`): also return each query's scores.

Returns:
    `dict`: the mean of `precision@k`, `recall@k`, `recall_cap@k`, `hit_rate@k`, `mrr@k` and `ndcg@k` for each k,
    `num_queries` (queries in the means) and `num_skipped`. With `per_query=True` also `per_query`, which maps each
    metric to its scores in the order of the queries, NaN for a skipped query.

Example:

    >>> retrieval = evaluate.load("metrics/retrieval")
    >>> retrieval.compute(
    ...     predictions=[["7", "3", "9"], ["4", "5"]],
    ...     references=[{"ids": ["3"], "grades": [1]}, {"ids": ["4", "8"], "grades": [2, 1]}],
    ...     k=2,
    ... )["mrr@2"]
    0.75
"""

_CITATION = """
@inproceedings{voorhees-1999-trec8-qa,
    title = {The {TREC-8} Question Answering Track Report},
    author = {Voorhees, Ellen M.},
    booktitle = {Proceedings of the Eighth Text REtrieval Conference},
    year = {1999}
}
@article{jarvelin-kekalainen-2002-cumulated,
    title = {Cumulated Gain-Based Evaluation of {IR} Techniques},
    author = {J{\\"a}rvelin, Kalervo and Kek{\\"a}l{\\"a}inen, Jaana},
    journal = {ACM Transactions on Information Systems},
    volume = {20},
    number = {4},
    year = {2002}
}
@inproceedings{burges-etal-2005-learning,
    title = {Learning to Rank Using Gradient Descent},
    author = {Burges, Chris and others},
    booktitle = {Proceedings of the 22nd International Conference on Machine Learning},
    year = {2005}
}
@inproceedings{thakur-etal-2021-beir,
    title = {{BEIR}: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models},
    author = {Thakur, Nandan and others},
    booktitle = {NeurIPS Datasets and Benchmarks},
    year = {2021}
}
"""


def rank_by_score(ids: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Orders ids by descending score; equal scores by id in descending string order, as trec_eval does.

    Args:
        ids: product ids.
        scores: one score per id.

    Raises:
        ValueError: if the lengths differ or a score is NaN.
    """
    if len(ids) != len(scores):
        raise ValueError(f"A prediction has {len(ids)} ids but {len(scores)} scores; give one score per id.")
    if any(math.isnan(score) for score in scores):
        raise ValueError("A prediction holds a NaN score, which has no place in a ranking.")
    return [product for _, product in sorted(zip(scores, ids, strict=True), reverse=True)]


def retrieval_scores(
    rankings: Sequence[Sequence[str]],
    relevance: Sequence[Mapping[str, float]],
    k: int | Sequence[int] = (1, 10),
    *,
    gain: str = "linear",
    relevance_level: float = 1.0,
    no_relevant: str = "error",
    queries: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Scores every query at every cut-off; the formulas and their sources are in this module's description.

    Args:
        rankings: for each query the ranked product ids, best first; may be shorter than k, or empty.
        relevance: for each query the grade of each judged product; an id that is missing has gain 0.
        k: one cut-off or several.
        gain: "linear" (the grade) or "exponential" (2^grade - 1).
        relevance_level: the lowest grade that counts as relevant; positive.
        no_relevant: "error", or "skip" to give such queries NaN.
        queries: names of the queries for error messages; their positions by default.

    Returns:
        Metric name, such as "recall@10", to an array (num_queries,) of scores in [0, 1].

    Raises:
        ValueError: if an argument is out of range, the lengths differ, a ranking repeats an id, a grade is not
            finite, or a query has no relevant product and `no_relevant` is "error".
    """
    cutoffs = _check_cutoffs(k)
    if gain not in ("linear", "exponential"):
        raise ValueError(f'`gain` is {gain!r}; choose "linear" or "exponential".')
    if no_relevant not in ("error", "skip"):
        raise ValueError(f'`no_relevant` is {no_relevant!r}; choose "error" or "skip".')
    if not relevance_level > 0:
        raise ValueError(f"`relevance_level` is {relevance_level}; it has to be positive.")
    if len(rankings) != len(relevance):
        raise ValueError(f"There are {len(rankings)} rankings for {len(relevance)} queries with relevance grades.")
    if not len(rankings):
        raise ValueError("There are no queries to score.")
    if queries is not None and len(queries) != len(rankings):
        raise ValueError(f"`queries` has {len(queries)} names for {len(rankings)} rankings.")
    names = [repr(query) for query in queries] if queries is not None else [f"#{i}" for i in range(len(rankings))]

    depth = max(cutoffs)
    grades = np.zeros((len(rankings), depth))  # of the ranked products
    ideal_grades = np.zeros_like(grades)  # of the best ranking there can be
    num_relevant = np.zeros(len(rankings))
    for row, (ranking, judged) in enumerate(zip(rankings, relevance, strict=True)):
        if len(set(ranking)) != len(ranking):
            repeated = next(product for i, product in enumerate(ranking) if product in ranking[:i])
            raise ValueError(f"The ranking of query {names[row]} holds id {repeated!r} more than once.")
        judgements = np.fromiter(judged.values(), dtype=np.float64, count=len(judged))
        if not np.isfinite(judgements).all():
            raise ValueError(f"A relevance grade of query {names[row]} is not a finite number.")
        top = [judged.get(product, 0.0) for product in ranking[:depth]]
        grades[row, : len(top)] = top
        best = np.sort(judgements)[::-1][:depth]
        ideal_grades[row, : len(best)] = best
        num_relevant[row] = (judgements >= relevance_level).sum()

    unanswerable = np.flatnonzero(num_relevant == 0)
    if len(unanswerable) and no_relevant == "error":
        shown = ", ".join(names[row] for row in unanswerable[:5]) + (", ..." if len(unanswerable) > 5 else "")
        raise ValueError(
            f"{len(unanswerable)} of {len(rankings)} queries have no product of grade {relevance_level:g} or more: "
            f"{shown}. "
            'Correct their grades, lower `relevance_level`, or leave them out with `no_relevant="skip"`.'
        )

    relevant = grades >= relevance_level
    hits = relevant.cumsum(axis=1)
    first_rank = np.where(hits[:, -1] > 0, relevant.argmax(axis=1) + 1, np.inf)
    discounts = 1.0 / np.log2(np.arange(depth) + 2)
    dcg = (_gains(grades, gain) * discounts).cumsum(axis=1)
    ideal_dcg = (_gains(ideal_grades, gain) * discounts).cumsum(axis=1)

    scores = {}
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 only for queries without a relevant product
        for cutoff in cutoffs:
            found = hits[:, cutoff - 1]
            scores[f"precision@{cutoff}"] = found / cutoff
            scores[f"recall@{cutoff}"] = found / num_relevant
            scores[f"recall_cap@{cutoff}"] = found / np.minimum(cutoff, num_relevant)
            scores[f"hit_rate@{cutoff}"] = (found > 0).astype(np.float64)
            scores[f"mrr@{cutoff}"] = np.where(first_rank <= cutoff, 1.0 / first_rank, 0.0)
            scores[f"ndcg@{cutoff}"] = dcg[:, cutoff - 1] / ideal_dcg[:, cutoff - 1]
    for values in scores.values():
        values[unanswerable] = np.nan
    return scores


def _gains(grades: np.ndarray, gain: str) -> np.ndarray:
    positive = np.maximum(grades, 0.0)
    return positive if gain == "linear" else np.exp2(positive) - 1.0


def _check_cutoffs(k: int | Sequence[int]) -> list[int]:
    cutoffs: list[Any] = list(k) if isinstance(k, Iterable) else [k]
    if not cutoffs or any(isinstance(c, bool) or not isinstance(c, Integral) or c < 1 for c in cutoffs):
        raise ValueError(f"`k` is {k!r}; give a positive integer or several.")
    return sorted({int(cutoff) for cutoff in cutoffs})


def _columns(entry: Any, where: str, value_name: str) -> dict[str, Any]:
    """Checks one prediction or reference against the two columns that it has to hold."""
    if not isinstance(entry, Mapping) or set(entry) != {"ids", value_name}:
        raise ValueError(f'{where} is {reprlib.repr(entry)}; expected {{"ids": [...], "{value_name}": [...]}}.')
    ids, values = list(entry["ids"]), list(entry[value_name])
    strangers = [product for product in ids if not isinstance(product, str)]
    if strangers:
        raise ValueError(f"{where} holds the id {strangers[0]!r}; ids are strings.")
    if len(ids) != len(values):
        raise ValueError(f"{where} has {len(ids)} ids but {len(values)} {value_name}.")
    if len(set(ids)) != len(ids):
        raise ValueError(f"{where} holds an id more than once.")
    return {"ids": ids, value_name: values}


def _scored(prediction: Any, where: str) -> dict[str, Any]:
    """A ranked list becomes ids with falling scores, so that one schema holds both kinds of prediction."""
    if isinstance(prediction, (list, tuple, np.ndarray)):
        prediction = {"ids": prediction, "scores": range(len(prediction), 0, -1)}
    return _columns(prediction, where, "scores")


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Retrieval(evaluate.Metric):
    """Precision, recall, capped recall, hit rate, MRR and nDCG at k of ranked product ids."""

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("string"))
        numbers = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": {"ids": ids, "scores": numbers}, "references": {"ids": ids, "grades": numbers}}
            ),
            reference_urls=["https://github.com/usnistgov/trec_eval", "https://arxiv.org/abs/2104.08663"],
        )

    def add_batch(self, *, predictions: Sequence[Any], references: Sequence[Any], **kwargs: Any) -> None:
        """Adds queries to the module's stack; see `compute` for what an entry holds.

        Raises:
            ValueError: if an entry is of another form. `datasets` would turn many such entries into wrong ids.
        """
        if len(predictions) != len(references):
            raise ValueError(f"There are {len(predictions)} predictions for {len(references)} references.")
        super().add_batch(
            predictions=[_scored(entry, f"predictions[{i}]") for i, entry in enumerate(predictions)],
            references=[_columns(entry, f"references[{i}]", "grades") for i, entry in enumerate(references)],
            **kwargs,
        )

    def add(self, *, prediction: Any, reference: Any, **kwargs: Any) -> None:
        """Adds one query to the module's stack; see `compute` for what an entry holds."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def _compute(
        self,
        *,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        k: int | Sequence[int] = (1, 10),
        gain: str = "linear",
        relevance_level: float = 1.0,
        no_relevant: str = "error",
        queries: Sequence[str] | None = None,
        per_query: bool = False,
    ) -> dict[str, Any]:
        scores = retrieval_scores(
            [rank_by_score(prediction["ids"], prediction["scores"]) for prediction in predictions],
            [dict(zip(reference["ids"], reference["grades"], strict=True)) for reference in references],
            k,
            gain=gain,
            relevance_level=relevance_level,
            no_relevant=no_relevant,
            queries=queries,
        )
        skipped = np.isnan(next(iter(scores.values())))
        if skipped.all():
            raise ValueError("Every query was skipped: none has a relevant product.")
        results: dict[str, Any] = {name: float(values[~skipped].mean()) for name, values in scores.items()}
        results |= {"num_queries": int((~skipped).sum()), "num_skipped": int(skipped.sum())}
        if per_query:
            results["per_query"] = {name: values.tolist() for name, values in scores.items()}
        return results
