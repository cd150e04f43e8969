"""From a verdict to the number that reinforcement learning maximises."""

from __future__ import annotations

import math

from mm_agrae.records import Verdict


def reward(verdict: Verdict, *, correct_weight: float = 0.9, format_weight: float = 0.1) -> float:
    """Weighted sum of being correct and of being in the form that was asked for.

    r = correct_weight * correct + format_weight * formatted

    A timeout is not correct: an answer that cannot be shown right in time earns nothing for being right.

    Args:
        verdict: What the verifier says of the completion.
        correct_weight: Reward for a correct answer. Finite, at least 0.
        format_weight: Reward for the form alone. Finite, at least 0.

    Returns:
        A value in [0, correct_weight + format_weight]; without unit.

    Raises:
        ValueError: If a weight is negative or not finite.
    """
    for name, weight in (("correct_weight", correct_weight), ("format_weight", format_weight)):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(
                f"{name} is {weight}, but a reward weight must be finite and at least 0. Set it to 0 or more."
            )
    return correct_weight * verdict.correct + format_weight * verdict.formatted
