"""Compare an answer with a target by the general rule. Third stage of extract -> normalise -> compare.

`compare_simply` decides everything that needs no computer algebra and hands back a `Comparison` for the rest.

Policies, where the profile does not say otherwise:
- Units: a unit on one side only is ignored. Two known units are converted within a dimension (5 m is 500 cm) and
  refused across (5 meters is never 5 miles by value, nor 5 seconds at all). Percent is a unit: 28% equals 28, not 0.28.
  A unit that is not known has its name: 5 apples are 5, and no 5 oranges.
- Numbers are compared exactly; where one is written with a decimal point, to 1e-6 relative, but integers never loosely.
  So 0.3 is not 1/3, 3.14 is not pi, and a tolerance has to be asked for. "3=4" is neither number.
- Numbers of another base (52_8), ranges (3–5), angles and triangles by their corners, and words of two or three
  capitals are compared as text.
- An assignment ("x=5", "(p,q)=(3,2)", "x \\in [0,1]") on one side only is dropped; on both sides it must agree.
- Lists without brackets and sets are unordered; tuples and intervals are ordered and keep their brackets.
- An inequality in one variable equals its interval, and "x<1 or x>2" its union. "\\pm a" stands for two values.
- Before a number "about" and "The distance is" are dropped, and behind it one word ("12 students").
- "1 2 3" is three numbers without a sign between them, and equals nothing else. "1,5" is a list, "1,500" is a number.
- A target may name alternatives: "35/4 (or 8.75)".
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from mm_agrae.records import AnswerKind, Tolerance
from mm_agrae.verify.choices import compare_choice, compare_choices
from mm_agrae.verify.guards import is_wordy, refusal
from mm_agrae.verify.kinds import compare_times, compare_words, compare_years, compare_yes_no
from mm_agrae.verify.lists import as_interval, as_ranges, compare_lists, compare_matrices, with_signs_apart
from mm_agrae.verify.normalise import MAX_CHARS, Form, Number, normal_form, read_number, words
from mm_agrae.verify.outcome import Comparison, Outcome, compare_numbers
from mm_agrae.verify.profiles import GENERIC, Profile
from mm_agrae.verify.question import Question
from mm_agrae.verify.units import conversion

NUMERIC_KINDS = frozenset({"integer", "decimal", "fraction", "percent", "quantity"})
_WORD_KINDS = frozenset({"choice", "choices", "text", "yes_no", "year", "time"})
_SUBSCRIPT = r"(?:_(?:\{[^{}]{1,20}\}|\w))?"
_ASSIGNMENT = re.compile(
    rf"([A-Za-z]{{1,12}}{_SUBSCRIPT}|\\(?:angle|triangle) ?[A-Z]{{1,4}}|\\[a-z]+|\([A-Za-z](?:,[A-Za-z])*\)"
    r"|[A-Za-z]\([A-Za-z]\))(?:=|\\in(?![a-z]))(.+)"
)
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![a-z])")
_ROUNDED = Fraction(1, 10)  # how far both sides of an approximation may be apart
# Compared as text: numbers of another base, ranges, angles and polygons by their corners.
_NAMED = re.compile(r"\d_\{?\d|\d–\d|\\(?:angle|triangle)(?![a-z])")
_SHORT_WORD = re.compile(r"[A-Z]{2,3}|\$?\\text\{\s*[A-Za-z]{2,3}\s*\}\$?")  # no product of variables
_ALTERNATIVE = re.compile(r"\s*[(（](?:or|或)\b(?: fill in)?\s*(.+?)[)）]\s*$", re.IGNORECASE)


def compare_simply(
    answer: str,
    target: str,
    kind: AnswerKind,
    *,
    options: tuple[str, ...] = (),
    tolerance: Tolerance | None = None,
    profile: Profile = GENERIC,
) -> Outcome | Comparison:
    """Compare without computer algebra, or say what algebra has to compare.

    Args:
        answer: The extracted answer.
        target: The reference answer; for a choice the letter or the text of an option.
        kind: How answers are compared.
        options: Texts of the options of a choice, in order.
        tolerance: How exact a number must be; None for exact where it is written exactly.
        profile: The policies.
    """
    if answer.strip() == target.strip():
        return Outcome(equal=True, rule="same_text")
    if len(answer) > MAX_CHARS or len(target) > MAX_CHARS:
        return Outcome(equal=False, rule="refused_length")
    if kind in _WORD_KINDS:
        return _compare_named(answer, target, kind, options, profile)
    other = _ALTERNATIVE.search(target)
    if other is not None:
        first = _compare_normal(answer, target[: other.start()], kind, tolerance, profile)
        second = _compare_normal(answer, other[1], kind, tolerance, profile)
        return _either(first, second)
    return _compare_normal(answer, target, kind, tolerance, profile)


def compare_forms(answer: str, question: Question) -> Outcome | Comparison:
    """`compare_simply` with what a question says, under the policies of its profile."""
    return compare_simply(
        answer,
        question.target,
        question.answer_kind,
        options=question.options,
        tolerance=question.tolerance,
        profile=question.rules,
    )


def shown_form(raw: str, kind: AnswerKind, profile: Profile = GENERIC) -> str | None:
    """The normal form of an answer or a target for the record, or None when it is too long to have one."""
    if len(raw) > MAX_CHARS:
        return None
    if kind in _WORD_KINDS:
        return words(raw)
    form: Form = normal_form(raw, numeric=kind in NUMERIC_KINDS, profile=profile)
    return f"{form.body} [{form.unit}]" if form.unit else form.body


def _either(first: Outcome | Comparison, second: Outcome | Comparison) -> Outcome | Comparison:
    """Right when one of both is; what is decided wrong leaves it to the other."""
    if isinstance(first, Outcome):
        return second if not first.equal and (isinstance(second, Comparison) or second.equal) else first
    if isinstance(second, Outcome):
        return second if second.equal else first
    return replace(first, otherwise=second)


def _compare_named(answer: str, target: str, kind: AnswerKind, options: tuple[str, ...], profile: Profile) -> Outcome:
    if kind == "choice":
        return compare_choice(answer, target, options, profile)
    if kind == "choices":
        return compare_choices(answer, target)
    if kind == "yes_no":
        return compare_yes_no(answer, target, profile)
    if kind == "year":
        return compare_years(answer, target)
    return compare_times(answer, target) if kind == "time" else compare_words(answer, target)


def _compare_normal(
    answer: str, target: str, kind: AnswerKind, tolerance: Tolerance | None, profile: Profile
) -> Outcome | Comparison:
    there = _form_of_target(target, answer, kind, profile)
    here = normal_form(answer, numeric=kind in NUMERIC_KINDS or read_number(there.body) is not None, profile=profile)
    converted = _converted(here, there, profile)
    if converted is None:
        return Outcome(equal=False, rule="unit")
    left, right = _aligned(*converted)
    if not left or not right:
        return Outcome(equal=False, rule="empty_form")
    if left == right or _label(left) == _label(right) is not None:
        return Outcome(equal=True, rule="same_form")
    if _is_contradiction(left) or _is_contradiction(right):
        return Outcome(equal=False, rule="contradiction")
    if _NAMED.search(left) or _NAMED.search(right):
        return Outcome(equal=_as_name(left) == _as_name(right), rule="same_name")
    left_number, right_number = read_number(left), read_number(right)
    if left_number and right_number:
        return _compare_values(left_number, right_number, tolerance, exact=kind == "integer", profile=profile)
    by_parts = compare_matrices(left, right)
    if by_parts is None and any(
        is_wordy(form) or _SHORT_WORD.fullmatch(raw.strip()) for form, raw in ((left, answer), (right, target))
    ):
        return compare_words(answer, target)
    left, right = with_signs_apart(left), with_signs_apart(right)
    by_parts = by_parts or compare_lists(left, right, kind, tolerance, profile)
    if isinstance(by_parts, Outcome):
        return by_parts
    unordered = by_parts is not None and by_parts.unordered
    if by_parts is not None:
        left, right = by_parts.answer, by_parts.target
    refused = refusal(left) or refusal(right)
    if refused:
        return Outcome(equal=False, rule=refused)
    return Comparison(answer=left, target=right, tolerance=tolerance, unordered=unordered)


def _form_of_target(target: str, answer: str, kind: AnswerKind, profile: Profile) -> Form:
    """The form of a target; "5 m" is 5 times m unless the kind or the answer says that m is a unit.

    The answer says so by a unit of its own, or by being a mere number.
    """
    form = normal_form(target, numeric=kind in NUMERIC_KINDS, profile=profile)
    if form.unit or kind in NUMERIC_KINDS or read_number(form.body):
        return form
    as_quantity = normal_form(target, numeric=True, profile=profile)
    beside = normal_form(answer, numeric=True, profile=profile)
    are_numbers = read_number(as_quantity.body) and read_number(beside.body)
    return as_quantity if are_numbers or (as_quantity.unit and beside.unit) else form


def _converted(answer: Form, target: Form, profile: Profile) -> tuple[str, str] | None:
    """Both bodies in the unit of the target, as the profile reads units and percent; None when units do not fit."""
    left, right = answer.body, target.body
    here, there = answer.unit, target.unit
    if profile.percent != "unit":
        here, there = (None if unit == "%" else unit for unit in (here, there))
    if not here or not there or here == there or profile.units == "strip":
        return left, right
    factor = conversion(here, there)
    return None if factor is None else (_scaled(left, factor), right)


def _scaled(body: str, factor: Fraction) -> str:
    if factor == 1:
        return body
    number = read_number(body)
    if number is None:
        return f"\\frac{{{factor.numerator}}}{{{factor.denominator}}}({body})"
    value = number.value * factor
    # A decimal stays one, so that it is still compared as loosely as decimals are.
    return f"{value.numerator}/{value.denominator}" + (".0" if number.is_decimal else "")


def _compare_values(
    answer: Number, target: Number, tolerance: Tolerance | None, *, exact: bool, profile: Profile
) -> Outcome:
    found = compare_numbers(answer, target, tolerance, exact=exact, closeness=profile.closeness)
    if found.equal or profile.percent != "either":
        return found
    for factor in (Fraction(1, 100), Fraction(100)):
        wanted = Number(value=target.value * factor, is_decimal=True)
        if compare_numbers(answer, wanted, tolerance, closeness=profile.closeness).equal:
            return Outcome(equal=True, rule="times_hundred")
    return found


def _aligned(answer: str, target: str) -> tuple[str, str]:
    """Both forms, without the name that only one of them gives its value, and inequalities beside intervals as such."""
    named_answer, named_target = _ASSIGNMENT.fullmatch(answer), _ASSIGNMENT.fullmatch(target)
    if named_answer and not _RELATION.search(target):
        answer = named_answer[2]
    elif named_target and not _RELATION.search(answer):
        target = named_target[2]
    for name, interval in ((named_answer, target), (named_target, answer)):
        if name and "\\in" in name[0] and as_interval(interval):
            answer, target = (name[2], target) if name is named_answer else (answer, name[2])
    return as_ranges(answer, target)


def _is_contradiction(form: str) -> bool:
    """Whether a form puts an equals sign between different numbers: "3=4" is worth neither."""
    sides = re.split(r"=|\\approx(?![a-z])", form)
    numbers = [number for number in map(read_number, sides) if number is not None]
    if len(sides) < 2 or len(numbers) < len(sides):
        return False
    share = _ROUNDED if "\\approx" in form else 0
    return any(abs(one.value - numbers[0].value) > share * abs(numbers[0].value) for one in numbers[1:])


def _as_name(form: str) -> str:
    return re.sub(r"[{}\s]", "", form.replace("–", "-"))


def _label(form: str) -> str | None:
    """The letter of a form such as "(C)" or "C", as multiple-choice targets of text data sets have it."""
    match = re.fullmatch(r"\(?([A-Z])\)?", form)
    return match[1] if match else None
