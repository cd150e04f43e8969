import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.advantages import ADVANTAGES, dr_grpo, grpo

DRAWN = settings(max_examples=40, deadline=None)
BOTH = pytest.mark.parametrize("advantage", [grpo, dr_grpo])


def drawn_batch(seed, num_prompts=4, group_size=5):
    """Composite rewards 0.9 · correct + 0.1 · formatted, in float32 as a reward function would give them."""
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(num_prompts, group_size, generator=generator) < 0.5
    formatted = torch.rand(num_prompts, group_size, generator=generator) < 0.7
    return 0.9 * correct.float() + 0.1 * formatted.float(), correct


def test_worked_example():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    correct = rewards.bool()
    # mean 1/4; squares 9/16 + 3 · 1/16 = 3/4; biased std sqrt(3/4 / 4) = sqrt(3)/4; unbiased sqrt(3/4 / 3) = 1/2.
    root = math.sqrt(3)
    torch.testing.assert_close(grpo(rewards, correct), torch.tensor([[root, -1 / root, -1 / root, -1 / root]]))
    torch.testing.assert_close(grpo(rewards, correct, std="unbiased"), torch.tensor([[1.5, -0.5, -0.5, -0.5]]))
    torch.testing.assert_close(grpo(rewards, correct, std="unbiased", eps=0.5), torch.tensor([[0.75] + [-0.25] * 3]))
    assert dr_grpo(rewards, correct).tolist() == [[0.75, -0.25, -0.25, -0.25]]


def test_names_and_dtype():
    assert {"grpo": grpo, "dr_grpo": dr_grpo} == ADVANTAGES
    rewards, correct = drawn_batch(0)
    assert grpo(rewards.double(), correct).dtype == dr_grpo(rewards.double(), correct).dtype == torch.float32


@BOTH
@DRAWN
@given(seed=st.integers(0, 10**6))
def test_properties(advantage, seed):
    rewards, correct = drawn_batch(seed)
    before = rewards.clone()
    result = advantage(rewards, correct)
    assert torch.equal(rewards, before)
    # Adding a constant changes nothing; the mean of a group is 0.
    torch.testing.assert_close(advantage(rewards.double() + 3, correct), result, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.mean(dim=1), torch.zeros(4), atol=1e-6, rtol=0)
    # Permuting a group permutes its result.
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(advantage(rewards[:, order], correct[:, order]), result[:, order], atol=1e-6, rtol=0)
    # No group influences another: groups in another order, alone, or split over ranks.
    assert torch.equal(advantage(rewards.flip(0), correct.flip(0)), result.flip(0))
    shards = [advantage(rewards[i : i + 1], correct[i : i + 1]) for i in range(4)]
    assert torch.equal(torch.cat(shards), result)


@DRAWN
@given(st.integers(2, 16), st.integers(1, 15))
def test_advantage_mass_of_binary_rewards(size, num_correct):
    """Positives and negatives each weigh G sqrt(p (1-p)); without the standard deviation all weigh 2 G p (1-p)."""
    num_correct = min(num_correct, size - 1)
    rewards = torch.tensor([[1.0] * num_correct + [0.0] * (size - num_correct)])
    p = num_correct / size
    result = grpo(rewards, rewards.bool())
    assert float(result.clamp(min=0).sum()) == pytest.approx(size * math.sqrt(p * (1 - p)), rel=1e-5)
    assert float(result.clamp(max=0).sum()) == pytest.approx(-size * math.sqrt(p * (1 - p)), rel=1e-5)
    assert float(dr_grpo(rewards, rewards.bool()).abs().sum()) == pytest.approx(2 * size * p * (1 - p), rel=1e-5)
    shrunk = grpo(rewards, rewards.bool(), std="unbiased")
    torch.testing.assert_close(shrunk, result * math.sqrt((size - 1) / size))


@BOTH
def test_equal_flags_give_exactly_zero_whatever_the_rewards(advantage):
    rewards = torch.tensor([[0.1, 0.0, 0.1, 0.0], [0.9, 1.0, 0.9, 0.9]])
    correct = torch.tensor([[False] * 4, [True] * 4])
    assert advantage(rewards, correct).tolist() == [[0.0] * 4] * 2


@BOTH
@pytest.mark.parametrize("value", [0.9, 0.1, 1 / 3])
def test_equal_rewards_give_exactly_zero_despite_rounding(advantage, value):
    rewards = torch.full((1, 7), value, dtype=torch.float64)
    correct = torch.tensor([[True] + [False] * 6])
    assert advantage(rewards, correct).tolist() == [[0.0] * 7]


@BOTH
def test_a_rollout_without_a_reward_is_left_out_of_its_group(advantage):
    rewards = torch.tensor([[1.0, math.nan, 0.0, 0.1]])
    correct = torch.tensor([[True, True, False, False]])
    result = advantage(rewards, correct)
    kept = [0, 2, 3]
    assert result[0, 1] == 0
    assert torch.equal(result[:, kept], advantage(rewards[:, kept], correct[:, kept]))


@BOTH
def test_fewer_than_two_scored_rollouts_give_zero(advantage):
    rewards = torch.tensor([[1.0, math.nan, math.nan], [math.nan] * 3])
    correct = torch.tensor([[True, False, False], [True, False, True]])
    assert advantage(rewards, correct).tolist() == [[0.0] * 3] * 2


def test_the_flag_of_an_unscored_rollout_does_not_make_a_group_mixed():
    rewards = torch.tensor([[0.1, 0.0, math.nan]])
    assert grpo(rewards, torch.tensor([[False, False, True]])).tolist() == [[0.0] * 3]


@BOTH
def test_errors(advantage):
    with pytest.raises(ValueError, match=r"group size is 1, .* Set rollout\.group_size to 2 or more\."):
        advantage(torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="a reward is infinite"):
        advantage(torch.tensor([[math.inf, 0.0]]), torch.tensor([[True, False]]))


def test_errors_of_the_scale():
    rewards, correct = drawn_batch(0)
    with pytest.raises(ValueError, match='std is "population", but must be "biased" or "unbiased"'):
        grpo(rewards, correct, std="population")
    with pytest.raises(ValueError, match=r"eps is -0\.1, but must be 0 or more"):
        grpo(rewards, correct, eps=-0.1)
