"""Finished runs -> the figures of a comparison: means with intervals, paired differences, wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from mm_agrae.lab.compare.cells import CURVES, Result
from mm_agrae.lab.compare.spec import Matrix, comparisons
from mm_agrae.lab.seed_statistics import LEVEL, Estimate, Wins, estimate, problem_wins, wins
from mm_agrae.metrics.catalogue import lookup


@dataclass(frozen=True, kw_only=True)
class Row:
    """One algorithm over its finished seeds.

    Attributes:
        before: Metric -> estimate before training; empty where no seed is finished, as is `after`.
        seconds: Mean time of a run; None where no seed is finished.
        curves: Metric -> step -> mean over the seeds, at the steps that all of them logged.
    """

    algorithm: str
    seeds: tuple[int, ...]
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    seconds: float | None
    curves: Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One algorithm less another, over the seeds that both finished: same problems, same start, same order.

    Attributes:
        metrics: Metric -> estimate of the difference after training.
        seed_wins: Metric -> seeds on which the first is better.
        problem_wins: Evaluation set -> problems, counted once a seed, that the first solves more often.
    """

    algorithm: str
    other: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Estimate]
    seed_wins: Mapping[str, Wins]
    problem_wins: Mapping[str, Wins]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that the table, the page and the file of figures show.

    Attributes:
        common: Settings of all cells.
        settings: Algorithm -> its settings as the matrix has them.
        arithmetic: What the runs computed in and stored their weights in; more than one makes them hard to compare,
            because the same learning rate then moves them differently.
        code: Versions of the code that the runs were made by; more than one makes them hard to compare.
        start: Metric -> estimate before training over all seeds that a run finished; empty unless all runs of a seed
            measured the same there.
        missing: What is not finished, in words; empty when the matrix is complete.
    """

    title: str
    seeds: tuple[int, ...]
    baseline: str
    metrics: tuple[str, ...]
    notes: tuple[str, ...]
    common: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    arithmetic: tuple[str, ...]
    code: tuple[str, ...]
    start: Mapping[str, Estimate]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]

    @property
    def num_intervals(self) -> int:
        """Intervals of differences: how many looks were taken at the same runs."""
        return sum(one.half_width is not None for each in self.differences for one in each.metrics.values())

    @property
    def num_excluding_zero(self) -> int:
        return sum(one.excludes_zero for each in self.differences for one in each.metrics.values())

    def to_json(self) -> dict[str, Any]:
        """JSON values, with the level of the intervals."""
        looks = {"num_intervals": self.num_intervals, "num_excluding_zero": self.num_excluding_zero}
        return {"level": LEVEL, **asdict(self), **looks}


def compare(matrix: Matrix, results: Sequence[Result], *, missing: Sequence[str] = ()) -> Comparison:
    """The figures of a matrix from whatever of it is finished.

    Args:
        matrix: What was asked for.
        results: One per finished cell.
        missing: What is not finished, in words.
    """
    by_cell = {(result.algorithm, result.seed): result for result in results}

    def of(algorithm: str) -> dict[int, Result]:
        return {seed: by_cell[algorithm, seed] for seed in matrix.seeds if (algorithm, seed) in by_cell}

    return Comparison(
        title=matrix.title,
        seeds=matrix.seeds,
        baseline=matrix.baseline,
        metrics=matrix.metrics,
        notes=matrix.notes,
        common=matrix.common,
        settings=matrix.algorithms,
        arithmetic=tuple(sorted({result.arithmetic for result in results})),
        code=tuple(sorted({result.code for result in results})),
        start=_start(results, matrix),
        rows=tuple(_row(name, of(name), matrix.metrics) for name in matrix.algorithms),
        differences=tuple(
            _difference(name, other, of(name), of(other), matrix.metrics) for name, other in comparisons(matrix)
        ),
        missing=tuple(missing),
    )


def _start(results: Sequence[Result], matrix: Matrix) -> dict[str, Estimate]:
    by_seed: dict[int, Result] = {}
    for result in results:
        known = by_seed.setdefault(result.seed, result)
        if any(known.before[metric] != result.before[metric] for metric in matrix.metrics):
            return {}
    found = list(by_seed.values())
    return {metric: estimate([one.before[metric] for one in found]) for metric in matrix.metrics if found}


def _row(algorithm: str, results: Mapping[int, Result], metrics: Sequence[str]) -> Row:
    found = list(results.values())
    return Row(
        algorithm=algorithm,
        seeds=tuple(results),
        before={metric: estimate([one.before[metric] for one in found]) for metric in metrics if found},
        after={metric: estimate([one.after[metric] for one in found]) for metric in metrics if found},
        seconds=fmean(one.seconds for one in found) if found else None,
        curves={key: _mean_curve([one.curves[key] for one in found]) for key in CURVES if found},
    )


def _mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    shared = set.intersection(*(set(curve) for curve in curves))
    return {step: fmean(curve[step] for curve in curves) for step in sorted(shared)}


def _difference(
    algorithm: str, other: str, mine: Mapping[int, Result], others: Mapping[int, Result], metrics: Sequence[str]
) -> Difference:
    seeds = tuple(seed for seed in mine if seed in others)
    values = {
        metric: ([mine[seed].after[metric] for seed in seeds], [others[seed].after[metric] for seed in seeds])
        for metric in metrics
        if seeds
    }
    return Difference(
        algorithm=algorithm,
        other=other,
        seeds=seeds,
        metrics={metric: estimate([a - b for a, b in zip(*pair, strict=True)]) for metric, pair in values.items()},
        seed_wins={
            metric: wins(*pair, higher_is_better=lookup(metric).direction == "up") for metric, pair in values.items()
        },
        problem_wins=_problem_wins([(mine[seed].num_correct, others[seed].num_correct) for seed in seeds]),
    )


def _problem_wins(pairs: Sequence[tuple[Mapping[str, Mapping[str, int]], Mapping[str, Mapping[str, int]]]]) -> dict:
    totals: dict[str, Wins] = {}
    for mine, others in pairs:
        for name in mine.keys() & others.keys():
            found, so_far = problem_wins(mine[name], others[name]), totals.get(name, Wins(0, 0, 0))
            totals[name] = Wins(so_far.wins + found.wins, so_far.ties + found.ties, so_far.losses + found.losses)
    return dict(sorted(totals.items()))
