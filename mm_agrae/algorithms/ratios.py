"""Policy ratios: of a token, or of its whole sequence.

Shapes: N completion tokens of any number of sequences, end to end; tokens of one sequence are adjacent.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Ratio = Literal["token", "sequence"]

# exp() of a larger log ratio overflows, and its backward pass then multiplies the 0 of a clipped token by infinity: one
# stray token would make every gradient NaN. A ratio of e^20 is outside any trust region.
MAX_LOG_RATIO = 20.0


def log_ratios(
    logprobs: Float[Tensor, " N"], old_logprobs: Float[Tensor, " N"], sequences: Int[Tensor, " N"], *, ratio: Ratio
) -> Float[Tensor, " N"]:
    """Log of the ratio that each token is judged by, with gradient.

    token:    log ρ_t = logprobs - old_logprobs
    sequence: log s = mean of log ρ_t over the tokens of the sequence     GSPO, arXiv 2507.18071, Eq. 7

    Args:
        logprobs: Log-probability (nats) of each token under the policy being trained.
        old_logprobs: The same under the policy that sampled it; carries no gradient here.
        sequences: Number of the sequence of each token.
        ratio: Level.

    Raises:
        ValueError: If the level is unknown.
    """
    token = logprobs - old_logprobs.detach()
    if ratio == "token":
        return token
    if ratio != "sequence":
        raise ValueError(f'ratio is "{ratio}", but must be "token" or "sequence" here. Set algorithm.ratio.')
    return sequence_mean_of(token, sequences)


def sequence_sum(values: Float[Tensor, " N"], sequences: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Sum over the sequence of each token, one per token."""
    places, num_sequences = _places(sequences)
    return values.new_zeros(num_sequences).index_add(0, places, values)[places]


def sequence_mean_of(values: Float[Tensor, " N"], sequences: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Mean over the sequence of each token, one per token."""
    return sequence_sum(values, sequences) / sequence_sum(torch.ones_like(values), sequences)


def _places(sequences: Tensor) -> tuple[Tensor, int]:
    """Numbers from 0 without gaps, in order of appearance, and how many there are."""
    _, places = torch.unique_consecutive(sequences, return_inverse=True)
    return places, int(places[-1]) + 1 if places.numel() else 0
