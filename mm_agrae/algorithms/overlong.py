"""What an answer that runs too long costs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def overlong_penalty(lengths: Int[Tensor, "P G"], *, max_length: int, buffer: int) -> Float[Tensor, "P G"]:
    """Soft punishment of long completions, added to the reward.

    0 up to max_length - buffer tokens, then linear down to -1 at max_length, and -1 above     DAPO, arXiv 2503.14476,
    Eq. 13

    Args:
        lengths: Completion tokens.
        max_length: Bound on completion tokens.
        buffer: Tokens over which the penalty grows; in [1, max_length].

    Returns:
        Penalties in [-1, 0], float64.

    Raises:
        ValueError: If the buffer is out of range.
    """
    if not 1 <= buffer <= max_length:
        raise ValueError(
            f"buffer is {buffer} tokens, but must be in [1, {max_length}], the bound on completion tokens. "
            "Set algorithm.overlong_buffer_frac."
        )
    return ((max_length - buffer - lengths.to(torch.float64)) / buffer).clamp(min=-1.0, max=0.0)
