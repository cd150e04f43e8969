"""Rollout groups -> experience: the global [P, G] matrices, and what the algorithm makes of them.

Every rank holds the same matrices and its own groups; the algorithm sees the whole batch, so sharding changes nothing.

Shapes: P prompts of the step over all ranks, G completions per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_agrae.algorithms import ClipBounds
from mm_agrae.algorithms.groups import batch_accuracy, scored_flags
from mm_agrae.metrics.batch import group_metrics, verdict_metrics
from mm_agrae.records import RolloutGroup, VerdictStatus
from mm_agrae.train.assemble import Algorithm
from mm_agrae.train.distributed import World


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What an update learns from.

    Attributes:
        groups: This rank's groups; number i is row rank + i * size of the matrices.
        rows: [p] the rows of this rank's groups.
        rewards, advantages: [P, G].
        correct, formatted, truncated: [P, G] bool.
        lengths: [P, G] completion tokens.
        bounds: Of the policy ratio, [P, G] each.
        statuses: Verdicts of the whole step.
    """

    groups: list[RolloutGroup]
    rows: list[int]
    rewards: Tensor
    correct: Tensor
    formatted: Tensor
    truncated: Tensor
    lengths: Tensor
    advantages: Tensor
    bounds: ClipBounds
    statuses: list[VerdictStatus]

    def metrics(self) -> dict[str, float]:
        """Reward, group, advantage, length and verifier figures of the global batch."""
        return group_metrics(
            self.rewards, self.correct, self.formatted, self.advantages, self.lengths, self.truncated
        ) | verdict_metrics(self.statuses)


def experience(groups: Sequence[RolloutGroup], algorithm: Algorithm, world: World) -> Experience:
    """Gather the global matrices and compute advantages and bounds from them."""
    facts = world.collect([_facts(group) for group in groups])  # [P][G] tuples
    columns = [[[fact[column] for fact in row] for row in facts] for column in range(5)]  # [5][P][G]
    rewards = torch.tensor(columns[0], dtype=torch.float64)
    correct, formatted, truncated = (torch.tensor(column, dtype=torch.bool) for column in columns[1:4])
    flags = scored_flags(correct, rewards)
    base = algorithm.advantage(rewards, correct)
    accuracy = batch_accuracy(flags)
    advantages = base
    for weigh in algorithm.weightings:
        advantages = weigh(advantages, flags, accuracy)
    return Experience(
        groups=list(groups),
        rows=world.share(range(len(facts))),
        rewards=rewards,
        correct=correct,
        formatted=formatted,
        truncated=truncated,
        lengths=torch.tensor(columns[4], dtype=torch.long),
        advantages=advantages,
        # From the base advantage, so that the axes stay independent of each other.
        bounds=algorithm.trust_region(base, correct),
        statuses=[fact[5] for row in facts for fact in row],
    )


def _facts(group: RolloutGroup) -> list[tuple[float, bool, bool, bool, int, VerdictStatus]]:
    return [
        (
            rollout.reward,
            rollout.verdict.correct,
            rollout.verdict.formatted,
            rollout.completion.stop_reason == "length",
            len(rollout.completion.token_ids),
            rollout.verdict.status,
        )
        for rollout in group.rollouts
    ]
