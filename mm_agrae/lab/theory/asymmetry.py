"""What the sum and the size of a group's advantages do to a softmax over trajectories: claims T1 to T3.

A-GRAE, arXiv 2602.05548. p̂ = k / G is the success rate of a group, π_b the probability of trajectory b. Steps have
length 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mm_agrae.algorithms import WEIGHTINGS
from mm_agrae.lab.theory.claim import Case, Claim
from mm_agrae.lab.theory.draws import base, draw_groups, expectation, group_with, magnitude, spread, total
from mm_agrae.lab.theory.softmax import logit_change, policy_of, unsampled

SIZE = 8
DOMINANCE = 10.0
# p = 0.3; the last correct one is rare, the first wrong one common.
POLICY = policy_of([0.15, 0.10, 0.04, 0.01], [0.30, 0.20, 0.12, 0.08])
RARE_CORRECT = 3
NUM_STEPS = 20_000

Weigh = Callable[[Tensor, Tensor], Tensor]


def asymmetry_claims() -> list[Claim]:
    """T1 to T3."""
    return [_unsampled_logits(), _balance(), _magnitudes()]


def shifted(k: int, size: int, omega: float) -> float:
    """Σ|A| with difficulty attention shift: G [ω sqrt(1-p̂) + (1-ω) sqrt(p̂)], 0 for a group that is not mixed."""
    rate = k / size
    return size * (omega * math.sqrt(1 - rate) + (1 - omega) * math.sqrt(rate)) if 0 < k < size else 0.0


def _plain(advantages: Tensor, flags: Tensor) -> Tensor:
    return advantages


def unsampled_case(name: str, weigh: Weigh, sum_of: Callable[[int], float], closed: float | None = None) -> Case:
    """E[Δlogit of the rare correct trajectory | no rollout is it]: the other rollouts are correct more rarely."""
    rare = float(POLICY.probabilities[RARE_CORRECT])
    others = (POLICY.success - rare) / (1 - rare)

    def observe(generator: torch.Generator) -> Tensor:
        trajectories, flags = POLICY.draw(generator, size=SIZE, num_groups=NUM_STEPS)
        change = logit_change(POLICY, trajectories, weigh(base(flags), flags))
        return change[unsampled(POLICY, trajectories)[:, RARE_CORRECT], RARE_CORRECT]

    return Case(
        parameters=f"{name}: mean Δlogit, π_b = {rare}",
        closed=closed,
        enumerated=expectation(lambda k: -sum_of(k) * rare, SIZE, others),
        observe=observe,
    )


def _unsampled_logits() -> Claim:
    negative, positive = (
        partial(WEIGHTINGS[f"{sign}_dominant"], dominance=DOMINANCE) for sign in ("negative", "positive")
    )

    def largest_error(generator: torch.Generator) -> Tensor:
        trajectories, flags = POLICY.draw(generator, size=SIZE, num_groups=NUM_STEPS)
        advantages = negative(base(flags), flags)
        expected = -total(advantages)[:, None] * POLICY.probabilities
        error = (logit_change(POLICY, trajectories, advantages) - expected).abs()
        return error[unsampled(POLICY, trajectories)].max()

    return Claim(
        id="T1",
        title="Trajectories that were not sampled",
        statement="A step moves the logit of a trajectory that was not sampled only through the sum of the advantages: "
        "not at all if they sum to 0, down if ΣA > 0, up if ΣA < 0.",
        formula="Δlogit_b = -π_b ΣA",
        caveat="A logit that stays does not keep its probability: the normaliser moves. In the group of the last two "
        "rows Δlogit_b is 0, and π_b still changes.",
        cases=(
            unsampled_case("GRPO", _plain, lambda k: 0.0, closed=0.0),
            unsampled_case("positives × 10", positive, lambda k: (DOMINANCE - 1) * spread(k, SIZE)),
            unsampled_case("positives / 10", negative, lambda k: (1 / DOMINANCE - 1) * spread(k, SIZE)),
            unsampled_case(
                "A-GRAE, α = 1, ω = 0.2",
                partial(WEIGHTINGS["agrae"], batch_accuracy=0.2, alpha=1.0),
                lambda k: -0.8 / 2 * shifted(k, SIZE, 0.2),
            ),
            Case(
                parameters="positives / 10: largest |Δlogit_b + π_b ΣA|, all draws, all unsampled b",
                closed=0.0,
                observe=largest_error,
            ),
            *_one_group(),
        ),
    )


def _one_group() -> tuple[Case, Case]:
    """The unsampled rare trajectory after one step upon one group, whose advantages sum to 0: its logit, its mass."""
    trajectories = torch.tensor([[0, 1, 4, 4, 4, 5, 6, 7]])
    # Two of eight are correct: Â is sqrt(3) and -1/sqrt(3). Trajectory 4 was sampled three times.
    moved = {0: 3**0.5, 1: 3**0.5, 4: -3 / 3**0.5, 5: -1 / 3**0.5, 6: -1 / 3**0.5, 7: -1 / 3**0.5}
    before = POLICY.probabilities.tolist()
    normaliser = math.fsum(mass * math.exp(moved.get(index, 0.0)) for index, mass in enumerate(before))
    rare = before[RARE_CORRECT]

    def step() -> Tensor:
        return logit_change(POLICY, trajectories, base(POLICY.correct[trajectories]))[0]

    def after() -> Tensor:
        return (POLICY.probabilities.log() + step()).softmax(dim=0)

    name = f"GRPO, one group with k = 2, π_b = {rare}"
    return (
        Case(parameters=f"{name}: Δlogit_b", closed=0.0, observe=lambda generator: step()[RARE_CORRECT]),
        Case(
            parameters=f"{name}: Δπ_b",
            closed=rare / normaliser - rare,
            observe=lambda generator: (after() - POLICY.probabilities)[RARE_CORRECT],
        ),
    )


def _balance() -> Claim:
    def positives(flags: Tensor) -> Tensor:
        return total(base(flags).clamp(min=0))

    def largest_gap(generator: torch.Generator) -> Tensor:
        return total(base(draw_groups(generator, SIZE, 0.3))).abs().max()

    each = [
        Case(
            parameters=f"G = {size}, k = {k}",
            closed=size * math.sqrt(k / size * (1 - k / size)),
            observe=lambda generator, k=k, size=size: positives(group_with(k, size)),  # type: ignore[misc]
        )
        for size, k in ((8, 1), (8, 4), (8, 7), (5, 2))
    ]
    return Claim(
        id="T2",
        title="Positives and negatives balance",
        statement="With a biased standard deviation the positive advantages of a group weigh as much as the negative.",
        formula="Σ₊|Â| = Σ₋|Â| = G sqrt(p̂ (1-p̂))",
        cases=(
            *each,
            Case(
                parameters="G = 8, p = 0.3: mean of Σ₊|Â|",
                enumerated=expectation(lambda k: spread(k, SIZE), SIZE, 0.3),
                observe=lambda generator: positives(draw_groups(generator, SIZE, 0.3)),
            ),
            Case(parameters="G = 8, p = 0.3: largest |Σ₊ - Σ₋|, all draws", closed=0.0, observe=largest_gap),
        ),
    )


def _magnitudes() -> Claim:
    def case(p: float, std: str) -> Case:
        if std == "biased":
            name, closed = "GRPO", None
            enumerated = expectation(lambda k: 2 * spread(k, SIZE), SIZE, p)
        else:
            name, closed = "Dr.GRPO", 2 * (SIZE - 1) * p * (1 - p)
            enumerated = expectation(lambda k: 2 * spread(k, SIZE) ** 2 / SIZE, SIZE, p)
        return Case(
            parameters=f"{name}, G = 8, p = {p}: mean",
            closed=closed,
            enumerated=enumerated,
            observe=lambda generator: magnitude(base(draw_groups(generator, SIZE, p), std=std)),
        )

    return Claim(
        id="T3",
        title="Weight of a group",
        statement="The whole weight of a group is largest at p̂ = ½ and vanishes for easy and for hard groups.",
        formula="Σ|Â| = 2G sqrt(p̂ (1-p̂));  Dr.GRPO: 2G p̂ (1-p̂), on average 2 (G-1) p (1-p)",
        cases=tuple(case(p, std) for std in ("biased", "none") for p in (0.05, 0.3, 0.5)),
    )
