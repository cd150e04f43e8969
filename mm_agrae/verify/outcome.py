"""What a comparison finds, and how two exact numbers are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mm_agrae.records import Tolerance
from mm_agrae.verify.normalise import Number

_CLOSENESS = 1e-6
_TOLERANCE_RULES = {"round": "rounds_to", "absolute": "within_difference", "relative": "within_share"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Whether answer and target are equal, and the rule that decided."""

    equal: bool
    rule: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two forms that only algebra can compare.

    Attributes:
        answer: Normal form of the answer.
        target: Normal form of the target.
        tolerance: How far two constants may be apart; None for equal.
        unordered: Both are lists without brackets that are equal in any order, part by part.
        otherwise: What else makes the answer right, when the target names an alternative.
    """

    answer: str
    target: str
    tolerance: Tolerance | None = None
    unordered: bool = False
    otherwise: Comparison | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Comparison:
        """The comparison whose fields, as `asdict` gives them, went through JSON."""
        tolerance, otherwise = fields["tolerance"], fields["otherwise"]
        return cls(
            answer=fields["answer"],
            target=fields["target"],
            tolerance=Tolerance(**tolerance) if tolerance else None,
            unordered=fields["unordered"],
            otherwise=cls.of(otherwise) if otherwise else None,
        )


def compare_numbers(
    answer: Number,
    target: Number,
    tolerance: Tolerance | None = None,
    *,
    exact: bool = False,
    closeness: float = _CLOSENESS,
) -> Outcome:
    """Compare exactly, or as the tolerance allows.

    Args:
        answer: The number given.
        target: The number wanted.
        tolerance: How far they may be apart; None for equal.
        exact: Without a tolerance nothing is forgiven. Otherwise a number that is written with decimals may be off by
            a share `closeness` of the target; two whole numbers never.
        closeness: See `exact`.
    """
    difference = abs(answer.value - target.value)
    if difference == 0:
        return Outcome(equal=True, rule="same_number")
    if tolerance is not None:
        return Outcome(equal=difference <= margin(tolerance, target.value), rule=_TOLERANCE_RULES[tolerance.kind])
    both_whole = answer.value.denominator == target.value.denominator == 1
    if exact or both_whole or not (answer.is_decimal or target.is_decimal):
        return Outcome(equal=False, rule="same_number")
    return Outcome(equal=difference <= Fraction(str(closeness)) * abs(target.value), rule="close_number")


def margin(tolerance: Tolerance, target: Fraction) -> Fraction:
    """The greatest difference from the target that a tolerance allows."""
    if tolerance.kind == "round":
        # Half a unit of the last decimal on both sides: rounding half up and half to even are both accepted.
        return Fraction(1, 2) / 10 ** int(tolerance.value)
    share = Fraction(str(tolerance.value))  # 0.05 means 1/20, not the nearest binary fraction
    return share * abs(target) if tolerance.kind == "relative" else share
