import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.advantages import ADVANTAGES, group, leave_one_out, signed

DRAWN = settings(max_examples=40)
STDS = ("biased", "unbiased", "batch", "none")
BASELINES = {
    f"{function.__name__}-{std}": partial(function, std=std) for function in (group, leave_one_out) for std in STDS
}
OF_BASELINE = pytest.mark.parametrize("advantage", BASELINES.values(), ids=BASELINES)
ALL = pytest.mark.parametrize("advantage", [*BASELINES.values(), signed], ids=[*BASELINES, "signed"])
# Groups know nothing of each other, except through a standard deviation of the whole batch.
OF_GROUP = pytest.mark.parametrize(
    "advantage",
    [*(f for name, f in BASELINES.items() if not name.endswith("batch")), signed],
    ids=[*(name for name in BASELINES if not name.endswith("batch")), "signed"],
)


def drawn_batch(seed, num_prompts=4, group_size=5):
    """Composite rewards 0.9 · correct + 0.1 · formatted, in float32 as a reward function would give them."""
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(num_prompts, group_size, generator=generator) < 0.5
    formatted = torch.rand(num_prompts, group_size, generator=generator) < 0.7
    return 0.9 * correct.float() + 0.1 * formatted.float(), correct


def test_worked_example_of_the_group():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    correct = rewards.bool()
    # mean 1/4; squares 9/16 + 3 · 1/16 = 3/4; biased std sqrt(3/4 / 4) = sqrt(3)/4; unbiased sqrt(3/4 / 3) = 1/2.
    root = math.sqrt(3)
    torch.testing.assert_close(group(rewards, correct), torch.tensor([[root, -1 / root, -1 / root, -1 / root]]))
    torch.testing.assert_close(group(rewards, correct, std="unbiased"), torch.tensor([[1.5, -0.5, -0.5, -0.5]]))
    # (3/4) / (1/2 + 1/2) and (-1/4) / (1/2 + 1/2).
    halved = group(rewards, correct, std="unbiased", std_eps=0.5)
    torch.testing.assert_close(halved, torch.tensor([[0.75] + [-0.25] * 3]))
    assert group(rewards, correct, std="none").tolist() == [[0.75, -0.25, -0.25, -0.25]]


def test_worked_example_of_the_batch():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, math.nan], [1.0, 1.0, 1.0, 1.0]])
    correct = rewards.nan_to_num().bool()
    # Squares of the deviations: 3/4, then 1/9 + 1/9 + 4/9 = 2/3, then 0, over the 4 + 3 + 4 = 11 scored rollouts:
    # (17/12) / 11 = 17/132, whose root is 0.358870. 3/4 / 0.358870 = 2.089892, 1/3 / 0.358870 = 0.928841.
    expected = [
        [2.089892, -0.696631, -0.696631, -0.696631],
        [0.928841, 0.928841, -1.857682, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
    torch.testing.assert_close(group(rewards, correct, std="batch"), torch.tensor(expected), atol=2e-6, rtol=0)
    # With std_eps 1 the divisor is 1.358870: 3/4 / 1.358870 = 0.551929.
    assert float(group(rewards, correct, std="batch", std_eps=1.0)[0, 0]) == pytest.approx(0.551929, abs=1e-6)


def test_worked_example_of_leave_one_out():
    rewards = torch.tensor([[1.0, 0.5, 0.0, 0.0], [1.0, math.nan, 0.0, 0.0]])
    correct = torch.tensor([[True, False, False, False]] * 2)
    # Means of the others: 1/6, 1/3, 1/2, 1/2. In the second group 0, -, 1/2, 1/2.
    expected = [[5 / 6, 1 / 6, -0.5, -0.5], [1.0, 0.0, -0.5, -0.5]]
    torch.testing.assert_close(leave_one_out(rewards, correct), torch.tensor(expected))
    # The standard deviation is that of the rewards: (1, 0, 0) has mean 1/3, squares 4/9 + 2/9 and std sqrt(2)/3.
    divided = leave_one_out(rewards, correct, std="biased")
    torch.testing.assert_close(divided[1], torch.tensor([1.0, 0.0, -0.5, -0.5]) * 3 / math.sqrt(2))


def test_worked_example_without_a_baseline():
    rewards = torch.tensor([[0.9, 0.1, math.nan], [1.0, 1.0, 1.0], [0.0, 0.1, 0.0]])
    correct = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
    # Only the flag counts, and groups of equal flags do contribute: +w₊ or -w₋, 0 where there is no reward.
    assert signed(rewards, correct).tolist() == [[1, -1, 0], [1, 1, 1], [-1, -1, -1]]
    positives = signed(rewards, correct, positive_weight=1.0, negative_weight=0.0)
    assert positives.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    negatives = signed(rewards, correct, positive_weight=0.0, negative_weight=1.0)
    assert negatives.tolist() == [[0, -1, 0], [0, 0, 0], [-1, -1, -1]]
    weighted = signed(rewards, correct, positive_weight=0.1, negative_weight=1.0)
    torch.testing.assert_close(weighted, torch.tensor([[0.1, -1, 0], [0.1, 0.1, 0.1], [-1, -1, -1]]))


def test_names():
    assert {"group": group, "leave_one_out": leave_one_out, "none": signed} == ADVANTAGES
    rewards, correct = drawn_batch(0)
    assert torch.equal(group(rewards, correct), group(rewards, correct, std="biased", std_eps=0.0))
    assert torch.equal(leave_one_out(rewards, correct), leave_one_out(rewards, correct, std="none"))
    assert torch.equal(signed(rewards, correct), signed(rewards, correct, positive_weight=1.0, negative_weight=1.0))


@ALL
@DRAWN
@given(seed=st.integers(0, 10**6))
def test_properties(advantage, seed):
    rewards, correct = drawn_batch(seed)
    copies = rewards.clone(), correct.clone()
    result = advantage(rewards, correct)
    assert torch.equal(rewards, copies[0])
    assert torch.equal(correct, copies[1])
    assert advantage(rewards.double(), correct).dtype == result.dtype == torch.float32
    # Permuting a group permutes its result, and so does permuting the groups.
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(advantage(rewards[:, order], correct[:, order]), result[:, order], atol=2e-6, rtol=0)
    torch.testing.assert_close(advantage(rewards.flip(0), correct.flip(0)), result.flip(0), atol=2e-6, rtol=0)


@OF_BASELINE
@DRAWN
@given(seed=st.integers(0, 10**6))
def test_properties_of_a_baseline(advantage, seed):
    rewards, correct = drawn_batch(seed)
    result = advantage(rewards, correct)
    # Adding a constant changes nothing; the sum of a group is 0.
    torch.testing.assert_close(advantage(rewards.double() + 3, correct), result, atol=2e-6, rtol=0)
    torch.testing.assert_close(result.sum(dim=1), torch.zeros(4), atol=5e-6, rtol=0)


@OF_GROUP
@DRAWN
@given(seed=st.integers(0, 10**6))
def test_groups_do_not_influence_each_other(advantage, seed):
    rewards, correct = drawn_batch(seed)
    shards = [advantage(rewards[i : i + 1], correct[i : i + 1]) for i in range(4)]
    assert torch.equal(torch.cat(shards), advantage(rewards, correct))


@pytest.mark.parametrize("function", [group, leave_one_out])
@DRAWN
@given(seed=st.integers(0, 10**6))
def test_groups_meet_in_the_standard_deviation_of_the_batch_only(function, seed):
    """One factor for the whole batch, and unit variance over it."""
    rewards, correct = drawn_batch(seed)
    result, undivided = function(rewards, correct, std="batch"), function(rewards, correct, std="none")
    if undivided.abs().max() == 0:
        assert torch.equal(result, undivided)
        return
    factors = (result / undivided)[undivided != 0]
    torch.testing.assert_close(factors, factors[:1].expand_as(factors), atol=0, rtol=1e-5)
    variance = float(group(rewards, correct, std="batch").double().square().mean())
    assert variance == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("std", STDS)
@DRAWN
@given(seed=st.integers(0, 10**6), unscored=st.integers(0, 5))
def test_leave_one_out_is_a_multiple_of_the_group(std, seed, unscored):
    """n / (n - 1) times it, n the number of scored rollouts."""
    rewards, correct = drawn_batch(seed, group_size=7)
    rewards[0, :unscored] = math.nan
    factors = torch.full((4, 1), 7 / 6)
    factors[0] = (7 - unscored) / (6 - unscored)
    expected = group(rewards, correct, std=std) * factors
    torch.testing.assert_close(leave_one_out(rewards, correct, std=std), expected, atol=2e-6, rtol=0)


@DRAWN
@given(st.integers(2, 16), st.integers(1, 15))
def test_advantage_mass_of_binary_rewards(size, num_correct):
    """Positives and negatives each weigh G sqrt(p (1-p)); without the standard deviation all weigh 2 G p (1-p)."""
    num_correct = min(num_correct, size - 1)
    rewards = torch.tensor([[1.0] * num_correct + [0.0] * (size - num_correct)])
    correct, p = rewards.bool(), num_correct / size
    result = group(rewards, correct)
    assert float(result.clamp(min=0).sum()) == pytest.approx(size * math.sqrt(p * (1 - p)), rel=1e-5)
    assert float(result.clamp(max=0).sum()) == pytest.approx(-size * math.sqrt(p * (1 - p)), rel=1e-5)
    assert float(group(rewards, correct, std="none").abs().sum()) == pytest.approx(2 * size * p * (1 - p), rel=1e-5)
    shrunk = group(rewards, correct, std="unbiased")
    torch.testing.assert_close(shrunk, result * math.sqrt((size - 1) / size))


@OF_BASELINE
def test_equal_flags_give_exactly_zero_whatever_the_rewards(advantage):
    rewards = torch.tensor([[0.1, 0.0, 0.1, 0.0], [0.9, 1.0, 0.9, 0.9]])
    correct = torch.tensor([[False] * 4, [True] * 4])
    assert advantage(rewards, correct).tolist() == [[0.0] * 4] * 2


@OF_BASELINE
@pytest.mark.parametrize("value", [0.9, 0.1, 0.7])
def test_equal_rewards_give_exactly_zero_despite_rounding(advantage, value):
    rewards = torch.full((1, 7), value, dtype=torch.float64)
    assert any(float(rewards[:, :n].mean() - value) for n in range(2, 8)), "these means are exact: no trap"
    for size in range(2, 8):
        correct = torch.tensor([[True] + [False] * (size - 1)])
        assert advantage(rewards[:, :size], correct).tolist() == [[0.0] * size]


@ALL
def test_a_rollout_without_a_reward_is_left_out_of_its_group(advantage):
    rewards = torch.tensor([[1.0, math.nan, 0.0, 0.1]])
    correct = torch.tensor([[True, True, False, False]])
    result = advantage(rewards, correct)
    kept = [0, 2, 3]
    assert result[0, 1] == 0
    assert torch.equal(result[:, kept], advantage(rewards[:, kept], correct[:, kept]))


@OF_BASELINE
def test_fewer_than_two_scored_rollouts_give_zero(advantage):
    rewards = torch.tensor([[1.0, math.nan, math.nan], [math.nan] * 3])
    correct = torch.tensor([[True, False, False], [True, False, True]])
    assert advantage(rewards, correct).tolist() == [[0.0] * 3] * 2


@OF_BASELINE
def test_the_flag_of_an_unscored_rollout_does_not_make_a_group_mixed(advantage):
    rewards = torch.tensor([[0.1, 0.0, math.nan]])
    assert advantage(rewards, torch.tensor([[False, False, True]])).tolist() == [[0.0] * 3]


@ALL
def test_matrices_that_are_no_groups_are_refused(advantage):
    with pytest.raises(ValueError, match=r"group size is 1, .* Set rollout\.group_size to 2 or more\."):
        advantage(torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"shapes are \[2, 3\] and \[3, 2\], but both must be \[P, G\]"):
        advantage(torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool))


@OF_BASELINE
@pytest.mark.parametrize("reward", [math.inf, -math.inf])
def test_infinite_rewards_are_refused(advantage, reward):
    with pytest.raises(ValueError, match="a reward is infinite, but rewards must be finite"):
        advantage(torch.tensor([[reward, 0.0]]), torch.tensor([[True, False]]))


@pytest.mark.parametrize("function", [group, leave_one_out])
def test_errors_of_the_scale(function):
    rewards, correct = drawn_batch(0)
    message = r'std is "population", but must be "biased", "unbiased", "batch" or "none"\. Set algorithm\.std\.'
    with pytest.raises(ValueError, match=message):
        function(rewards, correct, std="population")
    for std_eps in (-0.1, math.inf, math.nan):
        with pytest.raises(
            ValueError, match=rf"std_eps is {std_eps}, but must be finite and 0 or more\. Set algorithm\.std_eps\."
        ):
            function(rewards, correct, std_eps=std_eps)


@pytest.mark.parametrize("name", ["positive_weight", "negative_weight"])
@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_errors_of_the_weights(name, weight):
    with pytest.raises(
        ValueError, match=rf"{name} is {weight}, but must be finite and 0 or more\. Set algorithm\.{name}\."
    ):
        signed(*drawn_batch(0), **{name: weight})


def test_digits_survive_a_large_offset():
    # In float32 the rewards 1e8 and 1e8 + 1 are one number.
    rewards = torch.tensor([[1e8 + 1, 1e8]], dtype=torch.float64)
    assert group(rewards, torch.tensor([[True, False]]), std="none").tolist() == [[0.5, -0.5]]
