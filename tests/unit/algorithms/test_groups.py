import math

import pytest
import torch

from mm_agrae.algorithms.groups import (
    batch_accuracy,
    check_group_size,
    has_equal_rewards,
    is_mixed,
    scored_flags,
    success_rate,
)

CORRECT = torch.tensor([[True, False, False, False], [True, True, True, True], [False, False, False, False]])


def test_success_rate_and_masks():
    assert success_rate(CORRECT).tolist() == [0.25, 1.0, 0.0]
    assert is_mixed(CORRECT).tolist() == [True, False, False]


def test_unscored_rollouts_count_in_no_rate():
    rewards = torch.tensor([[1.0, math.nan, 0.0, math.nan], [1.0, 1.0, 1.0, math.nan], [math.nan] * 4])
    flags = scored_flags(CORRECT, rewards)
    assert success_rate(flags).tolist()[:2] == [0.5, 1.0]
    assert success_rate(flags)[2].isnan()
    assert is_mixed(flags).tolist() == [True, False, False]
    # 1 of 2 and 3 of 3: 4 of 5 scored rollouts.
    assert batch_accuracy(flags) == pytest.approx(0.8)
    assert batch_accuracy(CORRECT) == pytest.approx(5 / 12)


def test_batch_accuracy_needs_a_scored_rollout():
    with pytest.raises(ValueError, match=r"shape \[1, 2\] has no scored rollout"):
        batch_accuracy(torch.full((1, 2), math.nan))


def test_equal_rewards_are_compared_exactly():
    rewards = torch.tensor([[0.9, 0.9, 0.9], [0.9, math.nextafter(0.9, 1.0), 0.9], [0.9, math.nan, 0.9]]).double()
    rewards[1, 1] = math.nextafter(0.9, 1.0)
    rewards[1, 0] = rewards[1, 2] = 0.9
    assert has_equal_rewards(rewards).tolist() == [True, False, True]
    assert has_equal_rewards(torch.full((1, 3), math.nan)).tolist() == [True]


def test_a_group_of_one_is_refused():
    with pytest.raises(
        ValueError,
        match=r"group size is 1, but a group-relative advantage needs at least 2 completions per prompt\. "
        r"Set rollout\.group_size to 2 or more\.",
    ):
        check_group_size(torch.zeros(3, 1), torch.zeros(3, 1))


@pytest.mark.parametrize("flags", [torch.zeros(2, 3), torch.zeros(6)])
def test_other_shapes_are_refused(flags):
    with pytest.raises(ValueError, match=r"both must be \[P, G\]"):
        check_group_size(torch.zeros(3, 2), flags)
