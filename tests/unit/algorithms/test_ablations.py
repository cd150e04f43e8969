import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms import WEIGHTINGS
from mm_agrae.algorithms.ablations import easy_focused, hard_focused, negative_dominant, positive_dominant
from mm_agrae.algorithms.advantages import group
from mm_agrae.algorithms.groups import scored_flags

DRAWN = settings(max_examples=40)
DOMINANT = pytest.mark.parametrize("weigh", [positive_dominant, negative_dominant])
FOCUSED = pytest.mark.parametrize("weigh", [hard_focused, easy_focused])
ALL = pytest.mark.parametrize("weigh", [positive_dominant, negative_dominant, hard_focused, easy_focused])


def test_worked_example():
    correct = torch.tensor([[True, False, False, False]])
    advantages = torch.tensor([[3.0, -1.0, -1.0, -1.0]])
    # β = 10: positives times and over 10, negatives as they are.
    assert positive_dominant(advantages, correct).tolist() == [[30, -1, -1, -1]]
    torch.testing.assert_close(negative_dominant(advantages, correct), torch.tensor([[0.3, -1, -1, -1]]))
    assert positive_dominant(advantages, correct, dominance=2.0).tolist() == [[6, -1, -1, -1]]
    assert negative_dominant(advantages, correct, dominance=2.0).tolist() == [[1.5, -1, -1, -1]]
    # γ = 1/2 and p = 1/4: (1/2) / (1/2) = 1, and (1/2) / (sqrt(3)/2) = 1 / sqrt(3).
    torch.testing.assert_close(hard_focused(advantages, correct), advantages)
    torch.testing.assert_close(easy_focused(advantages, correct), advantages / math.sqrt(3))
    torch.testing.assert_close(hard_focused(advantages, correct, focus=2.0), 4 * advantages)


def test_dominance_decides_the_sign_of_the_sum():
    """Zero for the base; what unsampled trajectories gain or lose follows it."""
    correct = torch.tensor([[True] * 3 + [False] * 5])
    advantages = group(correct.float(), correct)
    positives = float(advantages.clamp(min=0).sum())
    # The two halves weigh the same: Σ = (β - 1) times one of them, and -(1 - 1/β) times it.
    assert float(positive_dominant(advantages, correct).sum()) == pytest.approx(9 * positives, rel=1e-5)
    assert float(negative_dominant(advantages, correct).sum()) == pytest.approx(-0.9 * positives, rel=1e-5)


def test_the_focused_ones_are_the_terms_of_the_sample_level():
    correct = torch.tensor([[True, False, False], [True, True, False]])
    advantages = group(correct.float(), correct)
    for weigh, omega in ((hard_focused, 1.0), (easy_focused, 0.0)):
        of_agrae = WEIGHTINGS["agrae_sample_level"](advantages, correct, batch_accuracy=omega)
        torch.testing.assert_close(weigh(advantages, correct, focus=0.5), of_agrae)


@ALL
@DRAWN
@given(st.integers(0, 10**6), st.integers(2, 9))
def test_properties(weigh, seed, size):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(4, size, generator=generator) < 0.5
    advantages = torch.randn(4, size, generator=generator)
    copies = advantages.clone(), correct.clone()
    result = weigh(advantages, correct)
    assert torch.equal(advantages, copies[0])
    assert torch.equal(correct, copies[1])
    assert torch.equal(result.sign(), advantages.sign())
    assert result.dtype == weigh(advantages.double(), correct).dtype == torch.float32
    order = torch.randperm(size, generator=generator)
    assert torch.equal(weigh(advantages[:, order], correct[:, order]), result[:, order])
    shards = [weigh(advantages[i : i + 1], correct[i : i + 1]) for i in range(4)]
    assert torch.equal(torch.cat(shards), result)


@FOCUSED
def test_groups_of_equal_flags_are_left_alone(weigh):
    correct = torch.tensor([[True, True], [False, False]])
    advantages = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert torch.equal(weigh(advantages, correct), advantages)


@ALL
def test_unscored_rollouts_count_in_no_rate(weigh):
    rewards = torch.tensor([[1.0, math.nan, 0.0, 0.0], [math.nan] * 4])
    correct = torch.tensor([[True, False, False, False]] * 2)
    kept = [0, 2, 3]
    with_it = weigh(group(rewards, correct), scored_flags(correct, rewards))
    without = weigh(group(rewards[:1, kept], correct[:1, kept]), correct[:1, kept])
    assert torch.equal(with_it[:1, kept], without)
    assert with_it[0, 1] == 0
    assert with_it[1].tolist() == [0.0] * 4


@DOMINANT
@pytest.mark.parametrize("dominance", [0.0, -1.0, math.inf, math.nan])
def test_errors_of_dominance(weigh, dominance):
    message = rf"dominance is {dominance}, but must be finite and above 0\. Set algorithm\.ablation\.dominance\."
    with pytest.raises(ValueError, match=message):
        weigh(torch.zeros(1, 2), torch.tensor([[True, False]]), dominance=dominance)


@FOCUSED
@pytest.mark.parametrize("focus", [0.0, -1.0, math.inf, math.nan])
def test_errors_of_focus(weigh, focus):
    message = rf"focus is {focus}, but must be finite and above 0\. Set algorithm\.ablation\.focus\."
    with pytest.raises(ValueError, match=message):
        weigh(torch.zeros(1, 2), torch.tensor([[True, False]]), focus=focus)


@ALL
def test_matrices_that_are_no_groups_are_refused(weigh):
    with pytest.raises(ValueError, match=r"group size is 1, .* Set rollout\.group_size to 2 or more\."):
        weigh(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"shapes are \[2, 3\] and \[2, 2\]"):
        weigh(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", ["positive_dominant", "negative_dominant", "hard_focused", "easy_focused"])
def test_names(name):
    assert WEIGHTINGS[name].__name__ == name
