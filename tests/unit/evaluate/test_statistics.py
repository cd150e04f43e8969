import json
import subprocess
import sys
from dataclasses import astuple

import numpy as np
import pytest

from mm_agrae.evaluate.statistics import Interval, ProblemResult, bootstrap_mean, summarise
from mm_agrae.metrics.catalogue import check_keys


def result(i, num_correct, *, family="bars", difficulty=1, num_samples=4, greedy=None, formatted=4, truncated=0):
    return ProblemResult(
        sample_id=f"p{i}",
        family=family,
        difficulty=difficulty,
        num_correct=num_correct,
        num_samples=num_samples,
        num_formatted=formatted,
        num_truncated=truncated,
        greedy_correct=greedy,
    )


RESULTS = [
    result(0, 4, greedy=True),
    result(1, 1, greedy=False, formatted=3),
    result(2, 0, family="pie", difficulty=2, greedy=False, formatted=0, truncated=4),
    result(3, 2, family="", difficulty=None, greedy=True),
]


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
        ([0.0], {"num_resamples": 0}, "num_resamples 0"),
    ],
)
def test_bootstrap_errors(values, setting, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, seed=0, **setting)


def test_summary_shape_and_values():
    summary = summarise(RESULTS, set_name="gym", step=7, ks=[4, 1], seed=0)
    assert json.loads(json.dumps(summary)) == summary
    assert {k: summary[k] for k in ("set", "step", "num_problems", "num_samples")} == {
        "set": "gym",
        "step": 7,
        "num_problems": 4,
        "num_samples": 4,
    }
    names = ["pass@1", "pass@4", "avg@4", "greedy", "formatted", "truncated"]
    assert list(summary["overall"]) == names
    assert list(summary["by_family"]) == ["bars", "pie"]
    assert list(summary["by_difficulty"]) == ["1", "2"]
    assert list(summary["by_family"]["bars"]) == ["num_problems", *names]
    values = {name: interval["value"] for name, interval in summary["overall"].items()}
    # pass@1: (1 + 1/4 + 0 + 2/4) / 4; pass@4: three of four; formatted (1 + 3/4 + 0 + 1) / 4.
    expected = [0.4375, 0.75, 0.4375, 0.5, 0.6875, 0.25]
    assert values == pytest.approx(dict(zip(names, expected, strict=True)))
    assert summary["by_family"]["bars"]["num_problems"] == 2
    assert summary["by_family"]["bars"]["pass@1"]["value"] == pytest.approx(0.625)
    assert summary["by_difficulty"]["2"]["pass@4"]["value"] == 0.0
    for interval in summary["overall"].values():
        assert set(interval) == {"value", "low", "high"}
        assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1
    check_keys(f"eval/{name}" for name in summary["overall"])


def test_summary_without_greedy_and_independent_of_order():
    results = [result(i, i % 5, difficulty=1 + i % 12) for i in range(40)]
    summary = summarise(results, set_name="gym", step=0, ks=[1], seed=0)
    assert "greedy" not in summary["overall"]
    assert summary["overall"]["pass@1"] == pytest.approx(summary["overall"]["avg@4"], abs=1e-12)
    assert list(summary["by_difficulty"]) == [str(d) for d in range(1, 13)]
    assert summarise(results[::-1], set_name="gym", step=0, ks=[1], seed=0) == summary
    assert summarise(results, set_name="gym", step=0, ks=[1], seed=1) != summary


@pytest.mark.parametrize(
    ("results", "ks", "message"),
    [
        ([], [1], "there are 0 results"),
        (RESULTS, [1, 8], r"pass@8 was asked for, but there are 4 samples per problem"),
        (RESULTS, [0], r"pass@0 was asked for"),
        ([result(0, 1), result(1, 1, num_samples=3)], [1], "p1 has 3 samples and p0 4"),
        ([result(0, 1, greedy=True), result(1, 1)], [1], "only one of p1 and p0 has a greedy completion"),
        ([result(0, 0, num_samples=0)], [], "p0 has 0 samples"),
    ],
)
def test_summary_errors(results, ks, message):
    with pytest.raises(ValueError, match=message):
        summarise(results, set_name="gym", step=0, ks=ks, seed=0)


def test_importing_needs_no_torch():
    code = "import sys, mm_agrae.evaluate.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
