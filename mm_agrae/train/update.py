"""Experience -> optimiser steps.

The loss of an update is Σ weight · loss over its tokens, with every weight fixed from global counts before the first
forward pass. Micro-batches, their order and the ranks only regroup that sum.

Shapes: P prompts of the step, G completions per prompt, K completion tokens of a micro-batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from mm_agrae.algorithms import Tokens, k3
from mm_agrae.config.schema import TrainConfig
from mm_agrae.estimator import Algorithm
from mm_agrae.policy.forward import TokenScores
from mm_agrae.policy.gradient import differentiate, score_rows
from mm_agrae.policy.layout import Row, one_by_one
from mm_agrae.policy.load import Policy
from mm_agrae.policy.optim import learning_rate, optimizer_step
from mm_agrae.policy.packing import Budget, budget_of, pack
from mm_agrae.records import RolloutGroup
from mm_agrae.rollout import Phases, unwatched
from mm_agrae.train.distributed import World
from mm_agrae.train.experience import Experience, has_gradient, minibatches_of
from mm_agrae.train.sharding import gathering
from mm_agrae.train.skips import Skips

# Log-probabilities of completions, by the group and the place in it.
Kept = dict[tuple[int, int], Tensor]

# Row of a group that nothing is learnt from: it takes the last place of every matrix, with weight 0.
_NO_ROW = -1

_SUMS = ("tokens", "loss", "entropy", "clip_low", "clip_high", "clip_dual", "ratio", "kl", "gap", "importance")


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What an update needs besides the experience.

    Attributes:
        skips: Counts updates whose loss or gradient is not finite, which are left out.
        phases: Told of "log-probs".
    """

    policy: Policy
    reference: Policy | None
    optimizer: torch.optim.Optimizer
    algorithm: Algorithm
    config: TrainConfig
    temperature: float
    max_completion_tokens: int
    world: World
    skips: Skips = field(default_factory=lambda: Skips(limit=0))
    phases: Phases = unwatched

    @cached_property  # walks all parameters
    def budget(self) -> Budget:
        sharded = self.world.keeps_step(list(self.policy.model.parameters()))
        return replace(budget_of(self.config), apart=not sharded)

    def pack(self, rows: Sequence[Row]) -> list[list[Row]]:
        return pack(rows, self.budget, padded=not self.policy.shares_prompts)


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What the loss of a micro-batch is made of, besides its scores; its figures go to the tally."""

    batch: Experience
    weights: Tensor
    old: Kept
    reference: Kept
    tally: _Tally


class _Tally:
    """Sums over tokens, in the order of _SUMS, and the largest ratio and log-probability gap.

    Kept on the device: reading a number after every micro-batch would make a GPU wait for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)
        self.maxima = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, sums: Sequence[Tensor], maxima: Sequence[Tensor]) -> None:
        self.sums += torch.stack([value.double() for value in sums])
        self.maxima = torch.maximum(self.maxima, torch.stack([value.double() for value in maxima]))


def update(learner: Learner, batch: Experience, *, step: int) -> dict[str, float]:
    """Take the optimiser steps of one rollout batch.

    Args:
        learner: Policy, optimiser and settings.
        batch: This rank's groups and the global matrices.
        step: Rollout batches behind; decides the learning rate.

    Returns:
        policy/*, group/skipped_frac, rollout/logprob_gap_* of the whole batch over all ranks, and this rank's seconds.
    """
    num_updates = learner.config.updates_per_rollout
    minibatches = minibatches_of(batch, num_updates)
    rows = [_rows(learner, batch, set(minibatch.tolist())) for minibatch in minibatches]
    # The first update starts from the sampling policy itself; only later ones need its log-probabilities kept.
    started = time.perf_counter()
    with learner.phases("log-probs"):
        old = _old_logprobs(learner, batch, rows[1:])
    old_logprobs_s = time.perf_counter() - started
    total, norms, lr = _Tally(learner.policy.device), [], 0.0
    for number, (minibatch, mine) in enumerate(zip(minibatches, rows, strict=True)):
        tally = _backward(learner, batch, mine, weights=_token_weights(learner, batch, minibatch), old=old)
        tally.sums = learner.world.sum(tally.sums)
        total.add(list(tally.sums), list(tally.maxima))
        lr = learning_rate(learner.config.optim, step * num_updates + number, learner.config.num_steps * num_updates)
        norms.append(_step(learner, loss=float(tally.sums[_SUMS.index("loss")]), lr=lr))
    taken = [norm for norm in norms if math.isfinite(norm)]
    return _metrics(learner, batch, total) | {
        "policy/grad_norm": sum(taken) / len(taken) if taken else math.nan,
        "policy/skipped_updates": float(len(norms) - len(taken)),
        "policy/learning_rate": lr,
        "time/old_logprobs_s": old_logprobs_s,
        "time/update_s": time.perf_counter() - started - old_logprobs_s,
    }


def _backward(learner: Learner, batch: Experience, rows: Sequence[Row], *, weights: Tensor, old: Kept) -> _Tally:
    """The gradient of this rank's rows, and its figures."""
    tally = _Tally(learner.policy.device)
    micro_batches = _in_step(learner, batch, rows)
    with gathering(learner.policy, learner.config):
        for micro_batch, counts in micro_batches:
            terms = _Terms(
                batch=batch,
                weights=weights * counts,
                old=old,
                reference=_reference_logprobs(learner, micro_batch),
                tally=tally if counts else _Tally(learner.policy.device),
            )
            differentiate(
                learner.policy,
                micro_batch,
                partial(_loss, learner, terms),
                budget=learner.budget,
                temperature=learner.temperature,
                entropy_gradient=learner.algorithm.entropy_weight > 0,
            )
    return tally


def _step(learner: Learner, *, loss: float, lr: float) -> float:
    """One optimiser step, if loss and gradient are finite; returns the gradient norm, which tells."""
    parameters = learner.policy.trainable()
    learner.world.sum_gradients(parameters)
    bound = learner.config.optim.max_grad_norm
    norm = optimizer_step(learner.optimizer, parameters, loss=loss, lr=lr, max_grad_norm=bound)
    learner.skips.note(taken=math.isfinite(norm))
    return norm


def _rows(learner: Learner, batch: Experience, minibatch: set[int]) -> list[Row]:
    """This rank's groups of a minibatch, without those whose gradient is exactly 0."""
    rows = [
        row for row in _groups(batch) if row.group in minibatch and has_gradient(batch, row.group, learner.algorithm)
    ]
    if learner.config.share_prompts and learner.policy.shares_prompts:
        return rows
    return [single for row in rows for single in one_by_one(row)]


def _groups(batch: Experience) -> list[Row]:
    """All groups of this rank."""
    return [_row(group, row) for row, group in zip(batch.rows, batch.groups, strict=True)]


def _row(group: RolloutGroup, row: int) -> Row:
    completions = tuple(rollout.completion.token_ids for rollout in group.rollouts)
    return Row(prompt=group.prompt, completions=completions, group=row)


def _in_step(learner: Learner, batch: Experience, rows: Sequence[Row]) -> list[tuple[list[Row], bool]]:
    """Micro-batches of rows, and whether they count; those that do not are there for the other ranks alone."""
    groups = _groups(batch)
    if not groups and batch.sampled.spare:
        groups = [_row(batch.sampled.spare, _NO_ROW)]
    spare = sorted(([single] for row in groups for single in one_by_one(row)), key=lambda one: one[0].num_tokens)
    return learner.world.in_step(learner.pack(rows), spare, list(learner.policy.model.parameters()))


def _token_weights(learner: Learner, batch: Experience, minibatch: Tensor) -> Tensor:
    """[P, G] weight of each token of each sequence of an update, skipped groups counted; 0 elsewhere.

    A rollout that is left out counts as an empty sequence.
    """
    lengths = batch.lengths[minibatch] * batch.estimate.kept[minibatch]
    weights = torch.zeros(batch.lengths.shape)
    weights[minibatch] = learner.algorithm.aggregation(
        lengths.reshape(-1),
        num_sequences=lengths.numel(),
        num_tokens=max(1, int(lengths.sum())),
        max_length=learner.max_completion_tokens,
    ).view_as(lengths)
    return weights


def _old_logprobs(learner: Learner, batch: Experience, minibatches: Sequence[Sequence[Row]]) -> Kept:
    """The sampling policy's log-probabilities, from the micro-batches that learn from them later: to the last bit."""
    kept: Kept = {}
    for rows in minibatches:
        for micro_batch, counts in _in_step(learner, batch, rows):
            logprobs = _logprobs(learner, learner.policy, micro_batch)
            if counts:  # what does not count can be part of a group of the first update
                kept |= logprobs
    return kept


def _reference_logprobs(learner: Learner, rows: Sequence[Row]) -> Kept:
    """The initial policy's log-probabilities, when the loss asks for them."""
    if learner.reference is None:
        return {}
    if learner.reference is learner.policy:  # adapters: the initial policy is the same model without them
        with learner.policy.without_adapters():
            return _logprobs(learner, learner.policy, rows)
    return _logprobs(learner, learner.reference, rows)


def _logprobs(learner: Learner, policy: Policy, rows: Sequence[Row]) -> Kept:
    scores = score_rows(policy, rows, budget=learner.budget, temperature=learner.temperature)
    places = [(row.group, place) for row in rows for place, _ in enumerate(row.completions, start=row.first)]
    lengths = [len(completion) for row in rows for completion in row.completions]
    return dict(zip(places, scores.logprobs.split(lengths), strict=True))


def _looked_up(kept: Kept, rows: Sequence[Row]) -> Tensor:
    """[K], one per token in the order of the layout."""
    return torch.cat(
        [kept[row.group, place] for row in rows for place, _ in enumerate(row.completions, start=row.first)]
    )


def _loss(learner: Learner, terms: _Terms, rows: Sequence[Row], scores: TokenScores) -> Tensor:
    """A micro-batch's part of the loss; its figures go to the tally."""
    algorithm, device, batch = learner.algorithm, learner.policy.device, terms.batch
    logprobs = scores.logprobs
    is_first = (rows[0].group, rows[0].first) not in terms.old
    old = logprobs.detach() if is_first else _looked_up(terms.old, rows)
    rollout_logprobs = torch.tensor(_rollout_logprobs(batch, rows), device=device)
    sequences = _sequences(rows).to(device)
    advantages, low, high, token_weights = (
        _spread(matrix, rows).to(device, torch.float32)
        for matrix in (batch.estimate.advantages, batch.estimate.bounds.low, batch.estimate.bounds.high, terms.weights)
    )
    token_loss = algorithm.loss(
        Tokens(logprobs=logprobs, old_logprobs=old, advantages=advantages, low=low, high=high, sequences=sequences)
    )
    losses, divergence, importance = token_loss.loss, torch.zeros_like(old), torch.ones_like(old)
    if algorithm.correction is not None:
        importance = algorithm.correction(old, rollout_logprobs, sequences)
        losses = losses * importance
    if learner.reference is not None:
        divergence = k3(logprobs, _looked_up(terms.reference, rows))
        losses = losses + algorithm.beta * divergence
    if algorithm.entropy_weight > 0:
        losses = losses - algorithm.entropy_weight * scores.entropy
    loss = (token_weights * losses).sum()
    gap = (rollout_logprobs - old).abs()
    figures = {
        "tokens": torch.ones_like(old).sum(),
        "loss": loss.detach(),
        "entropy": scores.entropy.detach().sum(),
        "clip_low": token_loss.clipped_low.sum(),
        "clip_high": token_loss.clipped_high.sum(),
        "clip_dual": token_loss.clipped_dual.sum(),
        "ratio": token_loss.ratio.sum(),
        "kl": divergence.detach().sum(),
        "gap": gap.sum(),
        "importance": importance.sum(),
    }
    terms.tally.add([figures[name] for name in _SUMS], [_largest(token_loss.ratio), _largest(gap)])
    return loss


def _largest(values: Tensor) -> Tensor:
    """0 of nothing: all completions of a micro-batch can be empty."""
    return values.max() if values.numel() else values.new_zeros(())


def _spread(matrix: Tensor, rows: Sequence[Row]) -> Tensor:
    """[P, G] values -> [K], one per token in the order of the layout."""
    return torch.cat(
        [
            matrix[row.group, row.first : row.first + len(row.completions)].repeat_interleave(
                torch.tensor([len(completion) for completion in row.completions])
            )
            for row in rows
        ]
    )


def _sequences(rows: Sequence[Row]) -> Tensor:
    """[K] number of the completion that each token belongs to."""
    lengths = torch.tensor([len(completion) for row in rows for completion in row.completions])
    return torch.arange(len(lengths)).repeat_interleave(lengths)


def _rollout_logprobs(batch: Experience, rows: Sequence[Row]) -> list[float]:
    groups = dict(zip(batch.rows, batch.groups, strict=True))
    if batch.sampled.spare:
        groups[_NO_ROW] = batch.sampled.spare
    return [
        logprob
        for row in rows
        for rollout in groups[row.group].rollouts[row.first : row.first + len(row.completions)]
        for logprob in rollout.completion.logprobs
    ]


def _metrics(learner: Learner, batch: Experience, tally: _Tally) -> dict[str, float]:
    """Figures from sums over all ranks and this rank's maxima; NaN over tokens where every group was skipped."""
    sums = dict(zip(_SUMS, tally.sums.tolist(), strict=True))
    tokens = sums["tokens"] or math.nan
    max_ratio, max_gap = (max(column) for column in zip(*learner.world.collect([tally.maxima.tolist()]), strict=True))
    num_groups = batch.lengths.shape[0]
    learnt = [row for row in range(num_groups) if has_gradient(batch, row, learner.algorithm)]
    metrics = {
        "policy/learnt_tokens": float(batch.lengths[learnt].sum()),
        "policy/loss": sums["loss"],
        "policy/entropy_nats": sums["entropy"] / tokens,
        "policy/clip_low_frac": sums["clip_low"] / tokens,
        "policy/clip_high_frac": sums["clip_high"] / tokens,
        "policy/clip_dual_frac": sums["clip_dual"] / tokens,
        "policy/ratio_mean": sums["ratio"] / tokens,
        "policy/ratio_max": max_ratio if sums["tokens"] else math.nan,
        "rollout/logprob_gap_mean_nats": sums["gap"] / tokens,
        "rollout/logprob_gap_max_nats": max_gap if sums["tokens"] else math.nan,
        "group/skipped_frac": 1 - len(learnt) / num_groups,
    }
    if learner.reference is not None:
        metrics["policy/kl_nats"] = sums["kl"] / tokens
    if learner.algorithm.correction is not None:
        metrics["rollout/importance_mean"] = sums["importance"] / tokens
    return metrics
