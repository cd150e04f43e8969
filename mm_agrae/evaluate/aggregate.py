"""The figures of a benchmark that scores questions together, with intervals over its groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mm_agrae.evaluate.intervals import Interval, interval_of, ratio_draws
from mm_agrae.metrics.group_scores import Aggregate, Scored, Tallies, aggregate_named, figures, tally


def aggregate_figures(name: str, scored: Sequence[Scored], *, seed: int) -> dict[str, Interval | None]:
    """Every figure of a benchmark with a 95 % bootstrap interval; groups are resampled, never questions of a group.

    Resamples in which a figure is undefined (its denominator is 0) do not count for its interval.

    Args:
        name: Name of the aggregate.
        scored: All questions of the set.
        seed: Of the resampling.

    Returns:
        Interval by figure, in the order of the report; None where the figure itself is undefined.

    Raises:
        ConfigError: If there is no such aggregate.
        DataError: If the questions cannot be scored so, see `tally`.
    """
    aggregate = aggregate_named(name)
    tallies = tally(name, scored)
    values = figures(name, tallies)
    numerators, denominators = shares(aggregate, tallies)
    draws = with_means(aggregate, ratio_draws(numerators, denominators, seed=seed))
    sizes = num_behind(aggregate, denominators)
    intervals: dict[str, Interval | None] = {}
    for column, figure in enumerate(aggregate.figures):
        value = values[figure]
        intervals[figure] = (
            None if value is None else interval_of(value, draws[:, column], num_clusters=float(sizes[column]))
        )
    return intervals


def shares(aggregate: Aggregate, tallies: Tallies) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[C, F] numerators and denominators of every cluster and figure; 0 where there is none."""
    both = np.array(
        [[added.get(figure, (0.0, 0.0)) for figure in aggregate.figures] for added in tallies.values()],
        dtype=np.float64,
    )
    return both[..., 0], both[..., 1]


def with_means(aggregate: Aggregate, values: NDArray[np.float64], *, smallest: bool = False) -> NDArray[np.float64]:
    """[..., F] values in which every figure that is the mean of others is their mean, or their smallest."""
    result = values.copy()
    for figure, parts in aggregate.means.items():
        columns = values[..., [aggregate.figures.index(part) for part in parts]]
        result[..., aggregate.figures.index(figure)] = columns.min(axis=-1) if smallest else columns.mean(axis=-1)
    return result


def num_behind(aggregate: Aggregate, denominators: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F] how many clusters stand behind a figure, or its denominator where that is less, for equal draws."""
    sizes = np.minimum(denominators.sum(axis=0), (denominators > 0).sum(axis=0))
    return with_means(aggregate, sizes, smallest=True)
