"""Token losses, their sums, importance weights, bounds and penalties as slow float64 loops, sharing no code with ours.

A function of log-probabilities takes the tokens of one sequence and returns one loss per token. Sources: PPO arXiv
1707.06347, GSPO arXiv 2507.18071, GMPO arXiv 2507.20673, two-sided clipping arXiv 2505.07291, CISPO arXiv 2506.13585,
SAPO arXiv 2511.20347, GRPO arXiv 2402.03300, Dr.GRPO arXiv 2503.20783, DAPO arXiv 2503.14476.
"""

import math


def ratios(logprobs, old_logprobs, level):
    logs = [new - old for new, old in zip(logprobs, old_logprobs, strict=True)]
    if level == "sequence":
        return [math.exp(math.fsum(logs) / len(logs))] * len(logs)
    return [math.exp(x) for x in logs]


def smaller_product(ratio, advantage, low, high, most=math.inf):
    """PPO's objective of one ratio, in the two-sided form: the unclipped product is itself bounded by `most`."""
    return min(min(ratio, most) * advantage, min(max(ratio, low), high) * advantage)


def clip(logprobs, old_logprobs, advantage, low, high, *, level, most=math.inf):
    found = ratios(logprobs, old_logprobs, "sequence" if level == "sequence" else "token")
    products = [smaller_product(ratio, advantage, low, high, most) for ratio in found]
    if level != "geometric_mean":
        return [-product for product in products]
    sign = (advantage > 0) - (advantage < 0)
    mean = math.prod(abs(product) ** (1 / len(products)) for product in products)
    return [-sign * mean] * len(products)


def token_clip_gradient(logprob, old_logprob, advantage, low, high):
    """Derivative of the token-level clip of one token, away from the bounds."""
    ratio = math.exp(logprob - old_logprob)
    if (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low):
        return 0.0
    return -ratio * advantage


def capped_weights(logprobs, old_logprobs, cap, *, level):
    """CISPO: what multiplies A · logπ, and is held fixed by the derivative."""
    return [min(ratio, cap) for ratio in ratios(logprobs, old_logprobs, level)]


def soft_gate(logprobs, old_logprobs, advantage, *, level, tau_positive, tau_negative):
    tau = tau_positive if advantage > 0 else tau_negative
    gates = [4 / tau / (1 + math.exp(-tau * (ratio - 1))) for ratio in ratios(logprobs, old_logprobs, level)]
    return [-gate * advantage for gate in gates]


def k3(logprob, ref_logprob):
    d = ref_logprob - logprob
    return math.exp(d) - d - 1


def k3_gradient(logprob, ref_logprob):
    return 1 - math.exp(ref_logprob - logprob)


def derivatives(losses_of, logprobs, weights, step=1e-5):
    """Central differences of Σ weight · loss by each log-probability."""

    def total(values):
        return math.fsum(w * x for w, x in zip(weights, losses_of(values), strict=True))

    return [
        (
            total([x + step * (i == at) for i, x in enumerate(logprobs)])
            - total([x - step * (i == at) for i, x in enumerate(logprobs)])
        )
        / (2 * step)
        for at in range(len(logprobs))
    ]


def importance_weights(old_logprobs, rollout_logprobs, *, correction, level, cap):
    logs = [old - rollout for old, rollout in zip(old_logprobs, rollout_logprobs, strict=True)]
    if level == "sequence":
        logs = [math.fsum(logs)] * len(logs)
    weights = [math.exp(x) for x in logs]
    if correction == "truncate":
        return [min(w, cap) for w in weights]
    return [w if w <= cap else 0.0 for w in weights]


def elastic_bounds(advantage, rate, *, clip_low, clip_high, micro, macro):
    """(low, high) of one rollout; `rate` is None where no rollout of the group was scored."""
    factor = 1 + micro * math.tanh(abs(advantage) - 1)
    if rate is not None:
        factor *= 1 + macro * (8 * rate * (1 - rate) - 1)

    def half_width(base):
        return min(max(base * factor, base / 4), 4 * base)

    low = 0.0 if clip_low is None else 1 - min(half_width(clip_low), max(clip_low, 0.99))
    return low, math.inf if clip_high is None else 1 + half_width(clip_high)


def overlong_penalty(length, max_length, buffer):
    if length <= max_length - buffer:
        return 0.0
    if length <= max_length:
        return ((max_length - buffer) - length) / buffer
    return -1.0


def aggregate(name, losses, max_length):
    """Loss of a batch from the token losses of each of its sequences, as the papers write it."""
    if name == "sequence_mean":
        return math.fsum(math.fsum(s) / len(s) for s in losses if s) / len(losses)
    if name == "token_mean":
        num_tokens = sum(len(s) for s in losses)
        return math.fsum(x for s in losses for x in s) / num_tokens if num_tokens else 0.0
    return math.fsum(x for s in losses for x in s) / (len(losses) * max_length)
