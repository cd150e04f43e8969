from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.metrics.passk import g_pass_at_k, mg_pass_at_k, pass_at_k


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


@settings(max_examples=200)
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


def test_many_samples():
    assert pass_at_k(100_000, 1, 1) == pytest.approx(1e-5, rel=1e-12)
    # Three correct ones: 1 - (50000 · 49999 · 49998) / (100000 · 99999 · 99998)
    exact = 1 - Fraction(50_000 * 49_999 * 49_998, 100_000 * 99_999 * 99_998)
    assert pass_at_k(100_000, 3, 50_000) == pytest.approx(float(exact), rel=1e-12)
    assert pass_at_k(100_000, 50_000, 3) == pass_at_k(100_000, 3, 50_000)
    # Half of all are correct, so that by symmetry the chance of at least half of an odd number is one half.
    assert g_pass_at_k(100_000, 50_000, 999, 0.5) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "c", "k", "tau", "expected"),
    [
        (8, 4, 4, 0.5, Fraction(53, 70)),
        (8, 4, 4, 1.0, Fraction(1, 70)),
        (16, 8, 8, 0.75, Fraction(283, 4290)),
        (4, 2, 2, 0.5, Fraction(5, 6)),
        (4, 2, 2, 0.75, Fraction(1, 6)),
        (4, 2, 2, 1.0, Fraction(1, 6)),
        (8, 0, 4, 0.0, Fraction(0)),  # one correct sample is needed even where the share is 0
        (8, 8, 4, 1.0, Fraction(1)),
    ],
)
def test_g_pass_reference_values(n, c, k, tau, expected):
    assert g_pass_at_k(n, c, k, tau) == pytest.approx(float(expected), abs=1e-14)


def test_the_share_is_the_decimal_that_is_written():
    # 0.07 · 100 is 7.000000000000001 as a product of floats: 7 correct ones of 100 are enough all the same.
    assert g_pass_at_k(100, 7, 100, 0.07) == 1.0
    assert g_pass_at_k(100, 6, 100, 0.07) == 0.0


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"), [(4, 2, 2, 1 / 6), (8, 4, 4, 0.1285714), (16, 8, 8, 0.0951826), (8, 8, 8, 1.0)]
)
def test_mg_pass_reference_values(n, c, k, expected):
    assert mg_pass_at_k(n, c, k) == pytest.approx(expected, abs=5e-8)


def test_mg_pass_with_an_odd_k_ends_below_one():
    assert mg_pass_at_k(3, 3, 3) == pytest.approx(2 / 3)


def test_more_correct_samples_never_hurt_and_a_larger_share_never_helps():
    for c in range(16):
        assert g_pass_at_k(16, c, 8, 0.5) <= g_pass_at_k(16, c + 1, 8, 0.5)
        assert mg_pass_at_k(16, c, 8) <= mg_pass_at_k(16, c + 1, 8)
        shares = [g_pass_at_k(16, c, 8, tau) for tau in (0, 0.25, 0.5, 0.75, 1)]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == pytest.approx(pass_at_k(16, c, 8), abs=1e-14)


def test_g_pass_errors():
    with pytest.raises(ValueError, match=r"tau is 1\.5"):
        g_pass_at_k(4, 1, 2, 1.5)
    with pytest.raises(ValueError, match="k is 5, but there are n = 4"):
        g_pass_at_k(4, 1, 5, 0.5)
    with pytest.raises(ValueError, match="k is 1, but mG-Pass@k"):
        mg_pass_at_k(4, 1, 1)
    with pytest.raises(ValueError, match="c is 5 of n = 4"):
        mg_pass_at_k(4, 5, 2)
