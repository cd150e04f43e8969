"""A-GRAE (arXiv 2602.05548): reweight group-relative advantages by difficulty and by the state of training.

Shapes: P prompts, G completions per prompt. p is the success rate of a group, ω the accuracy of the whole batch, A the
base advantage; p and ω come from correctness flags, never from a composite reward.

    Eq. 12   A'  = A · (ω · hard + (1 - ω) · easy)
    Eq. 13   A*  = A' · min(1, ω / α) where A' > 0, else A'

The two variants differ in the weights, and in the scale of the base advantage that their authors pair them with:

    paper    hard = 1 / (2 · sqrt(p)),          easy = 1 / (2 · sqrt(1 - p)),          biased std, no epsilon
    code     hard = 1 / (2 · (sqrt(p) + ε)),    easy = 1 / (2 · (1 - sqrt(p) + ε)),    unbiased std plus ε,   ε = 1e-6

The published code takes ω as the mean of the groups' means, which is the mean over rollouts for groups of one size, and
fixes α = 1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mm_agrae.algorithms.groups import Flags, check_group_size, is_mixed, success_rate

Variant = Literal["paper", "code"]

CODE_EPS = 1e-6


def agrae(
    advantages: Float[Tensor, "P G"],
    correct: Flags,
    *,
    batch_accuracy: float,
    alpha: float = 0.5,
    variant: Variant = "paper",
    sample_level: bool = True,
    group_level: bool = True,
) -> Float[Tensor, "P G"]:
    """Shift attention from easy to hard prompts as training proceeds, and hold back positives until it has.

    Args:
        advantages: Base advantages, of any scale.
        correct: Flags of the same rollouts; an unscored rollout (NaN) counts in no success rate.
        batch_accuracy: ω in [0, 1]: fraction of correct rollouts of the global batch, before any filtering.
        alpha: Batch accuracy from which positive advantages keep their full weight; above 0. The paper takes 1 for text
            mathematics and 0.5 for multimodal sets.
        variant: Form of the weights.
        sample_level: Apply Eq. 12. A group whose flags are all equal has no such weight and is left as it is.
        group_level: Apply Eq. 13.

    Returns:
        Reweighted advantages, in the unit of the given ones and with their signs, float32.

    Raises:
        ValueError: If G < 2, the shapes differ, a number is out of range or the variant is unknown.
    """
    check_group_size(advantages, correct)
    if not 0 <= batch_accuracy <= 1:
        raise ValueError(
            f"batch_accuracy is {batch_accuracy}, but must be in [0, 1]: "
            "pass the fraction of correct rollouts, not a mean reward."
        )
    if not 0 < alpha < math.inf:
        raise ValueError(
            f"alpha is {alpha}, but must be finite and above 0. Set algorithm.agrae.alpha, for example to 1 or 0.5."
        )
    if variant not in ("paper", "code"):
        raise ValueError(f'variant is "{variant}", but must be "paper" or "code". Set algorithm.agrae.variant.')
    weighted = advantages.to(torch.float64)
    if sample_level:
        weighted = weighted * _difficulty_weights(correct, batch_accuracy, variant)[:, None]
    if group_level:
        weighted = torch.where(weighted > 0, weighted * min(1.0, batch_accuracy / alpha), weighted)
    return weighted.to(torch.float32)


def agrae_sample_level(
    advantages: Float[Tensor, "P G"], correct: Flags, *, batch_accuracy: float, variant: Variant = "paper"
) -> Float[Tensor, "P G"]:
    """Eq. 12 alone, the shift of attention between easy and hard prompts; else as `agrae`."""
    return agrae(advantages, correct, batch_accuracy=batch_accuracy, variant=variant, group_level=False)


def agrae_group_level(
    advantages: Float[Tensor, "P G"], correct: Flags, *, batch_accuracy: float, alpha: float = 0.5
) -> Float[Tensor, "P G"]:
    """Eq. 13 alone, the suppression of positive advantages while the model is weak; else as `agrae`."""
    return agrae(advantages, correct, batch_accuracy=batch_accuracy, alpha=alpha, sample_level=False)


def _difficulty_weights(correct: Tensor, batch_accuracy: float, variant: Variant) -> Tensor:
    """Eq. 12 as one factor per group [P], float64; 1 for a group whose flags are all equal."""
    mixed = is_mixed(correct)
    rate = torch.where(mixed, success_rate(correct), 0.5)
    if variant == "paper":
        hard, easy = rate.sqrt(), (1 - rate).sqrt()
    else:
        hard, easy = rate.sqrt() + CODE_EPS, 1 - rate.sqrt() + CODE_EPS
    return torch.where(mixed, batch_accuracy / (2 * hard) + (1 - batch_accuracy) / (2 * easy), 1.0)
