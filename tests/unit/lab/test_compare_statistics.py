"""Student's interval against published values and its own integral; wins by hand."""

from __future__ import annotations

import math

import pytest

from mm_agrae.lab.seed_statistics import Estimate, Wins, estimate, problem_wins, t_coverage, t_quantile, wins

# Two-sided 95 % points, from the tables of any statistics book.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 120: 1.980}


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_are_those_of_the_tables(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(TABLE[degrees], abs=6e-4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 6, 7])
def test_coverage_is_the_integral_of_the_density(degrees: int) -> None:
    n, t, slices = degrees, 1.7, 20000
    constant = math.gamma((n + 1) / 2) / (math.sqrt(n * math.pi) * math.gamma(n / 2))
    middles = [(number + 0.5) * t / slices for number in range(slices)]
    area = 2 * sum(constant * (1 + x * x / n) ** (-(n + 1) / 2) for x in middles) * t / slices
    assert t_coverage(t, n) == pytest.approx(area, abs=1e-8)


def test_an_interval_by_hand() -> None:
    # 0.1, 0.2, 0.6: mean 0.3, deviations -0.2, -0.1, 0.3, variance (0.04 + 0.01 + 0.09) / 2 = 0.07,
    # half width 4.302653 · sqrt(0.07 / 3) = 0.657242.
    found = estimate([0.1, 0.2, 0.6])
    assert (found.mean, found.num) == (pytest.approx(0.3), 3)
    assert found.half_width == pytest.approx(0.657242, abs=1e-6)


def test_one_value_has_no_interval_and_excludes_nothing() -> None:
    assert estimate([0.4]) == Estimate(0.4, None, 1)
    assert not estimate([0.4]).excludes_zero


def test_an_interval_excludes_zero_only_where_the_mean_is_farther_off() -> None:
    assert Estimate(-0.3, 0.2, 3).excludes_zero
    assert not Estimate(0.2, 0.2, 3).excludes_zero
    assert estimate([0.1, 0.1]).excludes_zero


@pytest.mark.parametrize("values", [[], [0.1, math.nan]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="needs one or more finite numbers"):
        estimate(values)


def test_no_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(ValueError, match="degrees of freedom is 0"):
        t_quantile(0)


def test_wins_follow_the_direction() -> None:
    mine, others = [0.5, 0.5, 0.1, 0.9], [0.4, 0.5, 0.3, 0.2]
    assert wins(mine, others) == Wins(wins=2, ties=1, losses=1)
    assert wins(mine, others, higher_is_better=False) == Wins(wins=1, ties=1, losses=2)


def test_wins_need_as_many_values_on_both_sides() -> None:
    with pytest.raises(ValueError, match="longer"):
        wins([0.5], [0.4, 0.3])


def test_problems_are_paired_by_their_ids() -> None:
    # b and c are shared: b is lost, c is won; a and d have no partner.
    assert problem_wins({"a": 9, "b": 1, "c": 5}, {"d": 0, "c": 3, "b": 2}) == Wins(wins=1, ties=0, losses=1)
