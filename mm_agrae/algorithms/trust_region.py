"""Trust regions: how far the policy ratio of a rollout may move before its gradient is cut.

Shapes: P prompts, G completions per prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mm_agrae.algorithms.groups import Flags


@dataclass(frozen=True)
class ClipBounds:
    """Bounds of the policy ratio, per rollout; 0 < low <= 1 <= high.

    Attributes:
        low: [P, G] lower bound, acts where the advantage is negative.
        high: [P, G] upper bound, acts where the advantage is positive.
    """

    low: Float[Tensor, "P G"]
    high: Float[Tensor, "P G"]


def fixed(
    advantages: Float[Tensor, "P G"], correct: Flags, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> ClipBounds:
    """The same bounds for every rollout: [1 - clip_low, 1 + clip_high].     PPO, arXiv 1707.06347

    Args:
        advantages: Sets shape and device only, as does `correct`: these bounds depend on neither.
        correct: Flags of the same rollouts.
        clip_low: In [0, 1).
        clip_high: 0 or more; above clip_low it leaves more room to raise unlikely tokens.

    Raises:
        ValueError: If a number is out of range or the shapes differ.
    """
    if advantages.shape != correct.shape:
        raise ValueError(f"shapes are {list(advantages.shape)} and {list(correct.shape)}, but both must be [P, G].")
    if not 0 <= clip_low < 1:
        raise ValueError(
            f"clip_low is {clip_low}, but must be in [0, 1): a ratio is never negative. Set algorithm.clip_low."
        )
    if not 0 <= clip_high < float("inf"):
        raise ValueError(f"clip_high is {clip_high}, but must be finite and 0 or more. Set algorithm.clip_high.")
    ones = torch.ones_like(advantages, dtype=torch.float32)
    return ClipBounds(low=ones * (1 - clip_low), high=ones * (1 + clip_high))


TRUST_REGIONS: dict[str, Callable[..., ClipBounds]] = {"fixed": fixed}
