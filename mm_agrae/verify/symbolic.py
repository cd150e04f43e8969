"""Compare two guarded forms by computer algebra. The only door to math-verify and sympy.

Importing this module costs about a second. The texts reach a LaTeX grammar, never an evaluator of Python: math-verify's
plain-expression reader, which ends in sympy's `parse_expr` and so in `eval`, is not used.
"""

from __future__ import annotations

import logging

from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Expr

from mm_agrae.verify.outcome import Comparison, Outcome

# Timeouts by signal only work on a main thread and leave the interpreter stuck in long integers anyway; the pool owns
# the deadlines. math-verify warns once about that choice.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_LATEX = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=False, nits=True, boxed="none", equations=False
    ),
)

_FAR = 1e-5  # wider than the six decimals to which math-verify rounds, so that nothing it would accept is lost


class _UnreadableError(Exception):
    """A form that the grammar does not read; its text is the rule to name."""


def compare(comparison: Comparison) -> Outcome:
    """Whether two forms are equal by algebra, or numerically within the tolerance of the comparison.

    Never raises on text: whatever goes wrong inside makes the answer wrong, with the rule named.
    """
    try:
        target = _read(comparison.target, "unreadable_target")
        answer = _read(comparison.answer, "unreadable_answer")
        if comparison.tolerance is not None:
            return Outcome(equal=_close(target[0], answer[0], comparison.tolerance), rule="evaluated")
        if _far_apart(target[0], answer[0]):
            return Outcome(equal=False, rule="value")
        return Outcome(equal=bool(verify(target, answer, timeout_seconds=None)), rule="algebra")
    except _UnreadableError as error:
        return Outcome(equal=False, rule=str(error))
    # Whatever a computer algebra system raises on odd input (any type, recursion and attribute errors included) means
    # that this one answer could not be shown equal. It must not end a run.
    except Exception as error:
        return Outcome(equal=False, rule=f"algebra_failed_{type(error).__name__}")


def _read(form: str, rule: str) -> list[Expr]:
    parsed = parse(f"${form}$", extraction_config=[_LATEX], fallback_mode="no_fallback", parsing_timeout=None)
    if not parsed:
        raise _UnreadableError(rule)
    return parsed


def _far_apart(target: Expr, answer: Expr) -> bool:
    """Whether both are constants of clearly different value.

    Simplifying a difference that is not zero can take for ever; its value is found in milliseconds.
    """
    for side in (target, answer):
        if not isinstance(side, Expr) or side.free_symbols:
            return False
    there, here = target.evalf(), answer.evalf()
    if not (there.is_finite and here.is_finite):
        return False
    try:
        return abs(complex(there) - complex(here)) > _FAR * max(1.0, abs(complex(there)))
    except (TypeError, OverflowError):  # no value that a float can hold; algebra may still know
        return False


def _close(target: Expr, answer: Expr, tolerance: float) -> bool:
    return abs(float(target.evalf()) - float(answer.evalf())) <= tolerance
