"""Experience -> optimiser steps.

The loss of an update is Σ weight · loss over its tokens, with every weight fixed from global counts before the first
forward pass. Micro-batches, their order and the ranks only regroup that sum.

Shapes: P prompts of the step, G completions per prompt, K completion tokens of a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mm_agrae.algorithms import LOSSES, k3
from mm_agrae.config.schema import TrainConfig
from mm_agrae.policy.forward import score
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.policy.optim import learning_rate, optimizer_step
from mm_agrae.policy.packing import pack
from mm_agrae.train.assemble import Algorithm
from mm_agrae.train.distributed import World
from mm_agrae.train.experience import Experience

# Running sums over tokens: tokens, loss, entropy, clipped low, clipped high, ratio, divergence, log-probability gap.
_SUMS = ("tokens", "loss", "entropy", "clip_low", "clip_high", "ratio", "kl", "gap")


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What an update needs besides the experience."""

    policy: Policy
    reference: Policy | None
    optimizer: torch.optim.Optimizer
    algorithm: Algorithm
    config: TrainConfig
    temperature: float
    max_completion_tokens: int
    world: World


@dataclass(kw_only=True)
class _Tally:
    """Sums and maxima over this rank's tokens."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0.0))
    max_ratio: float = 0.0
    max_gap: float = 0.0
    old: dict[tuple[int, int], Tensor] = field(default_factory=dict)


def update(learner: Learner, batch: Experience, *, step: int) -> dict[str, float]:
    """Take the optimiser steps of one rollout batch.

    Args:
        learner: Policy, optimiser and settings.
        batch: This rank's groups and the global matrices.
        step: Rollout batches behind; decides the learning rate.

    Returns:
        policy/*, group/skipped_frac, rollout/logprob_gap_* of the whole batch over all ranks.

    Raises:
        FloatingPointError: The gradient is not finite; the weights are left as they were.
    """
    num_updates = learner.config.updates_per_rollout
    stretches = torch.arange(batch.advantages.shape[0]).chunk(num_updates)
    tally = _Tally()
    rows = [_rows(batch, set(stretch.tolist()), learner.algorithm) for stretch in stretches]
    # The first update starts from the sampling policy itself; only later ones need its log-probabilities kept.
    for later in rows[1:]:
        _remember(learner, batch, later, tally)
    norms, lr = [], 0.0
    for number, (stretch, mine) in enumerate(zip(stretches, rows, strict=True)):
        weights = _token_weights(learner, batch, stretch)
        for micro_batch in pack(mine, max_tokens=learner.config.micro_batch_tokens):
            _backward(learner, batch, micro_batch, weights, tally)
        parameters = learner.policy.trainable()
        learner.world.sum_gradients(parameters)
        optim = learner.config.optim
        lr = learning_rate(optim, step * num_updates + number, learner.config.num_steps * num_updates)
        norms.append(optimizer_step(learner.optimizer, parameters, lr=lr, max_grad_norm=optim.max_grad_norm))
    return _metrics(learner, batch, tally) | {
        "policy/grad_norm": sum(norms) / len(norms),
        "policy/learning_rate": lr,
    }


def _rows(batch: Experience, stretch: set[int], algorithm: Algorithm) -> list[Row]:
    """This rank's groups of a stretch, without those whose gradient is exactly 0."""
    return [
        Row(
            prompt=group.prompt,
            completions=tuple(rollout.completion.token_ids for rollout in group.rollouts),
            group=row,
        )
        for row, group in zip(batch.rows, batch.groups, strict=True)
        if row in stretch and _has_gradient(batch, row, algorithm)
    ]


def _has_gradient(batch: Experience, row: int, algorithm: Algorithm) -> bool:
    return algorithm.beta > 0 or bool((batch.advantages[row] != 0).any())


def _token_weights(learner: Learner, batch: Experience, stretch: Tensor) -> Tensor:
    """[P, G] weight of each token of each sequence of an update, skipped groups counted; 0 elsewhere."""
    lengths = batch.lengths[stretch]
    weights = torch.zeros(batch.lengths.shape)
    weights[stretch] = learner.algorithm.aggregation(
        lengths.reshape(-1),
        num_sequences=lengths.numel(),
        num_tokens=max(1, int(lengths.sum())),
        max_length=learner.max_completion_tokens,
    ).view_as(lengths)
    return weights


@torch.no_grad()
def _remember(learner: Learner, batch: Experience, rows: Sequence[Row], tally: _Tally) -> None:
    """Keep the sampling policy's log-probabilities of the tokens of later updates."""
    for micro_batch in pack(rows, max_tokens=learner.config.micro_batch_tokens):
        layout = make_layout(micro_batch, pad_token_id=0)
        scores = score(learner.policy, layout, temperature=learner.temperature)
        for row, logprobs in zip(micro_batch, scores.logprobs.split(_row_lengths(micro_batch)), strict=True):
            tally.old[row.group, row.first] = logprobs


def _backward(learner: Learner, batch: Experience, rows: Sequence[Row], weights: Tensor, tally: _Tally) -> None:
    """Add the gradient of one micro-batch, and its figures to the tally."""
    device = learner.policy.device
    layout = make_layout(rows, pad_token_id=0)
    scores = score(learner.policy, layout, temperature=learner.temperature)
    kept = [tally.old.get((row.group, row.first)) for row in rows]
    old = scores.logprobs.detach() if kept[0] is None else torch.cat([k for k in kept if k is not None])
    per_token = [
        _spread(matrix, rows).to(device) for matrix in (batch.advantages, batch.bounds.low, batch.bounds.high, weights)
    ]
    advantages, low, high, token_weights = (tensor.float() for tensor in per_token)
    token_loss = LOSSES["clipped_surrogate"](scores.logprobs, old, advantages, low, high)
    losses, divergence = token_loss.loss, torch.zeros_like(old)
    if learner.reference is not None:
        divergence = k3(scores.logprobs, _reference_logprobs(learner, rows))
        losses = losses + learner.algorithm.beta * divergence
    loss = (token_weights * losses).sum()
    loss.backward()

    reported = torch.tensor(_rollout_logprobs(batch, rows), device=device)
    gap = (reported - old).abs()
    figures = {
        "tokens": torch.tensor(float(len(old))),
        "loss": loss.detach(),
        "entropy": scores.entropy.sum(),
        "clip_low": token_loss.clipped_low.sum(),
        "clip_high": token_loss.clipped_high.sum(),
        "ratio": token_loss.ratio.sum(),
        "kl": divergence.detach().sum(),
        "gap": gap.sum(),
    }
    for name, value in figures.items():
        tally.sums[name] += float(value)
    tally.max_ratio = max(tally.max_ratio, float(token_loss.ratio.max()))
    tally.max_gap = max(tally.max_gap, float(gap.max()))


@torch.no_grad()
def _reference_logprobs(learner: Learner, rows: Sequence[Row]) -> Tensor:
    assert learner.reference is not None
    layout = make_layout(rows, pad_token_id=0)
    if learner.reference is learner.policy:  # adapters: the initial policy is the same model without them
        with learner.policy.without_adapters():
            return score(learner.policy, layout, temperature=learner.temperature).logprobs
    return score(learner.reference, layout, temperature=learner.temperature).logprobs


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


def _rollout_logprobs(batch: Experience, rows: Sequence[Row]) -> list[float]:
    places = {row: place for place, row in enumerate(batch.rows)}
    return [
        logprob
        for row in rows
        for rollout in batch.groups[places[row.group]].rollouts[row.first : row.first + len(row.completions)]
        for logprob in rollout.completion.logprobs
    ]


def _row_lengths(rows: Sequence[Row]) -> list[int]:
    return [sum(map(len, row.completions)) for row in rows]


def _metrics(learner: Learner, batch: Experience, tally: _Tally) -> dict[str, float]:
    """Figures over all ranks; NaN over tokens where every group was skipped."""
    world, device = learner.world, learner.policy.device
    totals = world.sum(torch.tensor([tally.sums[name] for name in _SUMS], dtype=torch.float64, device=device))
    sums = dict(zip(_SUMS, totals.tolist(), strict=True))
    tokens = sums["tokens"] or math.nan
    maxima = world.collect([(tally.max_ratio, tally.max_gap)])
    num_groups = batch.advantages.shape[0]
    num_learnt = sum(_has_gradient(batch, row, learner.algorithm) for row in range(num_groups))
    metrics = {
        "policy/loss": sums["loss"],
        "policy/entropy_nats": sums["entropy"] / tokens,
        "policy/clip_low_frac": sums["clip_low"] / tokens,
        "policy/clip_high_frac": sums["clip_high"] / tokens,
        "policy/ratio_mean": sums["ratio"] / tokens,
        "policy/ratio_max": max(ratio for ratio, _ in maxima) if sums["tokens"] else math.nan,
        "rollout/logprob_gap_mean_nats": sums["gap"] / tokens,
        "rollout/logprob_gap_max_nats": max(gap for _, gap in maxima) if sums["tokens"] else math.nan,
        "group/skipped_frac": 1 - num_learnt / num_groups,
    }
    if learner.reference is not None:
        metrics["policy/kl_nats"] = sums["kl"] / tokens
    return metrics
