"""The claims: their computed values are those that the papers print, and wrong formulas fail."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from mm_agrae.lab.theory.claim import Case, Claim, interval_deviations, judge, judge_case
from mm_agrae.lab.theory.draws import draw_mixed_at, expectation, group_with
from mm_agrae.lab.theory.history import average_overestimation, bias, mean_rate, of_correct, overestimation
from mm_agrae.lab.theory.run import all_claims
from mm_agrae.lab.theory.softmax import logit_change, policy_of, unsampled


@pytest.fixture(scope="module")
def rows():
    return judge(all_claims(), seed=7)


def claim(**case):
    return Claim(id="X", title="", statement="", formula="", cases=(Case(parameters="x", **case),))


def test_every_claim_holds_for_the_shipped_algorithms(rows):
    assert [row for row in rows if not row.passed] == []
    assert {row.claim for row in rows} == {
        *(f"T{i}" for i in range(1, 8)),
        *(f"H{i}" for i in range(1, 8)),
        "E1",
        "E2",
        "E3",
    }


def test_intervals_tell_every_value_from_nothing(rows):
    for row in rows:
        computed = row.enumerated if row.closed is None else row.closed
        assert (row.low <= 0 <= row.high) == (abs(computed) < 1e-12), (row.claim, row.parameters)


@pytest.mark.parametrize("wrong", all_claims(), ids=lambda one: one.id)
def test_a_formula_that_is_off_by_a_twentieth_fails(wrong, rows):
    for case, row in zip(wrong.cases, [row for row in rows if row.claim == wrong.id], strict=True):
        computed = [value for value in (case.closed, case.enumerated) if value is not None]
        shifted = computed[0] + 0.05 * (1 + abs(computed[0]))
        again = judge_case(
            "X", replace(case, closed=shifted, enumerated=None), torch.tensor([row.low, row.high]), deviations=0
        )
        assert not row.low <= shifted <= row.high
        assert again.reason == "the interval misses the computed value"


def test_a_wrong_formula_makes_a_failed_row():
    rate, size = 0.2, 8
    # The sign of p^G is wrong.
    wrong = (rate * (1 - rate) ** size + rate ** (size + 1) + rate**size) / (1 - rate)
    (row,) = judge(
        [claim(closed=wrong, observe=lambda g: (torch.rand(5000, 8, generator=g) < rate).float().mean(dim=1))], seed=0
    )
    assert not row.passed
    assert row.reason == "the interval misses the computed value"


@pytest.mark.parametrize("observed", [[0.5, math.nan], [math.nan], [math.inf]])
def test_values_that_are_no_numbers_fail(observed):
    assert not judge([claim(closed=0.5, observe=lambda g: torch.tensor(observed))], seed=0)[0].passed


def test_closed_form_and_enumeration_must_agree():
    (row,) = judge([claim(closed=0.5, enumerated=0.5000001, observe=lambda g: torch.tensor([0.0, 1.0]))], seed=0)
    assert row.reason == "closed form and enumeration differ"


@pytest.mark.parametrize(
    "case", [{"observe": lambda g: torch.ones(1)}, {"closed": 1.0, "observe": lambda g: torch.ones(0)}]
)
def test_a_case_without_a_value_or_an_observation_is_refused(case):
    with pytest.raises(ValueError, match="must have at least one of each"):
        judge([claim(**case)], seed=0)


def test_interval_by_hand():
    # Mean 0.5, unbiased sd sqrt(1/3), standard error sqrt(1/12) = 0.288675; two of them, and rounding 2e-6 · 1.5.
    case = Case(parameters="x", closed=0.5, observe=lambda g: torch.ones(1))
    row = judge_case("X", case, torch.tensor([0.0, 1.0, 1.0, 0.0]), deviations=2.0)
    assert row.high - row.observed == pytest.approx(2 * math.sqrt(1 / 12) + 3e-6)
    exact = judge_case("X", case, torch.tensor([0.5]), deviations=2.0)
    assert exact.high - 0.5 == pytest.approx(3e-6)
    # 0.999 on two sides of one normal is 3.29 standard errors; a hundred cases share the same 0.001.
    assert interval_deviations(1) == pytest.approx(3.2905, abs=1e-4)
    assert interval_deviations(100) == pytest.approx(4.4172, abs=1e-4)


def test_a_case_draws_the_same_whatever_stands_before_it():
    one = claim(closed=0.5, observe=lambda g: torch.rand(10, generator=g))
    other = replace(one, id="Y")
    assert judge([one], seed=3)[0].observed == judge([other, one], seed=3)[1].observed
    assert judge([one], seed=3)[0].observed != judge([one], seed=4)[0].observed


def test_the_bias_of_mixed_groups_is_the_published_one():
    # G = 8.
    published = {0.05: 0.0986, 0.1: 0.0756, 0.2: 0.0403, 0.3: 0.0183, 0.4: 0.0064}
    assert {p: round(bias(8, p), 4) for p in published} == published
    for p in published:
        assert bias(8, p) == pytest.approx(mean_rate(8, p) - p, abs=1e-12)
        assert bias(8, 1 - p) == pytest.approx(-bias(8, p), abs=1e-12)
        assert bias(2, p) == pytest.approx(0.5 - p, abs=1e-12)
    assert bias(8, 0.5) == pytest.approx(0, abs=1e-15)
    assert bias(8, 1e-6) == pytest.approx(1 / 8, abs=1e-5)


def test_the_averages_of_overestimation_are_the_published_ones():
    published = [1, 0.8056, 0.7770, 0.7081, 0.6897, 0.6516, 0.6409]
    assert [round(average_overestimation(size, 0.5), 4) for size in range(2, 9)] == published
    # p ~ U(0, 2/G): as G grows k becomes Poisson with mean λ ~ U(0, 2), and a mixed group is too high for certain if
    # λ < 1, else with 1 - λ / (e^λ - 1): 1 - ½ ∫_1^2 λ / (e^λ - 1) dλ = 0.78181.
    grid = torch.linspace(1, 2, 100_001, dtype=torch.float64)
    limit = 1 - 0.5 * float(torch.trapezoid(grid / torch.expm1(grid), grid))
    assert round(limit, 5) == 0.78181
    assert average_overestimation(300, 2 / 300) == pytest.approx(limit, abs=1e-4)


def test_overestimation_needs_strictly_more_than_the_margin():
    # G = 4, p = 0.25: k = 1 is p itself. Z = 1 - 0.3164 - 0.0039 = 0.6797; k = 2, 3: 0.2109 + 0.0469 = 0.2578.
    assert overestimation(4, 0.25) == pytest.approx(0.2578 / 0.6797, abs=1e-3)
    assert overestimation(4, 0.25, Fraction("0.25")) == pytest.approx(0.0469 / 0.6797, abs=1e-3)


def test_the_bias_of_correct_rollouts_turns_at_the_published_place():
    def plain(p):
        return of_correct(lambda k: p - k / 8, 8, p)

    assert round(plain(0.1), 3) == -0.112
    assert round(8 ** (-1 / 7), 3) == 0.743
    assert plain(0.742) < 0 < plain(0.744)
    # λ = 1.3 and an anchor of 0.5.
    weighted = of_correct(lambda k: (1 - k / 8) * 1.3 * math.exp(0.5 - k / 8), 8, 0.1) - 0.9
    assert round(weighted, 3) == 0.488


def test_expectation_by_hand():
    # G = 2, p = 0.5: k = 0, 1, 2 with 1/4, 1/2, 1/4.
    assert expectation(float, 2, 0.5) == 1.0
    assert expectation(lambda k: k**2, 2, 0.5) == 1.5
    assert expectation(float, 2, 0.5, given=lambda k: k > 0) == pytest.approx(4 / 3)


def test_mixed_groups_are_drawn_from_their_distribution_and_in_any_order():
    generator = torch.Generator().manual_seed(0)
    flags = draw_mixed_at(generator, 3, torch.full((20_000,), 0.2, dtype=torch.float64))
    counts = flags.sum(dim=1)
    assert set(counts.tolist()) == {1, 2}
    # Binom: 3 · 0.2 · 0.64 = 0.384 against 3 · 0.04 · 0.8 = 0.096, so one correct in 0.8 of the mixed groups.
    assert float((counts == 1).double().mean()) == pytest.approx(0.8, abs=0.015)
    # Every place is as often correct: 1.2 / 3.
    assert flags.double().mean(dim=0).tolist() == pytest.approx([0.4] * 3, abs=0.02)


def test_one_gradient_step_by_hand():
    # Rollouts 0, 0, 2 with A = 1, 1, -1: C = 1, so Δlogit = (2, 0, -1) - π.
    policy = policy_of([0.5], [0.3, 0.2])
    trajectories = torch.tensor([[0, 0, 2]])
    change = logit_change(policy, trajectories, torch.tensor([[1.0, 1.0, -1.0]]))
    assert change[0].tolist() == pytest.approx([1.5, -0.3, -1.2])
    assert unsampled(policy, trajectories).tolist() == [[False, True, False]]
    assert policy.success == 0.5
    assert group_with(2, 3).tolist() == [[True, True, False]]


def test_what_a_reader_must_know_stands_beside_the_claim():
    caveats = {one.id: one.caveat for one in all_claims()}
    assert "the normaliser moves" in caveats["T1"]
    assert "it loses logit whatever its probability" in caveats["T6"]
    assert "over-corrects" in caveats["H6"]
    assert "no unbiased estimator" in caveats["H6"]
    assert all("reconstruction" in caveats[one] for one in ("E1", "E2", "E3"))
