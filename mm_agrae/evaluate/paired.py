"""Is one result better than another on the same questions, or is it chance?

Both results answer the same questions, so that each question is compared with itself. The interval resamples questions;
the test asks how often a difference as large would come out if the two results had changed places at random on every
question (for a mean: if every difference had a random sign). Groups are resampled and exchanged as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mm_agrae.errors import DataError
from mm_agrae.evaluate.aggregate import num_behind, shares, with_means
from mm_agrae.evaluate.intervals import ROUNDING, Interval, cluster_sums, interval_of, ratio_draws
from mm_agrae.metrics.group_scores import Scored, aggregate_named, figures, tally
from mm_agrae.seeding import seed_for

Array = NDArray[np.float64]
# Numerators and denominators, [U, F] each, of the first and of the second result; U units that are kept together.
Both = tuple[tuple[Array, Array], tuple[Array, Array]]
Test = Literal["mcnemar", "sign_flip_exact", "sign_flip_sampled"]
MCNEMAR: Test = "mcnemar"

# Up to so many units that differ, all 2^16 exchanges are counted; beyond, so many are drawn.
MAX_EXACT = 16
NUM_FLIPS = 10_000
FLIP_CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two results on the questions that both answered.

    Attributes:
        num_shared: Questions that both answered: all figures are over these.
        num_only_first: Questions that the first alone answered.
        num_only_second: Questions that the second alone answered.
        first: Figure of the first result.
        second: Figure of the second result.
        difference: second - first with a 95 % paired bootstrap interval.
        num_higher: Questions on which the second scores higher; None for a figure of groups.
        num_lower: Questions on which it scores lower; None for a figure of groups.
        p_value: Two-sided: chance of a difference at least as large if both were equally good, in (0, 1].
        test: "mcnemar" where every score is 0 or 1 and nothing is grouped, the exact test of the questions that differ;
            "sign_flip_exact" counts all exchanges, "sign_flip_sampled" 10,000 random ones and the observed one.
    """

    num_shared: int
    num_only_first: int
    num_only_second: int
    first: float
    second: float
    difference: Interval
    num_higher: int | None
    num_lower: int | None
    p_value: float
    test: Test


def compare_scores(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> Paired:
    """Compare the mean of a metric between two results.

    Args:
        first: Score in [0, 1] by sample id.
        second: The same of the other result.
        seed: Of the resampling and of sampled exchanges.
        groups: What a sample is resampled and exchanged with, by sample id; "" or absent when nothing belongs to it.

    Raises:
        DataError: If no question is shared.
    """
    shared = _shared(first, second)
    one, other = (np.array([scores[name] for name in shared], dtype=np.float64) for scores in (first, second))
    clusters = [(group, "") if (group := (groups or {}).get(name)) else ("", name) for name in shared]
    both = (cluster_sums(one, clusters), cluster_sums(other, clusters))
    num_clusters = len(both[0][0])
    higher, lower = int((other > one).sum()), int((other < one).sum())
    if num_clusters == len(shared) and np.isin([one, other], [0, 1]).all():
        p_value, test = mcnemar(higher, lower), MCNEMAR
    else:
        p_values, test = _exchange_test(both, _as_they_are, seed=seed_for(seed, "exchange"))
        p_value = float(p_values[0])
    draws = _difference_draws(both, _as_they_are, seed=seed_for(seed, "resample"))[:, 0]
    means = [float(scores.mean()) for scores in (one, other)]
    return Paired(
        num_shared=len(shared),
        num_only_first=len(first) - len(shared),
        num_only_second=len(second) - len(shared),
        first=means[0],
        second=means[1],
        difference=interval_of(means[1] - means[0], draws, num_clusters=num_clusters, signed=True),
        num_higher=higher,
        num_lower=lower,
        p_value=p_value,
        test=test,
    )


def compare_aggregates(
    name: str, first: Sequence[Scored], second: Sequence[Scored], *, seed: int
) -> dict[str, Paired | None]:
    """Compare every figure of a benchmark that scores questions together.

    Args:
        name: Name of the aggregate.
        first: Questions of one result.
        second: Questions of the other; those that both answered are compared.
        seed: As for `compare_scores`.

    Returns:
        Comparison by figure; None where a figure is undefined in one of the results.

    Raises:
        ConfigError: If there is no such aggregate.
        DataError: If no question is shared, or the shared ones cannot be scored so (see `tally`).
    """
    aggregate = aggregate_named(name)
    results = [_by_id(scored) for scored in (first, second)]
    shared = _shared(*results)
    tallies = [tally(name, [result[sample_id] for sample_id in shared]) for result in results]
    values = [figures(name, one) for one in tallies]
    both = (shares(aggregate, tallies[0]), shares(aggregate, tallies[1]))
    finish = partial(with_means, aggregate)
    p_values, test = _exchange_test(both, finish, seed=seed_for(seed, "exchange"))
    draws = _difference_draws(both, finish, seed=seed_for(seed, "resample"))
    sizes = np.minimum(*(num_behind(aggregate, denominators) for _, denominators in both))
    compared: dict[str, Paired | None] = {}
    for column, figure in enumerate(aggregate.figures):
        one, other = values[0][figure], values[1][figure]
        compared[figure] = None
        if one is not None and other is not None:
            compared[figure] = Paired(
                num_shared=len(shared),
                num_only_first=len(first) - len(shared),
                num_only_second=len(second) - len(shared),
                first=one,
                second=other,
                difference=interval_of(other - one, draws[:, column], num_clusters=float(sizes[column]), signed=True),
                num_higher=None,
                num_lower=None,
                p_value=float(p_values[column]),
                test=test,
            )
    return compared


def mcnemar(higher: int, lower: int) -> float:
    """Exact two-sided p of McNemar's test: 2 · P(X <= min(higher, lower)), X ~ Binomial(higher + lower, 1/2).

    Args:
        higher: Questions that only the second result answers correctly.
        lower: Questions that only the first answers correctly.

    Returns:
        A probability; 1 where no question differs.
    """
    discordant = higher + lower
    ways = term = 1
    for i in range(min(higher, lower)):
        term = term * (discordant - i) // (i + 1)
        ways += term
    return min(1.0, 2 * ways / 2**discordant)


def _shared(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise DataError(
            f"the two results share none of their {len(first)} and {len(second)} questions, but are compared question "
            "by question. Compare results of one set."
        )
    return shared


def _by_id(scored: Sequence[Scored]) -> dict[str, Scored]:
    questions = {question.sample_id: question for question in scored}
    if len(questions) < len(scored):
        raise DataError(f"{len(scored)} questions have {len(questions)} ids, but every question counts once. Keep one.")
    return questions


def _as_they_are(values: Array) -> Array:
    return values


def _difference_draws(both: Both, finish: Callable[[Array], Array], *, seed: int) -> Array:
    """[R, F] differences over resampled units; a unit brings its tallies of both results."""
    numerators, denominators = (np.concatenate(arrays, axis=1) for arrays in zip(*both, strict=True))
    one, other = np.split(ratio_draws(numerators, denominators, seed=seed), 2, axis=1)
    return finish(other) - finish(one)


def _exchange_test(both: Both, finish: Callable[[Array], Array], *, seed: int) -> tuple[Array, Test]:
    """[F] two-sided p-values of the paired permutation test, Fisher (1935), and how the exchanges were counted.

    An exchange under which a figure is undefined counts as extreme, which errs towards no difference.
    """
    first, second = both
    kept, exchanged = np.concatenate([*first, *second], axis=1), np.concatenate([*second, *first], axis=1)
    changes = (exchanged - kept)[(exchanged != kept).any(axis=1)]

    def differences(sums: Array) -> Array:
        top, bottom, other_top, other_bottom = np.split(sums, 4, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return finish(other_top / other_bottom) - finish(top / bottom)

    total = kept.sum(axis=0)
    least = np.abs(differences(total)) - ROUNDING
    num_extreme, num_counted = np.zeros(len(least)), 0
    for flips in _exchanges(len(changes), seed):
        num_extreme += (~(np.abs(differences(total + flips @ changes)) < least)).sum(axis=0)
        num_counted += len(flips)
    if len(changes) <= MAX_EXACT:
        return num_extreme / num_counted, "sign_flip_exact"
    # The observed assignment is one of those that chance could have drawn: Phipson and Smyth 2010.
    return (num_extreme + 1) / (num_counted + 1), "sign_flip_sampled"


def _exchanges(num_units: int, seed: int) -> Iterator[Array]:
    """[B, U] blocks, 1 where a unit is exchanged."""
    if num_units <= MAX_EXACT:
        yield (np.arange(2**num_units)[:, None] >> np.arange(num_units) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(seed)
    for _ in range(NUM_FLIPS // FLIP_CHUNK):
        yield generator.integers(0, 2, size=(FLIP_CHUNK, num_units), dtype=np.int8).astype(np.float64)
