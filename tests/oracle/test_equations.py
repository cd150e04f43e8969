"""The library agrees with the equations on drawn inputs."""

import math

import torch
from equations import agrae_authors, agrae_paper, batch_accuracy, group_advantages
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae import algorithms
from mm_agrae.algorithms.groups import batch_accuracy as library_batch_accuracy

DRAWN = settings(max_examples=60, deadline=None)
REWARDS = st.one_of(st.sampled_from([0.0, 0.1, 0.9, 1.0]), st.floats(-5, 5, width=32), st.none())


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
