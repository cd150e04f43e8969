import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.losses import LOSSES, Tokens, cispo, clip, k3, reinforce, sapo
from mm_agrae.algorithms.trust_region import elastic, fixed

ALL = [
    (clip, {"ratio": "token"}),
    (clip, {"ratio": "sequence"}),
    (clip, {"ratio": "geometric_mean"}),
    (clip, {"ratio": "token", "dual_clip": 3.0}),
    (clip, {"ratio": "sequence", "dual_clip": 3.0}),
    (cispo, {"ratio": "token"}),
    (cispo, {"ratio": "sequence"}),
    (sapo, {"ratio": "token"}),
    (sapo, {"ratio": "sequence"}),
    (reinforce, {}),
]
EVERY_LOSS = pytest.mark.parametrize(("loss", "numbers"), ALL)


def tokens(ratios, advantages, low=0.8, high=1.2, *, sequences=None, old=-1.0, dtype=torch.float64):
    """Tokens of given ratios, each a sequence of its own unless told."""
    old = torch.full((len(ratios),), old, dtype=dtype)
    return Tokens(
        logprobs=(old + torch.tensor(ratios, dtype=dtype).log()).requires_grad_(),
        old_logprobs=old,
        advantages=torch.tensor(advantages, dtype=dtype),
        low=torch.full_like(old, low),
        high=torch.full_like(old, high),
        sequences=torch.arange(len(ratios)) if sequences is None else torch.tensor(sequences),
    )


def judged(loss, batch, **numbers):
    """Outcome, and gradient of the summed loss by log-probability."""
    outcome = loss(batch, **numbers)
    outcome.loss.sum().backward()
    return outcome, batch.logprobs.grad


def assert_values(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual.detach().double(), torch.tensor(expected).double(), atol=tolerance, rtol=0)


def test_clip_worked_example():
    outcome, gradient = judged(clip, tokens([0.5, 0.5, 1.0, 1.5, 1.5], [2.0, -2.0, 2.0, 2.0, -2.0]))
    # A = +2: -min(1, .8·2) = -1 and free; -min(3, 1.2·2) = -2.4 and held.
    # A = -2: -min(-1, -1.6) = 1.6 and held; -min(-3, -2.4) = 3 and free. At ratio 1: -2.
    assert_values(outcome.loss, [-1.0, 1.6, -2.0, -2.4, 3.0])
    assert_values(gradient, [-1.0, 0.0, -2.0, 0.0, 3.0])
    assert outcome.clipped_low.tolist() == [False, True, False, False, False]
    assert outcome.clipped_high.tolist() == [False, False, False, True, False]
    assert not outcome.clipped_dual.any()
    assert_values(outcome.ratio, [0.5, 0.5, 1.0, 1.5, 1.5])
    assert not outcome.ratio.requires_grad


def test_sequence_clip_worked_example():
    # Ratios 4 and 1 make sqrt(4·1) = 2; the sequence of one token keeps its own .5.
    ratios, sequences = [4.0, 1.0, 0.5], [0, 0, 1]
    # A = -1: every token costs 2, and each log-probability moves both by half: 2 · 2/2 = 2. A = +1: -.5.
    outcome, gradient = judged(clip, tokens(ratios, [-1.0, -1.0, 1.0], sequences=sequences), ratio="sequence")
    assert_values(outcome.loss, [2.0, 2.0, -0.5])
    assert_values(gradient, [2.0, 2.0, -0.5])
    assert_values(outcome.ratio, [2.0, 2.0, 0.5])
    # A = +1: held at 1.2, both tokens, though the second's own ratio is 1. A = -1 at .5: held at .8.
    outcome, gradient = judged(clip, tokens(ratios, [1.0, 1.0, -1.0], sequences=sequences), ratio="sequence")
    assert_values(outcome.loss, [-1.2, -1.2, 0.8])
    assert gradient.tolist() == [0.0, 0.0, 0.0]
    assert outcome.clipped_high.tolist() == [True, True, False]
    assert outcome.clipped_low.tolist() == [False, False, True]


def test_geometric_mean_worked_example():
    # A = +1: 4 is held at 1.44, so the mean is sqrt(1.44·1) = 1.2; only the second token moves it, twice by 1.2/2.
    batch = tokens([4.0, 1.0, 4.0, 1.0], [1.0, 1.0, -1.0, -1.0], 0.8, 1.44, sequences=[0, 0, 1, 1])
    outcome, gradient = judged(clip, batch, ratio="geometric_mean")
    # A = -1: nothing holds a ratio above 1: sqrt(4·1) = 2, and each token moves two losses by 2/2.
    assert_values(outcome.loss, [-1.2, -1.2, 2.0, 2.0])
    assert_values(gradient, [0.0, -1.2, 2.0, 2.0])
    assert gradient[0] == 0
    assert outcome.clipped_high.tolist() == [True, False, False, False]
    assert_values(outcome.ratio, [4.0, 1.0, 4.0, 1.0])
    # A = -1: .25 is held at .64, so the mean is sqrt(.64·1) = .8.
    batch = tokens([0.25, 1.0], [-1.0, -1.0], 0.64, 1.44, sequences=[0, 0])
    outcome, gradient = judged(clip, batch, ratio="geometric_mean")
    assert_values(outcome.loss, [0.8, 0.8])
    assert_values(gradient, [0.0, 0.8])
    assert outcome.clipped_low.tolist() == [True, False]


def test_dual_clip_worked_example():
    # A = -2: 5 is held at 3, so 6 and no gradient; 2 is free, so 4; .5 is held at .8, so 1.6. A = +2: as ever.
    batch = tokens([5.0, 2.0, 0.5, 5.0, 1.0], [-2.0, -2.0, -2.0, 2.0, 2.0])
    outcome, gradient = judged(clip, batch, dual_clip=3.0)
    assert_values(outcome.loss, [6.0, 4.0, 1.6, -2.4, -2.0])
    assert_values(gradient, [0.0, 4.0, 0.0, 0.0, -2.0])
    assert outcome.clipped_dual.tolist() == [True, False, False, False, False]
    assert outcome.clipped_low.tolist() == [False, False, True, False, False]
    assert outcome.clipped_high.tolist() == [False, False, False, True, False]


def test_cispo_worked_example():
    # log-probability of ratio 9: -1 + ln 9 = 1.197225; weight 5, A = 2: -10 · 1.197225. Of ratio .5: -1.693147.
    outcome, gradient = judged(cispo, tokens([9.0, 0.5, 9.0, 9.0], [2.0, -1.0, -1.0, 0.0], high=5.0))
    assert_values(outcome.loss, [-11.972246, -0.846574, 5.986123, 0.0])
    assert_values(gradient, [-10.0, 0.5, 5.0, 0.0])  # capped tokens keep a gradient, of either sign
    assert outcome.clipped_high.tolist() == [True, False, True, False]
    assert not (outcome.clipped_low | outcome.clipped_dual).any()
    assert_values(outcome.ratio, [9.0, 0.5, 9.0, 9.0])


def test_sequence_cispo_gives_every_token_the_weight_of_its_sequence():
    # sqrt(4·1) = 2 for both tokens, under the cap; held fixed, so a token moves its own loss only: 2·A.
    _, gradient = judged(cispo, tokens([4.0, 1.0], [1.0, 1.0], high=5.0, sequences=[3, 3]), ratio="sequence")
    assert_values(gradient, [-2.0, -2.0])


def test_sapo_worked_example():
    # At 1: sigmoid(0)·4/τ = 2/τ, so -2 and 2/1.05 = 1.904762, with gradient -A whatever τ.
    # At 2, A = +1: 4·sigmoid(1) = 2.924234, gradient -4·.731059·.268941·2 = -1.572896.
    # At 2, A = -1: 4/1.05·sigmoid(1.05) = 2.822000, gradient 4·.740775·.259225·2 = 1.536220.
    outcome, gradient = judged(sapo, tokens([1.0, 1.0, 2.0, 2.0], [1.0, -1.0, 1.0, -1.0], low=1.0, high=1.0))
    assert_values(outcome.loss, [-2.0, 1.904762, -2.924234, 2.822000], tolerance=1e-5)
    assert_values(gradient, [-1.0, 1.0, -1.572896, 1.536220], tolerance=1e-5)
    assert not (outcome.clipped_low | outcome.clipped_high | outcome.clipped_dual).any()


def test_each_temperature_of_sapo_fades_its_own_sign():
    batch = [3.0, 3.0], [1.0, -1.0]
    gentle = judged(sapo, tokens(*batch), tau_positive=1.0, tau_negative=1.0)[1]
    for numbers, faded in (({"tau_positive": 2.0, "tau_negative": 1.0}, 0), ({"tau_positive": 1.0}, 1)):
        strict = judged(sapo, tokens(*batch), **numbers)[1]
        assert abs(strict[faded]) < abs(gentle[faded])
        assert strict[1 - faded] == gentle[1 - faded]


def test_reinforce_worked_example():
    # log-probabilities -1 + ln 2 = -.306853 and -1: -3·(-.306853), 2·(-1); the ratio is told, and changes nothing.
    outcome, gradient = judged(reinforce, tokens([2.0, 1.0], [3.0, -2.0], low=1.0, high=1.0))
    assert_values(outcome.loss, [0.920558, -2.0])
    assert_values(gradient, [-3.0, 2.0])
    assert_values(outcome.ratio, [2.0, 1.0])
    assert not (outcome.clipped_low | outcome.clipped_high | outcome.clipped_dual).any()


@EVERY_LOSS
def test_at_ratio_one_every_loss_has_the_gradient_of_the_advantage(loss, numbers):
    """Whatever the bounds, so the first update of a rollout is the same under any of them."""
    advantages = [0.7, 0.7, 0.7, -1.3, 0.0]
    for low, high in ((1.0, 1.0), (0.8, 1.28), (0.1, 3.0)):
        batch = tokens([1.0] * 5, advantages, low, high, sequences=[4, 4, 4, 2, 9], dtype=torch.float32)
        outcome, gradient = judged(loss, batch, **numbers)
        assert_values(gradient, [-a for a in advantages])
        assert not (outcome.clipped_low | outcome.clipped_high | outcome.clipped_dual).any()


@EVERY_LOSS
def test_at_ratio_one_elastic_bounds_are_fixed_bounds(loss, numbers):
    advantages = torch.tensor([[3.0, -0.3, 0.0, -0.7]])
    flags = advantages > 0
    found = []
    for bounds in (fixed(advantages, flags), elastic(advantages, flags)):
        batch = tokens([1.0] * 4, advantages[0].tolist(), dtype=torch.float32)
        batch = Tokens(**(vars(batch) | {"low": bounds.low[0], "high": bounds.high[0]}))
        outcome, gradient = judged(loss, batch, **numbers)
        found.append((outcome.loss.tolist(), gradient.tolist()))
    assert found[0] == found[1]


@pytest.mark.parametrize("ratio", ["token", "sequence", "geometric_mean"])
@settings(max_examples=40)
@given(
    ratios=st.lists(st.floats(0.1, 4), min_size=1, max_size=5),
    size=st.floats(0.1, 3),
    bounds=st.tuples(st.floats(0, 1), st.floats(1, 9)),
    others=st.tuples(st.floats(0, 1), st.one_of(st.just(math.inf), st.floats(1, 9))),
)
def test_the_bound_of_the_other_side_never_acts(ratio, ratios, size, bounds, others):
    """Only `high` limits a positive advantage, and only `low` a negative one."""
    for sign, pairs in ((1, (bounds, (others[0], bounds[1]))), (-1, (bounds, (bounds[0], others[1])))):
        batches = [tokens(ratios, [sign * size] * len(ratios), *pair, sequences=[0] * len(ratios)) for pair in pairs]
        (one, gradient), (two, other_gradient) = (judged(clip, batch, ratio=ratio) for batch in batches)
        assert torch.equal(one.loss, two.loss)
        assert torch.equal(gradient, other_gradient)
        assert not (one.clipped_low if sign > 0 else one.clipped_high).any()


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.01, 9), st.floats(-2, 2)), min_size=1, max_size=8))
def test_the_gradient_is_zero_exactly_where_a_bound_acts(ratio, pairs):
    outcome, gradient = judged(clip, tokens(*zip(*pairs, strict=True)), ratio=ratio, dual_clip=3.0)
    acts = outcome.clipped_low | outcome.clipped_high | outcome.clipped_dual
    assert (gradient[acts] == 0).all()
    advantages = torch.tensor([advantage for _, advantage in pairs], dtype=torch.float64)
    torch.testing.assert_close(gradient[~acts], (-outcome.ratio * advantages)[~acts])


def test_absent_bounds_bound_nothing():
    for ratio in ("token", "sequence", "geometric_mean"):
        batch = tokens([1e-6, 1e6, 1e-6, 1e6], [1.0, 1.0, -1.0, -1.0], low=0.0, high=math.inf)
        outcome, gradient = judged(clip, batch, ratio=ratio)
        torch.testing.assert_close(outcome.loss, torch.tensor([-1e-6, -1e6, 1e-6, 1e6]).double())
        torch.testing.assert_close(gradient, outcome.loss.detach())
        assert not (outcome.clipped_low | outcome.clipped_high).any()
    capless, gradient = judged(cispo, tokens([1e6], [1.0], low=0.0, high=math.inf))
    assert not capless.clipped_high.any()
    assert float(gradient) == pytest.approx(-1e6)


@EVERY_LOSS
def test_zero_advantage_has_no_loss_no_gradient_and_is_never_clipped(loss, numbers):
    outcome, gradient = judged(loss, tokens([0.1, 1.0, 9.0], [0.0, 0.0, 0.0]), **numbers)
    assert outcome.loss.abs().max() == 0
    assert gradient.abs().max() == 0
    assert not (outcome.clipped_low | outcome.clipped_high | outcome.clipped_dual).any()


@EVERY_LOSS
def test_only_logprobs_get_a_gradient(loss, numbers):
    batch = tokens([1.1, 0.9], [1.0, -1.0], dtype=torch.float32)
    old = batch.old_logprobs.clone().requires_grad_()
    outcome = loss(Tokens(**(vars(batch) | {"old_logprobs": old})), **numbers)
    (outcome.loss + k3(batch.logprobs, old)).sum().backward()
    assert old.grad is None
    assert batch.logprobs.grad is not None


@EVERY_LOSS
@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.8, 1.2), (0.0, 3.0)])
def test_stray_tokens_leave_everything_finite(loss, numbers, low, high):
    """One token that became e^50 times, or e^200 times, more or less likely would else make every gradient NaN."""
    for drift in (50.0, -50.0, 200.0, -200.0):
        for advantage in (1.0, 0.0, -1.0):
            batch = tokens([1.0, 1.0, 1.0], [advantage] * 3, low, high, sequences=[0, 0, 1], dtype=torch.float32)
            logprobs = torch.tensor([-1.0 + drift, -1.0, -1.0 + drift], requires_grad=True)
            outcome, gradient = judged(loss, Tokens(**(vars(batch) | {"logprobs": logprobs})), **numbers)
            assert bool(outcome.loss.isfinite().all())
            assert bool(outcome.ratio.isfinite().all())
            assert bool(gradient.isfinite().all())


@EVERY_LOSS
def test_no_tokens_no_loss(loss, numbers):
    outcome, gradient = judged(loss, tokens([], []), **numbers)
    assert outcome.loss.shape == gradient.shape == (0,)


@pytest.mark.parametrize(
    ("loss", "unknown"), [(clip, "geometric"), (cispo, "geometric_mean"), (sapo, "geometric_mean")]
)
def test_an_unknown_level_is_refused(loss, unknown):
    with pytest.raises(ValueError, match=f'ratio is "{unknown}", but must be "token" or "sequence"'):
        loss(tokens([1.0], [1.0]), ratio=unknown)


def test_a_dual_clip_that_cannot_hold_is_refused():
    low = r"dual_clip is 1\.1 with ratio token, but must lie above every upper bound.* Raise algorithm\.dual_clip"
    with pytest.raises(ValueError, match=low):
        clip(tokens([1.0], [1.0]), dual_clip=1.1)
    with pytest.raises(ValueError, match=r"dual_clip is 3\.0 with ratio geometric_mean.* clipped as a whole"):
        clip(tokens([1.0], [1.0]), ratio="geometric_mean", dual_clip=3.0)
    assert not clip(
        tokens([1.0], [1.0], dtype=torch.float32), dual_clip=1.2
    ).clipped_dual.any()  # its own bound is fine


@pytest.mark.parametrize("name", ["tau_positive", "tau_negative"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_must_be_above_zero(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}, but must be finite.* Set algorithm\.sapo\.{name}"):
        sapo(tokens([1.0], [1.0]), **{name: value})


def test_k3_worked_example():
    # d = ln 2: 2 - ln 2 - 1 = 0.306853. d = -ln 2: 1/2 + ln 2 - 1 = 0.193147. d = 0: 0.
    ref = torch.tensor([math.log(2), -math.log(2), 0.0]) - 1
    logprobs = torch.full((3,), -1.0, requires_grad=True)
    divergence = k3(logprobs, ref)
    assert_values(divergence, [0.306853, 0.193147, 0.0])
    divergence.sum().backward()
    # Derivative 1 - exp(d).
    assert_values(logprobs.grad, [-1.0, 0.5, 0.0])


def test_k3_keeps_its_digits_near_the_reference():
    # d²/2 + d³/6 for d = 0.001: 5e-7 + 1.67e-10, where exp(d) - 1 - d in float32 is off by up to 6e-8.
    divergence = k3(torch.tensor([-0.001]), torch.tensor([0.0]))
    assert float(divergence) == pytest.approx(5.00167e-7, rel=1e-3)


@pytest.mark.parametrize("drift", [-99.0, -50.0, 50.0, 99.0])
def test_k3_of_a_stray_token_stays_finite(drift):
    """exp(99) is no float32, and one such token would end the run."""
    logprobs = torch.tensor([-1.0 + drift], requires_grad=True)
    divergence = k3(logprobs, torch.tensor([-1.0]))
    divergence.sum().backward()
    assert bool(divergence.isfinite().all())
    assert bool(logprobs.grad.isfinite().all())


def test_names():
    assert {"clip": clip, "cispo": cispo, "sapo": sapo, "reinforce": reinforce} == LOSSES
