"""From scored problems to figures with intervals. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mm_agrae.evaluate.intervals import bootstrap_mean
from mm_agrae.metrics.majority import AnswerClasses, cons_at_n, maj_at_k
from mm_agrae.metrics.passk import g_pass_at_k, mg_pass_at_k, pass_at_k
from mm_agrae.seeding import seed_for

# Shares of correct samples that G-Pass@k is reported for.
G_PASS_PERCENTS = (50, 75, 100)


@dataclass(frozen=True, kw_only=True)
class ProblemResult:
    """How one problem went.

    Attributes:
        sample_id: Id of the sample.
        family: Kind of problem; "" when the data set has none.
        difficulty: Level; None when the data set has none.
        num_correct: Correct ones among the sampled completions.
        num_samples: Sampled completions, the same for every problem of a set; at least 1.
        num_formatted: Sampled completions in the form that was asked for; None where no form was.
        num_truncated: Sampled completions cut off at the length limit.
        greedy_correct: Whether the most probable completion is correct; None when it was not drawn.
        classes: How the sampled completions vote; None when their answers were not compared.
        group: What the problem is resampled with; "" when nothing belongs to it.
        categories: Value on each further axis that figures are broken down by ({"task": "geometry"}).
    """

    sample_id: str
    family: str
    difficulty: int | None
    num_correct: int
    num_samples: int
    num_formatted: int | None
    num_truncated: int
    greedy_correct: bool | None
    classes: AnswerClasses | None = None
    group: str = ""
    categories: Mapping[str, str] = field(default_factory=dict)


def summarise(
    results: Sequence[ProblemResult],
    *,
    set_name: str,
    step: int,
    ks: Sequence[int],
    seed: int,
    g_pass_ks: Sequence[int] = (),
) -> dict[str, Any]:
    """Figures of one evaluation, overall and by every axis, each with a 95 % interval over problems.

    Problems of one group are resampled together. Problems without a family, a difficulty or a category count in no row
    of that axis.

    Args:
        results: One per problem.
        set_name: Name of the evaluated set.
        step: Training step of the weights.
        ks: pass@k, and with answer classes maj@k, are reported for these; each at most the number of samples.
        seed: Of the resampling; every slice derives its own.
        g_pass_ks: G-Pass@k is reported for these, as shares of 50, 75 and 100 % and as their mean; each at least 2.

    Returns:
        JSON values: {"set", "step", "num_problems", "num_samples", "overall": {metric: interval},
        "by_family": {family: {"num_problems", metric: interval}}, "by_difficulty": {"1": ...},
        "by_category": {axis: {value: ...}}}, where an interval is {"value", "low", "high"} and the metrics are those
        of `problem_scores`.

    Raises:
        ValueError: As `problem_scores`.
    """
    scores = problem_scores(results, ks=ks, g_pass_ks=g_pass_ks)
    results = sorted(results, key=lambda r: r.sample_id)  # sums of a group do not depend on the order

    def figures(part: Sequence[ProblemResult], *coordinates: str) -> dict[str, Any]:
        # One seed for all metrics of a slice: two names of one quantity (pass@1, avg@n) then have one interval.
        part_seed = seed_for(seed, set_name, *coordinates)
        clusters = [(r.group, "" if r.group else r.sample_id) for r in part]
        return {
            name: asdict(bootstrap_mean([of[r.sample_id] for r in part], seed=part_seed, clusters=clusters))
            for name, of in scores.items()
        }

    def table(axis: str, places: Sequence[str], order: Sequence[str]) -> dict[str, Any]:
        rows = {}
        for place in order:
            part = [r for r, own in zip(results, places, strict=True) if own == place]
            rows[place] = {"num_problems": len(part), **figures(part, axis, place)}
        return rows

    def named_table(axis: str, places: Sequence[str]) -> dict[str, Any]:
        return table(axis, places, sorted(set(places) - {""}))

    levels = sorted({r.difficulty for r in results if r.difficulty is not None})
    return {
        "set": set_name,
        "step": step,
        "num_problems": len(results),
        "num_samples": results[0].num_samples,
        "overall": figures(results),
        "by_family": named_table("family", [r.family for r in results]),
        "by_difficulty": table("difficulty", [str(r.difficulty) for r in results], [str(level) for level in levels]),
        "by_category": {
            axis: named_table(axis, [r.categories.get(axis, "") for r in results])
            for axis in sorted({axis for r in results for axis in r.categories})
        },
    }


def problem_scores(
    results: Sequence[ProblemResult], *, ks: Sequence[int], g_pass_ks: Sequence[int] = ()
) -> dict[str, dict[str, float]]:
    """Every metric of every problem, in [0, 1].

    Args:
        results: One per problem.
        ks: As for `summarise`.
        g_pass_ks: As for `summarise`.

    Returns:
        {metric: {sample id: score}} in the order of the report: "pass@k", "avg@n"; with answer classes "maj@k" for k
        between 1 and n (maj@1 is pass@1) and "cons@n"; "g_pass_50@k", "g_pass_75@k", "g_pass_100@k", "mg_pass@k";
        "greedy" where it was measured; "formatted" where a form was asked for; "truncated".

    Raises:
        ValueError: If there are no results, a sample occurs twice, sample counts differ, only some problems have a
            greedy completion or answer classes, or a k is out of range.
    """
    n = _check_results(results, ks, g_pass_ks)
    scores: dict[str, Callable[[ProblemResult], float]] = {}
    for k in sorted(set(ks)):
        scores[f"pass@{k}"] = lambda r, k=k: pass_at_k(n, r.num_correct, k)  # type: ignore[misc]
    scores[f"avg@{n}"] = lambda r: r.num_correct / n
    classes = {r.sample_id: r.classes for r in results if r.classes}
    if classes:
        for k in sorted({k for k in ks if 1 < k < n}):
            scores[f"maj@{k}"] = lambda r, k=k: maj_at_k(classes[r.sample_id], k)  # type: ignore[misc]
        scores[f"cons@{n}"] = lambda r: cons_at_n(classes[r.sample_id])
    for k in sorted(set(g_pass_ks)):
        for percent in G_PASS_PERCENTS:
            scores[f"g_pass_{percent}@{k}"] = lambda r, k=k, share=percent / 100: g_pass_at_k(  # type: ignore[misc]
                n, r.num_correct, k, share
            )
        scores[f"mg_pass@{k}"] = lambda r, k=k: mg_pass_at_k(n, r.num_correct, k)  # type: ignore[misc]
    if results[0].greedy_correct is not None:
        scores["greedy"] = lambda r: float(bool(r.greedy_correct))
    if results[0].num_formatted is not None:
        scores["formatted"] = lambda r: (r.num_formatted or 0) / n
    scores["truncated"] = lambda r: r.num_truncated / n
    return {name: {r.sample_id: score(r) for r in results} for name, score in scores.items()}


def _check_results(results: Sequence[ProblemResult], ks: Sequence[int], g_pass_ks: Sequence[int]) -> int:
    """The number of samples that all results share."""
    if not results:
        raise ValueError("there are 0 results, but a summary needs at least 1. Check that the set is not empty.")
    first, seen = results[0], set()
    for result in results:
        pair = f"{result.sample_id} and {first.sample_id}"
        if result.num_samples != first.num_samples or first.num_samples < 1:
            raise ValueError(
                f"{result.sample_id} has {result.num_samples} samples and {first.sample_id} {first.num_samples}, "
                "but all problems must have the same number, at least 1. Evaluate the missing completions."
            )
        if (result.greedy_correct is None) != (first.greedy_correct is None):
            raise ValueError(
                f"only one of {pair} has a greedy completion, but either all problems or none must have one. "
                "Evaluate the missing completions."
            )
        if (result.classes is None) != (first.classes is None):
            raise ValueError(f"only one of {pair} has answer classes, but either all problems or none must have them.")
        if result.classes and sum(result.classes.sizes) + result.classes.num_unanswered != result.num_samples:
            raise ValueError(f"the answer classes of {result.sample_id} do not hold its {result.num_samples} samples.")
        if result.sample_id in seen:
            raise ValueError(f"{result.sample_id} occurs twice, but every problem counts once. Drop one of them.")
        seen.add(result.sample_id)
    for name, low, asked in (("pass", 1, ks), ("g_pass", 2, g_pass_ks)):
        for k in asked:
            if not low <= k <= first.num_samples:
                raise ValueError(
                    f"{name}@{k} was asked for, but there are {first.num_samples} samples per problem and k must be in "
                    f"[{low}, {first.num_samples}]. Raise evaluate.num_samples or drop that k."
                )
    return first.num_samples
