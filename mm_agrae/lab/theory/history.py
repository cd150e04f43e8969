"""The bias of group-relative advantages, and what HA-DW does to it: claims H1 to H7.

HA-DW, arXiv 2601.08521. p is the success probability of a rollout, p̂ = k / G the success rate of its group, S the event
that the group is mixed, Z = 1 - (1-p)^G - p^G its probability, C the anchor, λ the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mm_agrae.algorithms import WEIGHTINGS
from mm_agrae.algorithms.groups import success_rate
from mm_agrae.lab.theory.claim import Case, Claim
from mm_agrae.lab.theory.draws import (
    base,
    binomial,
    draw_groups,
    draw_mixed,
    draw_mixed_at,
    expectation,
    group_with,
    magnitude,
    mixed_probability,
    spread,
    total,
)

SIZE = 8
SCALE = 1.3
MANY_GROUPS = 200_000


def history_claims() -> list[Claim]:
    """H1 to H7."""
    return [_mean_rate(), _bias(), _overestimation(), _averages(), _correction(), _correct_rollouts(), _sums()]


def mean_rate(size: int, p: float) -> float:
    """H1: E[p̂ | S]."""
    return p * (1 - p ** (size - 1)) / mixed_probability(size, p)


def bias(size: int, p: float) -> float:
    """H2: E[p̂ | S] - p."""
    return (p * (1 - p) ** size + p ** (size + 1) - p**size) / mixed_probability(size, p)


def overestimation(size: int, p: float, margin: Fraction = Fraction(0)) -> float:
    """H3: P(p̂ - p > margin | S). Fractions keep floor(G (p + margin)) exact."""
    first = math.floor(size * (Fraction(str(p)) + margin)) + 1
    return math.fsum(binomial(k, size, p) for k in range(first, size)) / mixed_probability(size, p)


def average_overestimation(size: int, highest: float) -> float:
    """H4: mean of P(p̂ > p | S) over p ~ U(0, highest), by Gauss-Legendre between the jumps at k / G."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = [0.0, *(k / size for k in range(1, size) if k / size < highest), highest]
    integral = 0.0
    for first, (low, high) in enumerate(pairwise(edges), start=1):
        for node, weight in zip(nodes, weights, strict=True):
            p = (high - low) / 2 * float(node) + (high + low) / 2
            above = math.fsum(binomial(k, size, p) for k in range(first, size))
            integral += (high - low) / 2 * float(weight) * above / mixed_probability(size, p)
    return integral / highest


def of_mixed(value: Callable[[int], float], size: int, p: float) -> float:
    """E[value(k) | S] by enumeration."""
    return expectation(value, size, p, given=lambda k: 0 < k < size)


def of_correct(value: Callable[[int], float], size: int, p: float) -> float:
    """E[value(k) | S, the rollout is correct] by enumeration: a correct rollout sees k with weight k."""
    return of_mixed(lambda k: k * value(k), size, p) / of_mixed(float, size, p)


def _rates(generator: torch.Generator, size: int, p: float, *, num_groups: int = MANY_GROUPS) -> Tensor:
    return success_rate(draw_mixed(generator, size, p, num_groups=num_groups))


def _mean_rate() -> Claim:
    def case(size: int, p: float) -> Case:
        return Case(
            parameters=f"G = {size}, p = {p}",
            closed=mean_rate(size, p),
            enumerated=of_mixed(lambda k: k / size, size, p),
            observe=lambda generator: _rates(generator, size, p),
        )

    return Claim(
        id="H1",
        title="Success rate of mixed groups",
        statement="Groups that are all correct or all wrong teach nothing and drop out; in those that remain the "
        "success rate is no longer p on average.",
        formula="E[p̂ | S] = p (1 - p^(G-1)) / Z",
        cases=tuple(case(size, p) for size, p in ((8, 0.1), (8, 0.5), (8, 0.9), (4, 0.2), (16, 0.05))),
    )


def _bias() -> Claim:
    def case(size: int, p: float, note: str = "") -> Case:
        return Case(
            parameters=f"G = {size}, p = {p}{note}",
            closed=bias(size, p),
            enumerated=of_mixed(lambda k: k / size, size, p) - p,
            observe=lambda generator: _rates(generator, size, p) - p,
        )

    return Claim(
        id="H2",
        title="Its bias",
        statement="The success rate of mixed groups is too high for hard prompts and too low for easy ones, so the "
        "advantage of correct answers is too small where they are rare.",
        formula="b(p, G) = [p (1-p)^G + p^(G+1) - p^G] / Z;  b(1-p) = -b(p);  b → 1/G as p → 0;  b(p, 2) = ½ - p",
        cases=(
            *(case(SIZE, p) for p in (0.05, 0.1, 0.2, 0.3, 0.4)),
            case(SIZE, 0.5, ", no bias"),
            case(SIZE, 0.9, ", minus that of p = 0.1"),
            case(SIZE, 0.01, ", on the way to 1/G"),
            case(2, 0.2, ", ½ - p"),
        ),
    )


def _overestimation() -> Claim:
    def case(size: int, p: float, margin: str) -> Case:
        exact = Fraction(margin)
        threshold = Fraction(str(p)) + exact

        def observe(generator: torch.Generator) -> Tensor:
            counts = (_rates(generator, size, p) * size).round()
            return counts * threshold.denominator > size * threshold.numerator

        return Case(
            parameters=f"G = {size}, p = {p}, ε = {margin}",
            closed=overestimation(size, p, exact),
            enumerated=of_mixed(lambda k: float(Fraction(k, size) > threshold), size, p),
            observe=observe,
        )

    grid = ((8, 0.1, "0"), (8, 0.2, "0"), (8, 0.2, "0.05"), (8, 0.2, "0.1"), (8, 0.4, "0"), (4, 0.3, "0.1"))
    return Claim(
        id="H3",
        title="How often it is too high",
        statement="How often a mixed group overestimates its prompt by more than ε.",
        formula="P(p̂ - p > ε | S) = Σ_{k = ⌊G(p+ε)⌋+1}^{G-1} Binom(k; G, p) / Z",
        cases=tuple(case(*values) for values in grid),
    )


def _averages() -> Claim:
    def case(size: int, highest: float, name: str) -> Case:
        def observe(generator: torch.Generator) -> Tensor:
            rates = highest * torch.rand(MANY_GROUPS // 4, generator=generator, dtype=torch.float64)
            return success_rate(draw_mixed_at(generator, size, rates)) > rates

        return Case(
            parameters=f"G = {size}, p ~ U(0, {name})",
            enumerated=average_overestimation(size, highest),
            observe=observe,
        )

    limits = [case(size, 2 / size, "2/G") for size in (8, 32)]
    return Claim(
        id="H4",
        title="Averaged over hard prompts",
        statement="Averaged over hard prompts, a mixed group overestimates its prompt more often than not.",
        formula="2 ∫_0^½ P(p̂ > p | S) dp;  G/2 ∫_0^(2/G) P(p̂ > p | S) dp → 0.78181 as G → ∞",
        caveat="The average is over prompts, each with mixed groups of its own: not over mixed groups of a data set, "
        "where prompts with more mixed groups count more. 0.78181 is the limit of large groups, which no case reaches: "
        "G = 8 has 0.78113.",
        cases=(*(case(size, 0.5, "½") for size in range(2, 9)), *limits),
    )


def _correction() -> Claim:
    def case(size: int, p: float) -> Case:
        factor = mixed_probability(size, p) / (1 - p ** (size - 1))
        return Case(
            parameters=f"G = {size}, p = {p}, c* = {factor:.4f}",
            closed=p,
            enumerated=of_mixed(lambda k: factor * k / size, size, p),
            observe=lambda generator: factor * _rates(generator, size, p),
        )

    return Claim(
        id="H5",
        title="The factor that would mend it",
        statement="One factor makes the success rate of mixed groups right on average.",
        formula="c* = Z / (1 - p^(G-1)),  E[c* p̂ | S] = p",
        caveat="c* needs p, which nobody knows: it shows the size of the bias and cannot be used to remove it.",
        cases=tuple(case(size, p) for size, p in ((8, 0.05), (8, 0.3), (8, 0.7), (4, 0.2))),
    )


def _correct_rollouts() -> Claim:
    flip = SIZE ** (-1 / (SIZE - 1))

    def first_correct(generator: torch.Generator, p: float, anchor: float | None) -> Tensor:
        flags = draw_mixed(generator, SIZE, p, num_groups=MANY_GROUPS)
        advantages = base(flags, std="none")
        if anchor is not None:
            advantages = WEIGHTINGS["hadw"](advantages, flags, anchor=anchor, scale=SCALE)
        # One rollout per group: those of one group depend on each other.
        return advantages[flags[:, 0], 0].to(torch.float64) - (1 - p)

    def plain(p: float, note: str = "") -> Case:
        mean = ((1 + (SIZE - 1) * p) / SIZE - p ** (SIZE - 1)) / (1 - p ** (SIZE - 1))
        return Case(
            parameters=f"G = 8, p = {p:.4g}{note}: bias of r - p̂",
            closed=p - mean,
            enumerated=of_correct(lambda k: p - k / SIZE, SIZE, p),
            observe=lambda generator: first_correct(generator, p, None),
        )

    def weighted(p: float, anchor: float) -> Case:
        return Case(
            parameters=f"G = 8, p = {p}, λ = 1.3, C = {anchor}: bias with HA-DW",
            enumerated=of_correct(lambda k: (1 - k / SIZE) * SCALE * math.exp(anchor - k / SIZE) - (1 - p), SIZE, p),
            observe=lambda generator: first_correct(generator, p, anchor),
        )

    return Claim(
        id="H6",
        title="Correct rollouts only",
        statement="Among correct rollouts of mixed groups the bias of the advantage changes sign at p = G^(-1/(G-1)), "
        "not at ½: a correct rollout raises the success rate that it is compared with.",
        formula="E[r - p̂ | S, r = 1] - (1-p) = p - [(1 + (G-1) p) / G - p^(G-1)] / (1 - p^(G-1))",
        caveat="With λ = 1.3 HA-DW over-corrects rare correct answers: at G = 8, p = 0.1 and an anchor of 0.5 the bias "
        "goes from -0.112 to +0.488. How far depends on the anchor: at C = p = 0.1 it is +0.030. HA-DW is a heuristic "
        "reweighting and no unbiased estimator.",
        cases=(
            plain(0.1),
            plain(0.5),
            plain(flip, " = 8^(-1/7), no bias"),
            plain(0.9),
            weighted(0.1, 0.5),
            weighted(0.1, 0.1),
            weighted(0.9, 0.5),
        ),
    )


def _sums() -> Claim:
    def weighted(flags: Tensor, anchor: float) -> Tensor:
        return WEIGHTINGS["hadw"](base(flags), flags, anchor=anchor, scale=SCALE)

    def absolute(k: int, anchor: float) -> float:
        return 2 * SCALE * spread(k, SIZE) * math.cosh(k / SIZE - anchor)

    def signed(k: int, anchor: float) -> float:
        return 2 * SCALE * spread(k, SIZE) * math.sinh(anchor - k / SIZE)

    def pair(k: int, anchor: float) -> tuple[Case, ...]:
        return tuple(
            Case(
                parameters=f"G = 8, k = {k}, C = {anchor}: {name}",
                closed=computed(k, anchor),
                observe=lambda generator, add=add: add(weighted(group_with(k, SIZE), anchor)),  # type: ignore[misc]
            )
            for name, computed, add in (("Σ|A|", absolute, magnitude), ("ΣA", signed, total))
        )

    means = tuple(
        Case(
            parameters=f"G = 8, p = {p}, C = {anchor}: mean of ΣA",
            enumerated=expectation(lambda k: signed(k, anchor), SIZE, p),  # noqa: B023
            observe=lambda generator, p=p, anchor=anchor: total(weighted(draw_groups(generator, SIZE, p), anchor)),  # type: ignore[misc]
        )
        for p, anchor in ((0.1, 0.5), (0.7, 0.5))
    )
    return Claim(
        id="H7",
        title="What HA-DW adds up to",
        statement="HA-DW gives more weight to groups far from the anchor, and its advantages do not sum to 0: above "
        "0 in groups worse than the anchor, below 0 in better ones.",
        formula="Σ|A| = 2λG sqrt(p̂(1-p̂)) cosh(p̂-C);  ΣA = 2λG sqrt(p̂(1-p̂)) sinh(C-p̂)",
        caveat="By T1, hard groups therefore push down what was not sampled, and easy groups push it up.",
        cases=(*pair(1, 0.5), *pair(7, 0.5), *pair(4, 0.5), *means),
    )
