"""A softmax over whole trajectories, and one step of the real policy gradient on its logits.

Shapes: D groups drawn, G rollouts per group, K trajectories. Every group starts from the same policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mm_agrae.algorithms import LOSSES, TRUST_REGIONS, Tokens


@dataclass(frozen=True)
class Policy:
    """K trajectories: `probabilities` [K], and `correct` [K] True where the answer is correct."""

    probabilities: Tensor
    correct: Tensor

    @property
    def success(self) -> float:
        return float(self.probabilities[self.correct].sum())

    def draw(self, generator: torch.Generator, *, size: int, num_groups: int) -> tuple[Tensor, Tensor]:
        """Trajectories [D, G] sampled by groups, and their flags [D, G]."""
        sampled = torch.multinomial(self.probabilities, num_groups * size, replacement=True, generator=generator)
        trajectories = sampled.view(num_groups, size)
        return trajectories, self.correct[trajectories]


def policy_of(correct: list[float], wrong: list[float]) -> Policy:
    """A policy from the probabilities of its correct trajectories, then of its wrong ones."""
    probabilities = torch.tensor([*correct, *wrong], dtype=torch.float64)
    return Policy(probabilities, torch.arange(len(probabilities)) < len(correct))


def logit_change(policy: Policy, trajectories: Tensor, advantages: Tensor) -> Tensor:
    """How one gradient step of length 1 moves the logits [D, K] of every group's own copy of the policy.

    The objective is Σ_g min(ρ A, clip(ρ) A) at ρ = 1, by the library's loss and automatic differentiation.
    """
    logits = policy.probabilities.log().expand(len(trajectories), -1).clone().requires_grad_()
    logprobs = logits.log_softmax(dim=1).gather(1, trajectories).flatten()
    bounds = TRUST_REGIONS["fixed"](advantages, advantages > 0)
    tokens = Tokens(
        logprobs=logprobs,
        old_logprobs=logprobs.detach(),
        advantages=advantages.flatten(),
        low=bounds.low.flatten(),
        high=bounds.high.flatten(),
        sequences=torch.arange(logprobs.numel()),
    )
    (gradient,) = torch.autograd.grad(LOSSES["clip"](tokens).loss.sum(), logits)
    return -gradient


def unsampled(policy: Policy, trajectories: Tensor) -> Tensor:
    """[D, K] True where no rollout of the group is that trajectory."""
    seen = torch.zeros(len(trajectories), len(policy.probabilities), dtype=torch.bool)
    return ~seen.scatter(1, trajectories, True)
