"""Facts of a group that every algorithm shares.

Shapes: P prompts, G completions per prompt. Flags say whether a rollout is correct: boolean when every rollout was
scored, or 0.0 and 1.0 with NaN for a rollout without a score.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Flags = Bool[Tensor, "P G"] | Float[Tensor, "P G"]


def check_group_size(matrix: Tensor, flags: Tensor) -> None:
    """Refuse matrices that no group-relative advantage can be computed from.

    Raises:
        ValueError: If the shapes are not one and the same [P, G], or if G < 2.
    """
    if matrix.ndim != 2 or matrix.shape != flags.shape:
        raise ValueError(
            f"shapes are {list(matrix.shape)} and {list(flags.shape)}, but both must be [P, G]: "
            "pass one row per prompt and one column per completion."
        )
    if matrix.shape[1] < 2:
        raise ValueError(
            f"group size is {matrix.shape[1]}, but a group-relative advantage needs at least 2 completions per prompt. "
            "Set rollout.group_size to 2 or more."
        )


def scored_flags(correct: Bool[Tensor, "P G"], rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """Flags in which a rollout with a NaN reward is unscored, so that it counts in no success rate.

    Returns:
        1.0 correct, 0.0 wrong, NaN unscored.
    """
    return correct.to(torch.float64).masked_fill(rewards.isnan(), math.nan)


def success_rate(correct: Flags) -> Float[Tensor, " P"]:
    """Fraction of correct rollouts of each group, among its scored ones.

    Returns:
        p in [0, 1], float64; NaN for a group without a scored rollout.
    """
    return correct.to(torch.float64).nanmean(dim=1)


def batch_accuracy(correct: Flags) -> float:
    """Fraction of correct rollouts of the whole batch: ω of A-GRAE, the same number for every rank.

    Args:
        correct: Flags of the global batch, before any group is filtered out.

    Returns:
        ω in [0, 1]. Where all groups have as many scored rollouts it is also the mean of the groups' success rates.

    Raises:
        ValueError: If the batch has no scored rollout.
    """
    if correct.numel() == 0 or bool(correct.isnan().all()):
        raise ValueError(
            f"batch of shape {list(correct.shape)} has no scored rollout, but its accuracy needs at least one. "
            "Check that the verifier ran on this batch."
        )
    return float(correct.to(torch.float64).nanmean())


def is_mixed(correct: Flags) -> Bool[Tensor, " P"]:
    """True where a group holds both a correct and a wrong rollout, so that its flags tell rollouts apart."""
    rate = success_rate(correct)
    return (rate > 0) & (rate < 1)


def has_equal_rewards(rewards: Float[Tensor, "P G"]) -> Bool[Tensor, " P"]:
    """True where all scored rewards of a group are exactly equal, or none is scored.

    Compared as max == min: the mean of equal rewards such as 0.9 is off by a rounding error, which a division by a
    standard deviation of the same size would turn into an advantage of order one.
    """
    highest = rewards.nan_to_num(nan=-math.inf).amax(dim=1)
    lowest = rewards.nan_to_num(nan=math.inf).amin(dim=1)
    return highest <= lowest
