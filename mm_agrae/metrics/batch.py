"""What one step's rollouts say, as catalogue keys.

Shapes: P prompts, G completions per prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mm_agrae.records import VerdictStatus


def group_metrics(
    rewards: Float[Tensor, "P G"],
    correct: Bool[Tensor, "P G"],
    formatted: Bool[Tensor, "P G"],
    lengths: Int[Tensor, "P G"],
    truncated: Bool[Tensor, "P G"],
) -> dict[str, float]:
    """Reward, group and length figures of everything that the step sampled, over all ranks.

    Args:
        rewards: NaN for a rollout without a reward, which then counts in no reward, accuracy or group figure.
        correct: True where the answer is correct.
        formatted: True where the completion has the form that was asked for.
        lengths: Completion tokens.
        truncated: True where the completion was cut off at the length limit.

    Returns:
        Values by catalogue key. Figures over no scored rollout are NaN.

    Raises:
        ValueError: If the batch is empty or the shapes differ.
    """
    shapes = {tuple(t.shape) for t in (rewards, correct, formatted, lengths, truncated)}
    if len(shapes) != 1 or rewards.numel() == 0:
        raise ValueError(f"shapes are {sorted(shapes)}, but all must be one [P, G] with at least one rollout.")
    scored = ~rewards.isnan()
    scored_rewards = rewards[scored].to(torch.float64)
    is_correct = (correct & scored).any(dim=1)
    is_wrong = (~correct & scored).any(dim=1)
    return {
        "reward/mean": _mean(scored_rewards),
        "reward/std": _mean((scored_rewards - scored_rewards.mean()).square()) ** 0.5,
        "reward/batch_accuracy": _mean(correct[scored]),
        "reward/formatted_frac": _mean(formatted),
        "group/mixed_frac": _mean(is_correct & is_wrong),
        "group/all_correct_frac": _mean(is_correct & ~is_wrong),
        "group/all_wrong_frac": _mean(is_wrong & ~is_correct),
        "rollout/length_mean_tokens": _mean(lengths),
        "rollout/length_max_tokens": float(lengths.max()),
        "rollout/truncated_frac": _mean(truncated),
    }


def estimate_metrics(
    advantages: Float[Tensor, "P G"], low: Float[Tensor, "P G"], high: Float[Tensor, "P G"]
) -> dict[str, float]:
    """What the algorithm made of the groups that are learnt from.

    Args:
        advantages: As the loss uses them, after all weightings.
        low: Lower bound of the policy ratio of each rollout.
        high: Upper bound; infinite where there is none, as `low` is 0.

    Returns:
        Values by catalogue key. A width over no such rollout is NaN, and that of a bound that is nowhere is left out.
    """
    exact = advantages.to(torch.float64)
    metrics = {"advantage/sum_per_rollout": _mean(exact), "advantage/abs_mean": _mean(exact.abs())}
    if bool((low > 0).any()):
        metrics["policy/clip_width_low_mean"] = _mean((1 - low)[advantages < 0])
    if bool((high < math.inf).any()):
        metrics["policy/clip_width_high_mean"] = _mean((high - 1)[advantages > 0])
    return metrics


def verdict_metrics(statuses: Sequence[VerdictStatus]) -> dict[str, float]:
    """How often the verifier could not decide, over the step's rollouts.

    Raises:
        ValueError: If there is no verdict.
    """
    if not statuses:
        raise ValueError("there are 0 verdicts, but a fraction needs at least 1. Pass those of the whole step.")
    return {
        "verify/unparsed_frac": statuses.count("unparsed") / len(statuses),
        "verify/timeout_frac": statuses.count("timeout") / len(statuses),
    }


def _mean(values: Tensor) -> float:
    return float(values.to(torch.float64).mean())
