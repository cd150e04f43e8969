"""Metrics agree with the count over every draw, and p-values with the count over every relabelling."""

from collections import Counter
from fractions import Fraction

import metrics_equations as equations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.evaluate.paired import compare_scores, mcnemar
from mm_agrae.metrics.group_scores import Scored, figures, tally
from mm_agrae.metrics.majority import AnswerClasses, maj_at_k
from mm_agrae.metrics.passk import g_pass_at_k, mg_pass_at_k, pass_at_k

DRAWN = settings(max_examples=100)


@st.composite
def counts(draw):
    """n, c, k of one problem, small enough to count every draw."""
    n = draw(st.integers(1, 9))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@DRAWN
@given(counts())
def test_pass_at_k(numbers):
    assert pass_at_k(*numbers) == pytest.approx(float(equations.pass_at_k(*numbers)), abs=1e-14)


@DRAWN
@given(counts(), st.integers(0, 20))
def test_g_pass_at_k(numbers, twentieths):
    expected = equations.g_pass_at_k(*numbers, Fraction(twentieths, 20))
    assert g_pass_at_k(*numbers, twentieths / 20) == pytest.approx(float(expected), abs=1e-14)


@DRAWN
@given(counts().filter(lambda numbers: numbers[2] > 1))
def test_mg_pass_at_k(numbers):
    assert mg_pass_at_k(*numbers) == pytest.approx(float(equations.mg_pass_at_k(*numbers)), abs=1e-14)


def classes_of(answers, right):
    sizes = Counter(answer for answer in answers if answer is not None)
    return AnswerClasses(
        sizes=tuple(sizes.values()),
        correct=tuple(answer in right for answer in sizes),
        num_unanswered=answers.count(None),
    )


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(["A", "A", "B", "C", "D", None]), min_size=1, max_size=9),
    st.sets(st.sampled_from("ABCD"), max_size=3),
    st.data(),
)
def test_maj_at_k(answers, right, data):
    k = data.draw(st.integers(1, len(answers)))
    expected = equations.maj_at_k(answers, right, k)
    assert maj_at_k(classes_of(answers, right), k) == pytest.approx(float(expected), abs=1e-13)


@DRAWN
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=10))
def test_sign_flips(quarters):
    first = {f"q{i}": pair[0] / 4 for i, pair in enumerate(quarters)}
    second = {f"q{i}": pair[1] / 4 for i, pair in enumerate(quarters)}
    expected = equations.sign_flip_p([b - a for a, b in quarters])
    assert compare_scores(first, second, seed=0).p_value == pytest.approx(float(expected), abs=1e-12)


@DRAWN
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_mcnemar_is_the_sign_flip_of_right_and_wrong(pairs):
    higher, lower = pairs.count((False, True)), pairs.count((True, False))
    expected = equations.sign_flip_p([b - a for a, b in pairs])
    assert mcnemar(higher, lower) == pytest.approx(float(expected), abs=1e-12)
    assert equations.mcnemar_p(higher, lower) == expected


def flags(num_samples):
    return st.lists(st.booleans(), min_size=num_samples, max_size=num_samples)


@DRAWN
@given(
    st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(flags(n), min_size=10, max_size=10), min_size=1, max_size=4))
)
def test_dynamath(drawn):
    groups = {f"g{g}": {str(v): row for v, row in enumerate(rows, start=1)} for g, rows in enumerate(drawn)}
    scored = [
        Scored(sample_id=f"{group}/{variant}", group=group, keys={"variant": variant}, correct=tuple(row))
        for group, variants in groups.items()
        for variant, row in variants.items()
    ]
    average, worst = equations.dynamath(groups)
    found = figures("dynamath", tally("dynamath", scored))
    assert (found["average"], found["worst_case"]) == pytest.approx((float(average), float(worst)))
    assert found["robustness"] == (pytest.approx(float(worst / average)) if average else None)


@st.composite
def problems(draw):
    n = draw(st.integers(1, 3))
    steps = st.integers(2, 3).flatmap(lambda number: st.lists(flags(n), min_size=number, max_size=number))
    return draw(st.lists(st.tuples(steps, flags(n)), min_size=1, max_size=6))


@DRAWN
@given(problems())
def test_we_math(drawn):
    scored = []
    for number, (steps, whole) in enumerate(drawn):
        places = {
            **{f"{len(steps)}steps_{i}": row for i, row in enumerate(steps, start=1)},
            f"{len(steps)}steps_multi": whole,
        }
        scored += [
            Scored(sample_id=f"{number}/{key}", group=str(number), keys={"key": key}, correct=tuple(row))
            for key, row in places.items()
        ]
    expected = equations.we_math(drawn)
    found = figures("we_math", tally("we_math", scored))
    for name in (
        "ik",
        "ig",
        *(f"{case}_{reading}" for case in ("cm", "rm", "score") for reading in ("strict", "loose")),
    ):
        assert found[name] == pytest.approx(float(expected[name]), abs=1e-12), name
    for reading in ("strict", "loose"):
        right = expected[f"cm_{reading}"] + expected[f"rm_{reading}"]
        rate = pytest.approx(float(expected[f"rm_{reading}"] / right)) if right else None
        assert found[f"rm_rate_{reading}"] == rate
