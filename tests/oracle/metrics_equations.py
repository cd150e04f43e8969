"""Metrics by counting every possible draw or relabelling, as exact fractions, sharing no code with the library.

Sources: pass@k arXiv 2107.03374, G-Pass@k arXiv 2412.13147, majority vote arXiv 2203.11171, sign-flip test Fisher 1935,
McNemar 1947.
"""

from collections import Counter
from fractions import Fraction
from itertools import combinations, product
from math import comb


def mean(values):
    values = list(values)
    return Fraction(sum(values)) / len(values)


def draws(samples, k):
    """All C(n, k) draws without replacement; the samples of a problem are told apart."""
    return combinations(samples, k)


def pass_at_k(n, c, k):
    return mean(int(any(draw)) for draw in draws([1] * c + [0] * (n - c), k))


def g_pass_at_k(n, c, k, tau):
    """tau a Fraction."""
    return mean(int(sum(draw) >= max(tau * k, 1)) for draw in draws([1] * c + [0] * (n - c), k))


def mg_pass_at_k(n, c, k):
    above_half = [i for i in range(1, k + 1) if i > (k + 1) // 2]
    return Fraction(2, k) * sum(g_pass_at_k(n, c, k, Fraction(i, k)) for i in above_half)


def vote(answers, right):
    """Credit of one vote; None casts no vote."""
    counts = Counter(answer for answer in answers if answer is not None)
    winners = [answer for answer, count in counts.items() if count == max(counts.values())]
    return Fraction(sum(answer in right for answer in winners), len(winners)) if winners else Fraction(0)


def maj_at_k(answers, right, k):
    return mean(vote(draw, right) for draw in draws(answers, k))


def sign_flip_p(differences):
    """Share of all sign patterns whose sum is at least as far from 0 as the observed one."""
    observed = abs(sum(differences))
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return mean(int(abs(total) >= observed) for total in sums)


def mcnemar_p(wins, losses):
    """Two-sided binomial test of wins against losses at one half."""
    discordant = wins + losses
    observed = abs(wins - losses)
    ways = sum(comb(discordant, i) for i in range(discordant + 1) if abs(2 * i - discordant) >= observed)
    return Fraction(ways, 2**discordant)
