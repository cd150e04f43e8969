"""One update is the equation's: every term of the loss against the same term worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from updates import CORRECT, LENGTHS, batch_of, close, experienced, facts, fresh, group, learner, rollout

import mm_agrae.train.update as update_module
from mm_agrae.policy.forward import score
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.records import Rollout
from mm_agrae.train.experience import Experience
from mm_agrae.train.update import update


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "token_sum"])
def test_the_loss_is_the_equation(policy, world, prompts, gradients, aggregation):
    """Every completion alone, in its own forward pass, against the advantages and weights worked out here by hand."""
    of = learner(fresh(policy), world, algorithm={"aggregation": aggregation})
    metrics = update(of, batch_of(of, prompts), step=0)

    # Rewards r of a group with k of 3 correct: mean .1 + .9 k/3 and standard deviation .9 sqrt(k/3 (1 - k/3)), so that
    # A = sqrt((1-p)/p) where correct and -sqrt(p/(1-p)) where wrong. Counts: 12 sequences, 35 tokens, bound 8.
    assert sum(map(sum, LENGTHS)) == 35
    total = torch.zeros(())
    for index, (flags, lengths) in enumerate(zip(CORRECT, LENGTHS, strict=True)):
        rate = sum(flags) / 3
        if rate in (0, 1):
            continue
        for flag, length in zip(flags, lengths, strict=True):
            advantage = math.sqrt((1 - rate) / rate) if flag else -math.sqrt(rate / (1 - rate))
            weight = {"sequence_mean": 1 / (12 * length), "token_mean": 1 / 35, "token_sum": 1 / (12 * 8)}[aggregation]
            row = Row(prompt=prompts[index], completions=(rollout(flag, length).completion.token_ids,))
            logprobs = score(policy, make_layout([row]), temperature=0.7).logprobs
            # The ratio is 1, and the gradient of -A ratio is -A grad log p.
            total = total - (advantage * weight * (logprobs - logprobs.detach() + 1)).sum()
    total.backward()
    close(gradients[0], [p.grad if p.grad is not None else torch.zeros_like(p) for p in policy.trainable()])
    assert metrics["policy/loss"] == pytest.approx(total.item(), abs=1e-6)
    assert metrics["policy/grad_norm"] == pytest.approx(
        math.sqrt(sum(float(p.grad.square().sum()) for p in policy.trainable() if p.grad is not None)), rel=1e-4
    )


def test_a_step_without_any_advantage_has_no_figures_over_tokens(policy, world, prompts):
    of = learner(policy, world)
    before = [parameter.clone() for parameter in policy.trainable()]
    batch = experienced(of, [group(prompts[1], CORRECT[1], LENGTHS[1])])
    metrics = update(of, batch, step=0)
    assert metrics["policy/grad_norm"] == 0
    assert math.isnan(metrics["policy/entropy_nats"])
    assert math.isnan(metrics["policy/ratio_max"])
    assert all(torch.equal(one, other) for one, other in zip(before, policy.trainable(), strict=True))


def test_the_ratio_is_exactly_one_in_the_first_update(policy, world, prompts):
    of = learner(policy, world)
    metrics = update(of, batch_of(of, prompts), step=0)
    assert metrics["policy/ratio_mean"] == metrics["policy/ratio_max"] == 1.0
    assert metrics["policy/clip_low_frac"] == metrics["policy/clip_high_frac"] == 0.0


def test_later_updates_compare_with_the_policy_that_sampled(policy, world, prompts):
    """Two updates of two groups each: the second one's ratio is the new policy over the one before the first update."""
    of = learner(policy, world, train={"updates_per_rollout": 2, "optim": {"lr": 1e-2, "max_grad_norm": 1e6}})
    seen: list[tuple[Tensor, Tensor]] = []
    real = of.algorithm.loss

    def spy(tokens):
        seen.append((tokens.logprobs.detach().clone(), tokens.old_logprobs.clone()))
        return real(tokens)

    of = replace(of, algorithm=replace(of.algorithm, loss=spy))
    row = Row(
        prompt=prompts[2],
        completions=tuple(rollout(*pair).completion.token_ids for pair in zip(*facts(2), strict=True)),
    )
    with torch.no_grad():
        before = score(policy, make_layout([row]), temperature=0.7).logprobs
    metrics = update(of, batch_of(of, prompts), step=0)
    (first_new, first_old), (second_new, second_old) = seen
    assert torch.equal(first_new, first_old)
    torch.testing.assert_close(second_old, before, rtol=0, atol=1e-5)
    assert float((second_new - second_old).abs().max()) > 0.01
    assert metrics["policy/ratio_max"] > 1.0


def test_divergence_is_k3_from_the_initial_model(policy, world, prompts):
    """kl = mean over tokens of exp(d) - 1 - d, d = initial - present log-probability; the loss adds beta times it."""
    initial = fresh(policy)
    of = learner(policy, world, algorithm={"beta": 0.25, "aggregation": "token_mean"}, train={"optim": {"lr": 1e-2}})
    first = update(of, batch_of(of, prompts), step=0)
    assert first["policy/kl_nats"] == 0.0
    assert first["group/skipped_frac"] == 0.0
    rows = [
        Row(
            prompt=prompts[i],
            completions=tuple(rollout(*pair).completion.token_ids for pair in zip(*facts(i), strict=True)),
        )
        for i in range(4)
    ]
    with torch.no_grad():
        now, then = (score(p, make_layout(rows), temperature=0.7).logprobs for p in (policy, initial))
    second = update(of, batch_of(of, prompts), step=1)
    expected = [math.exp(d) - 1 - d for d in (then - now).double().tolist()]
    assert len(expected) == 35
    assert second["policy/kl_nats"] == pytest.approx(sum(expected) / 35, rel=1e-3)
    assert second["policy/kl_nats"] > 1e-4
    # Ratio 1, so the surrogate adds up to -sum A w, and token_mean gives every token the weight 1/35.
    batch = batch_of(of, prompts)
    surrogate = -float((batch.estimate.advantages.double() * batch.lengths).sum()) / 35
    assert second["policy/loss"] == pytest.approx(surrogate + 0.25 * sum(expected) / 35, abs=1e-5)


def spoilt(of, batch, minibatch):
    """The batch with infinite advantages in the groups of one minibatch of two."""
    advantages = batch.estimate.advantages.clone()
    half = advantages[2 * minibatch : 2 * minibatch + 2]
    half[half > 0] = float("inf")
    assert half.isinf().any()
    return replace(batch, estimate=replace(batch.estimate, advantages=advantages))


def test_an_update_that_is_not_finite_is_left_out_and_counted(policy, world, prompts):
    """Weights and moments of the two updates are those of the finite one alone."""
    of = learner(policy, world, train={"updates_per_rollout": 2})
    alone = learner(fresh(policy), world, train={"updates_per_rollout": 2})
    batch = batch_of(of, prompts)
    nothing = batch.estimate.advantages.clone()
    nothing[:2] = 0
    found = update(of, spoilt(of, batch, 0), step=0)
    assert found["policy/skipped_updates"] == 1
    assert (of.skips.in_a_row, of.skips.is_over) == (0, True)
    # The same without a first half: its zero gradient moves the moments of no weight, only their step count.
    second = update(alone, replace(batch, estimate=replace(batch.estimate, advantages=nothing)), step=0)
    assert second["policy/skipped_updates"] == 0
    assert found["policy/grad_norm"] == pytest.approx(2 * second["policy/grad_norm"])
    for of_one, of_other in zip(of.policy.trainable(), alone.policy.trainable(), strict=True):
        mine, other = (learnt.optimizer.state[weight] for learnt, weight in ((of, of_one), (alone, of_other)))
        assert (mine["step"], other["step"]) == (1, 2)
        torch.testing.assert_close(mine["exp_avg"], other["exp_avg"], rtol=1e-5, atol=1e-9)


def test_an_update_that_is_not_finite_moves_nothing(policy, world, prompts):
    of = learner(policy, world)
    before = [parameter.clone() for parameter in policy.trainable()]
    found = update(of, spoilt(of, batch_of(of, prompts), 0), step=0)
    assert math.isnan(found["policy/grad_norm"])
    assert of.skips.in_a_row == 1
    assert all(torch.equal(one, other) for one, other in zip(before, policy.trainable(), strict=True))
    assert not of.optimizer.state
    assert all(parameter.grad is None for parameter in policy.trainable())


def test_a_loss_that_is_not_finite_is_enough(policy, world, prompts, monkeypatch):
    """Its gradient can be 0, and then its norm tells nothing."""
    of = learner(policy, world)

    def add(self, sums, maxima):
        self.sums[update_module._SUMS.index("loss")] = float("inf")

    monkeypatch.setattr(update_module._Tally, "add", add)
    found = update(of, batch_of(of, prompts), step=0)
    assert found["policy/skipped_updates"] == 1
    assert not of.optimizer.state, "a step was made"


def test_the_learning_rate_counts_updates(policy, world, prompts):
    settings = {
        "num_steps": 2,
        "updates_per_rollout": 2,
        "optim": {"lr": 1.0, "schedule": "linear", "max_grad_norm": 1e-6},
    }
    of = learner(policy, world, train=settings)
    # Updates 0, 1 | 2, 3 of 4: the second rollout batch ends with a quarter of the rate left.
    assert update(of, batch_of(of, prompts), step=1)["policy/learning_rate"] == pytest.approx(0.25)


def with_logprobs(batch: Experience, gap: float) -> Experience:
    """The same completions, as if the engine had reported log-probabilities `gap` below those it reported."""

    def lowered(one: Rollout) -> Rollout:
        logprobs = tuple(value - gap for value in one.completion.logprobs)
        return replace(one, completion=replace(one.completion, logprobs=logprobs))

    return replace(
        batch, groups=[replace(found, rollouts=tuple(map(lowered, found.rollouts))) for found in batch.groups]
    )


@pytest.mark.parametrize(("correction", "factor"), [("truncate", 2.0), ("mask", 0.0)])
def test_rollout_weights_multiply_the_loss(policy, world, prompts, gradients, correction, factor):
    """The engine says e^-20 where the trainer says more: every weight is far above the cap of 2."""
    plain = learner(fresh(policy), world)
    update(plain, batch_of(plain, prompts), step=0)
    of = learner(fresh(policy), world, algorithm={"correction": correction})
    metrics = update(of, with_logprobs(batch_of(of, prompts), 20.0), step=0)
    assert metrics["rollout/importance_mean"] == factor
    for one, other in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(one, factor * other, rtol=1e-4, atol=1e-7)


def test_the_entropy_bonus_has_the_gradient_of_the_entropy(policy, world, prompts, gradients):
    """The difference between with and without is -weight · mean entropy over all 35 tokens."""
    plain = learner(fresh(policy), world, algorithm={"aggregation": "token_mean", "entropy_weight": 1e-12})
    update(plain, batch_of(plain, prompts), step=0)
    of = learner(fresh(policy), world, algorithm={"aggregation": "token_mean", "entropy_weight": 0.5})
    metrics = update(of, batch_of(of, prompts), step=0)
    assert metrics["group/skipped_frac"] == 0  # groups without an advantage have an entropy too
    rows = [
        Row(
            prompt=prompts[i],
            completions=tuple(rollout(*pair).completion.token_ids for pair in zip(*facts(i), strict=True)),
        )
        for i in range(4)
    ]
    scores = score(policy, make_layout(rows), temperature=0.7, entropy_gradient=True)
    assert len(scores.entropy) == 35
    (-0.5 * scores.entropy.mean()).backward()
    expected = [p.grad if p.grad is not None else torch.zeros_like(p) for p in policy.trainable()]
    close([one - other for one, other in zip(gradients[1], gradients[0], strict=True)], expected)


def test_an_entropy_without_a_bonus_has_no_gradient(policy, prompts):
    row = Row(prompt=prompts[0], completions=(rollout(1, 3).completion.token_ids,))
    assert not score(policy, make_layout([row])).entropy.requires_grad
    assert score(policy, make_layout([row]), entropy_gradient=True).entropy.requires_grad


def test_a_rollout_that_is_left_out_is_an_empty_one(policy, world, prompts, gradients):
    """Masked, the last rollout of group 0 has no token: not in the loss, and not in the count of tokens."""
    of = learner(fresh(policy), world, algorithm={"overlong": "mask", "aggregation": "token_mean"})
    batch = batch_of(of, prompts)
    kept = batch.estimate.kept.clone()
    kept[0, 2] = False
    update(of, replace(batch, estimate=replace(batch.estimate, kept=kept)), step=0)
    # By hand: the other rollouts of the two mixed groups, over 35 - 3 tokens.
    total = torch.zeros(())
    for index in (0, 2):
        for place, (flag, length) in enumerate(zip(*facts(index), strict=True)):
            if (index, place) != (0, 2):
                row = Row(prompt=prompts[index], completions=(rollout(flag, length).completion.token_ids,))
                logprobs = score(policy, make_layout([row]), temperature=0.7).logprobs
                total = total - float(batch.estimate.advantages[index, place]) * logprobs.sum() / 32
    total.backward()
    close(gradients[0], [p.grad if p.grad is not None else torch.zeros_like(p) for p in policy.trainable()])
