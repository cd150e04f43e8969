"""Two results of one set, problem by problem: which figures differ by more than chance. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mm_agrae.config.flat import flat
from mm_agrae.evaluate.paired import Paired, compare_aggregates, compare_scores
from mm_agrae.evaluate.saved import SavedSet
from mm_agrae.evaluate.statistics import problem_scores

# By what a figure is measured; two results that differ here differ in more than the model.
COMPARED_SETTINGS = (
    "seed", "profile", "timeout_s", "aggregate", "protocol", "protocol_hash", "departures", "settings", "data", "blind",
)  # fmt: skip
NOT_COMPARED = ("formatted", "truncated")


@dataclass(frozen=True, kw_only=True)
class SetDiff:
    """The comparison of one set.

    Attributes:
        name: Name of the set.
        otherwise: What the two were measured by differently, in words; then figures cannot be laid to the model alone.
        metrics: By metric, over the problems that both answered.
        aggregate: By figure over groups; None where a figure is undefined. Empty where the set has none.
    """

    name: str
    otherwise: tuple[str, ...]
    metrics: Mapping[str, Paired]
    aggregate: Mapping[str, Paired | None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diff_sets(first: SavedSet, second: SavedSet, *, seed: int) -> SetDiff:
    """Compare two results of one set; differences are second - first.

    Args:
        first: One result.
        second: The other. Metrics that only one of them has are left out.
        seed: Of the resampling.

    Raises:
        DataError: The files cannot be read, no problem is shared, or a group is not complete.
    """
    problems = [first.problems(), second.problems()]
    scores = []
    for saved, scored in zip((first, second), problems, strict=True):
        found = problem_scores(scored.results, ks=saved.measured.ks, g_pass_ks=saved.measured.g_pass_ks)
        scores.append({name: of for name, of in found.items() if name not in NOT_COMPARED})
    groups = {result.sample_id: result.group for scored in problems for result in scored.results}
    aggregate = first.measured.aggregate
    return SetDiff(
        name=first.name,
        otherwise=_otherwise(first, second),
        metrics={
            name: compare_scores(of, scores[1][name], seed=seed, groups=groups)
            for name, of in scores[0].items()
            if name in scores[1]
        },
        aggregate=compare_aggregates(aggregate, problems[0].scored, problems[1].scored, seed=seed)
        if aggregate and aggregate == second.measured.aggregate
        else {},
    )


def lines_of(diff: SetDiff) -> list[str]:
    """The comparison in words, one line per figure."""
    lines = [f"{diff.name}:"]
    lines += [f"  measured otherwise: {what}" for what in diff.otherwise]
    for name, paired in (*diff.metrics.items(), *diff.aggregate.items()):
        lines.append(f"  {name:<16} {_in_words(paired)}")
    return lines


def _in_words(paired: Paired | None) -> str:
    if paired is None:
        return "undefined"
    change = paired.difference
    moved = "" if paired.num_higher is None else f", {paired.num_higher} higher, {paired.num_lower} lower"
    alone = paired.num_only_first + paired.num_only_second
    left_out = f", {alone} in one result only" if alone else ""
    return (
        f"{paired.first:.3f} -> {paired.second:.3f}  difference {change.value:+.3f} [{change.low:+.3f}, "
        f"{change.high:+.3f}]  p = {paired.p_value:.3g} ({paired.test}, {paired.num_shared} problems{moved}{left_out})"
    )


def _otherwise(first: SavedSet, second: SavedSet) -> tuple[str, ...]:
    before, after = (flat(saved.measured.to_json()) for saved in (first, second))
    both = before | after
    keys = [key for key in both if key.partition(".")[0] in COMPARED_SETTINGS and both[key] != {}]
    return tuple(
        f"{key} is {before.get(key)!r} and {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)
    )
