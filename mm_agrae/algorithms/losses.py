"""Token losses: how the policy ratio and the advantage of a token become a number to minimise.

Shapes: N completion tokens of any number of sequences, end to end, without padding. `aggregation` says how the tokens
add up. At ratio 1 all of these have the same gradient, -A · ∇logπ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mm_agrae.algorithms.ratios import MAX_LOG_RATIO, Ratio, log_ratios, sequence_mean_of


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a loss is computed from, per completion token.

    Attributes:
        logprobs: [N] log-probability (nats) under the policy being trained; carries the gradient.
        old_logprobs: [N] the same under the policy that sampled the token.
        advantages: [N] advantage of the sequence that the token belongs to.
        low: [N] lower bound of the ratio, in [0, 1]; 0 bounds nothing.
        high: [N] upper bound of the ratio, at least 1; infinity bounds nothing.
        sequences: [N] number of the sequence; tokens of one sequence are adjacent.
    """

    logprobs: Float[Tensor, " N"]
    old_logprobs: Float[Tensor, " N"]
    advantages: Float[Tensor, " N"]
    low: Float[Tensor, " N"]
    high: Float[Tensor, " N"]
    sequences: Int[Tensor, " N"]


@dataclass(frozen=True)
class TokenLoss:
    """Loss of every token, and what the trust region did to it.

    Attributes:
        loss: [N], carries the gradient.
        ratio: [N] policy ratio that the token was judged by, without gradient.
        clipped_low: [N], True where the lower bound acted (negative advantage).
        clipped_high: [N], True where the upper bound acted.
        clipped_dual: [N], True where the dual clip acted (negative advantage, large ratio).
    """

    loss: Float[Tensor, " N"]
    ratio: Float[Tensor, " N"]
    clipped_low: Bool[Tensor, " N"]
    clipped_high: Bool[Tensor, " N"]
    clipped_dual: Bool[Tensor, " N"]


def clip(
    tokens: Tokens, *, ratio: Literal["token", "sequence", "geometric_mean"] = "token", dual_clip: float | None = None
) -> TokenLoss:
    """Pessimistic clipped policy objective, negated.

    loss = -min(ρ A, clip(ρ, low, high) A)     PPO, arXiv 1707.06347, Eq. 7; sequence ratio: GSPO, arXiv 2507.18071

    geometric_mean clips the log ratio of every token on the side that the sign of A limits and takes the mean over the
    sequence: loss = -exp(mean_t clip(log ρ_t)) A     GMPO, arXiv 2507.20673

    dual_clip adds, where A < 0, loss <= dual_clip · |A|: a token that became far more likely is pushed down with a
    bounded force. Dual-clip PPO, arXiv 1912.09729, Eq. 5; the two-sided bound δ of INTELLECT-2, arXiv 2505.07291, is
    the same number, because both lie above `high`.

    Args:
        tokens: What to compute from.
        ratio: Level of the ratio.
        dual_clip: Largest ratio where the advantage is negative, above every upper bound; None does not bound it.

    Raises:
        ValueError: If the level is unknown, or dual_clip lies below an upper bound or goes with geometric_mean.
    """
    if dual_clip is not None and (ratio == "geometric_mean" or bool((tokens.high > dual_clip).any())):
        raise ValueError(
            f"dual_clip is {dual_clip} with ratio {ratio}, but must lie above every upper bound, and needs a ratio "
            "that is clipped as a whole. Raise algorithm.dual_clip or leave it out."
        )
    level: Ratio = "token" if ratio == "geometric_mean" else ratio
    log_ratio = log_ratios(tokens.logprobs, tokens.old_logprobs, tokens.sequences, ratio=level)
    raw = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
    negative, positive = tokens.advantages < 0, tokens.advantages > 0
    clipped_low, clipped_high = negative & (raw < tokens.low), positive & (raw > tokens.high)
    clipped_dual = negative & (raw > (torch.inf if dual_clip is None else dual_clip))
    # Clamping reaches the smaller product only where a bound acts; selecting it there, in place of taking a minimum,
    # keeps the whole gradient where both products are equal.
    bounded = torch.where(clipped_low, tokens.low, torch.where(clipped_high, tokens.high, raw))
    if dual_clip is not None:
        bounded = torch.where(clipped_dual, dual_clip, bounded)
    if ratio == "geometric_mean":
        # The log of a bound that does not act may be infinite, but where() never picks it.
        logs = torch.where(clipped_low, tokens.low.log(), torch.where(clipped_high, tokens.high.log(), log_ratio))
        bounded = sequence_mean_of(logs, tokens.sequences).clamp(max=MAX_LOG_RATIO).exp()
    return TokenLoss(
        loss=-bounded * tokens.advantages,
        ratio=raw.detach(),
        clipped_low=clipped_low,
        clipped_high=clipped_high,
        clipped_dual=clipped_dual,
    )


def cispo(tokens: Tokens, *, ratio: Ratio = "token") -> TokenLoss:
    """Log-likelihood weighted by a capped ratio: no token loses its gradient.

    loss = -sg(min(ρ, high)) · A · logπ     CISPO, arXiv 2506.13585, Eq. 4 and 5

    Args:
        tokens: What to compute from; low is not used.
        ratio: Level of the ratio.
    """
    log_ratio = log_ratios(tokens.logprobs, tokens.old_logprobs, tokens.sequences, ratio=ratio).detach()
    raw = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
    capped = torch.minimum(raw, tokens.high)
    clipped_high = (raw > tokens.high) & (tokens.advantages != 0)
    return _unclipped(-capped * tokens.advantages * tokens.logprobs, raw, clipped_high=clipped_high)


def sapo(tokens: Tokens, *, ratio: Ratio = "token", tau_positive: float = 1.0, tau_negative: float = 1.05) -> TokenLoss:
    """A soft gate in place of bounds: the gradient fades as the ratio leaves 1.

    loss = -sigmoid(τ (ρ - 1)) · 4 / τ · A,   τ = tau_positive where A > 0, else tau_negative
    SAPO, arXiv 2511.20347

    Args:
        tokens: What to compute from; low and high are not used.
        ratio: Level of the ratio.
        tau_positive: Above 0; larger fades faster.
        tau_negative: Above 0; larger than tau_positive makes negative tokens fade first.

    Raises:
        ValueError: If a temperature is not above 0.
    """
    for name, tau in (("tau_positive", tau_positive), ("tau_negative", tau_negative)):
        if not 0 < tau < float("inf"):
            raise ValueError(f"{name} is {tau}, but must be finite and above 0. Set algorithm.sapo.{name}.")
    log_ratio = log_ratios(tokens.logprobs, tokens.old_logprobs, tokens.sequences, ratio=ratio)
    raw = log_ratio.clamp(max=MAX_LOG_RATIO).exp()
    taus = torch.where(tokens.advantages > 0, tau_positive, tau_negative)
    return _unclipped(-torch.sigmoid(taus * (raw - 1)) * (4 / taus) * tokens.advantages, raw)


def reinforce(tokens: Tokens) -> TokenLoss:
    """Log-likelihood weighted by the advantage; exact for the first update of a rollout, blind to drift after it.

    loss = -A · logπ     Williams 1992

    Args:
        tokens: What to compute from; old_logprobs, low and high do not enter the loss.
    """
    log_ratio = log_ratios(tokens.logprobs, tokens.old_logprobs, tokens.sequences, ratio="token").detach()
    return _unclipped(-tokens.advantages * tokens.logprobs, log_ratio.clamp(max=MAX_LOG_RATIO).exp())


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


def _unclipped(loss: Tensor, ratio: Tensor, *, clipped_high: Tensor | None = None) -> TokenLoss:
    nowhere = torch.zeros_like(ratio, dtype=torch.bool)
    return TokenLoss(
        loss=loss,
        ratio=ratio.detach(),
        clipped_low=nowhere,
        clipped_high=nowhere if clipped_high is None else clipped_high,
        clipped_dual=nowhere,
    )


LOSSES: dict[str, Callable[..., TokenLoss]] = {"clip": clip, "cispo": cispo, "sapo": sapo, "reinforce": reinforce}
