"""pass@k, G-Pass@k and maj@k agree with the count over every draw."""

from collections import Counter
from fractions import Fraction

import metrics_equations as equations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.metrics.majority import AnswerClasses, maj_at_k
from mm_agrae.metrics.passk import g_pass_at_k, mg_pass_at_k, pass_at_k

DRAWN = settings(max_examples=100, deadline=None)


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


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(["A", "A", "B", "C", "D", None]), min_size=1, max_size=9),
    st.sets(st.sampled_from("ABCD"), max_size=3),
    st.data(),
)
def test_maj_at_k(answers, right, data):
    k = data.draw(st.integers(1, len(answers)))
    expected = equations.maj_at_k(answers, right, k)
    assert maj_at_k(classes_of(answers, right), k) == pytest.approx(float(expected), abs=1e-13)
