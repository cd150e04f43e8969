"""The groups of a step: sampled and judged, and sampled again while too few of them can teach.

Every rank holds the facts of all groups and its own groups. A group without both correct and wrong rollouts has no
group-relative advantage; dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) replaces it, within a bound on rounds.

Shapes: S groups sampled in the step over all ranks, P of them learnt from, G completions per prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_agrae.algorithms.groups import is_mixed, scored_flags
from mm_agrae.policy.feed import Cursor
from mm_agrae.records import RolloutGroup, VerdictStatus
from mm_agrae.rollout import Harvest
from mm_agrae.train.distributed import World


@dataclass(frozen=True, kw_only=True)
class Facts:
    """How sampled groups went: rewards, correct, formatted, truncated and lengths [S, G], and the verdicts."""

    rewards: Tensor
    correct: Tensor
    formatted: Tensor
    truncated: Tensor
    lengths: Tensor
    statuses: list[VerdictStatus]

    @property
    def flags(self) -> Tensor:
        """[S, G] 1.0 correct, 0.0 wrong, NaN unscored."""
        return scored_flags(self.correct, self.rewards)


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What a step sampled.

    Attributes:
        facts: Of all S groups.
        kept: [P] ascending numbers of the groups that are learnt from.
        num_missing: Groups among the kept ones without both correct and wrong rollouts.
        groups: This rank's groups among the kept ones.
        rows: Their places in `kept`.
        spare: The shortest group that this rank sampled, kept or not: what it computes, for nothing, where it learns
            from none and other ranks need its company. None where it sampled none.
        rounds: Rounds it took.
        cursor: Where the data goes on.
        rollout_s, verify_s: Seconds, on this rank.
    """

    facts: Facts
    kept: list[int]
    num_missing: int
    groups: list[RolloutGroup]
    rows: list[int]
    spare: RolloutGroup | None
    rounds: int
    cursor: Cursor
    rollout_s: float
    verify_s: float


def sample_groups(
    harvest: Callable[[int, Cursor], tuple[Harvest, Cursor]],
    world: World,
    *,
    count: int,
    max_rounds: int,
    cursor: Cursor,
) -> Sampled:
    """Sample `count` groups, and again until as many are mixed or the rounds are used up.

    Args:
        harvest: (round, cursor) -> this rank's share of `count` new groups, and the next cursor.
        world: The ranks.
        count: P.
        max_rounds: 1 takes what comes. When the last round still leaves too few mixed groups, others fill the step.
        cursor: Where the data stands.
    """
    mine: dict[int, RolloutGroup] = {}
    facts: list[list[tuple]] = []
    harvests: list[Harvest] = []
    for number in range(max_rounds):
        found, cursor = harvest(number, cursor)
        harvests.append(found)
        mine |= zip(world.share(range(len(facts), len(facts) + count)), found.groups, strict=True)
        facts += world.collect([_facts(group) for group in found.groups])
        gathered = _gather(facts)
        mixed = is_mixed(gathered.flags).nonzero()[:, 0].tolist()
        if len(mixed) >= count:
            break
    kept = _choose(mixed, len(facts), count)
    num_tokens = gathered.lengths.sum(dim=1).tolist()
    return Sampled(
        facts=gathered,
        kept=kept,
        num_missing=max(0, count - len(mixed)),
        groups=[mine[index] for index in kept if index in mine],
        rows=[row for row, index in enumerate(kept) if index in mine],
        spare=mine[min(mine, key=lambda index: num_tokens[index])] if mine else None,
        rounds=len(harvests),
        cursor=cursor,
        rollout_s=sum(found.rollout_s for found in harvests),
        verify_s=sum(found.verify_s for found in harvests),
    )


def _choose(mixed: Sequence[int], num_groups: int, count: int) -> list[int]:
    """The first mixed groups, filled up with the first others where they are too few, in the order of sampling."""
    others = sorted(set(range(num_groups)) - set(mixed))
    return sorted([*mixed, *others][:count])


def _gather(facts: Sequence[Sequence[tuple]]) -> Facts:
    rewards, correct, formatted, truncated, lengths = (
        torch.tensor([[fact[column] for fact in row] for row in facts], dtype=dtype)
        for column, dtype in enumerate((torch.float64, torch.bool, torch.bool, torch.bool, torch.long))
    )
    return Facts(
        rewards=rewards,
        correct=correct,
        formatted=formatted,
        truncated=truncated,
        lengths=lengths,
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
