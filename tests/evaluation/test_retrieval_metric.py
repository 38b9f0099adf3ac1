"""The retrieval metric against numbers worked out by hand and against trec_eval."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import evaluate
import ir_measures
import numpy as np
import pytest
import pytrec_eval

METRIC = Path(__file__).parents[2] / "metrics" / "retrieval"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The metric's file as a plain module, for its pure functions."""
    spec = importlib.util.spec_from_file_location("retrieval_metric", METRIC / "retrieval.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def retrieval() -> evaluate.Metric:
    return evaluate.load(str(METRIC), keep_in_memory=True)


def one_query(ids: list[str], grades: list[float]) -> list[dict]:
    return [{"ids": ids, "grades": grades}]


def test_hand_computed_scores(module: ModuleType) -> None:
    # Relevant: a (3), b (1), e (2); ranked: x a y b z, so hits at ranks 2 and 4.
    scores = module.retrieval_scores([list("xaybz")], [{"a": 3, "b": 1, "e": 2, "y": 0}], k=[1, 2, 4, 10])
    expected = {
        "precision@1": 0, "precision@2": 1 / 2, "precision@4": 2 / 4, "precision@10": 2 / 10,
        "recall@1": 0, "recall@2": 1 / 3, "recall@4": 2 / 3, "recall@10": 2 / 3,
        "recall_cap@1": 0, "recall_cap@2": 1 / 2, "recall_cap@4": 2 / 3, "recall_cap@10": 2 / 3,
        "hit_rate@1": 0, "hit_rate@2": 1, "hit_rate@4": 1, "hit_rate@10": 1,
        "mrr@1": 0, "mrr@2": 1 / 2, "mrr@4": 1 / 2, "mrr@10": 1 / 2,
        "ndcg@1": 0,
        "ndcg@2": (3 / math.log2(3)) / (3 + 2 / math.log2(3)),
        "ndcg@4": (3 / math.log2(3) + 1 / math.log2(5)) / (3 + 2 / math.log2(3) + 1 / 2),
        "ndcg@10": (3 / math.log2(3) + 1 / math.log2(5)) / (3 + 2 / math.log2(3) + 1 / 2),
    }  # fmt: skip
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert scores[name] == pytest.approx([value]), name


def test_exponential_gain(module: ModuleType) -> None:
    scores = module.retrieval_scores([list("ba")], [{"a": 3, "b": 1}], k=2, gain="exponential")
    assert scores["ndcg@2"] == pytest.approx([(1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3))])


def test_relevance_level_moves_hits_but_not_gains(module: ModuleType) -> None:
    ranking, grades = [list("ab")], [{"a": 1, "b": 2}]
    low, high = (module.retrieval_scores(ranking, grades, k=2, relevance_level=level) for level in (1, 2))
    assert (low["precision@2"][0], high["precision@2"][0]) == (1.0, 0.5)
    assert (low["mrr@2"][0], high["mrr@2"][0]) == (1.0, 0.5)
    assert low["ndcg@2"][0] == high["ndcg@2"][0] < 1


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_trec_eval_on_graded_relevance_and_tied_scores(seed: int, retrieval: evaluate.Metric) -> None:
    rng = np.random.default_rng(seed)
    products = [str(number) for number in rng.choice(1000, size=60, replace=False)]
    run, qrels = {}, {}
    for query in map(str, range(40)):
        ranked = rng.permutation(products)[: rng.integers(0, 50)]
        run[query] = {str(p): float(rng.integers(0, 5)) / 4 for p in ranked}  # five score levels: ties everywhere
        judged = rng.permutation(products)[: rng.integers(5, 30)]
        qrels[query] = {str(p): int(rng.integers(-1, 4)) for p in judged} | {str(judged[0]): 2}

    cutoffs = [1, 3, 10, 30]
    ours = retrieval.compute(
        predictions=[{"ids": list(run[q]), "scores": list(run[q].values())} for q in qrels],
        references=[{"ids": list(qrels[q]), "grades": list(qrels[q].values())} for q in qrels],
        k=cutoffs,
        per_query=True,
    )["per_query"]

    measures = {f"{name}.{','.join(map(str, cutoffs))}" for name in ("P", "recall", "ndcg_cut", "success")}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures | {"recip_rank"}).evaluate(run)
    # trec_eval has nothing to say about a query for which nothing was retrieved: its scores are 0.
    expected = [theirs.get(query, {}) for query in qrels]
    names = {"precision": "P", "recall": "recall", "ndcg": "ndcg_cut", "hit_rate": "success"}
    for cutoff in cutoffs:
        for name, trec_name in names.items():
            wanted = [scores.get(f"{trec_name}_{cutoff}", 0.0) for scores in expected]
            assert ours[f"{name}@{cutoff}"] == pytest.approx(wanted), (name, cutoff)
        reciprocal_ranks = [scores.get("recip_rank", 0.0) for scores in expected]
        assert ours[f"mrr@{cutoff}"] == pytest.approx([r if r >= 1 / cutoff else 0.0 for r in reciprocal_ranks])


def test_means_agree_with_ir_measures(module: ModuleType) -> None:
    rng = np.random.default_rng(7)
    run = {str(q): {str(p): float(rng.random()) for p in rng.permutation(30)[:20]} for q in range(25)}
    qrels = {q: {str(p): int(rng.integers(0, 4)) for p in rng.permutation(30)[:12]} | {"0": 1} for q in run}
    measures = [
        ir_measures.nDCG @ 10, ir_measures.P @ 10, ir_measures.R @ 10, ir_measures.RR @ 10, ir_measures.Success @ 10,
    ]  # fmt: skip
    theirs = ir_measures.calc_aggregate(measures, qrels, run)
    rankings = [module.rank_by_score(list(scores), list(scores.values())) for scores in run.values()]
    ours = module.retrieval_scores(rankings, list(qrels.values()), k=10)
    for name, measure in zip(["ndcg@10", "precision@10", "recall@10", "mrr@10", "hit_rate@10"], measures, strict=True):
        assert ours[name].mean() == pytest.approx(theirs[measure]), name


def test_loads_from_its_folder_and_averages_over_queries(retrieval: evaluate.Metric) -> None:
    predictions = [["7", "3", "9"], ["4", "5"]]
    references = [{"ids": ["3"], "grades": [1]}, {"ids": ["4", "8"], "grades": [2, 1]}]
    whole = retrieval.compute(predictions=predictions, references=references, k=2)
    assert whole["mrr@2"] == 0.75
    assert whole["recall@2"] == 0.75
    assert (whole["num_queries"], whole["num_skipped"]) == (2, 0)

    retrieval.add(prediction=predictions[0], reference=references[0])
    retrieval.add_batch(predictions=predictions[1:], references=references[1:])
    assert retrieval.compute(k=2) == whole


def test_tied_scores_rank_by_descending_id(retrieval: evaluate.Metric) -> None:
    results = retrieval.compute(
        predictions=[{"ids": ["10", "9", "2"], "scores": [0.5, 0.5, 0.5]}], references=one_query(["9"], [1]), k=1
    )
    assert results["hit_rate@1"] == 1.0  # "9" > "2" > "10" as strings


def test_queries_without_a_relevant_product(retrieval: evaluate.Metric) -> None:
    predictions = [["a"], ["b"], ["c"]]
    references = [{"ids": ["a"], "grades": [1]}, {"ids": ["b"], "grades": [0]}, {"ids": [], "grades": []}]
    with pytest.raises(ValueError, match=r"2 of 3 queries have no product of grade 1 or more: 'red hat', 'belt'\."):
        retrieval.compute(predictions=predictions, references=references, queries=["bag", "red hat", "belt"])

    results = retrieval.compute(predictions=predictions, references=references, k=1, no_relevant="skip", per_query=True)
    assert (results["num_queries"], results["num_skipped"], results["ndcg@1"]) == (1, 2, 1.0)
    np.testing.assert_array_equal(results["per_query"]["ndcg@1"], [1.0, np.nan, np.nan])

    with pytest.raises(ValueError, match="Every query was skipped"):
        retrieval.compute(predictions=predictions[1:], references=references[1:], no_relevant="skip")


def test_repeated_id_in_a_ranking(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="The ranking of query #1 holds id 'b' more than once"):
        module.retrieval_scores([["a"], ["b", "a", "b"]], [{"a": 1}, {"a": 1}])


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        ({"7": 0.5}, {"ids": ["7"], "grades": [1]}, r"predictions\[0\] is {'7': 0.5}"),
        ("77", {"ids": ["7"], "grades": [1]}, r"predictions\[0\] is '77'"),
        ([7], {"ids": ["7"], "grades": [1]}, r"predictions\[0\] holds the id 7; ids are strings"),
        (["7", "7"], {"ids": ["7"], "grades": [1]}, r"predictions\[0\] holds an id more than once"),
        ({"ids": ["7"], "scores": []}, {"ids": ["7"], "grades": [1]}, r"predictions\[0\] has 1 ids but 0 scores"),
        ({"ids": ["7"], "scores": [math.nan]}, {"ids": ["7"], "grades": [1]}, "NaN score"),
        (["7"], {"7": 1}, r"references\[0\] is {'7': 1}"),
        (["7"], {"ids": ["7", "7"], "grades": [1, 2]}, r"references\[0\] holds an id more than once"),
        (["7"], {"ids": ["7"], "grades": [math.inf]}, "query #0 is not a finite number"),
    ],
)
def test_bad_entries_are_refused(
    prediction: object, reference: object, message: str, retrieval: evaluate.Metric
) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval.compute(predictions=[prediction], references=[reference])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "`k` is 0"),
        ({"k": []}, r"`k` is \[\]"),
        ({"k": 2.5}, "`k` is 2.5"),
        ({"gain": "log"}, "`gain` is 'log'"),
        ({"relevance_level": 0}, "`relevance_level` is 0"),
        ({"no_relevant": "ignore"}, "`no_relevant` is 'ignore'"),
        ({"queries": ["a", "b"]}, "`queries` has 2 names for 1 rankings"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str, module: ModuleType) -> None:
    with pytest.raises(ValueError, match=message):
        module.retrieval_scores([["a"]], [{"a": 1}], **options)


def test_no_queries_and_unequal_lengths(retrieval: evaluate.Metric) -> None:
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        retrieval.compute(predictions=[["a"]], references=one_query(["a"], [1]) * 2)
    with pytest.raises(ValueError, match="no queries"):
        retrieval.compute(predictions=[], references=[])
