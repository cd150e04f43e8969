"""The token losses agree with their equations on drawn inputs, in value and gradient."""

import math
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from losses_equations import aggregate, k3, surrogate, surrogate_gradient

from mm_agrae import algorithms

DRAWN = settings(max_examples=60, deadline=None)
LOGPROBS = st.floats(-12, 0, width=32)


def assert_rows_close(actual, expected, tolerance=2e-6):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


@DRAWN
@given(
    st.lists(
        st.tuples(LOGPROBS, LOGPROBS, st.floats(-3, 3, width=32), st.floats(0.5, 1), st.floats(1, 2)),
        min_size=1,
        max_size=20,
    )
)
def test_clipped_surrogate_and_its_gradient(tokens):
    for logprob, old, _, low, high in tokens:
        # At a bound the derivative jumps, and float32 may fall on the other side.
        assume(all(abs(math.exp(logprob - old) - bound) > 1e-4 for bound in (low, high)))
    columns = [torch.tensor(column) for column in zip(*tokens, strict=True)]
    columns[0].requires_grad_()
    outcome = algorithms.LOSSES["clipped_surrogate"](*columns)
    outcome.loss.sum().backward()
    assert_rows_close(outcome.loss.detach(), [surrogate(*token) for token in tokens], tolerance=2e-5)
    assert_rows_close(columns[0].grad, [surrogate_gradient(*token) for token in tokens], tolerance=2e-5)
    clipped = [surrogate_gradient(*token) == 0 and token[2] != 0 for token in tokens]
    assert (outcome.clipped_low | outcome.clipped_high).tolist() == clipped


@DRAWN
@given(st.lists(st.tuples(LOGPROBS, LOGPROBS), min_size=1, max_size=20))
def test_k3(pairs):
    actual = algorithms.k3(*(torch.tensor(column) for column in zip(*pairs, strict=True)))
    assert_rows_close(actual, [k3(*pair) for pair in pairs], tolerance=2e-5)


@pytest.mark.parametrize("name", sorted(algorithms.AGGREGATIONS))
@DRAWN
@given(st.lists(st.lists(st.floats(-3, 3, width=32), max_size=6), min_size=1, max_size=6), st.integers(6, 9))
def test_aggregations(name, losses, max_length):
    lengths = torch.tensor([len(s) for s in losses])
    weights = algorithms.AGGREGATIONS[name](
        lengths, num_sequences=len(losses), num_tokens=int(lengths.sum()), max_length=max_length
    )
    tokens = torch.tensor([x for s in losses for x in s])
    total = (tokens * weights.repeat_interleave(lengths)).sum()
    assert float(total) == pytest.approx(aggregate(name, losses, max_length), abs=1e-5)


@pytest.mark.parametrize("name", sorted(algorithms.AGGREGATIONS))
@DRAWN
@given(
    st.lists(
        st.lists(st.tuples(LOGPROBS, st.floats(-3, 3, width=32)), max_size=5),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(0, 6), max_size=3),
)
def test_shards_add_up_to_the_batch(name, sequences, cuts):
    """Loss and gradient of any split into micro-batches or ranks, empty ones included, are those of the whole batch."""
    lengths = torch.tensor([len(s) for s in sequences])
    counts = {"num_sequences": len(sequences), "num_tokens": int(lengths.sum()), "max_length": 8}
    tokens = [t for s in sequences for t in s]
    old = torch.tensor([t[0] for t in tokens])
    advantages = torch.tensor([t[1] for t in tokens])
    offsets = [0, *accumulate(lengths.tolist())]
    bounds = sorted({0, len(sequences), *(min(c, len(sequences)) for c in cuts)})

    def loss_and_gradient(splits):
        logprobs = (old * 0.9).requires_grad_()
        total = 0.0
        for first, last in splits:
            part = slice(offsets[first], offsets[last])
            weights = algorithms.AGGREGATIONS[name](lengths[first:last], **counts)
            ones = torch.ones_like(old[part])
            outcome = algorithms.LOSSES["clipped_surrogate"](
                logprobs[part], old[part], advantages[part], 0.8 * ones, 1.2 * ones
            )
            loss = (outcome.loss * weights.repeat_interleave(lengths[first:last])).sum()
            loss.backward()
            total += float(loss.detach())
        return total, logprobs.grad

    whole, whole_gradient = loss_and_gradient([(0, len(sequences))])
    parts, parts_gradient = loss_and_gradient(list(pairwise(bounds)))
    assert parts == pytest.approx(whole, abs=1e-6)
    torch.testing.assert_close(parts_gradient, whole_gradient, rtol=0, atol=0)
