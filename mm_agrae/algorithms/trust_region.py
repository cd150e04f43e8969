"""Trust regions: how far the policy ratio of a rollout may move before its gradient is cut.

Shapes: P prompts, G completions per prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mm_agrae.algorithms.groups import Flags, success_rate

# An elastic half-width is at least this part of its base; above, factors below 2 each keep it below 4 times the base.
MIN_STRETCH = 0.25
# A lower bound stays above 0.
MAX_CLIP_LOW = 0.99


@dataclass(frozen=True)
class ClipBounds:
    """Bounds of the policy ratio, per rollout; 0 <= low <= 1 <= high.

    Attributes:
        low: [P, G] lower bound, acts where the advantage is negative; 0 bounds nothing.
        high: [P, G] upper bound, acts where the advantage is positive; infinity bounds nothing.
    """

    low: Float[Tensor, "P G"]
    high: Float[Tensor, "P G"]


def fixed(
    advantages: Float[Tensor, "P G"],
    correct: Flags,
    *,
    clip_low: float | None = 0.2,
    clip_high: float | None = 0.2,
) -> ClipBounds:
    """The same bounds for every rollout: [1 - clip_low, 1 + clip_high].     PPO, arXiv 1707.06347

    Args:
        advantages: Sets shape and device only, as does `correct`: these bounds depend on neither.
        correct: Flags of the same rollouts.
        clip_low: In [0, 1); None for no lower bound.
        clip_high: 0 or more; above clip_low it leaves more room to raise unlikely tokens (DAPO, arXiv 2503.14476).
            None for no upper bound.

    Raises:
        ValueError: If a number is out of range or the shapes differ.
    """
    _check(advantages, correct, clip_low, clip_high)
    ones = torch.ones_like(advantages, dtype=torch.float32)
    return ClipBounds(
        low=ones * (0.0 if clip_low is None else 1 - clip_low),
        high=ones * (math.inf if clip_high is None else 1 + clip_high),
    )


def elastic(
    advantages: Float[Tensor, "P G"],
    correct: Flags,
    *,
    clip_low: float | None = 0.2,
    clip_high: float | None = 0.2,
    micro: float = 0.5,
    macro: float = 0.25,
) -> ClipBounds:
    """Bounds that widen with the size of the advantage and with the variance of the group. A reconstruction of ETR.

    ε = max(ε_base · (1 + micro · tanh(|A| - 1)) · (1 + macro · (8 p (1 - p) - 1)), ε_base / 4) < 4 ε_base

    ETR, arXiv 2601.03723, establishes what this does: bounds per sample that scale with the advantage (micro) and with
    the group's variance (macro), with the advantage itself untouched. The paper's equations and coefficients were not
    available, so this form and its defaults are a reconstruction and may differ from the paper's. |A| = 1 leaves the
    micro factor at 1; the macro factor runs from 1 - macro at p = 0 or 1 to 1 + macro at p = 0.5. micro = macro = 0 is
    exactly `fixed`. At ratio 1, so in the first update of a rollout, no bound acts and elastic equals fixed.

    Args:
        advantages: Advantages whose size counts; the base advantages by default of the recipes.
        correct: Flags of the same rollouts; a group without a scored rollout keeps macro factor 1.
        clip_low: ε_base below 1, in [0, 1); None for no lower bound.
        clip_high: ε_base above 1, 0 or more; None for no upper bound.
        micro: λ_a in [0, 1).
        macro: λ_v in [0, 1).

    Raises:
        ValueError: If a number is out of range or the shapes differ.
    """
    _check(advantages, correct, clip_low, clip_high)
    if not (0 <= micro < 1 and 0 <= macro < 1):
        raise ValueError(
            f"micro is {micro} and macro {macro}, but both must be in [0, 1): larger ones could close the region. "
            "Set them in algorithm.elastic."
        )
    rate = success_rate(correct)[:, None]
    variance = torch.where(rate.isnan(), 0.125, rate * (1 - rate))  # 1/8 is where the macro factor is 1
    size = advantages.abs()
    # [P, G] float32 times [P, 1] float64 is float64, so a bound near 1 is rounded once, at the end.
    stretch = (1 + micro * torch.tanh(size - 1)) * (1 + macro * (8 * variance - 1))
    stretch = stretch.clamp(min=MIN_STRETCH)
    low = 0 * stretch if clip_low is None else 1 - (clip_low * stretch).clamp(max=max(clip_low, MAX_CLIP_LOW))
    high = math.inf * stretch if clip_high is None else 1 + clip_high * stretch
    return ClipBounds(low=low.to(torch.float32), high=high.to(torch.float32))


def _check(advantages: Tensor, correct: Tensor, clip_low: float | None, clip_high: float | None) -> None:
    if advantages.shape != correct.shape:
        raise ValueError(f"shapes are {list(advantages.shape)} and {list(correct.shape)}, but both must be [P, G].")
    if clip_low is not None and not 0 <= clip_low < 1:
        raise ValueError(
            f"clip_low is {clip_low}, but must be in [0, 1): a ratio is never negative. Set algorithm.clip_low."
        )
    if clip_high is not None and not 0 <= clip_high < math.inf:
        raise ValueError(f"clip_high is {clip_high}, but must be finite and 0 or more. Set algorithm.clip_high.")


TRUST_REGIONS: dict[str, Callable[..., ClipBounds]] = {"fixed": fixed, "elastic": elastic}
