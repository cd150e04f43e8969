"""Compare two guarded forms by computer algebra. The only door to math-verify and sympy.

Importing this module costs about a second. The texts reach a LaTeX grammar, never an evaluator of Python: math-verify's
plain-expression reader, which ends in sympy's `parse_expr` and so in `eval`, is not used.
"""

from __future__ import annotations

import logging
from fractions import Fraction

from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Expr

from mm_agrae.records import Tolerance
from mm_agrae.verify.normalise import split_list
from mm_agrae.verify.outcome import Comparison, Outcome, margin

# Timeouts by signal only work on a main thread and leave the interpreter stuck in long integers anyway; the pool owns
# the deadlines. math-verify warns once about that choice.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_LATEX = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=False, nits=True, boxed="none", equations=False
    ),
)

_CLOSE = 1e-6  # relative, of constants of which one is written with decimals
_SAME = 1e-40  # relative, of exact constants; their values are found to _NUM_DIGITS
_NUM_DIGITS = 60
_MAX_PARTS = 12  # of a list that is matched part by part


class _UnreadableError(Exception):
    """A form that the grammar does not read; its text is the rule to name."""


def compare(comparison: Comparison) -> Outcome:
    """Whether two forms are equal by algebra, or as constants within the tolerance of the comparison.

    Without a tolerance two exact constants must have the same value, and where one is written with decimals they may
    differ by a millionth of the target.

    Never raises on text: whatever goes wrong inside makes the answer wrong, with the rule named. Only a lack of memory
    is passed on.
    """
    found = _compare_lists(comparison) if comparison.unordered else _compare_pair(comparison)
    return compare(comparison.otherwise) if comparison.otherwise is not None and not found.equal else found


def _compare_lists(comparison: Comparison) -> Outcome:
    """One to one: every part of the target takes the first part of the answer that equals it and is still free."""
    free, wanted = split_list(comparison.answer), split_list(comparison.target)
    if len(wanted) > _MAX_PARTS:
        return Outcome(equal=False, rule="refused_parts")
    for target in wanted:
        for index, answer in enumerate(free):
            one = Comparison(answer=answer, target=target, tolerance=comparison.tolerance)
            if answer == target or _compare_pair(one).equal:
                del free[index]
                break
        else:
            return Outcome(equal=False, rule="part_missing")
    return Outcome(equal=not free, rule="same_parts")


def _compare_pair(comparison: Comparison) -> Outcome:
    try:
        target = _read(comparison.target, "unreadable_target")
        answer = _read(comparison.answer, "unreadable_answer")
        is_decimal = "." in comparison.answer + comparison.target
        value = _same_value(target[0], answer[0], comparison.tolerance, is_decimal=is_decimal)
        if value is not None:
            return Outcome(equal=value, rule="value" if comparison.tolerance is None else "evaluated")
        return Outcome(equal=bool(verify(target, answer, timeout_seconds=None)), rule="algebra")
    except _UnreadableError as error:
        return Outcome(equal=False, rule=str(error))
    except MemoryError:
        raise
    # Whatever a computer algebra system raises on odd input (any type, recursion and attribute errors included) means
    # that this one answer could not be shown equal. It must not end a run.
    except Exception as error:
        return Outcome(equal=False, rule=f"algebra_failed_{type(error).__name__}")


def _read(form: str, rule: str) -> list[Expr]:
    parsed = parse(f"${form}$", extraction_config=[_LATEX], fallback_mode="no_fallback", parsing_timeout=None)
    if not parsed:
        raise _UnreadableError(rule)
    return parsed


def _same_value(target: Expr, answer: Expr, tolerance: Tolerance | None, *, is_decimal: bool) -> bool | None:
    """Whether two constants have one value; None when they are no constants, or when their values do not tell.

    Simplifying a difference that is not zero can take for ever, and rounds small values to nothing; the values
    themselves are found in milliseconds.
    """
    for side in (target, answer):
        if not isinstance(side, Expr) or side.free_symbols:
            return None
    there, here = target.evalf(_NUM_DIGITS), answer.evalf(_NUM_DIGITS)
    if not (there.is_number and here.is_number and there.is_finite and here.is_finite):
        return None
    gap, size = abs(there - here).evalf(), abs(there).evalf()
    if tolerance is not None and there.is_real:
        return bool(gap <= margin(tolerance, Fraction(str(there))))
    if size <= _SAME:
        return False if gap > _SAME else None  # noise or zero: algebra knows
    return bool(gap <= (_CLOSE if is_decimal else _SAME) * size)
