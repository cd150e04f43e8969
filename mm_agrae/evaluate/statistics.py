"""From scored problems to figures with intervals. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from mm_agrae.metrics.passk import pass_at_k
from mm_agrae.seeding import seed_for


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ProblemResult:
    """How one problem went.

    Attributes:
        sample_id: Id of the sample.
        family: Kind of problem; "" when the data set has none.
        difficulty: Level; None when the data set has none.
        num_correct: Correct ones among the sampled completions.
        num_samples: Sampled completions, the same for every problem of a set; at least 1.
        num_formatted: Sampled completions in the form that was asked for.
        num_truncated: Sampled completions cut off at the length limit.
        greedy_correct: Whether the most probable completion is correct; None when it was not drawn.
    """

    sample_id: str
    family: str
    difficulty: int | None
    num_correct: int
    num_samples: int
    num_formatted: int
    num_truncated: int
    greedy_correct: bool | None


def bootstrap_mean(values: Sequence[float], *, seed: int, num_resamples: int = 2000, level: float = 0.95) -> Interval:
    """Mean over problems with a percentile bootstrap interval: problems are resampled, their samples are not.

    Where all values are equal every resample is the same, and the bootstrap would claim certainty: ten problems solved
    out of ten would read 1 ± 0. Equal values in [0, 1] get the Wilson score interval instead, which is made for 0/1
    outcomes and cautious for equal fractions, whose variance is below value · (1 - value). Other equal values get
    width 0.

    Args:
        values: One per problem, at least one.
        seed: Of the resampling.
        num_resamples: Resamples of the problems.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If there are no values, one is not finite, or a number is out of range.
    """
    if len(values) == 0:
        raise ValueError("there are 0 values, but a mean needs at least 1. Check that the set is not empty.")
    if not 0 < level < 1 or num_resamples < 1:
        raise ValueError(
            f"level is {level} and num_resamples {num_resamples}, but level must be in (0, 1) and "
            "num_resamples 1 or more."
        )
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("a value is not finite, but every problem must have a score. Score or drop that problem.")
    distinct, counts = np.unique(numbers, return_counts=True)
    num_problems = len(numbers)
    if len(distinct) == 1:
        value = float(distinct[0])
        return _wilson(value, num_problems, level) if 0 <= value <= 1 else Interval(value, value, value)
    # Resampling problems draws how often each distinct value occurs; there are at most samples + 1 of those, so this is
    # the same distribution as drawing indices, for a fraction of the memory.
    draws = np.random.default_rng(seed).multinomial(num_problems, counts / num_problems, size=num_resamples)
    low, high = np.quantile(draws @ distinct / num_problems, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(counts @ distinct / num_problems), float(low), float(high))


def _wilson(value: float, num_problems: int, level: float) -> Interval:
    """Wilson (1927) score interval of a proportion."""
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    centre = (value + z2 / (2 * num_problems)) / (1 + z2 / num_problems)
    spread = (z2 * (value * (1 - value) + z2 / (4 * num_problems)) / num_problems) ** 0.5 / (1 + z2 / num_problems)
    return Interval(value, max(0.0, min(value, centre - spread)), min(1.0, max(value, centre + spread)))


def summarise(
    results: Sequence[ProblemResult], *, set_name: str, step: int, ks: Sequence[int], seed: int
) -> dict[str, Any]:
    """Figures of one evaluation, overall, by family and by difficulty, each with a 95 % interval over problems.

    Problems without a family or a difficulty count in the overall figures only.

    Args:
        results: One per problem.
        set_name: Name of the evaluated set.
        step: Training step of the weights.
        ks: pass@k is reported for these; each at most the number of samples.
        seed: Of the resampling; every slice derives its own.

    Returns:
        JSON values: {"set", "step", "num_problems", "num_samples", "overall": {metric: interval},
        "by_family": {family: {"num_problems", metric: interval}}, "by_difficulty": {"1": ...}}, where an interval is
        {"value", "low", "high"} and the metrics are "pass@k", "avg@n", "formatted", "truncated", and "greedy" where it
        was measured.

    Raises:
        ValueError: If there are no results, their sample counts differ, only some have a greedy completion, or a k
            exceeds the number of samples.
    """
    num_samples = _check_results(results, ks)
    families = sorted({r.family for r in results if r.family})
    levels = sorted({r.difficulty for r in results if r.difficulty is not None})

    def figures(part: Sequence[ProblemResult], *coordinates: str) -> dict[str, Any]:
        # One seed for all metrics of a slice: two names of one quantity (pass@1, avg@n) then have one interval.
        part_seed = seed_for(seed, set_name, *coordinates)
        return {
            name: asdict(bootstrap_mean([score(r) for r in part], seed=part_seed))
            for name, score in _scores(num_samples, ks, greedy=results[0].greedy_correct is not None).items()
        }

    def slice_figures(part: Sequence[ProblemResult], *coordinates: str) -> dict[str, Any]:
        return {"num_problems": len(part), **figures(part, *coordinates)}

    return {
        "set": set_name,
        "step": step,
        "num_problems": len(results),
        "num_samples": num_samples,
        "overall": figures(results),
        "by_family": {f: slice_figures([r for r in results if r.family == f], "family", f) for f in families},
        "by_difficulty": {
            str(d): slice_figures([r for r in results if r.difficulty == d], "difficulty", str(d)) for d in levels
        },
    }


def _scores(num_samples: int, ks: Sequence[int], *, greedy: bool) -> dict[str, Callable[[ProblemResult], float]]:
    """One function from problem to score per metric, in the order of the report."""
    scores: dict[str, Callable[[ProblemResult], float]] = {}
    for k in sorted(set(ks)):
        scores[f"pass@{k}"] = lambda r, k=k: pass_at_k(r.num_samples, r.num_correct, k)  # type: ignore[misc]
    scores[f"avg@{num_samples}"] = lambda r: r.num_correct / r.num_samples
    if greedy:
        scores["greedy"] = lambda r: float(bool(r.greedy_correct))
    scores["formatted"] = lambda r: r.num_formatted / r.num_samples
    scores["truncated"] = lambda r: r.num_truncated / r.num_samples
    return scores


def _check_results(results: Sequence[ProblemResult], ks: Sequence[int]) -> int:
    """The number of samples that all results share."""
    if not results:
        raise ValueError("there are 0 results, but a summary needs at least 1. Check that the set is not empty.")
    num_samples = results[0].num_samples
    for result in results:
        if result.num_samples != num_samples or num_samples < 1:
            raise ValueError(
                f"{result.sample_id} has {result.num_samples} samples and {results[0].sample_id} {num_samples}, "
                "but all problems must have the same number, at least 1. Evaluate the missing completions."
            )
        if (result.greedy_correct is None) != (results[0].greedy_correct is None):
            raise ValueError(
                f"only one of {result.sample_id} and {results[0].sample_id} has a greedy completion, but either all "
                "problems or none must have one. Evaluate the missing completions."
            )
    for k in ks:
        if not 1 <= k <= num_samples:
            raise ValueError(
                f"pass@{k} was asked for, but there are {num_samples} samples per problem. "
                "Raise evaluate.num_samples or drop that k."
            )
    return num_samples
