"""Token losses, their gradients and their sums as slow float64 loops, sharing no code with the library.

Sources: PPO arXiv 1707.06347, GRPO arXiv 2402.03300, Dr.GRPO arXiv 2503.20783, DAPO arXiv 2503.14476.
"""

import math


def surrogate(logprob, old_logprob, advantage, low, high):
    """Loss of one token."""
    ratio = math.exp(logprob - old_logprob)
    return -min(ratio * advantage, min(max(ratio, low), high) * advantage)


def surrogate_gradient(logprob, old_logprob, advantage, low, high):
    """Derivative of the loss of one token by its logprob, away from the bounds."""
    ratio = math.exp(logprob - old_logprob)
    if (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low):
        return 0.0
    return -ratio * advantage


def k3(logprob, ref_logprob):
    d = ref_logprob - logprob
    return math.exp(d) - d - 1


def aggregate(name, losses, max_length):
    """Loss of a batch from the token losses of each of its sequences, as the papers write it."""
    if name == "sequence_mean":
        return math.fsum(math.fsum(s) / len(s) for s in losses if s) / len(losses)
    if name == "token_mean":
        num_tokens = sum(len(s) for s in losses)
        return math.fsum(x for s in losses for x in s) / num_tokens if num_tokens else 0.0
    return math.fsum(x for s in losses for x in s) / (len(losses) * max_length)
