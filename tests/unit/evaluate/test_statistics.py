import json
import subprocess
import sys

import pytest

from mm_agrae.evaluate.statistics import ProblemResult, problem_scores, summarise
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.metrics.majority import AnswerClasses


def result(
    i, num_correct, *, family="bars", difficulty=1, num_samples=4, greedy=None, formatted=4, truncated=0, **more
):
    return ProblemResult(
        sample_id=f"p{i}",
        family=family,
        difficulty=difficulty,
        num_correct=num_correct,
        num_samples=num_samples,
        num_formatted=formatted,
        num_truncated=truncated,
        greedy_correct=greedy,
        **more,
    )


RESULTS = [
    result(0, 4, greedy=True),
    result(1, 1, greedy=False, formatted=3),
    result(2, 0, family="pie", difficulty=2, greedy=False, formatted=0, truncated=4),
    result(3, 2, family="", difficulty=None, greedy=True),
]


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


def votes(*sizes, num_unanswered=0, right=True):
    """Classes of answers, the first one correct or none."""
    return AnswerClasses(sizes=sizes, correct=(right, *[False] * (len(sizes) - 1)), num_unanswered=num_unanswered)


def test_majority_votes():
    # Two of p0's four vote: both right in 1 of 6 draws, a tie of one right and one wrong in 4 of 6: 1/6 + 4/6 · 1/2.
    results = [result(0, 2, classes=votes(2, 1, 1)), result(1, 0, classes=votes(3, right=False, num_unanswered=1))]
    overall = summarise(results, set_name="gym", step=0, ks=[1, 2, 4], seed=0)["overall"]
    names = ["pass@1", "pass@2", "pass@4", "avg@4", "maj@2", "cons@4", "formatted", "truncated"]
    assert list(overall) == names  # maj@1 would be pass@1, and maj@4 is cons@4
    assert overall["maj@2"]["value"] == pytest.approx((1 / 2 + 0) / 2)
    assert overall["cons@4"]["value"] == pytest.approx((1 + 0) / 2)
    check_keys(f"eval/{name}" for name in names)


def test_g_pass():
    scores = problem_scores([result(0, 2), result(1, 4)], ks=[], g_pass_ks=[2])
    names = ["avg@4", "g_pass_50@2", "g_pass_75@2", "g_pass_100@2", "mg_pass@2", "formatted", "truncated"]
    assert list(scores) == names
    assert scores["g_pass_50@2"] == pytest.approx({"p0": 5 / 6, "p1": 1.0})
    for name in ("g_pass_75@2", "g_pass_100@2", "mg_pass@2"):
        assert scores[name] == pytest.approx({"p0": 1 / 6, "p1": 1.0})
    check_keys(f"eval/{name}" for name in names)


def test_any_axis_has_its_table():
    results = [
        result(0, 4, categories={"task": "geometry", "grade": "9"}),
        result(1, 2, categories={"task": "algebra", "grade": ""}),
        result(2, 0, categories={"task": "geometry"}),
        result(3, 1),
    ]
    tables = summarise(results, set_name="gym", step=0, ks=[1], seed=0)["by_category"]
    assert {axis: list(rows) for axis, rows in tables.items()} == {"grade": ["9"], "task": ["algebra", "geometry"]}
    geometry = tables["task"]["geometry"]
    assert (geometry["num_problems"], geometry["pass@1"]["value"]) == (2, 0.5)
    assert geometry["pass@1"]["low"] <= 0.5 <= geometry["pass@1"]["high"]


def test_problems_of_a_group_are_resampled_together():
    # Ten variants of each of 40 questions, all right or all wrong: the interval is that of 40 questions.
    def interval(group):
        results = [result(i, 4 * (i // 10 % 2), group=group(i)) for i in range(400)]
        return summarise(results, set_name="gym", step=0, ks=[1], seed=0)["overall"]["pass@1"]

    alone, together = interval(lambda i: ""), interval(lambda i: f"q{i // 10}")
    assert alone["value"] == together["value"] == 0.5
    # Standard errors sqrt(.25 / 400) and sqrt(.25 / 40), 1.96 of them on each side.
    assert alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * 0.025, rel=0.1)
    assert together["high"] - together["low"] == pytest.approx(2 * 1.96 * 0.0791, rel=0.1)


def test_groups_do_not_depend_on_the_order():
    results = [result(i, i % 5, group=f"q{i % 7}") for i in range(40)]
    summary = summarise(results, set_name="gym", step=0, ks=[3], seed=0)
    assert summarise(results[::-1], set_name="gym", step=0, ks=[3], seed=0) == summary


@pytest.mark.parametrize(
    ("results", "ks", "message"),
    [
        ([], [1], "there are 0 results"),
        (RESULTS, [1, 8], r"pass@8 was asked for, but there are 4 samples per problem"),
        (RESULTS, [0], r"pass@0 was asked for"),
        ([result(0, 1), result(1, 1, num_samples=3)], [1], "p1 has 3 samples and p0 4"),
        ([result(0, 1, greedy=True), result(1, 1)], [1], "only one of p1 and p0 has a greedy completion"),
        ([result(0, 0, num_samples=0)], [], "p0 has 0 samples"),
        ([result(0, 0), result(0, 1)], [1], "p0 occurs twice"),
        ([result(0, 4, classes=votes(4)), result(1, 1)], [1], "only one of p1 and p0 has answer classes"),
        ([result(0, 4, classes=votes(3))], [1], "the answer classes of p0 do not hold its 4 samples"),
    ],
)
def test_summary_errors(results, ks, message):
    with pytest.raises(ValueError, match=message):
        summarise(results, set_name="gym", step=0, ks=ks, seed=0)


def test_g_pass_needs_two_samples():
    with pytest.raises(ValueError, match=r"g_pass@1 was asked for, .* k must be in \[2, 4\]"):
        summarise(RESULTS, set_name="gym", step=0, ks=[1], seed=0, g_pass_ks=[1])


def test_importing_needs_no_torch():
    code = "import sys, mm_agrae.evaluate.statistics, mm_agrae.evaluate.paired; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
