"""What A-GRAE's weights change: claims T4 to T7.

A-GRAE, arXiv 2602.05548. p̂ = k / G is the success rate of a group, ω the accuracy of the batch, w = min(1, ω / α),
π_b the probability of trajectory b. Steps have length 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mm_agrae.algorithms import WEIGHTINGS
from mm_agrae.lab.theory.asymmetry import DOMINANCE, NUM_STEPS, SIZE, Weigh, shifted, unsampled_case
from mm_agrae.lab.theory.claim import Case, Claim
from mm_agrae.lab.theory.draws import base, draw_groups, expectation, group_with, magnitude, spread, total
from mm_agrae.lab.theory.softmax import Policy, logit_change, policy_of


def agrae_claims() -> list[Claim]:
    """T4 to T7."""
    return [_favoured_rate(), _suppression(), _confident(), _half()]


def _favoured_rate() -> Claim:
    fine = 1000

    def sample_level(flags: Tensor, omega: float) -> Tensor:
        return magnitude(WEIGHTINGS["agrae_sample_level"](base(flags), flags, batch_accuracy=omega))

    def best(omega: float) -> Tensor:
        flags = torch.cat([group_with(k, fine) for k in range(1, fine)])
        return (sample_level(flags, omega).argmax() + 1) / fine

    means = [
        Case(
            parameters=f"G = 8, p = {p}, ω = {omega}: mean of Σ|A|",
            enumerated=expectation(lambda k: shifted(k, SIZE, omega), SIZE, p),  # noqa: B023
            observe=lambda generator, p=p, omega=omega: sample_level(draw_groups(generator, SIZE, p), omega),  # type: ignore[misc]
        )
        for p, omega in ((0.3, 0.2), (0.3, 0.8))
    ]
    maxima = [
        Case(
            parameters=f"ω = {omega}: p* in groups of {fine}",
            closed=(1 - omega) ** 2 / (omega**2 + (1 - omega) ** 2),
            observe=lambda generator, omega=omega: best(omega),  # type: ignore[misc]
            rounding=1 / fine,
        )
        for omega in (0.1, 0.25, 0.5, 0.75, 0.9)
    ]
    return Claim(
        id="T4",
        title="Favoured success rate",
        statement="Difficulty attention shift moves the success rate that gets most weight from easy to hard as the "
        "batch gets better.",
        formula="Σ|A| = G [ω sqrt(1-p̂) + (1-ω) sqrt(p̂)], largest at p* = (1-ω)² / (ω² + (1-ω)²)",
        caveat="Largest within the mixed groups: all-correct and all-wrong ones still weigh nothing.",
        cases=(*means, *maxima),
    )


def _suppression() -> Claim:
    def total_error(omega: float, alpha: float) -> Case:
        weight = min(1.0, omega / alpha)

        def largest(generator: torch.Generator) -> Tensor:
            flags = draw_groups(generator, SIZE, 0.3)
            both = WEIGHTINGS["agrae"](base(flags), flags, batch_accuracy=omega, alpha=alpha)
            alone = WEIGHTINGS["agrae_sample_level"](base(flags), flags, batch_accuracy=omega)
            return (total(both) + (1 - weight) / 2 * magnitude(alone)).abs().max()

        return Case(
            parameters=f"ω = {omega}, α = {alpha}: largest |ΣA + (1-w)/2 Σ|A||, all draws",
            closed=0.0,
            observe=largest,
            rounding=4 * Case.rounding,
        )

    def rise(omega: float, alpha: float) -> Case:
        weight = min(1.0, omega / alpha)
        return unsampled_case(
            f"ω = {omega}, α = {alpha}",
            partial(WEIGHTINGS["agrae"], batch_accuracy=omega, alpha=alpha),
            lambda k: -(1 - weight) / 2 * shifted(k, SIZE, omega),
            closed=0.0 if weight == 1 else None,
        )

    return Claim(
        id="T5",
        title="Suppression of positives",
        statement="Attenuation suppression makes the advantages sum to less than 0 while the batch is worse than α, so "
        "logits of trajectories that were not sampled rise until ω reaches α.",
        formula="ΣA = -(1-w) ½ Σ|A|,  w = min(1, ω/α),  Σ|A| before suppression",
        cases=(
            *(total_error(omega, alpha) for omega, alpha in ((0.2, 1.0), (0.2, 0.5), (0.6, 0.5))),
            *(rise(omega, 0.5) for omega in (0.05, 0.25, 0.4, 0.5, 0.8)),
        ),
    )


def _threshold(weigh: Weigh, *, num_correct: int, times: int) -> Tensor:
    """The π_b at which a wrong trajectory, `times` of the group's rollouts, turns from losing logit to gaining it."""
    trajectories = torch.tensor([[0] * num_correct + [1] * times + [2] * (SIZE - num_correct - times)])

    def change(probability: float) -> float:
        policy = policy_of([0.01], [probability, 0.99 - probability])
        flags = policy.correct[trajectories]
        return float(logit_change(policy, trajectories, weigh(base(flags), flags))[0, 1])

    low, high = 1e-6, 0.99 - 1e-6
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if change(middle) > 0 else (middle, high)
    return torch.tensor(low, dtype=torch.float64)


def _confident() -> Claim:
    # b is wrong and has most of the mass; p = 0.3.
    policy: Policy = policy_of([0.3], [0.6, 0.1])
    negative = partial(WEIGHTINGS["negative_dominant"], dominance=DOMINANCE)

    def case(name: str, weigh: Weigh, weight: float, times: int) -> Case:
        return Case(
            parameters=f"{name}, k = 2, m = {times}: π_b at which Δlogit_b = 0",
            closed=times / ((1 - weight) * SIZE * (1 - 2 / SIZE)),
            observe=lambda generator: _threshold(weigh, num_correct=2, times=times),
        )

    def mean_change(generator: torch.Generator) -> Tensor:
        trajectories, flags = policy.draw(generator, size=SIZE, num_groups=NUM_STEPS)
        return logit_change(policy, trajectories, negative(base(flags), flags))[:, 1]

    def suppressed(omega: float) -> Weigh:
        return partial(WEIGHTINGS["agrae"], batch_accuracy=omega, alpha=1.0)

    mean_spread = expectation(lambda k: spread(k, SIZE), SIZE, policy.success)
    return Claim(
        id="T6",
        title="Confident wrong trajectories",
        statement="If ΣA < 0, a wrong trajectory b that is m of the group's rollouts gains logit once it is confident "
        "enough. Suppression raises that threshold as the batch gets better; with positives divided by a constant it "
        "stays.",
        formula="Δlogit_b > 0  if and only if  π_b > m / [(1-w) G (1-p̂)]",
        caveat="A confident trajectory is seldom sampled only once. Averaged over the draws of the group, m included, "
        "it loses logit whatever its probability: E Δlogit_b = E[Σ₋|A|] π_b [(1-w) - 1/(1-p)] < 0, the last row. T6 "
        "says what single unlucky groups do, not what the mean step does. Positives / 10 have w = 1/10.",
        cases=(
            case("positives / 10", negative, 1 / DOMINANCE, 1),
            case("positives / 10", negative, 1 / DOMINANCE, 2),
            case("A-GRAE, α = 1, ω = 0.1", suppressed(0.1), 0.1, 1),
            case("A-GRAE, α = 1, ω = 0.5", suppressed(0.5), 0.5, 1),
            case("A-GRAE, α = 1, ω = 0.75", suppressed(0.75), 0.75, 1),
            Case(
                parameters="positives / 10, p = 0.3, π_b = 0.6: mean Δlogit_b",
                closed=mean_spread * 0.6 * (1 - 1 / DOMINANCE - 1 / (1 - policy.success)),
                enumerated=expectation(_mean_given(policy), SIZE, policy.success),
                observe=mean_change,
            ),
        ),
    )


def _mean_given(policy: Policy) -> Callable[[int], float]:
    """Mean Δlogit_b in groups with k correct ones, by enumerating how many of the wrong ones are b."""
    mass = float(policy.probabilities[1])

    def mean(k: int) -> float:
        if not 0 < k < SIZE:
            return 0.0
        wrong, each = SIZE - k, spread(k, SIZE) / (SIZE - k)
        sum_of = (1 / DOMINANCE - 1) * spread(k, SIZE)
        return expectation(lambda m: -m * each - sum_of * mass, wrong, mass / (1 - policy.success))

    return mean


def _half() -> Claim:
    flags = group_with(4, 8)
    return Claim(
        id="T7",
        title="Half-correct groups",
        statement="In a group that is half correct, and with ω ≥ α, A-GRAE multiplies every advantage by 0.707: it "
        "gives such prompts less weight than plain GRPO does.",
        formula="ω / (2 sqrt(½)) + (1-ω) / (2 sqrt(½)) = 1 / sqrt(2)",
        cases=tuple(
            Case(
                parameters=f"ω = {omega}, α = 0.5, {'correct' if column == 0 else 'wrong'} rollout: A / Â",
                closed=1 / math.sqrt(2),
                observe=lambda generator, omega=omega, column=column: (  # type: ignore[misc]
                    WEIGHTINGS["agrae"](base(flags), flags, batch_accuracy=omega, alpha=0.5) / base(flags)
                )[0, column],
            )
            for omega in (0.5, 0.9)
            for column in (0, -1)
        ),
    )
