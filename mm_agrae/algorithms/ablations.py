"""The controlled estimators that A-GRAE's paper (arXiv 2602.05548) compares with: each changes one thing about GRPO.

Shapes: P prompts, G completions per prompt; p is the success rate of a group. They are instruments for experiments, not
recommendations: negative dominance lost 3 of the paper's 10 runs.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mm_agrae.algorithms.groups import Flags, check_group_size, is_mixed, success_rate


def positive_dominant(
    advantages: Float[Tensor, "P G"], correct: Flags, *, dominance: float = 10.0
) -> Float[Tensor, "P G"]:
    """Positive advantages times `dominance`, so that ΣA > 0 and unsampled trajectories lose logit.

    Args:
        advantages: Base advantages.
        correct: Sets the shape only.
        dominance: β, above 0.

    Raises:
        ValueError: If G < 2, the shapes differ or dominance is out of range.
    """
    return _scale_positives(advantages, correct, _checked("dominance", dominance))


def negative_dominant(
    advantages: Float[Tensor, "P G"], correct: Flags, *, dominance: float = 10.0
) -> Float[Tensor, "P G"]:
    """Positive advantages divided by `dominance`, so that ΣA < 0; else as `positive_dominant`."""
    return _scale_positives(advantages, correct, 1 / _checked("dominance", dominance))


def hard_focused(advantages: Float[Tensor, "P G"], correct: Flags, *, focus: float = 0.5) -> Float[Tensor, "P G"]:
    """A · focus / sqrt(p): more weight where few rollouts are correct.

    Args:
        advantages: Base advantages.
        correct: Flags of the same rollouts; a group whose flags are all equal is left as it is.
        focus: γ, above 0.

    Raises:
        ValueError: If G < 2, the shapes differ or focus is out of range.
    """
    return _divide_by_root(advantages, correct, _checked("focus", focus), of_failures=False)


def easy_focused(advantages: Float[Tensor, "P G"], correct: Flags, *, focus: float = 0.5) -> Float[Tensor, "P G"]:
    """A · focus / sqrt(1 - p): more weight where few rollouts are wrong; else as `hard_focused`."""
    return _divide_by_root(advantages, correct, _checked("focus", focus), of_failures=True)


def _scale_positives(advantages: Tensor, correct: Tensor, factor: float) -> Tensor:
    check_group_size(advantages, correct)
    exact = advantages.to(torch.float64)
    return torch.where(exact > 0, exact * factor, exact).to(torch.float32)


def _divide_by_root(advantages: Tensor, correct: Tensor, focus: float, *, of_failures: bool) -> Tensor:
    check_group_size(advantages, correct)
    mixed = is_mixed(correct)
    rate = torch.where(mixed, success_rate(correct), 0.5)
    weights = torch.where(mixed, focus / (1 - rate if of_failures else rate).sqrt(), 1.0)
    return (advantages.to(torch.float64) * weights[:, None]).to(torch.float32)


def _checked(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}, but must be finite and above 0. Set algorithm.ablation.{name}.")
    return value
