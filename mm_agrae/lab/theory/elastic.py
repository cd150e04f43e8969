"""What the elastic trust region does: claims E1 to E3.

ETR, arXiv 2601.03723, as reconstructed in `algorithms.trust_region`. p̂ = k / G, Â the base advantage, ρ the ratio.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mm_agrae.algorithms import LOSSES, TRUST_REGIONS, ClipBounds, Tokens
from mm_agrae.lab.theory.claim import Case, Claim
from mm_agrae.lab.theory.draws import base, draw_groups, draw_mixed, expectation, group_with

SIZE = 8
CLIP = 0.2
MICRO, MACRO = 0.5, 0.25
RECONSTRUCTED = (
    "ETR here is a reconstruction: its equations and coefficients were not available, so this shows what the shipped "
    "form does, not what the paper's does."
)


def elastic_claims() -> list[Claim]:
    """E1 to E3."""
    return [_first_update(), _opposed(), _sides()]


def micro_factor(k: int, size: int, *, correct: bool) -> float:
    """1 + λ_a tanh(|Â| - 1) for a correct or a wrong rollout of a group with k correct ones."""
    odds = (size - k) / k
    return 1 + MICRO * math.tanh(math.sqrt(odds if correct else 1 / odds) - 1)


def macro_factor(k: int, size: int) -> float:
    """1 + λ_v (8 p̂ (1-p̂) - 1)."""
    return 1 + MACRO * (8 * k * (size - k) / size**2 - 1)


def gradient(advantages: Tensor, bounds: ClipBounds, ratio: float) -> tuple[Tensor, Tensor]:
    """Losses [D, G] and their derivatives by the log-probability [D, G], every rollout at the same ratio."""
    logprobs = torch.full((advantages.numel(),), math.log(ratio), dtype=torch.float64, requires_grad=True)
    tokens = Tokens(
        logprobs=logprobs,
        old_logprobs=torch.zeros_like(logprobs),
        advantages=advantages.flatten(),
        low=bounds.low.flatten(),
        high=bounds.high.flatten(),
        sequences=torch.arange(advantages.numel()),
    )
    loss = LOSSES["clip"](tokens).loss
    (slope,) = torch.autograd.grad(loss.sum(), logprobs)
    return loss.detach().view(advantages.shape), slope.view(advantages.shape)


def _fixed(flags: Tensor) -> ClipBounds:
    return TRUST_REGIONS["fixed"](base(flags), flags, clip_low=CLIP, clip_high=CLIP)


def _elastic(flags: Tensor, *, micro: float = MICRO, macro: float = MACRO) -> ClipBounds:
    return TRUST_REGIONS["elastic"](base(flags), flags, clip_low=CLIP, clip_high=CLIP, micro=micro, macro=macro)


def _first_update() -> Claim:
    def largest_difference(generator: torch.Generator, what: int) -> Tensor:
        flags = draw_groups(generator, SIZE, 0.3)
        fixed, elastic = (gradient(base(flags), bounds(flags), 1.0)[what] for bounds in (_fixed, _elastic))
        return (fixed - elastic).abs().max()

    def reopened(generator: torch.Generator, ratio: float) -> Tensor:
        flags = draw_mixed(generator, SIZE, 0.3)
        fixed, elastic = (gradient(base(flags), bounds(flags), ratio)[1] for bounds in (_fixed, _elastic))
        return ((fixed == 0) & (elastic != 0)).any(dim=1)

    def reaches(k: int, ratio: float) -> float:
        return float(ratio < 1 + CLIP * micro_factor(k, SIZE, correct=True) * macro_factor(k, SIZE))

    return Claim(
        id="E1",
        title="The first update",
        statement="At ratio 1, so in the first update of a rollout, elastic and fixed regions give the same loss and "
        "the same gradient. They can differ only from the second update on.",
        formula="ρ = 1:  min(ρ Â, clip(ρ, 1-ε⁻, 1+ε⁺) Â) = Â for every ε",
        caveat=RECONSTRUCTED,
        cases=(
            Case(
                parameters="ρ = 1: largest difference of the loss, all draws",
                closed=0.0,
                observe=lambda generator: largest_difference(generator, 0),
            ),
            Case(
                parameters="ρ = 1: largest difference of the gradient, all draws",
                closed=0.0,
                observe=lambda generator: largest_difference(generator, 1),
            ),
            *(
                Case(
                    parameters=f"ρ = {ratio}, G = 8, p = 0.3: mixed groups where only fixed cuts the gradient",
                    enumerated=expectation(
                        lambda k: reaches(k, ratio),  # noqa: B023
                        SIZE,
                        0.3,
                        given=lambda k: 0 < k < SIZE,
                    ),
                    observe=lambda generator, ratio=ratio: reopened(generator, ratio),  # type: ignore[misc]
                )
                for ratio in (1.22, 1.255)
            ),
        ),
    )


def _opposed() -> Claim:
    size = 32

    def stretch(k: int, *, micro: float = MICRO, macro: float = MACRO) -> Tensor:
        return (_elastic(group_with(k, size), micro=micro, macro=macro).high[0, 0] - 1) / CLIP

    def pair(k: int) -> tuple[Case, Case, Case]:
        rate = f"p̂ = {k}/{size}"
        micro, macro = micro_factor(k, size, correct=True), macro_factor(k, size)
        return (
            Case(parameters=f"{rate}: micro factor", closed=micro, observe=lambda g: stretch(k, macro=0.0)),
            Case(parameters=f"{rate}: macro factor", closed=macro, observe=lambda g: stretch(k, micro=0.0)),
            Case(parameters=f"{rate}: both", closed=micro * macro, observe=lambda g: stretch(k)),
        )

    return Claim(
        id="E2",
        title="Micro against macro",
        statement="On hard prompts the two factors pull apart: a rare correct rollout has a large advantage, which "
        "widens its bounds, in a group of little variance, which narrows them.",
        formula="|Â₊| = sqrt((1-p̂)/p̂),  micro = 1 + λ_a tanh(|Â|-1),  macro = 1 + λ_v (8p̂(1-p̂) - 1)",
        caveat=RECONSTRUCTED,
        cases=(*pair(1), *pair(4), *pair(16)),
    )


def _sides() -> Claim:
    def left(generator: torch.Generator, ratio: float, positive: bool) -> Tensor:
        flags = draw_mixed(generator, SIZE, 0.5, num_groups=5000)
        share = gradient(base(flags), _elastic(flags), ratio)[1] / (-ratio * base(flags))
        return share[flags if positive else ~flags].mean()

    return Claim(
        id="E3",
        title="Which bound acts",
        statement="Only the upper bound acts on positive advantages, only the lower bound on negative ones.",
        formula="A > 0: gradient 0 if and only if ρ > 1+ε⁺;  A < 0: if and only if ρ < 1-ε⁻",
        caveat=RECONSTRUCTED,
        cases=tuple(
            Case(
                parameters=f"A {'>' if positive else '<'} 0, ρ = {ratio}: mean share of the gradient -ρA that is left",
                closed=float((ratio > 1) != positive),
                observe=lambda generator, ratio=ratio, positive=positive: left(generator, ratio, positive),  # type: ignore[misc]
            )
            for positive in (True, False)
            for ratio in (0.5, 2.0)
        ),
    )
