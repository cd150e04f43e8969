"""How token losses add up to the loss of a batch.

Shapes: S sequences. The loss of a batch is Σ weight · loss over its tokens. The weights come from counts of the whole
update, fixed before any forward pass, so micro-batches, packing and ranks only regroup one sum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sequence_mean(
    lengths: Int[Tensor, " S"], *, num_sequences: int, num_tokens: int, max_length: int
) -> Float[Tensor, " S"]:
    """Weight of each token: 1 / (length · num_sequences), a mean over sequences of means over tokens.

    GRPO, arXiv 2402.03300. Args, Returns and Raises of all three aggregations:

    Args:
        lengths: Completion tokens of each sequence at hand, any part of the update.
        num_sequences: Sequences of the whole update on all ranks, those that are skipped or empty included.
        num_tokens: Completion tokens of the whole update on all ranks, skipped sequences included.
        max_length: Bound on completion tokens.

    Returns:
        Weight of one token of each sequence, float32; 0 for an empty sequence.

    Raises:
        ValueError: If the counts cannot belong to an update that contains these sequences.
    """
    _check_counts(lengths, num_sequences, num_tokens, max_length)
    return _weights(lengths, lengths.clamp(min=1).to(torch.float64) * num_sequences)


def token_mean(
    lengths: Int[Tensor, " S"], *, num_sequences: int, num_tokens: int, max_length: int
) -> Float[Tensor, " S"]:
    """Weight of each token: 1 / num_tokens, a mean over all tokens.     DAPO, arXiv 2503.14476; see `sequence_mean`."""
    _check_counts(lengths, num_sequences, num_tokens, max_length)
    return _weights(lengths, torch.full_like(lengths, max(num_tokens, 1), dtype=torch.float64))


def token_sum(
    lengths: Int[Tensor, " S"], *, num_sequences: int, num_tokens: int, max_length: int
) -> Float[Tensor, " S"]:
    """Weight of each token: 1 / (num_sequences · max_length), free of lengths.     Dr.GRPO, arXiv 2503.20783;
    see `sequence_mean`."""
    _check_counts(lengths, num_sequences, num_tokens, max_length)
    return _weights(lengths, torch.full_like(lengths, num_sequences * max_length, dtype=torch.float64))


def _weights(lengths: Tensor, divisors: Tensor) -> Tensor:
    return torch.where(lengths > 0, 1 / divisors, 0.0).to(torch.float32)


def _check_counts(lengths: Tensor, num_sequences: int, num_tokens: int, max_length: int) -> None:
    longest = int(lengths.max()) if lengths.numel() else 0
    if num_sequences < max(1, lengths.numel()):
        raise ValueError(
            f"num_sequences is {num_sequences}, but {lengths.numel()} sequences were passed: "
            "pass the count of the whole update, over all ranks."
        )
    if num_tokens < int(lengths.sum()):
        raise ValueError(
            f"num_tokens is {num_tokens}, but the sequences passed have {int(lengths.sum())}: "
            "pass the count of the whole update, over all ranks."
        )
    if max_length < max(1, longest):
        raise ValueError(
            f"max_length is {max_length}, but a sequence has {longest} tokens: pass the bound that completions obey."
        )


AGGREGATIONS: dict[str, Callable[..., Tensor]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "token_sum": token_sum,
}
