"""pass@k without bias from n samples per problem."""

from __future__ import annotations


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples is correct, drawn without replacement from n of which c are correct.

    pass@k = 1 - C(n-c, k) / C(n, k) = 1 - prod_{i=n-c+1..n} (1 - k/i)     Chen et al. 2021, arXiv 2107.03374, Eq. 1

    The product never forms a large binomial. 1 - (1 - c/n)^k would be biased low.

    Args:
        n: Samples of the problem, at least 1.
        c: Correct ones among them, in [0, n].
        k: Samples that may be tried, in [1, n].

    Returns:
        A probability; c/n for k = 1.

    Raises:
        ValueError: If a count is out of range.
    """
    if not 0 <= c <= n:
        raise ValueError(f"c is {c} of n = {n} samples, but the number of correct samples must be in [0, n].")
    if not 1 <= k <= n:
        raise ValueError(
            f"k is {k}, but there are n = {n} samples and k must be in [1, n]. Draw more samples or lower k."
        )
    if n - c < k:
        return 1.0
    all_wrong = 1.0
    for i in range(n - c + 1, n + 1):
        all_wrong *= 1.0 - k / i
    return 1.0 - all_wrong
