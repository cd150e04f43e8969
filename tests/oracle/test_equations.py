"""The library agrees with the equations on drawn inputs."""

import math
from itertools import accumulate, pairwise

import pytest
import torch
from equations import (
    aggregate,
    agrae_authors,
    agrae_paper,
    batch_accuracy,
    group_advantages,
    k3,
    surrogate,
    surrogate_gradient,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mm_agrae import algorithms
from mm_agrae.algorithms.groups import batch_accuracy as library_batch_accuracy

DRAWN = settings(max_examples=60, deadline=None)
REWARDS = st.one_of(st.sampled_from([0.0, 0.1, 0.9, 1.0]), st.floats(-5, 5, width=32), st.none())
LOGPROBS = st.floats(-12, 0, width=32)


def matrices(elements):
    """[P][G] lists with 1-5 groups of 2-9."""
    return st.integers(2, 9).flatmap(
        lambda size: st.lists(st.lists(elements, min_size=size, max_size=size), min_size=1, max_size=5)
    )


def as_rewards(rows):
    return torch.tensor([[math.nan if r is None else r for r in row] for row in rows])


def assert_rows_close(actual, expected, tolerance=2e-6):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


@DRAWN
@given(matrices(st.tuples(REWARDS, st.booleans())), st.sampled_from(["biased", "unbiased"]), st.floats(0, 1e-2))
def test_grpo(rows, std, eps):
    rewards = [[r for r, _ in row] for row in rows]
    correct = [[c for _, c in row] for row in rows]
    expected = [
        group_advantages(r, c, divide_by_std=True, unbiased=std == "unbiased", eps=eps)
        for r, c in zip(rewards, correct, strict=True)
    ]
    actual = algorithms.ADVANTAGES["grpo"](as_rewards(rewards), torch.tensor(correct), std=std, eps=eps)
    assert_rows_close(actual, expected)


@DRAWN
@given(matrices(st.tuples(REWARDS, st.booleans())))
def test_dr_grpo(rows):
    rewards = [[r for r, _ in row] for row in rows]
    correct = [[c for _, c in row] for row in rows]
    expected = [group_advantages(r, c, divide_by_std=False) for r, c in zip(rewards, correct, strict=True)]
    actual = algorithms.ADVANTAGES["dr_grpo"](as_rewards(rewards), torch.tensor(correct))
    assert_rows_close(actual, expected)


@DRAWN
@given(
    matrices(st.tuples(st.floats(-3, 3, width=32), st.booleans())),
    st.floats(0.1, 2),
    st.booleans(),
    st.booleans(),
)
def test_agrae_paper_form(rows, alpha, sample_level, group_level):
    advantages = [[a for a, _ in row] for row in rows]
    correct = [[c for _, c in row] for row in rows]
    omega = batch_accuracy(correct)
    expected = [
        agrae_paper(a, c, omega=omega, alpha=alpha, sample_level=sample_level, group_level=group_level)
        for a, c in zip(advantages, correct, strict=True)
    ]
    actual = algorithms.WEIGHTINGS["agrae"](
        torch.tensor(advantages),
        torch.tensor(correct),
        batch_accuracy=omega,
        alpha=alpha,
        sample_level=sample_level,
        group_level=group_level,
    )
    assert_rows_close(actual, expected)


@DRAWN
@given(matrices(st.booleans()), st.booleans())
def test_agrae_code_form_is_the_authors_function(correct, divide_by_std):
    flags = torch.tensor(correct)
    std, eps = algorithms.BASE_STD["code"]
    base = (
        algorithms.ADVANTAGES["grpo"](flags.float(), flags, std=std, eps=eps)
        if divide_by_std
        else algorithms.ADVANTAGES["dr_grpo"](flags.float(), flags)
    )
    actual = algorithms.WEIGHTINGS["agrae"](
        base, flags, batch_accuracy=library_batch_accuracy(flags), alpha=1.0, variant="code"
    )
    expected = agrae_authors([[float(c) for c in row] for row in correct], divide_by_std=divide_by_std)
    assert_rows_close(actual, expected, tolerance=1e-6)


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
