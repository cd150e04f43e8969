"""Confidence intervals over problems, or over groups of problems that belong together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
LEVEL = 0.95
# Sums in another order differ by less.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap_mean(
    values: Sequence[float],
    *,
    seed: int,
    clusters: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Mean over problems with a percentile bootstrap interval: problems are resampled, their samples are not.

    Problems that belong together are resampled together: ten variants of one question are no ten independent questions.

    Where all values are equal every resample is the same, and the bootstrap would claim certainty: ten problems solved
    out of ten would read 1 ± 0. Equal values in [0, 1] get the Wilson score interval instead, which is made for 0/1
    outcomes and cautious for equal fractions, whose variance is below value · (1 - value). Other equal values get
    width 0.

    Args:
        values: One per problem, at least one.
        seed: Of the resampling.
        clusters: What each problem is resampled with; None resamples single problems.
        num_resamples: Resamples of the problems.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If there are no values, one is not finite, or a number is out of range.
    """
    if len(values) == 0:
        raise ValueError("there are 0 values, but a mean needs at least 1. Check that the set is not empty.")
    numbers = np.asarray(values, dtype=np.float64)
    sums, counts = cluster_sums(numbers, range(len(numbers)) if clusters is None else clusters)
    draws = ratio_draws(sums, counts, seed=seed, num_resamples=num_resamples)[:, 0]
    return interval_of(math.fsum(values) / len(values), draws, num_clusters=len(sums), level=level)


def cluster_sums(
    values: NDArray[np.float64], clusters: Iterable[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[C, 1] sums over the values of each cluster and [C, 1] their counts, in the order of first appearance."""
    position: dict[Hashable, int] = {}
    places = [position.setdefault(cluster, len(position)) for cluster in clusters]
    sums = np.zeros((len(position), 2))
    np.add.at(sums, places, np.stack([values, np.ones_like(values)], axis=1))
    return sums[:, :1], sums[:, 1:]


def ratio_draws(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> NDArray[np.float64]:
    """Quotients of sums over resampled clusters; all figures of one resample see the same clusters.

    Args:
        numerators: [C, F], what cluster c adds to the numerator of figure f.
        denominators: [C, F].
        seed: Of the resampling; the order of the clusters does not matter.
        num_resamples: R, at least 1.

    Returns:
        [R, F]; NaN where the denominator of a resample is 0.

    Raises:
        ValueError: If a number is not finite, or num_resamples is below 1.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}, but must be 1 or more.")
    both = np.concatenate([numerators, denominators], axis=1)
    if not np.isfinite(both).all():
        raise ValueError("a value is not finite, but every problem must have a score. Score or drop that problem.")
    # Resampling clusters draws how often each distinct row occurs, and equal rows are many: this is the same
    # distribution as drawing indices, for a fraction of the memory.
    rows, counts = np.unique(both, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(both), counts / len(both), size=num_resamples)
    top, bottom = np.split(draws @ rows, 2, axis=1)
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)


def interval_of(
    value: float, draws: NDArray[np.float64], *, num_clusters: float, level: float = LEVEL, signed: bool = False
) -> Interval:
    """Percentile interval of resampled values; see `bootstrap_mean` for draws that are all equal.

    Args:
        value: The estimate.
        draws: Its resamples; those that are NaN do not count.
        num_clusters: What was resampled, for equal draws.
        level: Coverage, in (0, 1).
        signed: The value is a difference of two fractions. Equal draws then have the Wilson interval of its size on its
            side of 0, and on both sides if it is 0.

    Raises:
        ValueError: If the level is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but must be in (0, 1).")
    drawn = draws[~np.isnan(draws)]
    if np.any(np.abs(drawn - value) > ROUNDING):
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return Interval(value, float(low), float(high))
    size = abs(value) if signed else value
    if not 0 <= size <= 1:
        return Interval(value, value, value)
    low, high = _wilson(size, num_clusters, level)
    if signed and size < ROUNDING:
        return Interval(value, -high, high)
    return Interval(value, -high, -low) if value < 0 else Interval(value, low, high)


def _wilson(value: float, num_clusters: float, level: float) -> tuple[float, float]:
    """Wilson (1927) score interval of a proportion."""
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    centre = (value + z2 / (2 * num_clusters)) / (1 + z2 / num_clusters)
    spread = (z2 * (value * (1 - value) + z2 / (4 * num_clusters)) / num_clusters) ** 0.5 / (1 + z2 / num_clusters)
    return max(0.0, min(value, centre - spread)), min(1.0, max(value, centre + spread))
