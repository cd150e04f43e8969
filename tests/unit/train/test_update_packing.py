"""One update is one weighted sum: how it is cut, ordered or skipped changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from updates import CORRECT, LENGTHS, batch_of, close, experienced, facts, fresh, group, learner, numbers, rollout

import mm_agrae.train.update as update_module
from mm_agrae.config.schema import RolloutConfig
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.policy.layout import Row
from mm_agrae.records import RolloutGroup, Sampling
from mm_agrae.train.update import update


@pytest.mark.parametrize("preset", [{}, {"aggregation": "token_mean"}, {"preset": "dr_grpo"}, {"beta": 0.1}])
def test_packing_and_order_change_nothing(policy, world, prompts, gradients, preset):
    """A budget of 5 tokens tears every group into pieces of one or two completions."""
    whole, torn, turned = (
        learner(fresh(policy), world, train={"micro_batch_tokens": tokens}, algorithm=preset)
        for tokens in (10000, 5, 10000)
    )
    metrics = update(whole, batch_of(whole, prompts), step=0)
    torn_metrics = update(torn, batch_of(torn, prompts), step=0)
    update(turned, batch_of(turned, prompts, (2, 0, 3, 1)), step=0)
    close(gradients[1], gradients[0])
    close(gradients[2], gradients[0])
    check_keys(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert numbers(torn_metrics) == pytest.approx(numbers(metrics), rel=1e-4, abs=1e-6)


def test_the_small_budget_really_tears_groups(policy, world, prompts, monkeypatch):
    """Completions of 2, 5, 3 and of 6, 1, 2 tokens: pieces 2 | 5 | 3 and 6 | 1 + 2, each with a loss of its own."""
    pieces: list[list[int]] = []
    real = update_module._loss

    def spy(of, terms, rows, scores):
        pieces.append([len(completion) for row in rows for completion in row.completions])
        return real(of, terms, rows, scores)

    monkeypatch.setattr(update_module, "_loss", spy)
    of = learner(policy, world, train={"micro_batch_tokens": 5})
    update(of, batch_of(of, prompts), step=0)
    assert sorted(pieces) == [[1, 2], [2], [3], [5], [6]]


def test_what_a_rank_repeats_for_the_others_is_not_kept(policy, world, prompts, monkeypatch):
    """The second update learns from nothing here, and repeats a completion of the first one's group without weight."""
    train = {"updates_per_rollout": 2}
    groups = [group(prompts[index], *facts(index)) for index in (0, 2, 1, 3)]
    plain, waited = learner(fresh(policy), world, train=train), learner(fresh(policy), world, train=train)
    expected = update(plain, experienced(plain, groups), step=0)

    def in_step(batches, spare, parameters):
        return [(batch, True) for batch in batches] or [([min(spare, key=lambda one: one[0].group)[0]], False)]

    monkeypatch.setattr(world, "in_step", in_step)
    found = update(waited, experienced(waited, groups), step=0)
    assert numbers(found) == numbers(expected)
    for one, other in zip(plain.policy.trainable(), waited.policy.trainable(), strict=True):
        assert torch.equal(one, other)


def test_skipping_is_exact(policy, world, prompts, monkeypatch):
    skipping, all_in = learner(fresh(policy), world), learner(fresh(policy), world)
    for step in range(2):
        metrics = update(skipping, batch_of(skipping, prompts), step=step)
    assert metrics["group/skipped_frac"] == 0.5
    monkeypatch.setattr(update_module, "has_gradient", lambda batch, row, algorithm: True)
    for step in range(2):
        metrics = update(all_in, batch_of(all_in, prompts), step=step)
    assert metrics["group/skipped_frac"] == 0
    # A kernel may add up a micro-batch of other groups in another order: equal up to rounding.
    for one, other in zip(skipping.policy.trainable(), all_in.policy.trainable(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_skipping_is_exact_to_the_bit_when_groups_stand_alone(policy, world, prompts, monkeypatch):
    alone = {"micro_batch_tokens": 1}
    skipping, all_in = (learner(fresh(policy), world, train=alone) for _ in range(2))
    update(skipping, batch_of(skipping, prompts), step=0)
    monkeypatch.setattr(update_module, "has_gradient", lambda batch, row, algorithm: True)
    update(all_in, batch_of(all_in, prompts), step=0)
    for one, other in zip(skipping.policy.trainable(), all_in.policy.trainable(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("preset", ["gspo", "gmpo", "cispo", "sapo"])
def test_packing_changes_nothing_for_ratios_of_sequences(policy, world, prompts, gradients, preset):
    """Second of two updates, where ratios differ from 1: a completion is never torn, so its mean ratio is whole."""
    train = {"updates_per_rollout": 2, "optim": {"lr": 1e-2, "max_grad_norm": 1e6}}
    for tokens in (10000, 5):
        of = learner(fresh(policy), world, train={**train, "micro_batch_tokens": tokens}, algorithm={"preset": preset})
        update(of, batch_of(of, prompts), step=0)
    # Adam's first step turns rounding in tiny gradients into rounding of its full size; what counts is the whole.
    torn, whole = (torch.cat([gradient.reshape(-1) for gradient in gradients[number]]) for number in (3, 1))
    assert float(whole.norm()) > 0
    assert float((torn - whole).norm() / whole.norm()) < 1e-3


@pytest.mark.parametrize("algorithm", [{}, {"beta": 0.1}, {"entropy_weight": 0.1}])
def test_all_left_out_leaves_the_weights(policy, world, prompts, algorithm):
    of = learner(policy, world, algorithm={"overlong": "mask", **algorithm})
    batch = batch_of(of, prompts)
    nothing = replace(batch, estimate=replace(batch.estimate, kept=torch.zeros(4, 3, dtype=torch.bool)))
    before = [parameter.clone() for parameter in policy.trainable()]
    metrics = update(of, nothing, step=0)
    assert metrics["policy/grad_norm"] == 0
    assert metrics["group/skipped_frac"] == 1
    assert all(torch.equal(one, other) for one, other in zip(before, policy.trainable(), strict=True))


@pytest.fixture
def micro_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[Row]]:
    """The rows of every micro-batch that is learnt from."""
    seen: list[list[Row]] = []
    real = update_module.differentiate

    def spy(policy, rows, loss_of, *, budget, temperature, entropy_gradient):
        seen.append(list(rows))
        return real(
            policy, rows, loss_of, budget=budget, temperature=temperature, entropy_gradient=entropy_gradient
        )  # fmt: skip

    monkeypatch.setattr(update_module, "differentiate", spy)
    return seen


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean"])
def test_trap_14_weights_count_the_batch_and_not_the_micro_batch(
    policy, world, prompts, gradients, micro_batches, aggregation
):
    """A mean over each micro-batch, or over the groups that are computed, would depend on packing and skipping."""
    sizes = []
    for train in ({}, {"micro_batch_targets": 10}, {"micro_batch_tokens": 5}, {"share_prompts": False}):
        of = learner(fresh(policy), world, train=train, algorithm={"aggregation": aggregation})
        update(of, batch_of(of, prompts), step=0)
        sizes.append([len(rows) for rows in micro_batches])
        micro_batches.clear()
    assert sizes == [[2], [1, 1], [1, 1], [6]]
    for found in gradients[1:]:
        close(found, gradients[0])
    weights = update_module._token_weights(of, batch_of(of, prompts), torch.arange(4))
    # Groups 1 and 3 are not computed, and count: 12 sequences, or 35 tokens, have the weight 1 together.
    assert float((weights * torch.tensor(LENGTHS)).sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("tokens", [10000, 5])
def test_trap_17_old_log_probabilities_come_from_the_same_micro_batches(
    policy, world, prompts, micro_batches, monkeypatch, tokens
):
    """Two layouts round differently: with weights that do not move, every ratio must be 1 to the last bit."""
    train = {"updates_per_rollout": 4, "optim": {"lr": 1e-30}, "micro_batch_tokens": tokens}
    scored: list[list[Row]] = []
    real = update_module.score_rows

    def spy(policy, rows, *, budget, temperature):
        scored.append(list(rows))
        return real(policy, rows, budget=budget, temperature=temperature)

    monkeypatch.setattr(update_module, "score_rows", spy)
    of = learner(policy, world, train=train, algorithm={"entropy_weight": 0.1})
    metrics = update(of, batch_of(of, prompts), step=0)
    assert [row.group for rows in micro_batches for row in rows] == [0, 1, 2, 3]
    assert scored == micro_batches[1:]
    assert metrics["policy/ratio_mean"] == metrics["policy/ratio_max"] == 1.0


@pytest.mark.parametrize("train", [{}, {"micro_batch_tokens": 5}, {"updates_per_rollout": 2}])
def test_trap_19_a_group_is_computed_in_one_place(policy, world, prompts, micro_batches, train):
    """Completions scattered over micro-batches would need their prompt in each of them."""
    of = learner(policy, world, train=train, algorithm={"beta": 0.1})
    update(of, batch_of(of, prompts), step=0)
    assert sorted(row.group for rows in micro_batches for row in rows) == [0, 1, 2, 3]
    assert all(len(row.completions) == 3 for rows in micro_batches for row in rows)


def test_trap_20_the_trainer_draws_from_the_distribution_of_the_engine(policy, world, prompts):
    """Another temperature here than there, or a cut tail there, and no ratio would mean what it says."""
    sampling = Sampling(num_completions=3, max_new_tokens=8, temperature=0.7)
    seeds = [[10 * place + number for number in range(3)] for place in range(4)]
    groups = []
    for prompt, completions, correct in zip(
        prompts, TransformersEngine(policy, batch_rows=64).generate(prompts, sampling, seeds), CORRECT, strict=True
    ):
        rollouts = [
            replace(rollout(flag, 1), completion=completion)
            for flag, completion in zip(correct, completions, strict=True)
        ]
        groups.append(RolloutGroup(prompt=prompt, rollouts=tuple(rollouts), weights_version=0))
    of = learner(fresh(policy), world)
    assert of.temperature == sampling.temperature
    assert update(of, experienced(of, groups), step=0)["rollout/logprob_gap_max_nats"] < 1e-4
    other = replace(learner(fresh(policy), world), temperature=1.0)
    assert update(other, experienced(other, groups), step=0)["rollout/logprob_gap_max_nats"] > 0.01
    assert not {"top_p", "top_k", "min_p"} & set(RolloutConfig.model_fields)


def test_recompute_above_tokens_reaches_the_forward_passes(policy, world, prompts, gradients):
    """The layers of the one micro-batch run twice, or once; the gradient is the same."""
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.model.enable_input_require_grads()
    counts = []
    for tokens in (0, 10000):
        of = learner(fresh(policy), world, train={"recompute_above_tokens": tokens})
        calls: list[int] = []
        layer = of.policy.inner.get_decoder().layers[-1].mlp
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        update(of, batch_of(of, prompts), step=0)
        counts.append(len(calls))
    assert counts == [2, 1]
    close(gradients[1], gradients[0])
