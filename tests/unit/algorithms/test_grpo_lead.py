import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms import WEIGHTINGS
from mm_agrae.algorithms.advantages import group
from mm_agrae.algorithms.groups import scored_flags
from mm_agrae.algorithms.grpo_lead import grpo_lead

DRAWN = settings(max_examples=40)


def test_worked_example():
    correct = torch.tensor([[True, False, False, False], [True, True, True, False]])
    ones = torch.tensor([[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, -1.0]])
    # w(1/4) = 0.4 + 1.1 / (1 + exp(-5)) = 0.4 + 1.1 · 0.993307 = 1.492638.   w(3/4) = 0.4 + 1.1 / 2 = 0.95.
    # p = 1/4: success counts w(1/4), failure w(1 - 1/4). p = 3/4: success counts w(3/4), failure w(1 - 3/4).
    expected = [[1.492638, -0.95, -0.95, -0.95], [0.95, 0.95, 0.95, -1.492638]]
    torch.testing.assert_close(grpo_lead(ones, correct), torch.tensor(expected), atol=1e-6, rtol=0)


def test_success_counts_more_the_rarer_and_failure_more_the_rarer():
    """Weights lie in (0.4, 1.5) and fall with what was to be expected."""
    size = 32
    weights = []
    for num_correct in range(1, size):
        correct = torch.tensor([[True] * num_correct + [False] * (size - num_correct)])
        result = grpo_lead(torch.where(correct, 1.0, -1.0), correct)
        weights.append((float(result[0, 0]), float(-result[0, -1])))
    of_success, of_failure = zip(*weights, strict=True)
    assert list(of_success) == sorted(of_success, reverse=True)
    assert list(of_failure) == sorted(of_failure)
    torch.testing.assert_close(torch.tensor(of_success), torch.tensor(of_failure[::-1]))
    assert 0.4 < min(of_success) < max(of_success) < 1.5


def test_groups_of_equal_flags_and_groups_without_a_score():
    correct = torch.tensor([[1.0, 1.0], [0.0, 0.0], [math.nan, math.nan]])
    # p = 1: w(1) = 0.4 + 1.1 / (1 + exp(2.5)) = 0.4 + 1.1 · 0.075858 = 0.483444. p = 0: failure counts w(1) too.
    result = grpo_lead(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]), correct)
    expected = [[0.483444, 0.483444], [-0.483444, -0.483444], [1.0, -1.0]]
    torch.testing.assert_close(result, torch.tensor(expected), atol=1e-6, rtol=0)


@DRAWN
@given(st.integers(0, 10**6), st.integers(2, 9))
def test_properties(seed, size):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(4, size, generator=generator) < 0.5
    advantages = torch.randn(4, size, generator=generator)
    advantages[0, 0] = 0.0
    copies = advantages.clone(), correct.clone()
    result = grpo_lead(advantages, correct)
    assert torch.equal(advantages, copies[0])
    assert torch.equal(correct, copies[1])
    assert torch.equal(result.sign(), advantages.sign())
    assert result.dtype == grpo_lead(advantages.double(), correct).dtype == torch.float32
    order = torch.randperm(size, generator=generator)
    assert torch.equal(grpo_lead(advantages[:, order], correct[:, order]), result[:, order])
    shards = [grpo_lead(advantages[i : i + 1], correct[i : i + 1]) for i in range(4)]
    assert torch.equal(torch.cat(shards), result)


def test_an_unscored_rollout_changes_nothing_for_its_group():
    rewards = torch.tensor([[1.0, math.nan, 0.0, 0.0]])
    correct = torch.tensor([[True, False, False, False]])
    kept = [0, 2, 3]
    with_it = grpo_lead(group(rewards, correct), scored_flags(correct, rewards))
    assert with_it[0, 1] == 0
    assert torch.equal(with_it[:, kept], grpo_lead(group(rewards[:, kept], correct[:, kept]), correct[:, kept]))


def test_matrices_that_are_no_groups_are_refused():
    with pytest.raises(ValueError, match=r"group size is 1, .* Set rollout\.group_size to 2 or more\."):
        grpo_lead(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"shapes are \[2, 3\] and \[2, 2\]"):
        grpo_lead(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.bool))


def test_name():
    assert WEIGHTINGS["grpo_lead"] is grpo_lead
