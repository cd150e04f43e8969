from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.metrics.majority import AnswerClasses, answer_classes, cons_at_n, maj_at_k, pairs_to_compare


def votes(answers, gold="A"):
    """Classes of a string of answers; "-" is a sample without one."""
    counts = Counter(answers.replace("-", ""))
    return AnswerClasses(
        sizes=tuple(counts.values()), correct=tuple(a == gold for a in counts), num_unanswered=answers.count("-")
    )


@pytest.mark.parametrize(
    ("answers", "k", "expected"),
    [
        ("AABBC", 5, 1 / 2),
        ("AABBC", 3, 13 / 30),
        ("AAABB", 3, 7 / 10),
        ("ABC", 3, 1 / 3),
        ("AABC", 4, 1),
        ("ABBB", 1, 1 / 4),
        ("AAAB", 2, 3 / 4),
    ],
)
def test_reference_values(answers, k, expected):
    assert maj_at_k(votes(answers), k) == pytest.approx(expected, abs=1e-14)


def test_a_sample_without_an_answer_is_drawn_and_casts_no_vote():
    # Draws of 2 of A, B, -, -: AB 1/2, A- twice 1, B- twice 0, -- 0, of six.
    assert maj_at_k(votes("AB--"), 2) == pytest.approx((1 / 2 + 2) / 6)
    assert maj_at_k(votes("A---"), 1) == pytest.approx(1 / 4)
    assert cons_at_n(votes("A---")) == 1.0
    assert cons_at_n(votes("---")) == maj_at_k(votes("---"), 2) == 0.0


def test_correct_classes_that_tie_each_earn_their_share():
    classes = AnswerClasses(sizes=(2, 2, 2), correct=(True, True, False))
    assert cons_at_n(classes) == pytest.approx(2 / 3)
    assert maj_at_k(classes, 1) == pytest.approx(2 / 3)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=8), st.integers(0, 10), st.data())
def test_properties(drawn, num_unanswered, data):
    sizes, flags = zip(*drawn, strict=True)
    classes = AnswerClasses(sizes=sizes, correct=flags, num_unanswered=num_unanswered)
    n = sum(sizes) + num_unanswered
    k = data.draw(st.integers(1, n))
    value = maj_at_k(classes, k)
    assert 0 <= value <= 1
    # One vote is pass@1, whatever the unanswered.
    num_correct = sum(size for size, flag in drawn if flag)
    assert maj_at_k(classes, 1) == pytest.approx(num_correct / n, abs=1e-12)
    # Either some class that is correct, or one that is not, takes the credit, unless nobody votes.
    others = AnswerClasses(sizes=sizes, correct=tuple(not flag for flag in flags), num_unanswered=num_unanswered)
    silent = maj_at_k(AnswerClasses(sizes=sizes, correct=(True,) * len(sizes), num_unanswered=num_unanswered), k)
    assert value + maj_at_k(others, k) == pytest.approx(silent, abs=1e-12)
    turned = AnswerClasses(sizes=sizes[::-1], correct=flags[::-1], num_unanswered=num_unanswered)
    assert maj_at_k(turned, k) == pytest.approx(value, abs=1e-12)


def test_many_samples():
    # By symmetry: every class wins equally often.
    assert maj_at_k(AnswerClasses(sizes=(64,) * 4, correct=(True, False, False, False)), 64) == pytest.approx(0.25)
    assert maj_at_k(AnswerClasses(sizes=(1,) * 256, correct=(True,) + (False,) * 255), 64) == pytest.approx(1 / 256)
    # Two classes and an odd k: at least 6 of 11 must be correct, and half of all are.
    assert maj_at_k(AnswerClasses(sizes=(2000, 2000), correct=(True, False)), 11) == pytest.approx(0.5)


def test_classes_of_answers():
    answers = ["1/2", "0.5", "3", "3.0", "3", None, "7", "6/2", None]
    correct = [True, True, False, False, False, False, False, False, False]
    pairs = pairs_to_compare(answers, correct)
    assert pairs == [("3", "3.0"), ("3", "6/2"), ("3", "7"), ("3.0", "6/2"), ("3.0", "7"), ("6/2", "7")]
    classes = answer_classes(answers, correct, [("3.0", "6/2"), ("3", "3.0")])
    assert classes == AnswerClasses(sizes=(2, 4, 1), correct=(True, False, False), num_unanswered=2)
    assert answer_classes(answers, correct, []).sizes == (2, 2, 1, 1, 1)
    assert answer_classes(answers[::-1], correct[::-1], [("3", "3.0"), ("3.0", "6/2")]) == classes


def test_an_answer_that_is_right_once_and_wrong_once_votes_on_both_sides():
    classes = answer_classes(["4", "4"], [True, False], [])
    assert classes == AnswerClasses(sizes=(1, 1), correct=(True, False))


def test_no_answer_at_all():
    assert answer_classes([None, None], [False, False], []) == AnswerClasses(sizes=(), correct=(), num_unanswered=2)
    assert pairs_to_compare([None, "1"], [False, False]) == []


@pytest.mark.parametrize(
    ("classes", "k", "message"),
    [
        (AnswerClasses(sizes=(2,), correct=(True,)), 3, "k is 3, but there are n = 2 samples"),
        (AnswerClasses(sizes=(2,), correct=(True,)), 0, "k is 0"),
        (AnswerClasses(sizes=(), correct=()), 1, "n = 0 samples"),
        (AnswerClasses(sizes=(2, 1), correct=(True,)), 1, "one flag per class"),
        (AnswerClasses(sizes=(0,), correct=(True,), num_unanswered=1), 1, "classes of 1 or more"),
        (AnswerClasses(sizes=(3,), correct=(True,), num_unanswered=-1), 1, "num_unanswered -1"),
    ],
)
def test_errors(classes, k, message):
    with pytest.raises(ValueError, match=message):
        maj_at_k(classes, k)
