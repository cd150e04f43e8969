"""Few seeds, honest figures: t-intervals, paired differences, wins. Needs numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `num` seeds; `half_width` of its 95 % t-interval, None where one seed allows none."""

    mean: float
    half_width: float | None
    num: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; never without an interval."""
        return self.half_width is not None and abs(self.mean) > self.half_width


@dataclass(frozen=True)
class Wins:
    """How often one side was better, equal, worse."""

    wins: int
    ties: int
    losses: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean ± t(n-1) · s / sqrt(n), s the unbiased standard deviation: the interval of Student (1908).

    Args:
        values: One per seed, at least one.

    Raises:
        ValueError: If there are no values or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"values are {list(values)}, but a mean needs one or more finite numbers.")
    num = len(values)
    if num == 1:
        return Estimate(values[0], None, 1)
    return Estimate(fmean(values), t_quantile(num - 1) * stdev(values) / math.sqrt(num), num)


def wins(mine: Sequence[float], others: Sequence[float], *, higher_is_better: bool = True) -> Wins:
    """Pairwise wins, ties and losses of the first against the second.

    Raises:
        ValueError: If they differ in length.
    """
    signs = [(a > b) - (a < b) for a, b in zip(mine, others, strict=True)]
    better = 1 if higher_is_better else -1
    return Wins(signs.count(better), signs.count(0), signs.count(-better))


def problem_wins(mine: Mapping[str, float], others: Mapping[str, float]) -> Wins:
    """The same over the problems that both scored, by their ids; a higher score wins."""
    shared = sorted(mine.keys() & others.keys())
    return wins([mine[problem] for problem in shared], [others[problem] for problem in shared])


@cache
def t_quantile(degrees: int) -> float:
    """The t that a Student variable of so many degrees of freedom stays within, on both sides, in 95 % of cases.

    Bisection of `t_coverage`, which has no inverse in closed form.

    Raises:
        ValueError: If degrees is below 1.
    """
    low, high = 0.0, 16.0  # 12.7 at one degree is the largest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_coverage(middle, degrees) < LEVEL else (low, middle)
    return (low + high) / 2


def t_coverage(t: float, degrees: int) -> float:
    """P(|T| <= t) of Student's distribution with a whole number of degrees of freedom.

    With a = atan(t / sqrt(n)), Abramowitz & Stegun (1964) 26.7.3 and 26.7.4:
    n odd    2/π · (a + sin a · [cos a + 2/3 cos³ a + ... + 2·4..(n-3)/(3·5..(n-2)) cosⁿ⁻² a])     n = 1: 2a/π
    n even   sin a · [1 + 1/2 cos² a + ... + 1·3..(n-3)/(2·4..(n-2)) cosⁿ⁻² a]

    Args:
        t: At least 0.
        degrees: At least 1.

    Returns:
        A probability.

    Raises:
        ValueError: If degrees is below 1.
    """
    if degrees < 1:
        raise ValueError(f"degrees of freedom is {degrees}, but an interval needs at least 1: two values.")
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = total = 0.0 if degrees == 1 else math.cos(angle) if odd else 1.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= (power - 1) / power * math.cos(angle) ** 2
        total += term
    series = math.sin(angle) * total
    return 2 / math.pi * (angle + series) if odd else series
