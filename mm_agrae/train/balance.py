"""Which rank learns from which group: equal shares of the predicted work.

Ranks wait for each other at the end of every update, so the most loaded one sets the pace. Groups differ in prompt,
pictures and completions, and those that do not move the weights cost nothing; what is known after the rollouts is
dealt out anew. Every weight of the loss is fixed by then, so who computes a group changes no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mm_agrae.policy.flops import GroupShape, ModelShape, shape_of, update_cost
from mm_agrae.records import RolloutGroup
from mm_agrae.train.experience import Experience, has_gradient, minibatches_of
from mm_agrae.train.update import Learner

# Less of the largest share than this fraction is not worth sending pictures between ranks.
MIN_GAIN = 0.01


def balanced(learner: Learner, batch: Experience, model: ModelShape) -> Experience:
    """The experience with this rank's new share of the groups; each update of the step is balanced by itself.

    Only groups that change hands travel. Every rank must call this, and with one rank it does nothing.
    """
    world = learner.world
    if world.size == 1:
        return batch
    mine = dict(zip(batch.rows, batch.groups, strict=True))
    known = world.merge({row: (world.rank, _shape(group)) for row, group in mine.items()})
    shared = learner.config.share_prompts and learner.policy.shares_prompts
    parcels: dict[int, list[tuple[int, RolloutGroup]]] = {}
    num_moved = 0
    for minibatch in minibatches_of(batch, learner.config.updates_per_rollout):
        rows = [row for row in minibatch.tolist() if has_gradient(batch, row, learner.algorithm)]
        holders = [known[row][0] for row in rows]
        costs = [update_cost(model, known[row][1], shared=shared).total for row in rows]
        for row, old, new in zip(rows, holders, deal(costs, holders, world.size), strict=True):
            num_moved += old != new
            if old == world.rank != new:
                parcels.setdefault(new, []).append((row, mine.pop(row)))
    if num_moved:  # the same number on every rank
        mine |= world.exchange(parcels)
    rows = sorted(mine)
    return replace(batch, groups=[mine[row] for row in rows], rows=rows)


def deal(costs: Sequence[float], holders: Sequence[int], num_ranks: int) -> list[int]:
    """The rank of each group: longest first, each to the rank with the least so far.

    The largest share is at most 4/3 of the best one (Graham, 1969, "Bounds on multiprocessing timing anomalies").
    Shares are then named after the ranks that hold most of them, and where the largest share would not become smaller
    by MIN_GAIN every group stays where it is.

    Args:
        costs: Predicted work of each group.
        holders: The rank that holds it.
        num_ranks: How many there are.
    """
    loads = [0.0] * num_ranks
    shares = [0] * len(costs)
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        shares[number] = loads.index(min(loads))
        loads[shares[number]] += costs[number]
    if max(loads) >= (1 - MIN_GAIN) * max(_loads(costs, holders, num_ranks)):
        return list(holders)
    names = _names(costs, shares, holders, num_ranks)
    return [names[share] for share in shares]


def useful_flops(learner: Learner, batch: Experience, model: ModelShape) -> float:
    """The least that the step's updates must compute, over all ranks; groups that move no weight are not counted."""
    mine = sum(
        update_cost(model, _shape(group), shared=True).total
        for row, group in zip(batch.rows, batch.groups, strict=True)
        if has_gradient(batch, row, learner.algorithm)
    )
    return sum(learner.world.collect([float(mine)]))


def _shape(group: RolloutGroup) -> GroupShape:
    return shape_of(group.prompt, [rollout.completion.token_ids for rollout in group.rollouts])


def _loads(costs: Sequence[float], ranks: Sequence[int], num_ranks: int) -> list[float]:
    loads = [0.0] * num_ranks
    for cost, rank in zip(costs, ranks, strict=True):
        loads[rank] += cost
    return loads


def _names(costs: Sequence[float], shares: Sequence[int], holders: Sequence[int], num_ranks: int) -> dict[int, int]:
    """Share -> rank, so that much of what a rank gets is there already; the largest overlap decides first."""
    overlaps = [[0.0] * num_ranks for _ in range(num_ranks)]
    for cost, share, holder in zip(costs, shares, holders, strict=True):
        overlaps[share][holder] += cost
    names: dict[int, int] = {}
    pairs = [(-overlaps[share][rank], share, rank) for share in range(num_ranks) for rank in range(num_ranks)]
    for _, share, rank in sorted(pairs):
        if share not in names and rank not in names.values():
            names[share] = rank
    return names
