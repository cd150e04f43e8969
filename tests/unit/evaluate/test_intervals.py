import math
from dataclasses import astuple

import numpy as np
import pytest

from mm_agrae.evaluate.intervals import Interval, bootstrap_mean, interval_of, ratio_draws


def test_interval_of_many_problems_is_the_normal_one():
    values = [1.0] * 300 + [0.0] * 700
    interval = bootstrap_mean(values, seed=0)
    # 0.3 ± 1.96 sqrt(.3 · .7 / 1000) = 0.3 ± 0.0284
    assert interval.value == pytest.approx(0.3)
    assert interval.low == pytest.approx(0.3 - 0.0284, abs=0.004)
    assert interval.high == pytest.approx(0.3 + 0.0284, abs=0.004)


def test_interval_equals_resampling_of_indices():
    values = np.random.default_rng(1).choice([0.0, 0.25, 0.5, 1.0], size=60, p=[0.5, 0.2, 0.1, 0.2])
    drawn = np.random.default_rng(2).choice(values, size=(20000, 60)).mean(axis=1)
    interval = bootstrap_mean(values.tolist(), seed=3, num_resamples=20000, level=0.8)
    assert interval.low == pytest.approx(np.quantile(drawn, 0.1), abs=0.006)
    assert interval.high == pytest.approx(np.quantile(drawn, 0.9), abs=0.006)


def test_interval_depends_on_the_seed_only():
    values = [0.0, 0.5, 1.0, 0.25, 0.75] * 8
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values[::-1], seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_equal_outcomes_do_not_claim_certainty():
    # Wilson, z = 1.96, ten of ten: low = 10 / (10 + 3.8415) = 0.72247.
    assert astuple(bootstrap_mean([1.0] * 10, seed=0)) == pytest.approx((1.0, 0.72247, 1.0), abs=1e-5)
    assert astuple(bootstrap_mean([0.0] * 10, seed=0)) == pytest.approx((0.0, 0.0, 1 - 0.72247), abs=1e-5)


def test_one_problem_and_equal_fractions():
    single = bootstrap_mean([1.0], seed=0)
    assert (single.value, single.high) == (1.0, 1.0)
    assert single.low == pytest.approx(1 / 4.8415, abs=1e-4)
    equal = bootstrap_mean([0.5] * 20, seed=0)
    assert equal.low < 0.5 < equal.high
    assert bootstrap_mean([7.0, 7.0], seed=0) == Interval(7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("values", "setting", "message"),
    [
        ([], {}, "there are 0 values"),
        ([0.0, float("nan")], {}, "a value is not finite"),
        ([0.0], {"level": 1.0}, r"level is 1\.0"),
        ([0.0], {"num_resamples": 0}, "num_resamples is 0"),
    ],
)
def test_bootstrap_errors(values, setting, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, seed=0, **setting)


def test_clusters_are_resampled_as_a_whole():
    values = np.random.default_rng(0).random(90)
    clusters = [f"c{i % 30}" for i in range(90)]
    means = np.array([values[i::30].sum() for i in range(30)])
    drawn = np.random.default_rng(1).choice(means, size=(20000, 30)).sum(axis=1) / 90
    interval = bootstrap_mean(values.tolist(), clusters=clusters, seed=3, num_resamples=20000, level=0.8)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(np.quantile(drawn, 0.1), abs=0.004)
    assert interval.high == pytest.approx(np.quantile(drawn, 0.9), abs=0.004)


def test_equal_outcomes_count_clusters_not_problems():
    # Wilson, ten clusters of one outcome each, 40 problems.
    interval = bootstrap_mean([1.0] * 40, clusters=[i % 10 for i in range(40)], seed=0)
    assert astuple(interval) == pytest.approx((1.0, 0.72247, 1.0), abs=1e-5)


def test_quotients_of_resampled_sums():
    tops, bottoms = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [2.0, 0.0]])
    draws = ratio_draws(tops, bottoms, seed=0, num_resamples=500)
    # Two clusters drawn twice: both first, one of each, both second.
    assert {(round(a, 9), "nan" if math.isnan(b) else b) for a, b in draws.tolist()} == {
        (1.0, 0.0),
        (round(1 / 3, 9), 0.0),
        (0.0, "nan"),
    }


def test_undefined_draws_do_not_count():
    draws = np.array([np.nan] * 50 + [0.2, 0.4] * 100)
    assert interval_of(0.3, draws, num_clusters=5, level=0.9) == Interval(0.3, 0.2, 0.4)


@pytest.mark.parametrize(
    ("value", "low", "high"), [(0.0, -0.27753, 0.27753), (1.0, 0.72247, 1.0), (-1.0, -1.0, -0.72247)]
)
def test_equal_differences_have_the_wilson_interval_of_their_size(value, low, high):
    interval = interval_of(value, np.full(100, value), num_clusters=10, signed=True)
    assert astuple(interval) == pytest.approx((value, low, high), abs=1e-5)
