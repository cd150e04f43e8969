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


def dynamath(groups):
    """groups: {group: {variant: [flag per sample]}} -> average, worst case; each index is a whole run by itself."""
    runs = len(next(iter(next(iter(groups.values())).values())))
    averages = [mean(flags[i] for variants in groups.values() for flags in variants.values()) for i in range(runs)]
    worst = [
        mean(int(all(flags[i] for flags in variants.values())) for variants in groups.values()) for i in range(runs)
    ]
    return mean(averages), mean(worst)


def we_math(problems):
    """problems: [([[flag per sample] per step], [flag per sample])] -> share of each case, strict and loose."""
    runs = len(problems[0][1])
    shares = Counter()
    for steps, whole in problems:
        for i in range(runs):
            num_right = sum(step[i] for step in steps)
            for reading in ("strict", "loose"):
                if whole[i]:
                    mastered = num_right == len(steps) if reading == "strict" else num_right > 0
                    shares[f"{'cm' if mastered else 'rm'}_{reading}"] += Fraction(1, runs * len(problems))
            if not whole[i]:
                shares["ig" if num_right == len(steps) else "ik"] += Fraction(1, runs * len(problems))
    for reading in ("strict", "loose"):
        shares[f"score_{reading}"] = 1 - shares["ig"] / 2 - shares[f"rm_{reading}"] - shares["ik"]
    return shares
