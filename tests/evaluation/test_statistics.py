"""Intervals and tests, against closed forms, enumeration and published worked examples."""

import itertools
import math

import numpy as np
import pytest

from acebert.evaluation.statistics import bootstrap_interval, holm, randomisation_test


def test_interval_of_a_share_meets_the_normal_approximation() -> None:
    scores = (np.random.default_rng(0).random(2000) < 0.3).astype(float)
    found = bootstrap_interval(scores, resamples=4000, seed=0)
    error = 1.96 * math.sqrt(scores.mean() * (1 - scores.mean()) / 2000)
    assert found.mean == pytest.approx(scores.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - error, found.mean + error), abs=error / 10)
    assert bootstrap_interval(scores, resamples=4000, seed=0) == found
    assert bootstrap_interval(scores, resamples=4000, seed=1) != found


def test_interval_of_a_constant_is_a_point() -> None:
    found = bootstrap_interval(np.full(7, 0.25), resamples=1000, seed=0)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_interval_of_a_single_query_is_a_point() -> None:
    found = bootstrap_interval(np.array([0.25]), resamples=1000, seed=0)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_interval_of_a_ratio_weighs_queries_by_the_denominator() -> None:
    hits, slots = np.array([1.0, 0.0, 9.0]), np.array([1.0, 0.0, 9.0])
    found = bootstrap_interval(hits, slots, resamples=1000, seed=0)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)
    found = bootstrap_interval(np.array([1.0, 0.0]), np.array([1.0, 9.0]), resamples=1000, seed=0)
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == (0.0, 1.0)


def test_intervals_of_differences_are_narrower_than_those_of_the_systems() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(500)
    left, right = hard + 0.1, hard + rng.normal(0, 0.01, 500)
    paired = bootstrap_interval(left - right, resamples=1000, seed=0)
    alone = bootstrap_interval(left, resamples=1000, seed=0)
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)
    assert paired.low > 0.09


def test_randomisation_test_meets_the_enumeration_of_all_signs() -> None:
    differences = np.array([0.5, 0.2, -0.1, 0.3, 0.4, 0.0, -0.2, 0.1])
    observed = abs(differences.sum())
    outcomes = [abs(np.dot(signs, differences)) for signs in itertools.product([-1, 1], repeat=len(differences))]
    exact = np.mean([outcome >= observed - 1e-12 for outcome in outcomes])
    sampled = randomisation_test(differences, permutations=40000, seed=0)
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40000))
    assert 0.05 < exact < 0.95
    # A test of two sides: it doesn't matter which system comes first.
    assert randomisation_test(-differences, permutations=40000, seed=0) == sampled


def test_randomisation_test_at_its_ends() -> None:
    assert randomisation_test(np.zeros(10), permutations=1000, seed=0) == 1.0
    # Few differences: every outcome is counted, of which all signs alike are as extreme.
    assert randomisation_test(np.ones(8), permutations=1000, seed=0) == pytest.approx(2 / 2**8)
    # Thirty like differences: no random signs reach them, so p is that of the observed signs alone.
    assert randomisation_test(np.ones(30), permutations=1500, seed=0) == pytest.approx(1 / 1501)
    # One difference: both its signs are as extreme.
    assert randomisation_test(np.array([0.3]), permutations=1000, seed=0) == 1.0


def test_randomisation_test_is_uniform_where_systems_are_alike() -> None:
    rng = np.random.default_rng(0)
    p_values = [randomisation_test(rng.normal(size=40), permutations=400, seed=i) for i in range(300)]
    share = np.mean(np.array(p_values) < 0.2)
    assert share == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 300))


def test_holm_worked_example() -> None:
    # 0.01 * 4, max(.., 0.02 * 3), max(.., 0.03 * 2), max(.., 0.04 * 1), in any order.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
