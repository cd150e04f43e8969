"""Figures in rows: before and after, by family and difficulty, settings, durations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mm_agrae.config.flat import flat
from mm_agrae.metrics.catalogue import UncataloguedMetricError, lookup
from mm_agrae.report.curves import PHASES, primary_figure
from mm_agrae.report.read import Evaluation, Interval, Scores

Separation = Literal["higher", "lower", "not separated", ""]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure before and after.

    Attributes:
        label: Figure, family or level.
        meaning: Of the figure, from the catalogue; "" where there is none.
        num_problems: Problems behind it.
        before: None where it was not measured.
        after: None where there is no second evaluation.
        separation: "higher" or "lower" where the intervals are apart, "not separated" where they overlap, "" where
            there is nothing to compare.
        good: Whether that is for the better; None where nothing is separated or the figure has no direction.
    """

    label: str
    meaning: str
    num_problems: int
    before: Interval | None
    after: Interval | None
    separation: Separation
    good: bool | None

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after.value - self.before.value


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One data set: its first evaluation, its last, and the rows between them.

    `after_step` is None when there is one evaluation only; its figures then stand under "before". `by_category` holds
    (axis, rows) pairs.
    """

    name: str
    num_problems: int
    num_samples: int
    before_step: int
    after_step: int | None
    headline: tuple[Row, ...]
    details: tuple[Row, ...]
    breakdown_figure: str
    by_family: tuple[Row, ...]
    by_difficulty: tuple[Row, ...]
    aggregate: tuple[Row, ...]
    by_category: tuple[tuple[str, tuple[Row, ...]], ...]
    protocol: str
    departures: tuple[str, ...]


def comparison(evaluations: Sequence[Evaluation]) -> Comparison:
    """Compare the first and the last evaluation of one data set (at least one)."""
    first, last = evaluations[0], evaluations[-1] if len(evaluations) > 1 else None
    rows = _rows(first.overall, last.overall if last else None)
    # avg@n equals pass@1 by definition: next to it, it would be the same figure under another name.
    rows = [row for row in rows if not (row.label.startswith("avg@") and "pass@1" in first.overall.figures)]
    figure = primary_figure(first) or ""
    return Comparison(
        name=first.name,
        num_problems=(last or first).overall.num_problems,
        num_samples=(last or first).num_samples,
        before_step=first.step,
        after_step=last.step if last else None,
        headline=tuple(sorted((row for row in rows if _is_accuracy(row.label)), key=_headline_order)),
        details=tuple(row for row in rows if not _is_accuracy(row.label)),
        breakdown_figure=figure,
        by_family=_breakdown(first.by_family, last.by_family if last else None, figure),
        by_difficulty=_breakdown(first.by_difficulty, last.by_difficulty if last else None, figure),
        aggregate=tuple(_rows(first.aggregate, last.aggregate if last else None)),
        by_category=tuple(
            (axis, _breakdown(parts, last.by_category.get(axis) if last else None, figure))
            for axis, parts in first.by_category.items()
        ),
        protocol=(last or first).protocol,
        departures=(last or first).departures,
    )


def separation(before: Interval | None, after: Interval | None) -> Separation:
    """Whether two 95 % intervals are apart, and in which direction."""
    if before is None or after is None:
        return ""
    if after.low > before.high:
        return "higher"
    if after.high < before.low:
        return "lower"
    return "not separated"


def _rows(before: Scores, after: Scores | None) -> list[Row]:
    names = list(before.figures) + [name for name in (after.figures if after else {}) if name not in before.figures]
    return [_row(name, name, before, after) for name in names]


def _row(label: str, figure: str, before: Scores | None, after: Scores | None) -> Row:
    first = before.figures.get(figure) if before else None
    last = after.figures.get(figure) if after else None
    found = separation(first, last)
    meaning, direction = _described(figure)
    scores = after or before
    return Row(
        label=label,
        meaning=meaning,
        num_problems=scores.num_problems if scores else 0,
        before=first,
        after=last,
        separation=found,
        good=None
        if found not in {"higher", "lower"} or direction == "none"
        else (found == "higher") == (direction == "up"),
    )


def _described(figure: str) -> tuple[str, str]:
    try:
        metric = lookup(f"eval/{figure}")
    except UncataloguedMetricError:
        return "", "none"
    return metric.meaning, metric.direction


def _breakdown(before: Mapping[str, Scores], after: Mapping[str, Scores] | None, figure: str) -> tuple[Row, ...]:
    names = sorted(
        {*before, *(after or {})}, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )
    return tuple(_row(name, figure, before.get(name), (after or {}).get(name)) for name in names)


def _is_accuracy(figure: str) -> bool:
    return figure not in ("formatted", "truncated")


def _headline_order(row: Row) -> tuple[int, int]:
    if row.label == "greedy":
        return (1, 0)
    k = int(row.label.partition("@")[2])
    if row.label.startswith(("maj@", "cons@")):
        return (3, k)
    if "g_pass" in row.label:
        return (4, k)
    return (0, k) if k == 1 or row.label.startswith("avg@") else (2, k)


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Seconds that one phase took: in the whole run, and on average over the steps that had it."""

    label: str
    meaning: str
    total_s: float
    mean_s: float


def durations(metrics: Mapping[int, Mapping[str, float]]) -> tuple[Duration, ...]:
    """Time of the whole run by phase, whole steps first; phases that no step logged are left out."""
    found = []
    for key in ("time/step_s", *PHASES):
        seconds = [line[key] for line in metrics.values() if key in line]
        if seconds:
            label = key.removeprefix("time/").removesuffix("_s").replace("_", " ")
            total = sum(seconds)
            found.append(Duration(label=label, meaning=lookup(key).meaning, total_s=total, mean_s=total / len(seconds)))
    return tuple(found)


def flattened(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A nested configuration as (dotted path, value in words) pairs, in its own order."""
    return [(name, "" if value is None else str(value)) for name, value in flat(tree).items()]
