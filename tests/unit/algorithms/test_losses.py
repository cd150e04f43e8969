import math

import pytest
import torch

from mm_agrae.algorithms.losses import AGGREGATIONS, LOSSES, clipped_surrogate, k3


def surrogate(ratios, advantages, low=0.8, high=1.2):
    """Loss and gradient by log-probability of tokens with given ratios."""
    logprobs = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    advantages = torch.tensor(advantages, dtype=torch.float64)
    old = torch.zeros_like(logprobs)
    outcome = clipped_surrogate(logprobs, old, advantages, torch.full_like(old, low), torch.full_like(old, high))
    outcome.loss.sum().backward()
    return outcome, logprobs.grad


def test_worked_example():
    outcome, gradient = surrogate([0.5, 0.5, 1.0, 1.5, 1.5], [2.0, -2.0, 2.0, 2.0, -2.0])
    # A = +2: -min(1, .8·2) = -1 and free; -min(3, 1.2·2) = -2.4 and held.
    # A = -2: -min(-1, -1.6) = 1.6 and held; -min(-3, -2.4) = 3 and free. At ratio 1: -2.
    torch.testing.assert_close(outcome.loss.detach(), torch.tensor([-1.0, 1.6, -2.0, -2.4, 3.0]).double())
    torch.testing.assert_close(gradient, torch.tensor([-1.0, 0.0, -2.0, 0.0, 3.0]).double())
    assert outcome.clipped_low.tolist() == [False, True, False, False, False]
    assert outcome.clipped_high.tolist() == [False, False, False, True, False]
    torch.testing.assert_close(outcome.ratio, torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5]).double())
    assert not outcome.ratio.requires_grad


def test_at_ratio_one_the_gradient_is_the_advantage_whatever_the_bounds():
    for low, high in ((1.0, 1.0), (0.8, 1.28), (0.1, 9.0)):
        outcome, gradient = surrogate([1.0, 1.0], [0.7, -1.3], low, high)
        torch.testing.assert_close(gradient, torch.tensor([-0.7, 1.3]).double())
        assert not (outcome.clipped_low | outcome.clipped_high).any()


def test_zero_advantage_has_no_loss_no_gradient_and_is_never_clipped():
    outcome, gradient = surrogate([0.1, 1.0, 9.0], [0.0, 0.0, 0.0])
    assert outcome.loss.abs().max() == 0
    assert gradient.abs().max() == 0
    assert not (outcome.clipped_low | outcome.clipped_high).any()


def test_old_logprobs_get_no_gradient():
    old = torch.zeros(2, requires_grad=True)
    logprobs = torch.zeros(2, requires_grad=True)
    ones = torch.ones(2)
    (clipped_surrogate(logprobs, old, ones, ones, ones).loss + k3(logprobs, old)).sum().backward()
    assert old.grad is None
    assert logprobs.grad is not None


@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
def test_a_stray_token_leaves_the_gradient_finite(advantage):
    logprobs = torch.tensor([-1.0], requires_grad=True)
    bound = torch.ones(1)
    clipped_surrogate(logprobs, torch.tensor([-200.0]), torch.tensor([advantage]), bound, bound).loss.sum().backward()
    assert bool(logprobs.grad.isfinite().all())


def test_k3_worked_example():
    # d = ln 2: 2 - ln 2 - 1 = 0.306853. d = -ln 2: 1/2 + ln 2 - 1 = 0.193147. d = 0: 0.
    ref = torch.tensor([math.log(2), -math.log(2), 0.0]) - 1
    logprobs = torch.full((3,), -1.0, requires_grad=True)
    divergence = k3(logprobs, ref)
    torch.testing.assert_close(divergence.detach(), torch.tensor([0.306853, 0.193147, 0.0]), atol=1e-6, rtol=0)
    divergence.sum().backward()
    # Derivative 1 - exp(d).
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.0, 0.5, 0.0]), atol=1e-6, rtol=0)


def test_k3_keeps_its_digits_near_the_reference():
    # d²/2 + d³/6 for d = 0.001: 5e-7 + 1.67e-10, where exp(d) - 1 - d in float32 is off by up to 6e-8.
    divergence = k3(torch.tensor([-0.001]), torch.tensor([0.0]))
    assert float(divergence) == pytest.approx(5.00167e-7, rel=1e-3)


def test_k3_of_a_stray_token_stays_finite():
    """exp(99) is no float32, and one such token would end the run."""
    logprobs = torch.tensor([-100.0], requires_grad=True)
    divergence = k3(logprobs, torch.tensor([-1.0]))
    divergence.sum().backward()
    assert bool(divergence.isfinite().all())
    assert bool(logprobs.grad.isfinite().all())


def test_aggregations_worked_example():
    lengths = torch.tensor([2, 0, 4])
    counts = {"num_sequences": 4, "num_tokens": 10, "max_length": 5}
    # 1/(2·4), nothing, 1/(4·4); 1/10; 1/(4·5). The fourth sequence, of 4 tokens, is on another rank.
    for name, expected in (
        ("sequence_mean", [0.125, 0.0, 0.0625]),
        ("token_mean", [0.1, 0.0, 0.1]),
        ("token_sum", [0.05, 0.0, 0.05]),
    ):
        weights = AGGREGATIONS[name](lengths, **counts)
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, torch.tensor(expected))


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_aggregations_of_nothing(name):
    empty = torch.zeros(0, dtype=torch.long)
    assert AGGREGATIONS[name](empty, num_sequences=4, num_tokens=10, max_length=5).shape == (0,)
    silent = AGGREGATIONS[name](torch.zeros(2, dtype=torch.long), num_sequences=2, num_tokens=0, max_length=5)
    assert silent.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
@pytest.mark.parametrize(
    ("count", "message"),
    [
        ({"num_sequences": 1}, "num_sequences is 1, but 2 sequences were passed"),
        ({"num_tokens": 5}, "num_tokens is 5, but the sequences passed have 6"),
        ({"max_length": 3}, "max_length is 3, but a sequence has 4 tokens"),
    ],
)
def test_counts_of_less_than_what_is_passed_are_refused(name, count, message):
    with pytest.raises(ValueError, match=message):
        AGGREGATIONS[name](torch.tensor([2, 4]), **{"num_sequences": 2, "num_tokens": 6, "max_length": 4, **count})


def test_names():
    assert {"clipped_surrogate": clipped_surrogate} == LOSSES
    assert set(AGGREGATIONS) == {"sequence_mean", "token_mean", "token_sum"}
