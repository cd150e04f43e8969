"""HA-DW (arXiv 2601.08521): reweight advantages by how a group compares with what the model did in earlier batches.

Shapes: P prompts, G completions per prompt. p is the success rate of a group, C the anchor: what the history of batch
accuracies lets one expect.

    Φ = λ · exp(C - p) where A > 0,   λ · exp(p - C) where A < 0,   A* = A · Φ

This is the paper's λ · exp(-sgn(A) · sgn(p - C) · |p - C|) without its branches. It is a reweighting heuristic and no
unbiased estimator: with λ = 1.3, C = 0.5, G = 8 and a chance of success of 0.1, the bias of a correct rollout's
advantage r - p turns from -0.112 into +0.488.

The anchor is an immutable value: each rule takes the state and the accuracy of the batch, and returns the anchor to use
with this batch and the next state. Accuracies are those of the global batch before any filtering.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mm_agrae.algorithms.groups import Flags, check_group_size, success_rate


@dataclass(frozen=True)
class AnchorState:
    """What an anchor remembers.

    Attributes:
        history: Oldest first: batch accuracies (window) or beliefs (soft); empty for the other rules.
    """

    history: tuple[float, ...] = ()


def hadw(
    advantages: Float[Tensor, "P G"], correct: Flags, *, anchor: float, scale: float = 1.3
) -> Float[Tensor, "P G"]:
    """Raise what is better than expected in hard groups, and what is worse than expected in easy ones.

    A* = A · λ · exp(sgn(A) · (C - p))     HA-DW, arXiv 2601.08521

    Args:
        advantages: Base advantages, of any scale.
        correct: Flags of the same rollouts; an unscored rollout (NaN) counts in no success rate.
        anchor: C in [0, 1].
        scale: λ, above 0; the paper's table takes 1.3, the authors' code 1.5.

    Returns:
        Reweighted advantages, in the unit of the given ones and with their signs, float32. A group without a scored
        rollout has no success rate and is left as it is.

    Raises:
        ValueError: If G < 2, the shapes differ, or a number is out of range.
    """
    check_group_size(advantages, correct)
    if not 0 <= anchor <= 1:
        raise ValueError(
            f"anchor is {anchor}, but must be in [0, 1]: it is an accuracy. Pass fractions of correct rollouts, not "
            "mean rewards."
        )
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is {scale}, but must be finite and above 0. Set algorithm.hadw.scale.")
    rate = success_rate(correct)[:, None]
    exact = advantages.to(torch.float64)
    scored = ~rate.isnan()
    of_positives = torch.where(scored, scale * torch.exp(anchor - rate), 1.0)  # [P, 1]
    of_negatives = torch.where(scored, scale * torch.exp(rate - anchor), 1.0)
    return (exact * torch.where(exact > 0, of_positives, of_negatives)).to(torch.float32)


def anchor_window(
    state: AnchorState, batch_accuracy: float, *, window: int = 10, include_current: bool = False
) -> tuple[float, AnchorState]:
    """Mean accuracy of the last `window` batches; the first batch is its own anchor.

    Args:
        state: Accuracies of earlier batches.
        batch_accuracy: y of this batch.
        window: Batches remembered; 1 or more.
        include_current: Count this batch as one of them, as the authors' code does. The paper takes earlier ones only.
    """
    _check_accuracy(batch_accuracy)
    if window < 1:
        raise ValueError(f"window is {window}, but must be 1 or more. Set algorithm.hadw.window.")
    seen = (*state.history, batch_accuracy)[-window:]
    averaged = seen if include_current or not state.history else state.history[-window:]
    return math.fsum(averaged) / len(averaged), AnchorState(history=seen)


def anchor_soft(
    state: AnchorState, batch_accuracy: float, *, eta: float = 20.0, eta_min: float = 0.1, memory: int = 10
) -> tuple[float, AnchorState]:
    """A belief that moves towards each batch, faster while it has been moving: C⁺ = (1 - η_t) C⁻ + η_t y.

    η_t = clip(eta · σ_t, eta_min, 1), σ_t the biased standard deviation of the last `memory` beliefs; C⁻ is the anchor
    of this batch. Without the floor, equal beliefs would have σ_t = 0 and freeze the anchor for ever.

    Args:
        state: Earlier beliefs; the first batch is its own anchor and the first belief.
        batch_accuracy: y of this batch.
        eta: 0 or more. The paper prints no value.
        eta_min: In [0, 1].
        memory: Beliefs remembered; 2 or more.
    """
    _check_accuracy(batch_accuracy)
    if not (0 <= eta < math.inf and 0 <= eta_min <= 1 and memory >= 2):
        raise ValueError(
            f"eta is {eta}, eta_min {eta_min} and memory {memory}, but eta must be finite and 0 or more, eta_min in "
            "[0, 1] and memory 2 or more. Set them in algorithm.hadw."
        )
    if not state.history:
        return batch_accuracy, AnchorState(history=(batch_accuracy,))
    beliefs = state.history[-memory:]
    # Exact arithmetic: rounding would give equal beliefs a spread of 1e-17, which a large eta soon turns into a motion.
    rate = min(1.0, max(eta_min, eta * statistics.pstdev(beliefs)))
    prior = beliefs[-1]
    return prior, AnchorState(history=(*beliefs, (1 - rate) * prior + rate * batch_accuracy)[-memory:])


def anchor_fixed(state: AnchorState, batch_accuracy: float, *, value: float = 0.5) -> tuple[float, AnchorState]:
    """The same anchor for every batch, `value` in [0, 1]."""
    _check_accuracy(value)
    return value, state


def anchor_batch(state: AnchorState, batch_accuracy: float) -> tuple[float, AnchorState]:
    """The accuracy of the batch itself: no history."""
    _check_accuracy(batch_accuracy)
    return batch_accuracy, state


def _check_accuracy(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(
            f"accuracy is {value}, but must be in [0, 1]: pass the fraction of correct rollouts, not a mean reward."
        )


ANCHORS: dict[str, Callable[..., tuple[float, AnchorState]]] = {
    "window": anchor_window,
    "soft": anchor_soft,
    "fixed": anchor_fixed,
    "batch": anchor_batch,
}
