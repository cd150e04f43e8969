"""The summary of one evaluated set: figures with intervals, and everything by which they were measured.

Needs no model and no torch: measuring and scoring again write the same summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mm_agrae.errors import DataError
from mm_agrae.evaluate.aggregate import aggregate_figures
from mm_agrae.evaluate.results import Record, problem_result, scored, scored_record
from mm_agrae.evaluate.statistics import ProblemResult, summarise
from mm_agrae.metrics.group_scores import Scored, aggregate_named, check_complete
from mm_agrae.metrics.group_scores import tally as tally_groups
from mm_agrae.records import Sample


@dataclass(frozen=True, kw_only=True)
class Measured:
    """By what a set was measured: enough to score its saved completions again.

    Attributes:
        seed: Of the run.
        profile: Scoring profile.
        timeout_s: Seconds after which a comparison is killed and not correct.
        ks: pass@k and maj@k are reported for these k.
        g_pass_ks: G-Pass@k is reported for these k.
        aggregate: Score over groups of problems; None where there is none.
        categories: Metadata keys; figures are tabulated by their values.
        correct_weight: Reward of a correct answer.
        format_weight: Reward of the form that was asked for.
        boxed: Whether the prompt may ask for a box; the form is counted only then.
        protocol: Name of the protocol card; None where the recipe decided.
        protocol_profile: Scoring profile of that card.
        protocol_hash: Hash of that card.
        departures: What was done otherwise than the card says, in words.
        settings: Prompt, pixel budget and sampling, as in a recipe.
        data: Where the problems came from: path, split, and what a manifest tells of them.
        blind: "grey" or "swap" where the pictures were replaced; None where they were shown.
    """

    seed: int
    profile: str
    ks: tuple[int, ...]
    g_pass_ks: tuple[int, ...] = ()
    aggregate: str | None = None
    categories: tuple[str, ...] = ()
    correct_weight: float
    format_weight: float
    timeout_s: float = 5.0
    boxed: bool = True
    protocol: str | None = None
    protocol_profile: str | None = None
    protocol_hash: str | None = None
    departures: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    blind: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values only; `measured_from` reads them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def measured_from(values: dict[str, Any], path: Path) -> Measured:
    """What `to_json` wrote.

    Raises:
        DataError: A value is missing or unknown; `path` names the summary.
    """
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return Measured(**plain)
    except TypeError as error:
        raise DataError(
            f"{path} does not say by what it was measured ({error}). Measure again with this version."
        ) from error


class ScoredProblems:
    """Collects the problems of one set, one at a time; the completions themselves are not kept."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self.results: list[ProblemResult] = []
        self.scored: list[Scored] = []
        self._keys = aggregate_named(measured.aggregate).keys if measured.aggregate else ()

    def add(self, sampled: Record, greedy: Record | None) -> None:
        """Count one problem.

        Raises:
            DataError: Its metadata lack a key that the score over groups needs.
        """
        problem = problem_result(sampled, greedy, self.measured.categories)
        self.results.append(problem if self.measured.boxed else replace(problem, num_formatted=None))
        if self.measured.aggregate:
            self.scored.append(scored_record(sampled, self._keys))

    def summary(self, name: str, *, step: int) -> dict[str, Any]:
        """The figures of the set (see statistics.summarise), with "aggregate" and "measured".

        Raises:
            DataError: A group is not complete.
        """
        summary = summarise(
            self.results,
            set_name=name,
            step=step,
            ks=self.measured.ks,
            seed=self.measured.seed,
            g_pass_ks=self.measured.g_pass_ks,
        )
        if self.measured.aggregate:
            figures = aggregate_figures(self.measured.aggregate, self.scored, seed=self.measured.seed)
            summary["aggregate"] = {
                "name": self.measured.aggregate,
                "figures": {figure: asdict(i) if i else None for figure, i in figures.items()},
            }
        return {**summary, "measured": self.measured.to_json()}


def check_measurable(measured: Measured, samples: Sequence[Sample], kept: Sequence[Sample]) -> None:
    """Refuse, before anything is sampled, a set whose summary could not be made.

    Args:
        measured: What is to be reported.
        samples: All problems of the set.
        kept: Those that will be measured; the others were refused.

    Raises:
        DataError: A category that no problem has was asked for, or a group would not be complete.
    """
    for axis in measured.categories:
        if not any(axis in sample.metadata for sample in kept):
            raise DataError(
                f"figures by {axis!r} were asked for, but no problem has metadata of that name; the first has "
                f"{sorted(kept[0].metadata)}. Convert the data set again with its own processor, or mend the "
                "categories of the protocol card."
            )
    if measured.aggregate:
        keys = aggregate_named(measured.aggregate).keys
        # Which problems there are decides whether groups are complete; how they went does not.
        future = [scored(s.id, s.group, {"family": s.family, **s.metadata}, (False,), keys) for s in kept]
        check_complete(future, {sample.id: sample.group for sample in samples})
        tally_groups(measured.aggregate, future)


def lines_of(summary: dict[str, Any]) -> list[str]:
    """A summary in words: one line of figures with their intervals, and one for each thing to know about them."""
    shown = {name: i for name, i in summary["overall"].items() if name not in ("formatted", "truncated")}
    measured = summary["measured"]
    protocol = f", protocol {measured['protocol']}" if measured["protocol"] else ""
    lines = [
        f"eval {summary['set']} after step {summary['step']} ({summary['num_problems']} problems{protocol}): "
        + _in_words(shown.items())
    ]
    if "aggregate" in summary:
        lines.append(f"  {summary['aggregate']['name']}: {_in_words(summary['aggregate']['figures'].items())}")
    for axis, rows in summary["by_category"].items():
        lines += [f"  by {axis}:", *(f"    {_row(value, row)}" for value, row in rows.items())]
    if summary["refused"]:
        lines.append(f"  {summary['refused']} problems were refused: their prompts are over the token budget")
    if measured["departures"]:
        lines.append(f"  departs from protocol {measured['protocol']}: {'; '.join(measured['departures'])}")
    return lines


def _in_words(figures: Iterable[tuple[str, dict[str, float] | None]]) -> str:
    return "  ".join(
        f"{name} {i['value']:.3f} [{i['low']:.3f}, {i['high']:.3f}]" if i else f"{name} undefined"
        for name, i in figures
    )


def _row(value: str, row: dict[str, Any]) -> str:
    name = next(iter(figure for figure in row if figure != "num_problems"))
    return f"{value}: {_in_words([(name, row[name])])} ({row['num_problems']} problems)"
