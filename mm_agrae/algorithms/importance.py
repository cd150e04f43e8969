"""Correction for rollouts whose engine computes other probabilities than the trainer.

Shapes: N completion tokens of any number of sequences, end to end.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.algorithms.ratios import sequence_sum

Correction = Literal["truncate", "mask"]
Level = Literal["token", "sequence"]


@torch.no_grad()
def importance_weights(
    old_logprobs: Float[Tensor, " N"],
    rollout_logprobs: Float[Tensor, " N"],
    sequences: Int[Tensor, " N"],
    *,
    correction: Correction = "truncate",
    level: Level = "token",
    cap: float = 2.0,
) -> Float[Tensor, " N"]:
    """Weight of each token's loss: probability under the trainer over probability under the engine, bounded.

    token:    w = exp(old_logprobs - rollout_logprobs)
    sequence: w = exp of the sum of the same over the sequence
    truncate: min(w, cap)     mask: w where w <= cap, else 0
    Truncated importance sampling: Ionides 2008; for rollout engines, Yao et al. 2025.

    Args:
        old_logprobs: Log-probability (nats) of each token under the sampling weights, computed by the trainer.
        rollout_logprobs: The same as the engine reported it.
        sequences: Number of the sequence of each token; tokens of one sequence are adjacent.
        correction: What happens above the cap.
        level: Whether tokens are weighted one by one or by their sequence.
        cap: Above 0.

    Returns:
        Weights in [0, cap], without gradient.

    Raises:
        ValueError: If a name is unknown or the cap is out of range.
    """
    if correction not in ("truncate", "mask") or level not in ("token", "sequence"):
        raise ValueError(
            f'correction is "{correction}" and level "{level}", but must be "truncate" or "mask", and "token" or '
            '"sequence". Set algorithm.correction and algorithm.correction_level.'
        )
    if not 0 < cap < math.inf:
        raise ValueError(f"cap is {cap}, but must be finite and above 0. Set algorithm.correction_cap.")
    difference = old_logprobs - rollout_logprobs
    if level == "sequence":
        difference = sequence_sum(difference, sequences)
    weights = difference.exp()  # no gradient, so an infinity is met by the cap and does no harm
    return weights.clamp(max=cap) if correction == "truncate" else torch.where(weights <= cap, weights, 0.0)
