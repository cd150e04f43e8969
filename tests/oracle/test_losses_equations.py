"""Losses, weights, bounds and penalties agree with their equations on drawn inputs, in value and gradient."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import losses_equations as equations
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mm_agrae import algorithms
from mm_agrae.algorithms import LOSSES, TRUST_REGIONS, Tokens
from mm_agrae.algorithms.importance import importance_weights
from mm_agrae.algorithms.overlong import overlong_penalty

DRAWN = settings(max_examples=60)
LEVELS = ("token", "sequence")
# float64 shows that the equation is the same, float32 that the precision of a run carries it: sums of a few hundred.
PRECISIONS = ((torch.float64, 1e-6), (torch.float32, 3e-4))

LOGPROBS = st.floats(-6, 0, width=32)
WIDE_LOGPROBS = st.floats(-12, 0, width=32)
ADVANTAGES = st.one_of(st.just(0.0), st.floats(-3, 3, width=32, allow_subnormal=False))
LOWS, HIGHS = st.floats(0.25, 1, width=32), st.floats(1, 2, width=32)
ALL_LOSSES = (
    ("clip", {"ratio": "token"}),
    ("clip", {"ratio": "sequence"}),
    ("clip", {"ratio": "geometric_mean"}),
    ("clip", {"ratio": "token", "dual_clip": 3.0}),
    ("cispo", {"ratio": "token"}),
    ("cispo", {"ratio": "sequence"}),
    ("sapo", {"ratio": "token"}),
    ("sapo", {"ratio": "sequence"}),
    ("reinforce", {}),
)


@dataclass(frozen=True)
class Sequence:
    number: int
    advantage: float
    low: float
    high: float
    logprobs: list[float]
    old: list[float]
    weights: list[float]


@st.composite
def batches(draw, max_tokens=5, min_tokens=1):
    """One to four sequences of a few tokens, whose numbers are neither sorted nor without gaps."""
    numbers = draw(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True))
    found = []
    for number in numbers:
        size = draw(st.integers(min_tokens, max_tokens))
        columns = [
            draw(st.lists(values, min_size=size, max_size=size))
            for values in (LOGPROBS, LOGPROBS, st.floats(-1, 1, width=32))
        ]
        found.append(Sequence(number, draw(ADVANTAGES), draw(LOWS), draw(HIGHS), *columns))
    return found


def spread(batch, name, dtype=torch.float32):
    """A value of each sequence, for each of its tokens."""
    return torch.tensor([getattr(s, name) for s in batch for _ in s.logprobs], dtype=dtype)


def joined(batch, name, dtype=torch.float32):
    return torch.tensor([x for s in batch for x in getattr(s, name)], dtype=dtype)


def tokens_of(batch, dtype=torch.float32):
    return Tokens(
        logprobs=joined(batch, "logprobs", dtype).requires_grad_(),
        old_logprobs=joined(batch, "old", dtype),
        advantages=spread(batch, "advantage", dtype),
        low=spread(batch, "low", dtype),
        high=spread(batch, "high", dtype),
        sequences=spread(batch, "number", torch.long),
    )


def assert_rows_close(actual, expected, tolerance=2e-6):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


def assert_agrees(batch, loss, losses_of, gradient_of=None):
    """Values, and the gradient of Σ weight · loss with a weight of its own for every token, at both precisions."""
    values = [x for s in batch for x in losses_of(s)(s.logprobs)]
    gradient_of = gradient_of or (lambda s: equations.derivatives(losses_of(s), s.logprobs, s.weights))
    gradient = [x for s in batch for x in gradient_of(s)]
    for dtype, tolerance in PRECISIONS:
        tokens = tokens_of(batch, dtype)
        outcome = loss(tokens)
        (outcome.loss * joined(batch, "weights", dtype)).sum().backward()
        assert outcome.loss.dtype == dtype
        assert_rows_close(outcome.loss.detach(), values, tolerance)
        assert_rows_close(tokens.logprobs.grad, gradient, tolerance)


def assume_away_from_kinks(batch, level, *others):
    for s in batch:
        for ratio in equations.ratios(s.logprobs, s.old, level):
            assume(all(abs(ratio - kink) > 1e-3 for kink in (s.low, s.high, *others)))


@pytest.mark.parametrize("level", [*LEVELS, "geometric_mean"])
@DRAWN
@given(batch=batches())
def test_clip(level, batch):
    assume_away_from_kinks(batch, "sequence" if level == "sequence" else "token")

    def losses_of(s):
        return lambda logprobs: equations.clip(logprobs, s.old, s.advantage, s.low, s.high, level=level)

    assert_agrees(batch, partial(LOSSES["clip"], ratio=level), losses_of)


@pytest.mark.parametrize("level", LEVELS)
@DRAWN
@given(batch=batches(), most=st.floats(2, 4, width=32))
def test_dual_clip_is_the_two_sided_form(level, batch, most):
    assume_away_from_kinks(batch, level, most)

    def losses_of(s):
        return lambda logprobs: equations.clip(logprobs, s.old, s.advantage, s.low, s.high, level=level, most=most)

    assert_agrees(batch, partial(LOSSES["clip"], ratio=level, dual_clip=most), losses_of)


@DRAWN
@given(st.lists(st.tuples(WIDE_LOGPROBS, WIDE_LOGPROBS, ADVANTAGES, LOWS, HIGHS), min_size=1, max_size=20))
def test_token_clip_by_its_written_gradient_and_its_flags(rows):
    for logprob, old, _, low, high in rows:
        # At a bound the derivative jumps, and float32 may fall on the other side.
        assume(all(abs(math.exp(logprob - old) - bound) > 1e-4 for bound in (low, high)))
    columns = [torch.tensor(column) for column in zip(*rows, strict=True)]
    columns[0].requires_grad_()
    names = ("logprobs", "old_logprobs", "advantages", "low", "high")
    outcome = LOSSES["clip"](Tokens(**dict(zip(names, columns, strict=True)), sequences=torch.arange(len(rows))))
    outcome.loss.sum().backward()
    values = [x for logprob, old, *rest in rows for x in equations.clip([logprob], [old], *rest, level="token")]
    gradient = [equations.token_clip_gradient(*row) for row in rows]
    assert_rows_close(outcome.loss.detach(), values, tolerance=2e-5)
    assert_rows_close(columns[0].grad, gradient, tolerance=2e-5)
    assert outcome.clipped_low.tolist() == [x == 0 and row[2] < 0 for x, row in zip(gradient, rows, strict=True)]
    assert outcome.clipped_high.tolist() == [x == 0 and row[2] > 0 for x, row in zip(gradient, rows, strict=True)]
    assert not outcome.clipped_dual.any()


@pytest.mark.parametrize("level", LEVELS)
@DRAWN
@given(batch=batches())
def test_cispo(level, batch):
    def weights_of(s):
        return equations.capped_weights(s.logprobs, s.old, s.high, level=level)

    def losses_of(s):
        return lambda logprobs: [-w * s.advantage * x for w, x in zip(weights_of(s), logprobs, strict=True)]

    def gradient_of(s):
        return [-w * s.advantage * upstream for w, upstream in zip(weights_of(s), s.weights, strict=True)]

    assert_agrees(batch, partial(LOSSES["cispo"], ratio=level), losses_of, gradient_of)


@pytest.mark.parametrize("level", LEVELS)
@DRAWN
@given(batch=batches(), taus=st.tuples(st.floats(0.2, 4), st.floats(0.2, 4)))
def test_sapo(level, batch, taus):
    numbers = {"tau_positive": taus[0], "tau_negative": taus[1]}

    def losses_of(s):
        return lambda logprobs: equations.soft_gate(logprobs, s.old, s.advantage, level=level, **numbers)

    assert_agrees(batch, partial(LOSSES["sapo"], ratio=level, **numbers), losses_of)


@DRAWN
@given(batch=batches())
def test_reinforce(batch):
    def losses_of(s):
        return lambda logprobs: [-s.advantage * x for x in logprobs]

    def gradient_of(s):
        return [-s.advantage * upstream for upstream in s.weights]

    assert_agrees(batch, LOSSES["reinforce"], losses_of, gradient_of)


@DRAWN
@given(batch=batches())
def test_reported_ratios(batch):
    """Whatever the loss, the ratio that comes with it is that of its level."""
    for name, numbers in ALL_LOSSES:
        level = "sequence" if numbers.get("ratio") == "sequence" else "token"
        expected = [x for s in batch for x in equations.ratios(s.logprobs, s.old, level)]
        ratio = LOSSES[name](tokens_of(batch), **numbers).ratio
        assert not ratio.requires_grad
        assert_rows_close(ratio, expected, 2e-5)


@DRAWN
@given(st.lists(st.tuples(WIDE_LOGPROBS, WIDE_LOGPROBS), min_size=1, max_size=20))
def test_k3(pairs):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        logprobs, ref = (torch.tensor(column, dtype=dtype) for column in zip(*pairs, strict=True))
        divergence = algorithms.k3(logprobs.requires_grad_(), ref)
        divergence.sum().backward()
        assert_rows_close(divergence.detach(), [equations.k3(*pair) for pair in pairs], tolerance)
        assert_rows_close(logprobs.grad, [equations.k3_gradient(*pair) for pair in pairs], tolerance)


@pytest.mark.parametrize("correction", ["truncate", "mask"])
@pytest.mark.parametrize("level", LEVELS)
@DRAWN
@given(batch=batches(), cap=st.floats(0.5, 8))
def test_importance_weights(correction, level, batch, cap):
    settings_of = {"correction": correction, "level": level, "cap": cap}
    unbounded = [
        w
        for s in batch
        for w in equations.importance_weights(s.old, s.logprobs, correction="mask", level=level, cap=math.inf)
    ]
    assume(all(abs(w - cap) > 1e-4 for w in unbounded))  # where the mask jumps
    expected = [w for s in batch for w in equations.importance_weights(s.old, s.logprobs, **settings_of)]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        actual = importance_weights(
            joined(batch, "old", dtype),
            joined(batch, "logprobs", dtype),
            spread(batch, "number", torch.long),
            **settings_of,
        )
        assert_rows_close(actual, expected, tolerance)


FLAGS = st.sampled_from([0.0, 1.0, math.nan])


@DRAWN
@given(
    rows=st.integers(1, 9).flatmap(
        lambda size: st.lists(
            st.lists(st.tuples(st.floats(-20, 20, width=32), FLAGS), min_size=size, max_size=size),
            min_size=1,
            max_size=4,
        )
    ),
    clips=st.tuples(
        st.one_of(st.none(), st.just(3e-4), st.floats(0, 1, exclude_max=True)),
        st.one_of(st.none(), st.just(4e-4), st.floats(0, 5)),
    ),
    lambdas=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_elastic_bounds(rows, clips, lambdas):
    numbers = {"clip_low": clips[0], "clip_high": clips[1], "micro": lambdas[0], "macro": lambdas[1]}
    advantages, flags = (torch.tensor([[pair[i] for pair in row] for row in rows]) for i in (0, 1))
    bounds = TRUST_REGIONS["elastic"](advantages, flags, **numbers)
    for p, row in enumerate(rows):
        scored = [flag for _, flag in row if not math.isnan(flag)]
        rate = sum(scored) / len(scored) if scored else None
        expected = [equations.elastic_bounds(a, rate, **numbers) for a, _ in row]
        assert_rows_close(bounds.low[p], [low for low, _ in expected], 3e-7)
        assert_rows_close(bounds.high[p], [high for _, high in expected], 3e-7)


@DRAWN
@given(st.integers(1, 5000).flatmap(lambda longest: st.tuples(st.just(longest), st.integers(1, longest))), st.data())
def test_overlong_penalty(limits, data):
    max_length, buffer = limits
    lengths = data.draw(st.lists(st.integers(0, max_length + 10), min_size=1, max_size=8))
    actual = overlong_penalty(torch.tensor([lengths]), max_length=max_length, buffer=buffer)
    expected = [equations.overlong_penalty(length, max_length, buffer) for length in lengths]
    assert_rows_close(actual[0], expected, 1e-12)


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
    assert float(total) == pytest.approx(equations.aggregate(name, losses, max_length), abs=1e-5)


@pytest.mark.parametrize("name", sorted(algorithms.AGGREGATIONS))
@pytest.mark.parametrize(("loss", "numbers"), ALL_LOSSES)
@settings(max_examples=25)
@given(
    batch=batches(min_tokens=0), cuts=st.lists(st.integers(0, 5), max_size=3), order=st.randoms(use_true_random=False)
)
def test_shards_add_up_to_the_batch(name, loss, numbers, batch, cuts, order):
    """Loss and gradient are those of the whole batch, in whatever micro-batches or ranks, empty ones included, and in
    whatever order its sequences come."""
    lengths = [len(s.logprobs) for s in batch]
    counts = {"num_sequences": len(batch), "num_tokens": sum(lengths), "max_length": 8}

    def loss_and_gradients(batch, bounds):
        total, gradients = 0.0, {}
        for part in (batch[first:last] for first, last in pairwise(bounds)):
            tokens = tokens_of(part)
            sizes = torch.tensor([len(s.logprobs) for s in part], dtype=torch.long)
            weights = algorithms.AGGREGATIONS[name](sizes, **counts).repeat_interleave(sizes)
            value = (LOSSES[loss](tokens, **numbers).loss * weights).sum()
            value.backward()
            total += float(value.detach())
            offsets = [0, *accumulate(sizes.tolist())]
            gradients |= {
                s.number: tokens.logprobs.grad[start:stop]
                for s, (start, stop) in zip(part, pairwise(offsets), strict=True)
            }
        return total, gradients

    whole, whole_gradients = loss_and_gradients(batch, [0, len(batch)])
    shuffled = order.sample(batch, len(batch))
    inner = sorted({min(cut, len(batch)) for cut in cuts} - {0, len(batch)})
    for regrouped, bounds in ((batch, [0, *inner, len(batch)]), (shuffled, [0, 0, *inner, len(batch)])):
        parts, parts_gradients = loss_and_gradients(regrouped, bounds)
        assert parts == pytest.approx(whole, rel=1e-5, abs=1e-6)
        for number, gradient in whole_gradients.items():
            torch.testing.assert_close(parts_gradients[number], gradient, rtol=0, atol=0)
