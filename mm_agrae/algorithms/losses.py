"""Token losses, and how they add up to the loss of a batch.

Shapes: N completion tokens of any number of sequences, end to end, without padding; S sequences. The loss of a batch is
Σ weight · loss over its tokens. The weights come from counts of the whole update, fixed before any forward pass, so
micro-batches, packing and ranks only regroup one sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# exp() of a larger log ratio overflows, and its backward pass then multiplies the 0 of a clipped token by infinity: one
# stray token would make every gradient NaN. A ratio of e^20 is outside any trust region.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class TokenLoss:
    """Loss of every token, and what the trust region did to it.

    Attributes:
        loss: [N], carries the gradient.
        ratio: [N] policy ratio, without gradient.
        clipped_low: [N], True where the lower bound cut the gradient (negative advantage).
        clipped_high: [N], True where the upper bound cut the gradient (positive advantage).
    """

    loss: Float[Tensor, " N"]
    ratio: Float[Tensor, " N"]
    clipped_low: Bool[Tensor, " N"]
    clipped_high: Bool[Tensor, " N"]


def clipped_surrogate(
    logprobs: Float[Tensor, " N"],
    old_logprobs: Float[Tensor, " N"],
    advantages: Float[Tensor, " N"],
    low: Float[Tensor, " N"],
    high: Float[Tensor, " N"],
) -> TokenLoss:
    """Pessimistic clipped policy objective, negated.

    loss = -min(ρ A, clip(ρ, low, high) A),   ρ = exp(logprobs - old_logprobs)     PPO, arXiv 1707.06347, Eq. 7

    Args:
        logprobs: Log-probability (nats) of each token under the policy being trained.
        old_logprobs: The same under the policy that sampled it; carries no gradient here.
        advantages: Advantage of the sequence each token belongs to.
        low: Lower bound of the ratio, at most 1.
        high: Upper bound of the ratio, at least 1.
    """
    ratio = (logprobs - old_logprobs.detach()).clamp(max=MAX_LOG_RATIO).exp()
    # Clamping reaches the smaller product only where a bound acts; selecting it there, in place of taking a minimum,
    # keeps the whole gradient where both products are equal.
    clipped_low = (advantages < 0) & (ratio < low)
    clipped_high = (advantages > 0) & (ratio > high)
    bounded = torch.where(clipped_low, low, torch.where(clipped_high, high, ratio))
    return TokenLoss(
        loss=-bounded * advantages, ratio=ratio.detach(), clipped_low=clipped_low, clipped_high=clipped_high
    )


def k3(logprobs: Float[Tensor, " N"], ref_logprobs: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Non-negative unbiased estimate of KL(policy || reference) from sampled tokens, in nats.

    k3 = exp(d) - d - 1,   d = ref_logprobs - logprobs     Schulman 2020, "Approximating KL divergence"

    Args:
        logprobs: Log-probability of each token under the policy being trained.
        ref_logprobs: The same under the reference; carries no gradient here.
    """
    difference = (ref_logprobs.detach() - logprobs).clamp(max=MAX_LOG_RATIO)
    # expm1 keeps the digits that exp(d) - 1 loses while the policy is still close to the reference.
    return torch.expm1(difference) - difference


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


LOSSES: dict[str, Callable[..., TokenLoss]] = {"clipped_surrogate": clipped_surrogate}
AGGREGATIONS: dict[str, Callable[..., Tensor]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "token_sum": token_sum,
}
