"""pass@k and G-Pass@k from n samples per problem, without bias and without forming large binomials."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples is correct, drawn without replacement from n of which c are correct.

    pass@k = 1 - C(n-c, k) / C(n, k) = 1 - prod_{i=n-c+1..n} (1 - k/i)     Chen et al. 2021, arXiv 2107.03374, Eq. 1

    The quotient is the same with c and k exchanged, so the shorter product is taken. 1 - (1 - c/n)^k would be biased
    low.

    Args:
        n: Samples of the problem, at least 1.
        c: Correct ones among them, in [0, n].
        k: Samples that may be tried, in [1, n].

    Returns:
        A probability; c/n for k = 1.

    Raises:
        ValueError: If a count is out of range.
    """
    _check_counts(n, c, k)
    if n - c < k:
        return 1.0
    few, many = sorted((c, k))
    all_wrong = 1.0
    for i in range(n - few + 1, n + 1):
        all_wrong *= 1.0 - many / i
    return 1.0 - all_wrong


def g_pass_at_k(n: int, c: int, k: int, tau: float) -> float:
    """Probability that at least a share tau of k samples is correct, drawn as for pass@k.

    G-Pass@k_tau = sum_{j >= max(ceil(tau k), 1)} C(c, j) C(n-c, k-j) / C(n, k)     Liu et al. 2024, arXiv 2412.13147

    Args:
        n: Samples of the problem, at least 1.
        c: Correct ones among them, in [0, n].
        k: Samples drawn, in [1, n].
        tau: Share that must be correct, in [0, 1]; read as the decimal that it prints as, so that 0.07 of 100 is 7.

    Returns:
        A probability; pass@k for the smallest tau, and for tau = 1 the chance that all k are correct.

    Raises:
        ValueError: If a number is out of range.
    """
    _check_counts(n, c, k)
    if not 0 <= tau <= 1:
        raise ValueError(f"tau is {tau}, but the share of correct samples must be in [0, 1].")
    needed = max(ceil(Fraction(str(float(tau))) * k), 1)
    return float(min(1.0, _num_correct_drawn(n, c, k)[needed:].sum()))


def mg_pass_at_k(n: int, c: int, k: int) -> float:
    """Mean of G-Pass@k over the shares above one half.

    mG-Pass@k = 2/k sum_{i=ceil(k/2)+1..k} G-Pass@k_{i/k}     Liu et al. 2024, arXiv 2412.13147

    Args:
        n: Samples of the problem, at least 2.
        c: Correct ones among them, in [0, n].
        k: Samples drawn, in [2, n].

    Returns:
        A number in [0, 1]. With an odd k the sum has (k-1)/2 terms, so that the largest value is (k-1)/k.

    Raises:
        ValueError: If a count is out of range.
    """
    _check_counts(n, c, k)
    if k < 2:
        raise ValueError(f"k is {k}, but mG-Pass@k sums over shares above one half and needs k of 2 or more. Raise k.")
    # tails[j] = P(at least j correct)
    tails = _num_correct_drawn(n, c, k)[::-1].cumsum()[::-1]
    return float(min(1.0, 2 / k * tails[(k + 1) // 2 + 1 :].sum()))


def _num_correct_drawn(n: int, c: int, k: int) -> NDArray[np.float64]:
    """[k + 1] probabilities of 0..k correct ones among k drawn: the hypergeometric distribution.

    Its terms follow from the quotients of neighbours, scaled to the largest and normed to sum 1.
    """
    low, high = max(0, k - (n - c)), min(c, k)
    j = np.arange(low, high, dtype=np.float64)
    quotients = (c - j) * (k - j) / ((j + 1) * (n - c - k + j + 1))
    logs = np.concatenate([[0.0], np.cumsum(np.log(quotients))])
    weights = np.exp(logs - logs.max())
    probabilities = np.zeros(k + 1)
    probabilities[low : high + 1] = weights / weights.sum()
    return probabilities


def _check_counts(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"c is {c} of n = {n} samples, but the number of correct samples must be in [0, n].")
    if not 1 <= k <= n:
        raise ValueError(
            f"k is {k}, but there are n = {n} samples and k must be in [1, n]. Draw more samples or lower k."
        )
