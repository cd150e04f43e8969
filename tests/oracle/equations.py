"""The equations as slow float64 loops over Python lists: what the library must agree with, sharing no code with it.

A batch is a list of groups, a group a list of rollouts; a rollout without a reward has None in place of a number or a
flag. Sources: GRPO arXiv 2402.03300, Dr.GRPO arXiv 2503.20783, RLOO arXiv 2402.14740, REINFORCE++ arXiv 2501.03262,
PSR, NSR and W-REINFORCE arXiv 2506.01347, A-GRAE arXiv 2602.05548, HA-DW arXiv 2601.08521, GRPO-LEAD arXiv 2504.09696,
and the published code of A-GRAE and HA-DW.
"""

import math
import statistics


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def sign(x):
    return (x > 0) - (x < 0)


def scored(group):
    """Positions of the rollouts that have a reward or a flag."""
    return [i for i, value in enumerate(group) if value is not None]


def success_rate(flags):
    """p of one group, None where nothing was scored."""
    counted = scored(flags)
    return mean(float(flags[i]) for i in counted) if counted else None


def batch_accuracy(batch):
    """ω, y: correct rollouts over scored rollouts."""
    flags = [flag for group in batch for flag in group if flag is not None]
    return sum(flags) / len(flags)


def teaches(rewards, correct):
    """Whether a group has a baseline to differ from: flags of both kinds and rewards that differ."""
    counted = scored(rewards)
    return len({correct[i] for i in counted}) == 2 and len({rewards[i] for i in counted}) > 1


def with_baseline(rewards, correct, *, baseline, std, std_eps=0.0):
    """(r - baseline) / (std + std_eps) of a whole batch; baseline is "group" or "leave_one_out"."""
    centred = []  # r - mean of the group, of every scored rollout of the batch
    for r, c in zip(rewards, correct, strict=True):
        values = [r[i] for i in scored(r)]
        centred += [v - mean(values) if teaches(r, c) else 0.0 for v in values]
    result = []
    for r, c in zip(rewards, correct, strict=True):
        row = [0.0] * len(r)
        if teaches(r, c):
            counted = scored(r)
            values = [r[i] for i in counted]
            scale = {
                "biased": lambda values=values: statistics.pstdev(values),
                "unbiased": lambda values=values: statistics.stdev(values),
                "batch": lambda: math.sqrt(mean(d * d for d in centred)),
                "none": lambda: 1.0,
            }[std]()
            for i in counted:
                rivals = counted if baseline == "group" else [j for j in counted if j != i]
                row[i] = (r[i] - mean(r[j] for j in rivals)) / (scale + std_eps)
        result.append(row)
    return result


def without_baseline(rewards, correct, *, positive_weight, negative_weight):
    """Advantages of a batch."""
    return [
        [0.0 if r is None else positive_weight if c else -negative_weight for r, c in zip(*group, strict=True)]
        for group in zip(rewards, correct, strict=True)
    ]


def agrae_paper(advantages, flags, *, omega, alpha, sample_level=True, group_level=True):
    """Eq. 12, then Eq. 13, for one group."""
    p = success_rate(flags)
    result = []
    for a in advantages:
        if sample_level and p is not None and 0 < p < 1:
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
    for group, group_mean in zip(rewards, means, strict=True):
        std = statistics.stdev(group)
        row = []
        for r in group:
            a = (r - group_mean) / (std + eps) if divide_by_std else r - group_mean
            on_difficult = 0.5 * a / (math.sqrt(group_mean) + eps)
            on_easy = 0.5 * a / (1 - math.sqrt(group_mean) + eps)
            a = (1 - overall) * on_easy + overall * on_difficult
            row.append(a * min(1, overall / 1) if a > 0 else a)
        result.append(row)
    return result


def hadw_paper(advantages, flags, *, anchor, scale):
    """A · λ · exp(-sgn(A) · sgn(p - C) · |p - C|) for one group; untouched where nothing was scored."""
    p = success_rate(flags)
    if p is None:
        return list(advantages)
    return [a * scale * math.exp(-sign(a) * sign(p - anchor) * abs(p - anchor)) for a in advantages]


def hadw_authors(batches):
    """The authors' function on a run of batches of 0/1 rewards.

    Unbiased std plus 1e-6, λ 1.5, and an anchor that is the mean of the last 10 batch means, this batch's included.
    """
    means, result = [], []
    for batch in batches:
        means.append(mean(r for group in batch for r in group))
        anchor = mean(means[-10:])
        rows = []
        for group in batch:
            p, std = mean(group), statistics.stdev(group)
            base = [(r - p) / (std + 1e-6) for r in group]
            rows.append([a * 1.5 * math.exp(-sign(a) * sign(p - anchor) * abs(p - anchor)) for a in base])
        result.append(rows)
    return result


def window_anchors(accuracies, *, window, include_current):
    """Anchor of every batch of a run."""
    anchors = []
    for t, accuracy in enumerate(accuracies):
        if include_current:
            anchors.append(mean(accuracies[max(0, t + 1 - window) : t + 1]))
        else:
            anchors.append(mean(accuracies[max(0, t - window) : t]) if t else accuracy)
    return anchors


def soft_anchors(accuracies, *, eta, eta_min, memory):
    """Anchor of every batch of a run: C⁺ = (1 - η_t) C⁻ + η_t y, η_t = clip(η σ_t, η_min, 1)."""
    beliefs, anchors = [], []
    for accuracy in accuracies:
        prior = beliefs[-1] if beliefs else accuracy
        spread = statistics.pstdev(beliefs[-memory:]) if beliefs else 0.0
        rate = min(max(eta * spread, eta_min), 1.0)
        anchors.append(prior)
        beliefs.append((1 - rate) * prior + rate * accuracy)
    return anchors


def grpo_lead(advantages, flags):
    """A · w(p) of positives and A · w(1 - p) of negatives of one group; untouched where nothing was scored."""
    p = success_rate(flags)
    if p is None:
        return list(advantages)

    def w(x):
        return 0.4 + (1.5 - 0.4) / (1 + math.exp(10 * (x - 0.75)))

    return [a * (w(p) if a > 0 else w(1 - p)) for a in advantages]


def dominant(advantages, *, factor):
    """Positives of one group times β, or 1 / β."""
    return [a * factor if a > 0 else a for a in advantages]


def focused(advantages, flags, *, focus, hard):
    """γ A / sqrt(p) or γ A / sqrt(1 - p) for one group; untouched where the flags are all equal or none is scored."""
    p = success_rate(flags)
    if p is None or p in (0.0, 1.0):
        return list(advantages)
    return [focus * a / math.sqrt(p if hard else 1 - p) for a in advantages]
