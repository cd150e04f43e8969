"""Claims about estimators: a computed value against one observed through the library's own functions.

A case computes a value from a closed form, by enumerating every outcome of a group, or both, in plain float64. It
observes the same value by passing drawn groups through `mm_agrae.algorithms`. The case passes if both computed values
agree and the interval of what was observed covers them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from mm_agrae.seeding import seed_for

# Library results are float32: whatever is observed is known to this much, relative to 1 + its size.
ROUNDING = 2e-6
# Two computed values of one quantity, both in float64.
AGREEMENT = 1e-9
# Chance that any sampled interval of a whole table misses, if every formula is right.
FALSE_ALARM = 1e-3


@dataclass(frozen=True, kw_only=True)
class Case:
    """One value of a claim.

    Attributes:
        parameters: What the value is of, for a reader: "G = 8, p = 0.1".
        closed: The value by the closed form; None where there is none.
        enumerated: The value by summing over outcomes, or by numerical search; None where that says nothing new.
        observe: Draws -> independent observations [D] of the value, through library functions. A single observation
            is taken as free of chance.
        rounding: What a single observation may be off by, relative to 1 + its size.
    """

    parameters: str
    closed: float | None = None
    enumerated: float | None = None
    observe: Callable[[torch.Generator], Tensor]
    rounding: float = ROUNDING


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement with its formula, what a reader must know beside it, and the cases that test it."""

    id: str
    title: str
    statement: str
    formula: str
    cases: Sequence[Case]
    caveat: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A judged case; `low` and `high` bound what was observed, `reason` says why it failed, "" if it passed."""

    claim: str
    parameters: str
    closed: float | None
    enumerated: float | None
    observed: float
    low: float
    high: float
    num_observations: int
    reason: str

    @property
    def passed(self) -> bool:
        return not self.reason


def judge(claims: Sequence[Claim], *, seed: int) -> list[Row]:
    """Every case of every claim, each with draws of its own.

    Args:
        claims: In the order of the rows.
        seed: Of all draws; a case draws the same whatever the other cases are.
    """
    deviations = interval_deviations(sum(len(claim.cases) for claim in claims))
    rows = []
    for claim in claims:
        for index, case in enumerate(claim.cases):
            generator = torch.Generator().manual_seed(seed_for(seed, "theory", claim.id, index))
            rows.append(judge_case(claim.id, case, case.observe(generator), deviations=deviations))
    return rows


def interval_deviations(num_cases: int) -> float:
    """Standard errors on each side of an interval so that all together miss with probability FALSE_ALARM at most.

    Bonferroni: each of `num_cases` two-sided normal intervals may miss with probability FALSE_ALARM / num_cases.
    """
    return NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * max(1, num_cases)))


def judge_case(claim: str, case: Case, observations: Tensor, *, deviations: float) -> Row:
    """One case against its observations [D], whose mean gets an interval of `deviations` standard errors.

    Raises:
        ValueError: If the case computes nothing or observed nothing.
    """
    values = observations.to(torch.float64).flatten()
    computed = [value for value in (case.closed, case.enumerated) if value is not None]
    if not computed or not len(values):
        raise ValueError(
            f"case {case.parameters} of {claim} has {len(computed)} computed values and {len(values)} observations, "
            "but must have at least one of each."
        )
    observed = float(values.mean())
    half_width = case.rounding * (1 + abs(observed))
    if len(values) > 1:
        half_width += deviations * float(values.std()) / math.sqrt(len(values))
    low, high = observed - half_width, observed + half_width
    return Row(
        claim=claim,
        parameters=case.parameters,
        closed=case.closed,
        enumerated=case.enumerated,
        observed=observed,
        low=low,
        high=high,
        num_observations=len(values),
        reason=_reason(computed, low, high),
    )


def _reason(computed: Sequence[float], low: float, high: float) -> str:
    if abs(computed[0] - computed[-1]) > AGREEMENT * (1 + abs(computed[0])):
        return "closed form and enumeration differ"
    # Written so that a NaN anywhere fails.
    if not all(low <= value <= high for value in computed):
        return "the interval misses the computed value"
    return ""
