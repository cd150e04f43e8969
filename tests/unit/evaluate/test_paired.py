from dataclasses import astuple

import numpy as np
import pytest

from mm_agrae.errors import ConfigError, DataError
from mm_agrae.evaluate.aggregate import aggregate_figures
from mm_agrae.evaluate.paired import NUM_FLIPS, compare_aggregates, compare_scores, mcnemar
from mm_agrae.metrics.group_scores import Scored


def scores(values, start=0):
    return {f"q{i}": float(value) for i, value in enumerate(values, start)}


def chart(number, right, family="human"):
    return Scored(sample_id=f"q{number}", group="", keys={"family": family}, correct=(right,))


@pytest.mark.parametrize(
    ("higher", "lower", "expected"),
    # 2 (1 + 10 + 45) / 2^10; 2 (1) / 2^5; ties of equal counts and of none.
    [(2, 8, 112 / 1024), (5, 0, 2 / 32), (3, 3, 1.0), (0, 0, 1.0), (8, 2, 112 / 1024)],
)
def test_mcnemar(higher, lower, expected):
    assert mcnemar(higher, lower) == pytest.approx(expected)


def test_mcnemar_of_many_questions():
    # 50 above the mean of 500 in 1,000, whose standard deviation is 15.8: z = (50 - 0.5) / 15.81 = 3.13, p = 0.00175.
    assert mcnemar(550, 450) == pytest.approx(0.00175, rel=0.02)


def test_right_and_wrong_questions():
    first, second = scores([1, 1, 0, 0, 0, 0, 0, 1]), scores([1, 0, 1, 1, 1, 1, 0, 1])
    paired = compare_scores(first, second, seed=0)
    assert (paired.first, paired.second) == (3 / 8, 6 / 8)
    assert (paired.num_higher, paired.num_lower, paired.test) == (4, 1, "mcnemar")
    assert paired.p_value == pytest.approx(2 * (1 + 5) / 32)
    assert paired.difference.value == pytest.approx(3 / 8)
    assert paired.difference.low < 0.1 < 0.6 < paired.difference.high


def test_signs_are_counted_where_few_differ():
    # Differences 0.5, 0.25, 0.25, -0.25 sum to 0.75. At least as far from 0 are the sums 1.25 and 0.75 of
    # (+++-: 0.75), (++++: 1.25), (++-+: 0.75), (+-++: 0.75), and their negatives: 8 of 16.
    first, second = scores([0, 0, 0, 0.25, 1]), scores([0.5, 0.25, 0.25, 0, 1])
    paired = compare_scores(first, second, seed=0)
    assert (paired.test, paired.p_value) == ("sign_flip_exact", 0.5)
    assert compare_scores(second, first, seed=0).p_value == 0.5


def test_signs_are_sampled_where_many_differ():
    generator = np.random.default_rng(0)
    first = generator.integers(0, 9, 400) / 8
    second = np.clip(
        first + generator.choice([-0.25, -0.125, 0.0, 0.125, 0.25], 400, p=[0.17, 0.23, 0.15, 0.25, 0.2]), 0, 1
    )
    paired = compare_scores(scores(first), scores(second), seed=0)
    gaps = second - first
    z = abs(gaps.sum()) / np.sqrt((gaps**2).sum())
    assert 2 < z < 3.5
    normal = float(np.mean(np.abs(np.random.default_rng(1).normal(size=400_000)) > z))
    assert paired.test == "sign_flip_sampled"
    assert paired.p_value == pytest.approx(normal, abs=0.004)
    error = gaps.std() / 20
    assert paired.difference.low == pytest.approx(gaps.mean() - 1.96 * error, abs=0.002)
    assert paired.difference.high == pytest.approx(gaps.mean() + 1.96 * error, abs=0.002)
    assert paired == compare_scores(scores(first), scores(second), seed=0)


def test_a_sampled_p_is_never_zero():
    paired = compare_scores(scores([0.0] * 100), scores([0.5] * 100), seed=0)
    assert paired.p_value == 1 / (NUM_FLIPS + 1)


def test_the_interval_is_paired():
    # The questions differ much, the results hardly: the difference is known far better than either mean.
    first = np.random.default_rng(0).random(200) * 0.8
    second = first + np.random.default_rng(1).random(200) * 0.02
    difference = compare_scores(scores(first), scores(second), seed=0).difference
    assert difference.high - difference.low < 0.003


def test_equal_results_do_not_claim_certainty():
    paired = compare_scores(scores([1, 0, 1]), scores([1, 0, 1]), seed=0)
    assert (paired.p_value, paired.difference.value) == (1.0, 0.0)
    assert paired.difference.low == -paired.difference.high < -0.2
    assert paired.difference.high < 1


def test_only_shared_questions_count():
    paired = compare_scores(scores([1, 0, 0, 1]), scores([0, 1, 1], start=2), seed=0)
    assert (paired.num_shared, paired.num_only_first, paired.num_only_second) == (2, 2, 1)
    assert (paired.first, paired.second) == (0.5, 0.5)
    with pytest.raises(DataError, match="share none of their 1 and 1 questions"):
        compare_scores({"a": 1.0}, {"b": 1.0}, seed=0)


def test_groups_change_places_as_a_whole():
    # 5 questions of one group each way: as 10 questions p is 0.002, as 2 groups it cannot be below 1/2.
    first, second = scores([0] * 10), scores([1] * 10)
    groups = {f"q{i}": f"g{i // 5}" for i in range(10)}
    assert compare_scores(first, second, seed=0).p_value == pytest.approx(2 / 1024)
    paired = compare_scores(first, second, seed=0, groups=groups)
    assert (paired.test, paired.p_value) == ("sign_flip_exact", 0.5)
    assert (paired.num_higher, paired.num_lower) == (10, 0)
    # Singles are groups of their own.
    assert compare_scores(first, second, seed=0, groups=dict.fromkeys(first, "")).test == "mcnemar"


def test_figures_of_groups():
    first = [chart(i, i % 2 == 0) for i in range(6)] + [chart(i, False, "augmented") for i in range(6, 10)]
    second = [chart(i, True) for i in range(6)] + [chart(i, i < 8, "augmented") for i in range(6, 10)]
    compared = compare_aggregates("chartqa", first, second, seed=0)
    assert list(compared) == ["accuracy", "human", "augmented", "macro"]
    macro = compared["macro"]
    assert (macro.first, macro.second) == pytest.approx((0.25, 0.75))
    assert macro.difference.value == pytest.approx(0.5)
    assert macro.num_higher is None
    # Five questions differ, all one way: only the observed and the opposite exchange are as far from 0.
    assert compared["accuracy"].p_value == macro.p_value == 2 / 32
    # Of the three human ones, with any exchange of the other two.
    assert compared["human"].p_value == 2 / 8


def test_a_figure_that_is_undefined_in_one_result():
    first, second = [chart(0, True), chart(1, False)], [chart(0, False), chart(1, False)]
    compared = compare_aggregates("chartqa", first, second, seed=0)
    assert compared["augmented"] is None
    assert compared["macro"] is None
    assert compared["human"].p_value == 1.0
    with pytest.raises(DataError, match="2 questions have 1 ids"):
        compare_aggregates("chartqa", [first[0], first[0]], second, seed=0)


def dynamath(group, num_right):
    return [
        Scored(sample_id=f"{group}/{i}", group=group, keys={"variant": str(i)}, correct=(i <= num_right,))
        for i in range(1, 11)
    ]


def test_intervals_of_a_benchmark():
    scored = [question for g in range(40) for question in dynamath(f"g{g}", 10 if g % 4 == 0 else 5)]
    found = aggregate_figures("dynamath", scored, seed=0)
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {"average": 0.625, "worst_case": 0.25, "robustness": 0.4}
    )
    # Groups are resampled: sqrt(.25 · .75 / 40) = 0.0685.
    assert found["worst_case"].high - found["worst_case"].low == pytest.approx(2 * 1.96 * 0.0685, rel=0.12)
    assert found["robustness"].low < 0.4 < found["robustness"].high
    assert aggregate_figures("dynamath", scored[::-1], seed=0) == found


def test_intervals_of_equal_groups_and_of_nothing_right():
    found = aggregate_figures("dynamath", [q for g in range(10) for q in dynamath(f"g{g}", 10)], seed=0)
    for interval in found.values():
        assert astuple(interval) == pytest.approx((1.0, 0.72247, 1.0), abs=1e-5)
    found = aggregate_figures("dynamath", [q for g in range(10) for q in dynamath(f"g{g}", 0)], seed=0)
    assert astuple(found["average"]) == pytest.approx((0.0, 0.0, 0.27753), abs=1e-5)
    assert found["robustness"] is None


def test_equal_outcomes_of_few_questions_are_as_wide_as_they_are_few():
    scored = [chart(0, True), *(chart(i, i % 2 == 0, "augmented") for i in range(1, 41))]
    found = aggregate_figures("chartqa", scored, seed=0)
    assert found["human"].low == pytest.approx(1 / 4.8415, abs=1e-4)  # one question
    assert found["macro"].value == pytest.approx(0.75)


def test_an_unknown_benchmark():
    with pytest.raises(ConfigError, match="The nearest is 'dynamath'"):
        aggregate_figures("dynamaths", [chart(0, True)], seed=0)
