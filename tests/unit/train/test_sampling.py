"""Sampling again until every group can teach: what is kept, what is counted, when it gives up."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_experience import Ranks, group

from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.estimator import START, assemble
from mm_agrae.policy.feed import Cursor
from mm_agrae.records import RolloutGroup
from mm_agrae.rollout import Harvest
from mm_agrae.train.experience import experience
from mm_agrae.train.sampling import Sampled, _facts, sample_groups

# Rounds of two groups of two, as numbers of correct rollouts.
ROUNDS = [(1, 0), (2, 1), (1, 1)]


def group_of(num_correct: int, name: str) -> RolloutGroup:
    made = group([(int(place < num_correct), 1, 0, 3) for place in range(2)])
    return RolloutGroup(
        prompt=SimpleNamespace(sample=name),  # type: ignore[arg-type]
        rollouts=made.rollouts,
        weights_version=0,
    )


def sample(rounds: list[tuple[int, ...]], *, max_rounds: int, rank: int = 0, size: int = 1) -> Sampled:
    everything = [
        [group_of(count, f"{number}.{place}") for place, count in enumerate(counts)]
        for number, counts in enumerate(rounds)
    ]

    class Rounds(Ranks):
        def collect(self, mine):
            for groups in everything:
                facts = [_facts(g) for g in groups]
                if list(mine) == facts[self.rank :: self.size] and groups not in seen:
                    seen.append(groups)
                    return facts
            raise AssertionError("nobody else has these")

    seen: list = []
    ranks = Rounds(rank, size, [])

    def harvest(number: int, cursor: Cursor) -> tuple[Harvest, Cursor]:
        found = Harvest(groups=ranks.share(everything[number]), rollout_s=1.0, verify_s=0.5)
        return found, Cursor(cursor.position + len(everything[number]))

    return sample_groups(harvest, ranks, count=2, max_rounds=max_rounds, cursor=Cursor())  # type: ignore[arg-type]


def names(sampled: Sampled) -> list[str]:
    return [found.prompt.sample for found in sampled.groups]  # type: ignore[misc]


def test_one_round_takes_what_comes() -> None:
    sampled = sample(ROUNDS, max_rounds=1)
    assert sampled.kept == [0, 1]
    assert names(sampled) == ["0.0", "0.1"]
    assert (sampled.rounds, sampled.num_missing, sampled.cursor) == (1, 1, Cursor(2))


def test_samples_again_until_all_are_mixed() -> None:
    sampled = sample(ROUNDS, max_rounds=10)
    # Mixed: 0.0, then 1.1; the third round is not needed.
    assert names(sampled) == ["0.0", "1.1"]
    assert sampled.kept == [0, 3]
    assert sampled.rows == [0, 1]
    assert (sampled.rounds, sampled.num_missing, sampled.cursor) == (2, 0, Cursor(4))
    assert (sampled.rollout_s, sampled.verify_s) == (2.0, 1.0)
    assert sampled.facts.correct.tolist() == [[True, False], [False, False], [True, True], [True, False]]


def test_surplus_groups_are_dropped_in_order() -> None:
    assert names(sample([(0, 1), (1, 1)], max_rounds=10)) == ["0.1", "1.0"]


def test_the_bound_on_rounds_fills_the_step_with_what_there_is() -> None:
    sampled = sample([(0, 2), (2, 1), (0, 0)], max_rounds=3)
    assert sampled.rounds == 3
    assert sampled.num_missing == 1
    # The mixed group, and the first of the others to fill the step.
    assert names(sampled) == ["0.0", "1.1"]


@pytest.mark.parametrize(("rank", "mine", "rows"), [(0, ["0.0"], [0]), (1, ["1.1"], [1])])
def test_every_rank_keeps_its_own_groups(rank: int, mine: list[str], rows: list[int]) -> None:
    sampled = sample(ROUNDS, max_rounds=10, rank=rank, size=2)
    assert names(sampled) == mine
    assert sampled.rows == rows
    assert sampled.kept == [0, 3]


def test_a_rank_may_be_left_without_groups() -> None:
    assert [len(sample([(1, 0), (1, 2)], max_rounds=10, rank=rank, size=2).groups) for rank in (0, 1)] == [2, 0]


def test_accuracy_and_anchor_count_what_was_dropped() -> None:
    sampled = sample(ROUNDS, max_rounds=10)
    bound = assemble(
        AlgorithmConfig.model_validate({"preset": "dapo", "weighting": ["hadw", "agrae"]}), max_completion_tokens=10
    )
    batch, state = experience(sampled, bound, START)
    # 4 of the 8 rollouts of both rounds are correct (1 + 0 + 2 + 1); among the two kept groups it would be 2 of 4 too,
    # so drop one correct rollout of a group that is not kept.
    assert state.anchor.history == (0.5,)
    facts = sampled.facts
    facts.correct[2, 0] = False
    assert facts.flags.mean() == 3 / 8
    batch, state = experience(sampled, bound, START)
    assert state.anchor.history == (3 / 8,)
    assert batch.estimate.anchor == 3 / 8
    metrics = batch.metrics()
    assert metrics["reward/batch_accuracy"] == 3 / 8
    assert metrics["advantage/anchor"] == 3 / 8
    assert metrics["rollout/sampling_rounds"] == 2
    assert metrics["group/mixed_frac"] == 3 / 4  # the changed flag made group 1.0 mixed


def test_an_unscored_rollout_mixes_no_group() -> None:
    """One correct and one without a reward: nothing tells the two apart, so another group is sampled."""
    half_scored = group([(1, 1, 0, 3), (0, 1, 0, 3)])
    unscored = replace(half_scored.rollouts[1], reward=math.nan)
    first = [replace(half_scored, rollouts=(half_scored.rollouts[0], unscored))]
    rounds = [first, [group_of(1, "1.0")]]

    def harvest(number: int, cursor: Cursor) -> tuple[Harvest, Cursor]:
        return Harvest(groups=rounds[number], rollout_s=0.0, verify_s=0.0), cursor

    class Alone(Ranks):
        def collect(self, mine):
            return list(mine)

    sampled = sample_groups(harvest, Alone(0, 1, []), count=1, max_rounds=5, cursor=Cursor())  # type: ignore[arg-type]
    assert (sampled.rounds, sampled.kept) == (2, [1])
