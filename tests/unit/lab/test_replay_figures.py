import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_agrae.algorithms.trust_region import ClipBounds
from mm_agrae.lab.replay.figures import (
    against_flag_frac,
    clip_budgets,
    compare_signs,
    disagreement,
    effective_frac,
    equal_flag_share,
    form_share,
    most_telling,
    success_bins,
    sum_per_rollout,
    weight_shares,
)

NAN = math.nan


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 5))


@st.composite
def batches(draw):
    """(advantages, flags) of one shape; some rollouts unscored, with advantage 0."""
    num_groups, size = draw(SHAPES)

    def rows(values):
        return [[draw(values) for _ in range(size)] for _ in range(num_groups)]

    flags = matrix(*rows(st.sampled_from([0.0, 1.0, NAN])))
    advantages = matrix(*rows(st.sampled_from([-2.5, -1.0, 0.0, 0.25, 3.0]))).masked_fill(flags.isnan(), 0.0)
    return advantages, flags


def test_success_bins_close_on_the_right_and_keep_0_and_1_apart():
    flags = matrix(
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
        [NAN] * 4,
        [1, 0, 0, NAN],
        [1, 1, NAN, NAN],
    )
    # Rates 0, 1/4, 1/2, 3/4, 1, none, 1/3, 1.
    assert success_bins(flags).tolist() == [0, 1, 2, 3, 5, -1, 2, 5]
    assert success_bins(matrix([1, 1, 1, 1, 0], [1, 0, 0, 0, 0])).tolist() == [4, 1]  # 4/5 and 1/5
    assert success_bins(matrix([1, 1, 0, 0, 0, 0, 0])).tolist() == [2]  # 2/7, just above 1/4


def test_weight_shares_are_parts_of_the_sum_of_sizes():
    # Sizes 3, 1 and 4; the third group is in no bin.
    advantages = matrix([1, -2], [0.5, -0.5], [4, 0])
    assert weight_shares(advantages, torch.tensor([1, 0, -1]), num_bins=3) == [0.25, 0.75, 0.0]
    assert all(math.isnan(value) for value in weight_shares(advantages * 0, torch.tensor([1, 0, 0]), num_bins=2))


def test_effective_size_is_1_for_equal_weights_and_1_over_n_for_a_single_one():
    flags = matrix([1, 0, 0, 0])
    assert effective_frac(matrix([-2, 2, 2, -2]), flags) == 1
    assert effective_frac(matrix([0, 0, 3, 0]), flags) == 0.25
    # (1 + 3)² / (1 + 9) = 1.6 of 4 rollouts; of 3 when one of the others has no reward.
    assert effective_frac(matrix([1, -3, 0, 0]), flags) == pytest.approx(0.4)
    assert effective_frac(matrix([1, -3, 0, 0]), matrix([1, 0, 0, NAN])) == pytest.approx(1.6 / 3)
    assert math.isnan(effective_frac(matrix([0, 0, 0, 0]), flags))


def test_sum_per_rollout_counts_scored_rollouts():
    assert sum_per_rollout(matrix([1, -3, 0, 0]), matrix([1, 0, 0, NAN])) == pytest.approx(-2 / 3)
    assert math.isnan(sum_per_rollout(matrix([0, 0]), matrix([NAN, NAN])))


def test_against_the_flag_is_a_wrong_rollout_pushed_up_or_a_correct_one_down():
    flags = matrix([1, 1, 0, 0, 0], [NAN, 1, 0, 1, 0])
    advantages = matrix([1, -1, -1, 0.5, 0], [0, 0, -1, 1, 0])
    assert against_flag_frac(advantages, flags) == pytest.approx(2 / 6)


def test_signs_are_compared_where_both_have_one():
    here, there = matrix([1, -1, 0, 2, 0, -1, 3]), matrix([1, 1, 3, 0, 0, -2, 0])
    signs = compare_signs(here, there, matrix([1, 0, 1, 0, 1, 0, 1]))
    # Both at 0, 1 and 5, of which 1 differs; here only at 3 and 6, there only at 2; 7 scored.
    assert signs.flipped_frac == pytest.approx(1 / 3)
    assert (signs.only_here_frac, signs.only_there_frac) == (2 / 7, 1 / 7)
    assert compare_signs(here, there, matrix([1, 0, 1, 0, NAN, 0, 1])).only_here_frac == 2 / 6


def test_form_share_is_what_the_flag_does_not_explain():
    # Correct 3 and 1 (mean 2), wrong -2 and -2: 2 of 9 + 1 + 4 + 4.
    assert form_share(matrix([3, 1, -2, -2]), matrix([1, 1, 0, 0])) == pytest.approx(2 / 18)
    # Equal flags: the mean is 0, so nothing is explained.
    assert form_share(matrix([1, -1, 1, -1]), matrix([0, 0, 0, 0])) == 1
    # A mean per group, not over groups.
    assert form_share(matrix([1, -1], [5, -5]), matrix([1, 0], [1, 0])) == 0
    # The unscored rollout is no member of the wrong ones, whose mean is -3.
    assert form_share(matrix([3, -3, 0]), matrix([1, 0, NAN])) == 0
    assert math.isnan(form_share(matrix([0, 0]), matrix([1, 0])))


def test_equal_flag_share():
    flags = matrix([1, 0], [1, 1], [0, NAN])
    assert equal_flag_share(matrix([2, -2], [0.5, 0.5], [1, 0]), flags) == pytest.approx(2 / 6)


def test_clip_budgets_count_the_bound_that_acts():
    advantages = matrix([1, -1], [2, 0], [-1, -1])
    bounds = ClipBounds(low=matrix([0.1, 0.8], [0.1, 0.1], [0.7, 0.9]), high=matrix([1.3, 9], [1.1, 9], [9, 9]))
    low, high = clip_budgets(advantages, bounds, torch.tensor([0, 0, 1]), num_bins=3)
    assert low[:2] == pytest.approx([0.2, 0.2])  # 1 - .8; mean of .3 and .1
    assert high[0] == pytest.approx(0.2)  # mean of .3 and .1
    assert [math.isnan(value) for value in (*low, *high)] == [False, False, True, False, True, True]


def test_no_bound_stays_visible():
    bounds = ClipBounds(low=matrix([0, 0]), high=matrix([math.inf, math.inf]))
    assert clip_budgets(matrix([1, -1]), bounds, torch.tensor([0]), num_bins=1) == ([1.0], [math.inf])


def test_disagreement_compares_after_scaling():
    # mean|A| = 1 and 2. Scaled: (2, 0 | 1, -1) and (1, -1 | 1, -1): std 1/2, 1/2 | 0, 0.
    found = disagreement([matrix([2, 0], [1, -1]), matrix([2, -2], [2, -2])])
    assert found.tolist() == pytest.approx([0.5, 0.0])
    assert disagreement([matrix([1, -1]), matrix([0, 0])]).tolist() == pytest.approx([0.5])
    assert disagreement([matrix([1, -1])]).tolist() == [0.0]


def test_the_most_telling_rows_are_of_different_kinds_first():
    scores = torch.tensor([3.0, 5.0, 4.0, 0.0, 5.0])
    assert most_telling(scores, ["a", "b", "b", "c", "b"], num=9) == [1, 0, 4, 2]
    assert most_telling(scores, ["a", "b", "b", "c", "b"], num=2) == [1, 0]
    assert most_telling(scores, ["a", "b", "b", "c", "b"], num=0) == []


@given(batches(), st.sampled_from([0.5, 3.0]))
def test_shares_do_not_depend_on_scale_or_order(batch, factor):
    advantages, flags = batch
    rows, columns = torch.arange(len(flags)).flip(0), torch.arange(flags.shape[1]).flip(0)
    moved, moved_flags = advantages[rows][:, columns] * factor, flags[rows][:, columns]
    for figure in (effective_frac, against_flag_frac, form_share, equal_flag_share):
        assert figure(moved, moved_flags) == pytest.approx(figure(advantages, flags), nan_ok=True)
        assert math.isnan(figure(advantages, flags)) or 0 <= figure(advantages, flags) <= 1 + 1e-12


@given(batches())
def test_weight_shares_add_up_and_agree_with_a_loop(batch):
    advantages, flags = batch
    bins = success_bins(flags)
    total = sum(abs(value) for row in advantages.tolist() for value in row)
    shares = weight_shares(advantages, bins, num_bins=6)
    for index, share in enumerate(shares):
        part = sum(
            abs(value) for row, where in zip(advantages.tolist(), bins.tolist(), strict=True) for value in row
            if where == index
        )  # fmt: skip
        assert share == pytest.approx(part / total if total else NAN, nan_ok=True)


@given(batches())
def test_form_share_agrees_with_a_loop_over_classes(batch):
    advantages, flags = batch
    within = total = 0.0
    for values, marks in zip(advantages.tolist(), flags.tolist(), strict=True):
        for flag in (0.0, 1.0):
            members = [value for value, mark in zip(values, marks, strict=True) if mark == flag]
            if members:
                mean = math.fsum(members) / len(members)
                within += math.fsum((value - mean) ** 2 for value in members)
                total += math.fsum(value**2 for value in members)
    assert form_share(advantages, flags) == pytest.approx(within / total if total else NAN, nan_ok=True, abs=1e-12)
