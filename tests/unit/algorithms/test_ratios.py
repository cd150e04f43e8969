import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.ratios import log_ratios, sequence_mean_of, sequence_sum

# Numbers need be neither sorted nor without gaps.
SEQUENCES = torch.tensor([7, 7, 7, 2, 40, 40])


def test_worked_example():
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -0.5, -4.0, -1.0], requires_grad=True)
    old = torch.tensor([-1.5, -2.0, -1.0, -1.5, -4.0, -3.0])
    token = log_ratios(logprobs, old, SEQUENCES, ratio="token")
    assert token.tolist() == [0.5, 0.0, -2.0, 1.0, 0.0, 2.0]
    # (.5 + 0 - 2) / 3 = -.5; 1 / 1; (0 + 2) / 2 = 1.
    sequence = log_ratios(logprobs, old, SEQUENCES, ratio="sequence")
    assert sequence.tolist() == [-0.5, -0.5, -0.5, 1.0, 1.0, 1.0]
    # A token moves the mean of its sequence by 1 / length, and the mean is there once per token.
    sequence.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.ones(6))
    logprobs.grad = None
    log_ratios(logprobs, old, SEQUENCES, ratio="sequence")[0].backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0, 0]))


def test_sums_and_means_of_sequences():
    values = torch.tensor([1.0, 2.0, 6.0, 5.0, -1.0, 4.0])
    assert sequence_sum(values, SEQUENCES).tolist() == [9.0, 9.0, 9.0, 5.0, 3.0, 3.0]
    assert sequence_mean_of(values, SEQUENCES).tolist() == [3.0, 3.0, 3.0, 5.0, 1.5, 1.5]


@settings(max_examples=40)
@given(st.lists(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=5), min_size=1, max_size=5), st.randoms())
def test_order_and_numbers_of_the_sequences_change_nothing(sequences, order):
    def means(order, numbers):
        values = torch.tensor([x for i in order for x in sequences[i]])
        ids = torch.tensor([numbers[i] for i in order for _ in sequences[i]])
        sizes = [len(sequences[i]) for i in order]
        return dict(zip(order, sequence_mean_of(values, ids).split(sizes), strict=True))

    plain = list(range(len(sequences)))
    shuffled = order.sample(plain, len(plain))
    found, expected = means(shuffled, order.sample(range(1000), len(plain))), means(plain, plain)
    for i, sequence in enumerate(sequences):
        assert torch.equal(found[i], expected[i])
        torch.testing.assert_close(expected[i], torch.full((len(sequence),), math.fsum(sequence) / len(sequence)))


def test_an_unmoved_policy_has_ratio_one_exactly():
    logprobs = torch.tensor([-0.1, -3.3, -7.7, -0.2, -1e-3, -12.0])
    for level in ("token", "sequence"):
        assert log_ratios(logprobs, logprobs, SEQUENCES, ratio=level).exp().tolist() == [1.0] * 6


def test_no_tokens():
    nothing = torch.zeros(0)
    for level in ("token", "sequence"):
        assert log_ratios(nothing, nothing, torch.zeros(0, dtype=torch.long), ratio=level).shape == (0,)


def test_old_logprobs_get_no_gradient():
    logprobs, old = torch.zeros(6, requires_grad=True), torch.zeros(6, requires_grad=True)
    for level in ("token", "sequence"):
        log_ratios(logprobs, old, SEQUENCES, ratio=level).sum().backward()
    assert old.grad is None


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match=r'ratio is "batch", but must be "token" or "sequence".* Set algorithm\.ratio'):
        log_ratios(torch.zeros(6), torch.zeros(6), SEQUENCES, ratio="batch")
