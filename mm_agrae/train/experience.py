"""Sampled groups -> experience: what the algorithm makes of the global [P, G] matrices.

Every rank holds the same matrices and its own groups; the algorithm sees the whole batch, so sharding changes nothing.

Shapes: P prompts of the step over all ranks, G completions per prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mm_agrae.algorithms.groups import batch_accuracy
from mm_agrae.estimator import Algorithm, Estimate, EstimatorState, Outcomes, estimate
from mm_agrae.metrics.batch import estimate_metrics, group_metrics, verdict_metrics
from mm_agrae.records import RolloutGroup
from mm_agrae.train.sampling import Sampled


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What an update learns from.

    Attributes:
        groups: This rank's groups.
        rows: [p] their rows in the matrices.
        lengths: [P, G] completion tokens.
        estimate: Advantages, bounds, and which rollouts count; [P, G] each.
        sampled: Everything that the step sampled.
    """

    groups: list[RolloutGroup]
    rows: list[int]
    lengths: Tensor
    estimate: Estimate
    sampled: Sampled

    def metrics(self) -> dict[str, float]:
        """Reward, group, length and verifier figures of everything sampled, and what the algorithm made of it."""
        facts, found = self.sampled.facts, self.estimate
        metrics = group_metrics(facts.rewards, facts.correct, facts.formatted, facts.lengths, facts.truncated)
        metrics |= verdict_metrics(facts.statuses)
        metrics |= estimate_metrics(found.advantages, found.bounds.low, found.bounds.high)
        metrics["rollout/sampling_rounds"] = float(self.sampled.rounds)
        metrics["rollout/missing_groups"] = float(self.sampled.num_missing)
        metrics["reward/overlong_mean"] = float((found.rewards - facts.rewards[self.sampled.kept]).nanmean())
        if found.anchor is not None:
            metrics["advantage/anchor"] = found.anchor
        return metrics


def experience(sampled: Sampled, algorithm: Algorithm, state: EstimatorState) -> tuple[Experience, EstimatorState]:
    """Advantages and bounds of the groups that are kept, and the next state.

    The accuracy of the batch is that of everything sampled: dropping groups must not move it.
    """
    facts, kept = sampled.facts, sampled.kept
    outcomes = Outcomes(
        rewards=facts.rewards[kept],
        correct=facts.correct[kept],
        lengths=facts.lengths[kept],
        truncated=facts.truncated[kept],
    )
    found, next_state = estimate(algorithm, state, outcomes, batch_accuracy=batch_accuracy(facts.flags))
    batch = Experience(
        groups=sampled.groups, rows=sampled.rows, lengths=outcomes.lengths, estimate=found, sampled=sampled
    )
    return batch, next_state


def has_gradient(batch: Experience, row: int, algorithm: Algorithm) -> bool:
    """Whether a group moves the weights; False where its gradient is exactly 0."""
    counts = batch.estimate.kept[row] & (algorithm.needs_every_group | (batch.estimate.advantages[row] != 0))
    return bool(counts.any())


def minibatches_of(batch: Experience, num_updates: int) -> tuple[Tensor, ...]:
    """The rows of each update of a step, one stretch after the other; fewer than `num_updates` of few rows."""
    return torch.arange(batch.lengths.shape[0]).chunk(num_updates)
