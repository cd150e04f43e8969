import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms import ANCHORS, WEIGHTINGS
from mm_agrae.algorithms.advantages import group
from mm_agrae.algorithms.groups import scored_flags
from mm_agrae.algorithms.hadw import (
    AnchorState,
    anchor_batch,
    anchor_fixed,
    anchor_soft,
    anchor_window,
    hadw,
)

DRAWN = settings(max_examples=40)
FRACTIONS = st.floats(0, 1)
START = AnchorState()


def flags_of(num_correct, size):
    return torch.tensor([[True] * num_correct + [False] * (size - num_correct)])


def base(correct):
    return group(correct.float(), correct)


def follow(rule, accuracies, state=START, **numbers):
    """Anchors of a run of batches, and the state after it."""
    anchors = []
    for accuracy in accuracies:
        anchor, state = rule(state, accuracy, **numbers)
        anchors.append(anchor)
    return anchors, state


def test_worked_example():
    correct = flags_of(1, 4)
    # p = 1/4, C = 1/2, λ = 1.3: positives times 1.3 · exp(1/4) = 1.3 · 1.284025 = 1.669233,
    # negatives times 1.3 · exp(-1/4) = 1.3 · 0.778801 = 1.012441.
    result = hadw(torch.tensor([[3.0, -1.0, -1.0, 0.0]]), correct, anchor=0.5)
    torch.testing.assert_close(result, torch.tensor([[5.007699, -1.012441, -1.012441, 0.0]]), atol=2e-6, rtol=0)
    # C = 0 turns it round: exp(-1/4) for positives, exp(1/4) for negatives; λ = 1.5.
    result = hadw(torch.tensor([[3.0, -1.0, -1.0, 0.0]]), correct, anchor=0.0, scale=1.5)
    torch.testing.assert_close(result, torch.tensor([[3.504603, -1.926038, -1.926038, 0.0]]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("num_correct", [1, 4, 7])
def test_a_group_as_good_as_the_anchor_is_scaled_only(num_correct):
    correct = flags_of(num_correct, 8)
    result = hadw(base(correct), correct, anchor=num_correct / 8, scale=1.3)
    torch.testing.assert_close(result, base(correct) * 1.3)


@DRAWN
@given(st.integers(1, 15), FRACTIONS, st.floats(0.1, 3))
def test_mass_and_sum(num_correct, anchor, scale):
    """Σ|A| = 2 λ G sqrt(p (1-p)) cosh(p - C) and ΣA = 2 λ G sqrt(p (1-p)) sinh(C - p)."""
    correct, p = flags_of(num_correct, 16), num_correct / 16
    result = hadw(base(correct), correct, anchor=anchor, scale=scale).double()
    half = scale * 16 * math.sqrt(p * (1 - p))
    assert float(result.abs().sum()) == pytest.approx(2 * half * math.cosh(p - anchor), rel=1e-5)
    assert float(result.sum()) == pytest.approx(2 * half * math.sinh(anchor - p), abs=1e-4)


def test_bias_of_a_rare_success():
    """What a correct rollout of a hard prompt gets, less its true advantage 1 - p; by enumeration of its 7 peers."""
    chance, size = 0.1, 8
    weights, undone, weighted = [], [], []
    for peers in range(size - 1):  # with 7 correct peers the group is degenerate
        correct = flags_of(1 + peers, size)
        advantages = group(correct.float(), correct, std="none")
        weights.append(math.comb(size - 1, peers) * chance**peers * (1 - chance) ** (size - 1 - peers))
        undone.append(float(advantages[0, 0]))
        weighted.append(float(hadw(advantages, correct, anchor=0.5, scale=1.3)[0, 0]))
    biases = [sum(w * a for w, a in zip(weights, values, strict=True)) / sum(weights) for values in (undone, weighted)]
    assert [bias - (1 - chance) for bias in biases] == pytest.approx([-0.112, 0.488], abs=1e-3)


@DRAWN
@given(st.integers(0, 10**6), FRACTIONS, st.floats(0.1, 3), st.integers(2, 9))
def test_properties(seed, anchor, scale, size):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(4, size, generator=generator) < 0.5
    advantages = torch.randn(4, size, generator=generator)
    advantages[0, 0] = 0.0
    copies = advantages.clone(), correct.clone()
    numbers = {"anchor": anchor, "scale": scale}
    result = hadw(advantages, correct, **numbers)
    assert torch.equal(advantages, copies[0])
    assert torch.equal(correct, copies[1])
    assert torch.equal(result.sign(), advantages.sign())
    assert result.dtype == hadw(advantages.double(), correct, **numbers).dtype == torch.float32
    order = torch.randperm(size, generator=generator)
    assert torch.equal(hadw(advantages[:, order], correct[:, order], **numbers), result[:, order])
    shards = [hadw(advantages[i : i + 1], correct[i : i + 1], **numbers) for i in range(4)]
    assert torch.equal(torch.cat(shards), result)


def test_groups_of_equal_flags_have_a_success_rate_too():
    correct = torch.tensor([[True, True], [False, False]])
    result = hadw(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), correct, anchor=0.25, scale=2.0)
    # p = 1 and A > 0: 2 exp(1/4 - 1) = 0.944733. p = 0 and A < 0: 2 exp(0 - 1/4) = 1.557602.
    torch.testing.assert_close(result, torch.tensor([[0.944733] * 2, [-1.557602] * 2]), atol=1e-6, rtol=0)


def test_unscored_rollouts():
    rewards = torch.tensor([[1.0, math.nan, 0.0, 0.0]])
    correct = torch.tensor([[True, False, False, False]])
    kept = [0, 2, 3]
    with_it = hadw(group(rewards, correct), scored_flags(correct, rewards), anchor=0.4)
    assert with_it[0, 1] == 0
    without = hadw(group(rewards[:, kept], correct[:, kept]), correct[:, kept], anchor=0.4)
    assert torch.equal(with_it[:, kept], without)
    nowhere = torch.full((1, 2), math.nan)
    assert hadw(torch.tensor([[1.0, -1.0]]), nowhere, anchor=0.4).tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"anchor": 1.5}, r"anchor is 1\.5, but must be in \[0, 1\]: it is an accuracy"),
        ({"anchor": -0.1}, r"anchor is -0\.1"),
        ({"anchor": math.nan}, "anchor is nan"),
        ({"scale": 0.0}, r"scale is 0\.0, but must be finite and above 0\. Set algorithm\.hadw\.scale\."),
        ({"scale": math.inf}, "scale is inf"),
        ({"scale": math.nan}, "scale is nan"),
    ],
)
def test_errors(setting, message):
    with pytest.raises(ValueError, match=message):
        hadw(torch.zeros(1, 2), flags_of(1, 2), **{"anchor": 0.5, **setting})


def test_matrices_that_are_no_groups_are_refused():
    with pytest.raises(ValueError, match=r"group size is 1, .* Set rollout\.group_size to 2 or more\."):
        hadw(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool), anchor=0.5)
    with pytest.raises(ValueError, match=r"shapes are \[2, 3\] and \[2, 2\]"):
        hadw(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.bool), anchor=0.5)


def test_names():
    assert WEIGHTINGS["hadw"] is hadw
    assert {"window": anchor_window, "soft": anchor_soft, "fixed": anchor_fixed, "batch": anchor_batch} == ANCHORS


def test_the_window_holds_earlier_batches_only():
    # Itself; then 0.2; (0.2 + 0.4) / 2; (0.4 + 0.9) / 2; (0.9 + 0.1) / 2.
    anchors, _ = follow(anchor_window, [0.2, 0.4, 0.9, 0.1, 0.7], window=2)
    assert anchors == pytest.approx([0.2, 0.2, 0.3, 0.65, 0.5])


def test_the_window_of_the_code_holds_this_batch_too():
    # 0.2; (0.2 + 0.4) / 2; (0.4 + 0.9) / 2; (0.9 + 0.1) / 2; (0.1 + 0.7) / 2.
    anchors, _ = follow(anchor_window, [0.2, 0.4, 0.9, 0.1, 0.7], window=2, include_current=True)
    assert anchors == pytest.approx([0.2, 0.3, 0.65, 0.5, 0.4])


def test_the_window_is_ten_batches_by_default():
    # Of 0, 1, 1, ...: the first leaves the window with the twelfth batch, or with the eleventh where it is counted.
    accuracies = [0.0] + [1.0] * 12
    assert follow(anchor_window, accuracies)[0][10:] == [0.9, 1.0, 1.0]
    assert follow(anchor_window, accuracies, include_current=True)[0][9:] == [0.9, 1.0, 1.0, 1.0]


def test_a_shorter_window_forgets_at_once():
    """A checkpoint of a longer window may be taken up with a shorter one."""
    state = AnchorState(history=(0.0, 0.0, 0.2, 0.4))
    anchor, later = anchor_window(state, 0.8, window=2)
    assert anchor == pytest.approx(0.3)
    assert later.history == (0.4, 0.8)
    assert anchor_window(state, 0.8, window=2, include_current=True)[0] == pytest.approx(0.6)


def test_the_soft_belief_follows_the_batches():
    # 0.5 is its own prior. Then one belief, σ = 0, η = η_min = 0.2: 0.8 · 0.5 + 0.2 · 1 = 0.6.
    # Beliefs 0.5 and 0.6, σ = 0.05, η = 10 · 0.05 = 0.5: 0.5 · 0.6 + 0.5 · 0 = 0.3.
    # Beliefs 0.6 and 0.3 (memory 2), σ = 0.15, η = min(1, 1.5) = 1: the belief is the batch, 0.9.
    anchors, state = follow(anchor_soft, [0.5, 1.0, 0.0, 0.9, 0.4], eta=10.0, eta_min=0.2, memory=2)
    assert anchors == pytest.approx([0.5, 0.5, 0.6, 0.3, 0.9])
    # Beliefs 0.3 and 0.9, σ = 0.3, η = 1: 0.4.
    assert state.history == pytest.approx((0.9, 0.4))


def test_equal_beliefs_freeze_the_soft_anchor_unless_its_speed_has_a_floor():
    accuracies = [0.2] + [0.8] * 60
    frozen, state = follow(anchor_soft, accuracies, eta_min=0.0)
    assert set(frozen) == {0.2}
    assert set(state.history) == {0.2}
    moving, _ = follow(anchor_soft, accuracies)
    assert moving[-1] == pytest.approx(0.8, abs=1e-2)


def test_anchors_without_memory():
    anchors, state = follow(anchor_fixed, [0.2, 0.9], value=0.35)
    assert (anchors, state) == ([0.35, 0.35], START)
    anchors, state = follow(anchor_batch, [0.2, 0.9])
    assert (anchors, state) == ([0.2, 0.9], START)


RULES = {
    "window": {"window": 3},
    "window of the code": {"window": 3, "include_current": True},
    "soft": {"memory": 3},
    "frozen soft": {"memory": 3, "eta_min": 0.0},
    "fixed": {},
    "batch": {},
}
OF_EACH = pytest.mark.parametrize(
    ("rule", "numbers"),
    [(ANCHORS[next(name for name in ANCHORS if name in label)], numbers) for label, numbers in RULES.items()],
    ids=RULES,
)


@OF_EACH
@DRAWN
@given(accuracies=st.lists(FRACTIONS, min_size=1, max_size=20), cut=st.integers(0, 20))
def test_anchors_are_accuracies_with_a_bounded_memory_and_can_be_taken_up_anywhere(rule, numbers, accuracies, cut):
    anchors, state = follow(rule, accuracies, **numbers)
    assert all(0 <= anchor <= 1 for anchor in (*anchors, *state.history))
    assert len(state.history) <= 3
    early, halfway = follow(rule, accuracies[:cut], **numbers)
    before = halfway.history
    late, end = follow(rule, accuracies[cut:], halfway, **numbers)
    assert (early + late, end) == (anchors, state)
    assert halfway.history is before


@OF_EACH
def test_a_state_is_a_value(rule, numbers):
    state = AnchorState(history=(0.5, 0.25))
    assert rule(state, 0.75, **numbers) == rule(AnchorState(history=(0.5, 0.25)), 0.75, **numbers)
    assert state == AnchorState(history=(0.5, 0.25))
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.history = ()


@pytest.mark.parametrize("rule", [anchor_window, anchor_soft, anchor_batch])
@pytest.mark.parametrize("accuracy", [-0.1, 1.1, math.nan])
def test_a_mean_reward_is_no_accuracy(rule, accuracy):
    with pytest.raises(ValueError, match=rf"accuracy is {accuracy}, but must be in \[0, 1\]: .* not a mean reward\."):
        rule(START, accuracy)


@pytest.mark.parametrize(
    ("rule", "numbers", "message"),
    [
        (anchor_window, {"window": 0}, r"window is 0, but must be 1 or more\. Set algorithm\.hadw\.window\."),
        (anchor_soft, {"eta": -1.0}, r"eta is -1\.0, eta_min 0\.1 and memory 10, but eta must be finite and 0 or more"),
        (anchor_soft, {"eta": math.inf}, "eta is inf"),
        (anchor_soft, {"eta_min": 1.5}, r"eta_min 1\.5 .* eta_min in \[0, 1\]"),
        (anchor_soft, {"memory": 1}, r"memory 1, .* memory 2 or more\. Set them in algorithm\.hadw\."),
        (anchor_fixed, {"value": 1.5}, r"accuracy is 1\.5, but must be in \[0, 1\]"),
    ],
)
def test_errors_of_the_anchors(rule, numbers, message):
    with pytest.raises(ValueError, match=message):
        rule(START, 0.5, **numbers)
