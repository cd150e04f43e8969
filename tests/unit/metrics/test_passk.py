from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.metrics.passk import pass_at_k


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (2, 1, 1, Fraction(1, 2)),
        (3, 1, 2, Fraction(2, 3)),
        (4, 1, 2, Fraction(1, 2)),
        (4, 2, 2, Fraction(5, 6)),
        (10, 3, 5, Fraction(11, 12)),
        (16, 4, 8, Fraction(25, 26)),
        (64, 1, 32, Fraction(1, 2)),
        (256, 1, 1, Fraction(1, 256)),
        (256, 1, 128, Fraction(1, 2)),
        (256, 3, 64, Fraction(5007, 8636)),
        (256, 255, 2, Fraction(1)),
        (5, 2, 4, Fraction(1)),
        (8, 0, 4, Fraction(0)),
        (8, 8, 4, Fraction(1)),
    ],
)
def test_reference_values(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(float(expected), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_equals_exact_fractions(data):
    n = data.draw(st.integers(1, 256))
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), abs=1e-12)
    assert 0 <= pass_at_k(n, c, k) <= 1


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 1, 5, r"k is 5, but there are n = 4 samples"),
        (4, 1, 0, r"k is 0, but there are n = 4 samples"),
        (4, 5, 1, r"c is 5 of n = 4 samples"),
        (4, -1, 1, r"c is -1 of n = 4 samples"),
    ],
)
def test_errors(n, c, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)
