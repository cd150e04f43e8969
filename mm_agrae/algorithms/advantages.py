"""Base advantages: how much better a rollout is than its group.

Shapes: P prompts, G completions per prompt.

Edges, the same for all: a group whose flags are all equal, or whose rewards are all equal, gets exactly 0, unless there
is no baseline; a rollout with a NaN reward gets 0 and is left out of its group; a group with one scored rollout gets 0.
Computed in float64, returned in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mm_agrae.algorithms.groups import check_group_size, has_equal_rewards, is_mixed, scored_flags

Std = Literal["biased", "unbiased", "batch", "none"]


def group(
    rewards: Float[Tensor, "P G"],
    correct: Bool[Tensor, "P G"],
    *,
    std: Std = "biased",
    std_eps: float = 0.0,
) -> Float[Tensor, "P G"]:
    """Centre every group on its mean reward and divide by a standard deviation.

    A[p, g] = (r[p, g] - mean_g r[p]) / (std + std_eps)

    GRPO (arXiv 2402.03300) divides by the standard deviation of the group, Dr.GRPO (arXiv 2503.20783) by nothing,
    REINFORCE++ with a group baseline (arXiv 2501.03262) by that of the whole batch.

    Args:
        rewards: Verifier rewards, any finite scale; NaN for a rollout without a reward.
        correct: True where the answer is correct.
        std: "biased" and "unbiased" divide by the standard deviation of the group, taken over G or G - 1; "batch" by
            the biased one of the centred rewards of all scored rollouts that are passed; "none" does not divide.
        std_eps: Added to the standard deviation, in reward units; 0 or more.

    Returns:
        Advantages, without unit if divided, else in reward units; the mean of every group is 0.

    Raises:
        ValueError: If G < 2, the shapes differ, a reward is infinite, std_eps is out of range or std is unknown.
    """
    deviations, scored = _deviations(rewards, correct)
    return _scaled(deviations, scored, std, std_eps).to(torch.float32)


def leave_one_out(
    rewards: Float[Tensor, "P G"],
    correct: Bool[Tensor, "P G"],
    *,
    std: Std = "none",
    std_eps: float = 0.0,
) -> Float[Tensor, "P G"]:
    """Centre every rollout on the mean reward of the others of its group.

    A[p, g] = r[p, g] - mean of the others = n / (n - 1) · (r[p, g] - mean_g r[p])     RLOO, arXiv 2402.14740

    n is the number of scored rollouts of the group. The scale is that of `group`, so that the result is n / (n - 1)
    times its result whatever the std. Args, Returns and Raises as there.
    """
    deviations, scored = _deviations(rewards, correct)
    num_scored = scored.sum(dim=1, keepdim=True)
    scaled = _scaled(deviations, scored, std, std_eps)
    return (scaled * (num_scored / (num_scored - 1).clamp(min=1))).to(torch.float32)


def signed(
    rewards: Float[Tensor, "P G"],
    correct: Bool[Tensor, "P G"],
    *,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
) -> Float[Tensor, "P G"]:
    """No baseline: a correct rollout gets +positive_weight, a wrong one -negative_weight, whatever its group did.

    PSR keeps the correct ones only (1, 0), NSR the wrong ones only (0, 1), W-REINFORCE takes (0.1, 1).
    arXiv 2506.01347

    Args:
        rewards: NaN for a rollout without a reward, which then gets 0; other values do not matter.
        correct: True where the answer is correct.
        positive_weight: 0 or more.
        negative_weight: 0 or more.

    Returns:
        Advantages without unit. All-correct and all-wrong groups contribute.

    Raises:
        ValueError: If G < 2, the shapes differ, or a weight is negative or not finite.
    """
    for name, weight in (("positive_weight", positive_weight), ("negative_weight", negative_weight)):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name} is {weight}, but must be finite and 0 or more. Set algorithm.{name}.")
    check_group_size(rewards, correct)
    values = torch.where(correct, positive_weight, -negative_weight)
    return values.masked_fill(rewards.isnan(), 0.0).to(torch.float32)


def _deviations(rewards: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation from the group mean, float64, and which rollouts are scored; both [P, G]."""
    check_group_size(rewards, correct)
    if bool(rewards.isinf().any()):
        raise ValueError("a reward is infinite, but rewards must be finite (or NaN for a rollout without one).")
    scored = ~rewards.isnan()
    exact = rewards.to(torch.float64).nan_to_num(nan=0.0)
    means = exact.sum(dim=1, keepdim=True) / scored.sum(dim=1, keepdim=True).clamp(min=1)
    # Not by a spread of 0: the mean of equal rewards such as 0.9 is off by a rounding error, and dividing that by a
    # standard deviation of the same size would make it an advantage of order one.
    tells_apart = is_mixed(scored_flags(correct, rewards)) & ~has_equal_rewards(rewards)
    return torch.where(tells_apart[:, None] & scored, exact - means, 0.0), scored


def _scaled(deviations: Tensor, scored: Tensor, std: Std, std_eps: float) -> Tensor:
    if std not in ("biased", "unbiased", "batch", "none"):
        raise ValueError(f'std is "{std}", but must be "biased", "unbiased", "batch" or "none". Set algorithm.std.')
    if not 0 <= std_eps < float("inf"):
        raise ValueError(f"std_eps is {std_eps}, but must be finite and 0 or more. Set algorithm.std_eps.")
    if std == "none":
        return deviations
    squares = deviations.square()
    if std == "batch":
        spread = (squares.sum() / scored.sum().clamp(min=1)).sqrt()
    else:
        divisor = scored.sum(dim=1, keepdim=True) - (1 if std == "unbiased" else 0)
        spread = (squares.sum(dim=1, keepdim=True) / divisor.clamp(min=1)).sqrt()
    scale = spread + std_eps
    # Deviations that are all 0 have scale 0 when std_eps is 0; whatever they are divided by, they stay 0.
    return deviations / torch.where(scale > 0, scale, 1.0)


ADVANTAGES: dict[str, Callable[..., Tensor]] = {"group": group, "leave_one_out": leave_one_out, "none": signed}
