"""The equations as slow float64 loops over Python lists: what the library must agree with, sharing no code with it.

A rollout without a reward has None in place of a number. Sources: GRPO arXiv 2402.03300, Dr.GRPO arXiv 2503.20783,
A-GRAE arXiv 2602.05548 and its published code.
"""

import math


def group_advantages(rewards, correct, *, divide_by_std, unbiased=False, eps=0.0):
    """Advantages of one group."""
    scored = [i for i, r in enumerate(rewards) if r is not None]
    flags = {correct[i] for i in scored}
    values = [rewards[i] for i in scored]
    if len(flags) < 2 or max(values) == min(values):
        return [0.0] * len(rewards)
    mean = math.fsum(values) / len(values)
    scale = 1.0
    if divide_by_std:
        squares = math.fsum((v - mean) ** 2 for v in values)
        scale = math.sqrt(squares / (len(values) - 1 if unbiased else len(values))) + eps
    return [0.0 if r is None else (r - mean) / scale for r in rewards]


def batch_accuracy(correct):
    flags = [c for group in correct for c in group]
    return sum(flags) / len(flags)


def agrae_paper(advantages, correct, *, omega, alpha, sample_level=True, group_level=True):
    """Eq. 12, then Eq. 13, for one group."""
    p = sum(correct) / len(correct)
    result = []
    for a in advantages:
        if sample_level and 0 < p < 1:
            a = omega * (0.5 * a / math.sqrt(p)) + (1 - omega) * (0.5 * a / math.sqrt(1 - p))
        if group_level and a > 0:
            a = a * min(1.0, omega / alpha)
        result.append(a)
    return result


def agrae_authors(rewards, *, divide_by_std):
    """The authors' function on a whole batch of 0/1 rewards: base, mean of group means, both levels, α fixed at 1."""
    eps = 1e-6
    means = [sum(group) / len(group) for group in rewards]
    overall = sum(means) / len(means)
    result = []
    for group, mean in zip(rewards, means, strict=True):
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
        row = []
        for r in group:
            a = (r - mean) / (std + eps) if divide_by_std else r - mean
            on_difficult = 0.5 * a / (math.sqrt(mean) + eps)
            on_easy = 0.5 * a / (1 - math.sqrt(mean) + eps)
            a = (1 - overall) * on_easy + overall * on_difficult
            row.append(a * min(1, overall / 1) if a > 0 else a)
        result.append(row)
    return result
