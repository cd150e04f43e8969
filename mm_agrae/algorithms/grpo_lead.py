"""GRPO-LEAD (arXiv 2504.09696): weight advantages by the difficulty of the prompt, with a logistic curve.

Only this weight: what that paper changes about the reward is not part of it.

Shapes: P prompts, G completions per prompt; p is the success rate of a group.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mm_agrae.algorithms.groups import Flags, check_group_size, success_rate

FLOOR = 0.4
RISE = 1.1
STEEPNESS = 10.0
MIDDLE = 0.75


def grpo_lead(advantages: Float[Tensor, "P G"], correct: Flags) -> Float[Tensor, "P G"]:
    """Reward success on hard prompts, and blame failure on easy ones.

    A* = A · w(p) where A > 0, A · w(1 - p) where A < 0,   w(x) = 0.4 + 1.1 / (1 + exp(10 (x - 0.75)))

    Args:
        advantages: Base advantages.
        correct: Flags of the same rollouts; an unscored rollout (NaN) counts in no success rate.

    Returns:
        Reweighted advantages with the signs of the given ones, float32. A group without a scored rollout is left as
        it is.

    Raises:
        ValueError: If G < 2 or the shapes differ.
    """
    check_group_size(advantages, correct)
    rate = success_rate(correct)[:, None]
    exact = advantages.to(torch.float64)
    weighted = exact * torch.where(exact > 0, _logistic(rate), _logistic(1 - rate))
    return torch.where(rate.isnan(), exact, weighted).to(torch.float32)


def _logistic(rate: Tensor) -> Tensor:
    return FLOOR + RISE / (1 + torch.exp(STEEPNESS * (rate - MIDDLE)))
