"""Rollout groups -> global matrices, the same on every rank and whatever the number of ranks."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from mm_agrae.algorithms import WEIGHTINGS
from mm_agrae.algorithms.advantages import group as centred
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.estimator import START, assemble
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.policy.feed import Cursor
from mm_agrae.records import Completion, Rollout, RolloutGroup, Verdict
from mm_agrae.rollout import Harvest
from mm_agrae.train.experience import Experience, experience
from mm_agrae.train.sampling import _facts, sample_groups

# (correct, formatted, truncated, tokens) of 3 groups of 4.
FACTS = [
    [(1, 1, 0, 3), (0, 1, 0, 4), (0, 0, 1, 9), (0, 1, 0, 2)],
    [(1, 1, 0, 1), (1, 1, 0, 2), (1, 1, 0, 3), (1, 1, 0, 4)],
    [(1, 1, 0, 5), (1, 0, 1, 9), (1, 1, 0, 5), (0, 0, 0, 1)],
]


class Ranks:
    """World of `size` ranks seen from `rank`; what the other ranks hold is known to it."""

    def __init__(self, rank: int, size: int, everything: list) -> None:
        self.rank, self.size, self.everything = rank, size, everything

    def share(self, items):
        return list(items[self.rank :: self.size])

    def collect(self, mine):
        assert list(mine) == self.everything[self.rank :: self.size]
        return self.everything


def group(facts) -> RolloutGroup:
    def rollout(correct, formatted, truncated, tokens):
        status = "correct" if correct else ("wrong" if formatted else "unparsed")
        verdict = Verdict(
            status=status,
            answer=None,
            span=None,
            answer_form=None,
            target_form=None,
            kind="integer",
            rule="test",
            formatted=bool(formatted),
            seconds=0.0,
        )
        completion = Completion(
            token_ids=(1,) * tokens,
            logprobs=(0.0,) * tokens,
            text="",
            stop_reason="length" if truncated else "eos",
        )
        return Rollout(completion=completion, verdict=verdict, reward=0.9 * correct + 0.1 * formatted)

    prompt = SimpleNamespace(sample=None)
    return RolloutGroup(prompt=prompt, rollouts=tuple(rollout(*fact) for fact in facts), weights_version=0)  # type: ignore[arg-type]


def batch(algorithm: dict, *, rank: int = 0, size: int = 1) -> Experience:
    groups = [group(facts) for facts in FACTS]
    ranks = Ranks(rank, size, [_facts(g) for g in groups])

    def harvest(number: int, cursor: Cursor) -> tuple[Harvest, Cursor]:
        return Harvest(groups=ranks.share(groups), rollout_s=0.0, verify_s=0.0), cursor

    sampled = sample_groups(harvest, ranks, count=len(FACTS), max_rounds=1, cursor=Cursor())  # type: ignore[arg-type]
    bound = assemble(AlgorithmConfig.model_validate(algorithm), max_completion_tokens=10)
    return experience(sampled, bound, START)[0]


def test_the_matrices_hold_what_the_groups_say() -> None:
    batch_made = batch({})
    made, estimate = batch_made.sampled.facts, batch_made.estimate
    assert made.rewards.tolist() == [[0.9 * c + 0.1 * f for c, f, _, _ in row] for row in FACTS]
    assert made.correct.tolist() == [[bool(fact[0]) for fact in row] for row in FACTS]
    assert made.formatted.tolist() == [[bool(fact[1]) for fact in row] for row in FACTS]
    assert made.truncated.tolist() == [[bool(fact[2]) for fact in row] for row in FACTS]
    assert made.lengths.tolist() == [[fact[3] for fact in row] for row in FACTS]
    assert made.statuses.count("correct") == 8
    assert batch_made.rows == [0, 1, 2]
    assert estimate.kept.all()
    assert torch.isfinite(estimate.advantages).all()
    assert estimate.advantages[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_advantages_are_the_pure_functions_of_the_whole_batch(variant: str) -> None:
    made = batch({"weighting": ["agrae"], "agrae": {"alpha": 0.9, "variant": variant}, "clip_high": 0.28})
    std, eps = {"paper": ("biased", 0.0), "code": ("unbiased", 1e-6)}[variant]
    facts, made = made.sampled.facts, made.estimate
    base = centred(facts.rewards, facts.correct, std=std, std_eps=eps)  # type: ignore[arg-type]
    # 8 of 12 are correct: the accuracy of the batch, not of a group.
    expected = WEIGHTINGS["agrae"](base, facts.correct, batch_accuracy=8 / 12, alpha=0.9, variant=variant)
    torch.testing.assert_close(made.advantages, expected)
    assert not torch.equal(made.advantages, base)
    torch.testing.assert_close(made.bounds.high, torch.full((3, 4), 1.28))
    torch.testing.assert_close(made.bounds.low, torch.full((3, 4), 0.8))


def test_every_rank_has_the_same_matrices_and_its_own_groups() -> None:
    alone = batch({"weighting": ["agrae"]})
    for rank, rows in ((0, [0, 2]), (1, [1])):
        mine = batch({"weighting": ["agrae"]}, rank=rank, size=2)
        assert torch.equal(mine.estimate.advantages, alone.estimate.advantages)
        assert mine.rows == rows
        assert len(mine.groups) == len(rows)
        assert mine.metrics() == alone.metrics()


def test_metrics_are_counted_by_hand_and_catalogued() -> None:
    metrics = batch({}).metrics()
    check_keys(metrics)
    assert metrics["reward/batch_accuracy"] == pytest.approx(8 / 12)
    assert metrics["reward/mean"] == pytest.approx((0.9 * 8 + 0.1 * 9) / 12)
    assert metrics["group/mixed_frac"] == pytest.approx(2 / 3)
    assert metrics["group/all_correct_frac"] == pytest.approx(1 / 3)
    assert metrics["rollout/truncated_frac"] == pytest.approx(2 / 12)
    assert metrics["rollout/length_mean_tokens"] == pytest.approx(48 / 12)
    assert metrics["verify/unparsed_frac"] == pytest.approx(2 / 12)
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("algorithm", "first_row"),
    [
        # Rewards 1, .1, 0, .1: mean .3; squares .49 + .04 + .09 + .04 = .66, divided by 4 .165, root .406202.
        ({"preset": "grpo"}, [0.7 / 0.406202, -0.2 / 0.406202, -0.3 / 0.406202, -0.2 / 0.406202]),
        ({"preset": "dr_grpo"}, [0.7, -0.2, -0.3, -0.2]),
    ],
)
def test_names_choose_the_method(algorithm: dict, first_row: list[float]) -> None:
    assert batch(algorithm).estimate.advantages[0].tolist() == pytest.approx(first_row, rel=1e-5)
