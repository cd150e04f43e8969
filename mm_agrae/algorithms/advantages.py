"""Base advantages: how much better a rollout is than its group.

Shapes: P prompts, G completions per prompt.

Edges, the same for all: a group whose flags are all equal, or whose rewards are all equal, gets exactly 0; a rollout
with a NaN reward gets 0 and is left out of its group; a group with one scored rollout gets 0. Computed in float64,
returned in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mm_agrae.algorithms.groups import check_group_size, has_equal_rewards, is_mixed, scored_flags

Std = Literal["biased", "unbiased"]


def grpo(
    rewards: Float[Tensor, "P G"],
    correct: Bool[Tensor, "P G"],
    *,
    std: Std = "biased",
    eps: float = 0.0,
) -> Float[Tensor, "P G"]:
    """Centre every group on its mean reward and divide by its standard deviation.

    A[p, g] = (r[p, g] - mean_g r[p]) / (std_g r[p] + eps)     GRPO, arXiv 2402.03300

    Args:
        rewards: Verifier rewards, any finite scale; NaN for a rollout without a reward.
        correct: True where the answer is correct.
        std: "biased" divides the squares by G, "unbiased" by G - 1.
        eps: Added to the standard deviation, in reward units; 0 or more.

    Returns:
        Advantages without unit; the mean of every group is 0.

    Raises:
        ValueError: If G < 2, the shapes differ, a reward is infinite, eps is negative or std is unknown.
    """
    if std not in ("biased", "unbiased"):
        raise ValueError(f'std is "{std}", but must be "biased" or "unbiased".')
    if not eps >= 0:
        raise ValueError(f"eps is {eps}, but must be 0 or more: it is added to a standard deviation.")
    deviations, num_scored = _deviations(rewards, correct)
    divisor = num_scored - (1 if std == "unbiased" else 0)
    scale = (deviations.square().sum(dim=1, keepdim=True) / divisor.clamp(min=1)).sqrt() + eps
    # A group without deviations has scale 0 when eps is 0; whatever it is divided by, it stays 0.
    return (deviations / torch.where(scale > 0, scale, 1.0)).to(torch.float32)


def dr_grpo(rewards: Float[Tensor, "P G"], correct: Bool[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """Centre every group on its mean reward, without dividing by a standard deviation.

    A[p, g] = r[p, g] - mean_g r[p]     Dr.GRPO, arXiv 2503.20783

    Args:
        rewards: Verifier rewards, any finite scale; NaN for a rollout without a reward.
        correct: True where the answer is correct.

    Returns:
        Advantages in reward units; the mean of every group is 0.

    Raises:
        ValueError: If G < 2, the shapes differ or a reward is infinite.
    """
    return _deviations(rewards, correct)[0].to(torch.float32)


def _deviations(rewards: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation from the group mean [P, G] and number of scored rollouts [P, 1], in float64."""
    check_group_size(rewards, correct)
    if bool(rewards.isinf().any()):
        raise ValueError("a reward is infinite, but rewards must be finite (or NaN for a rollout without one).")
    unscored = rewards.isnan()
    exact = rewards.to(torch.float64).masked_fill(unscored, 0.0)
    num_scored = (~unscored).sum(dim=1, keepdim=True)
    means = exact.sum(dim=1, keepdim=True) / num_scored.clamp(min=1)
    tells_apart = is_mixed(scored_flags(correct, rewards)) & ~has_equal_rewards(rewards)
    return torch.where(tells_apart[:, None] & ~unscored, exact - means, 0.0), num_scored


ADVANTAGES: dict[str, Callable[..., Tensor]] = {"grpo": grpo, "dr_grpo": dr_grpo}
