"""Compare an answer with a target. Third stage of extract -> normalise -> compare.

`compare_simply` decides everything that needs no computer algebra and hands back a `Comparison` for the rest.

Policies:
- Units: a unit on one side only is ignored; two known units must be the same. Percent is a unit: 28% equals 28 and
  not 0.28.
- Numbers are compared exactly; where one is written with a decimal point, to 1e-6 relative, but integers never loosely.
- An assignment ("x=5", "(p,q)=(3,2)", "x \\in [0,1]") on one side only is dropped; on both sides it must agree.
- Lists without brackets and sets are unordered; tuples and intervals are ordered and keep their brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from mm_agrae.records import AnswerKind, Tolerance
from mm_agrae.verify.guards import is_wordy, refusal
from mm_agrae.verify.normalise import MAX_CHARS, Form, Number, flattened, normal_form, read_number, split_list, words

_RELATIVE_TOLERANCE = Fraction(1, 10**6)
_NUMERIC_KINDS = frozenset({"integer", "decimal", "fraction"})
_TOLERANCE_RULES = {"round": "rounds_to", "absolute": "within_difference", "relative": "within_share"}
_ASSIGNMENT = re.compile(r"([A-Za-z]|\\[a-z]+|\([A-Za-z](?:,[A-Za-z])*\)|[A-Za-z]\([A-Za-z]\))(?:=|\\in(?![a-z]))(.+)")
_CHOICE = re.compile(r"\(?([A-Za-z])(?:\)|\.|:|\*\*)?\s*(.*)", re.DOTALL)
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![a-z])")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Whether answer and target are equal, and the rule that decided."""

    equal: bool
    rule: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two forms that only algebra can compare; with a tolerance, by their numerical values."""

    answer: str
    target: str
    tolerance: float | None = None


def compare_simply(
    answer: str, target: str, kind: AnswerKind, *, options: tuple[str, ...] = (), tolerance: Tolerance | None = None
) -> Outcome | Comparison:
    """Compare without computer algebra, or say what algebra has to compare.

    Args:
        answer: The extracted answer.
        target: The reference answer; for a choice the letter or the text of an option.
        kind: How answers are compared.
        options: Texts of the options of a choice, in order.
        tolerance: How exact a number must be; None for exact where it is written exactly.
    """
    if answer.strip() == target.strip():
        return Outcome(equal=True, rule="same_text")
    if len(answer) > MAX_CHARS or len(target) > MAX_CHARS:
        return Outcome(equal=False, rule="refused_length")
    if kind == "choice":
        return _compare_choice(answer, target, options)
    if kind == "text":
        return Outcome(equal=words(answer) == words(target), rule="words")
    return _compare_forms(answer, target, kind, tolerance)


def _compare_forms(answer: str, target: str, kind: AnswerKind, tolerance: Tolerance | None) -> Outcome | Comparison:
    numeric = kind in _NUMERIC_KINDS
    answer_form, target_form = normal_form(answer, numeric=numeric), normal_form(target, numeric=numeric)
    if answer_form.unit and target_form.unit and answer_form.unit != target_form.unit:
        return Outcome(equal=False, rule="unit")
    left, right = _aligned(answer_form.body, target_form.body)
    if not left or not right:
        return Outcome(equal=False, rule="empty_form")
    if left == right or _label(left) == _label(right) is not None:
        return Outcome(equal=True, rule="same_form")
    left_number, right_number = read_number(left), read_number(right)
    if left_number and right_number:
        return _compare_numbers(left_number, right_number, tolerance, exact=kind == "integer")
    if is_wordy(left) or is_wordy(right):
        return Outcome(equal=words(answer) == words(target), rule="words")
    listed = _compare_lists(left, right)
    if listed is not None:
        return listed
    refused = refusal(left) or refusal(right)
    if refused:
        return Outcome(equal=False, rule=refused)
    margin = float(_margin(tolerance, right_number.value)) if tolerance and right_number else None
    return Comparison(answer=left, target=right, tolerance=margin)


def shown_form(raw: str, kind: AnswerKind) -> str | None:
    """The normal form of an answer or a target for the record, or None when it is too long to have one."""
    if len(raw) > MAX_CHARS:
        return None
    if kind in ("choice", "text"):
        return words(raw)
    form: Form = normal_form(raw, numeric=kind in _NUMERIC_KINDS)
    return f"{form.body} [{form.unit}]" if form.unit else form.body


def _compare_numbers(answer: Number, target: Number, tolerance: Tolerance | None, *, exact: bool = False) -> Outcome:
    difference = abs(answer.value - target.value)
    if difference == 0:
        return Outcome(equal=True, rule="same_number")
    if tolerance is not None:
        return Outcome(equal=difference <= _margin(tolerance, target.value), rule=_TOLERANCE_RULES[tolerance.kind])
    both_whole = answer.value.denominator == target.value.denominator == 1
    if exact or both_whole or not (answer.is_decimal or target.is_decimal):
        return Outcome(equal=False, rule="same_number")
    return Outcome(equal=difference <= _RELATIVE_TOLERANCE * abs(target.value), rule="close_number")


def _margin(tolerance: Tolerance, target: Fraction) -> Fraction:
    """The greatest difference from the target that a tolerance allows."""
    if tolerance.kind == "round":
        # Half a unit of the last decimal on both sides: rounding half up and half to even are both accepted.
        return Fraction(1, 2) / 10 ** int(tolerance.value)
    share = Fraction(str(tolerance.value))  # 0.05 means 1/20, not the nearest binary fraction
    return share * abs(target) if tolerance.kind == "relative" else share


def _aligned(answer: str, target: str) -> tuple[str, str]:
    """Both forms, without the name that only one of them gives its value."""
    named_answer, named_target = _ASSIGNMENT.fullmatch(answer), _ASSIGNMENT.fullmatch(target)
    if named_answer and not _RELATION.search(target):
        answer = named_answer[2]
    elif named_target and not _RELATION.search(answer):
        target = named_target[2]
    return answer, target


def _label(form: str) -> str | None:
    """The letter of a form such as "(C)" or "C", as multiple-choice targets of text data sets have it."""
    match = re.fullmatch(r"\(?([A-Z])\)?", form)
    return match[1] if match else None


def _compare_lists(answer: str, target: str) -> Outcome | None:
    """Decide lists, sets, tuples and intervals by shape and, where all parts are numbers, by value."""
    left, right = _brackets(answer), _brackets(target)
    left_parts, right_parts = split_list(left[1]), split_list(right[1])
    if len(left_parts) == len(right_parts) == 1:
        return None
    if re.search(r"\\(?:cup|pm|le|ge)(?![a-z])|[<>]", answer + target):
        return None  # an inequality may equal an interval, and unions and signs stand for several parts
    if len(left_parts) != len(right_parts):
        return Outcome(equal=False, rule="list_length")
    if left[0] != right[0]:
        return Outcome(equal=False, rule="brackets")
    pairs = _ordered(left_parts, left[0]), _ordered(right_parts, right[0])
    numbers = [[read_number(part) for part in parts] for parts in pairs]
    if any(number is None for side in numbers for number in side):
        return Outcome(equal=True, rule="same_parts") if pairs[0] == pairs[1] else None
    outcomes = [_compare_numbers(a, b, None) for a, b in zip(*numbers, strict=True) if a is not None and b is not None]
    return Outcome(equal=all(outcome.equal for outcome in outcomes), rule="same_parts")


def _brackets(form: str) -> tuple[str, str]:
    """The kind of outer brackets ("" for none, "{}" for a set) and what stands inside."""
    form = form.replace("\\{", "{").replace("\\}", "}")
    kind = form[:1] + form[-1:]
    if kind in ("()", "[]", "(]", "[)", "{}") and _closes_at_end(form):
        return ("" if kind == "{}" else kind), form[1:-1]
    return "", form


def _closes_at_end(form: str) -> bool:
    depth = 0
    for index, char in enumerate(form):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index == len(form) - 1
    return False


def _ordered(parts: list[str], brackets: str) -> list[str]:
    """Parts in an order that two equal lists share: their own in brackets, by value otherwise."""
    if brackets:
        return parts
    return sorted(parts, key=lambda part: (number.value if (number := read_number(part)) else Fraction(0), part))


def _compare_choice(answer: str, target: str, options: tuple[str, ...]) -> Outcome:
    wanted, given = _option_index(target, options), _option_index(answer, options)
    if wanted is None:
        return Outcome(equal=words(answer) == words(target), rule="words")
    if given is not None:
        if given != wanted and given < len(options) and wanted < len(options):
            # Two options with one text: whoever says the text cannot tell them apart.
            is_letter = _letter_index(answer, options) is not None
            return Outcome(equal=not is_letter and _same_option(answer, options[wanted]), rule="option_letter")
        return Outcome(equal=given == wanted, rule="option_letter")
    return Outcome(equal=wanted < len(options) and _same_option(answer, options[wanted]), rule="option_text")


def _option_index(text: str, options: tuple[str, ...]) -> int | None:
    """Which option a text names, by letter or by its text."""
    by_letter = _letter_index(text, options)
    if by_letter is not None:
        return by_letter
    return next((index for index, option in enumerate(options) if _same_option(text, option)), None)


def _letter_index(text: str, options: tuple[str, ...]) -> int | None:
    shown = re.sub(r"^(?:option|choice)\s+", "", flattened(text), flags=re.IGNORECASE)
    match = _CHOICE.fullmatch(shown)
    if match is None:
        return None
    index, rest = ord(match[1].upper()) - ord("A"), match[2]
    if options and index >= len(options):
        return None
    if not rest or (options and _same_option(rest, options[index])):
        return index
    is_marked = shown.startswith("(") or shown[1:2] in (")", ".", ":")
    return index if is_marked and match[1].isupper() else None


def _same_option(text: str, option: str) -> bool:
    if words(text) == words(option):
        return True
    left, right = normal_form(text), normal_form(option)
    left_number, right_number = read_number(left.body), read_number(right.body)
    if left.unit and right.unit and left.unit != right.unit:
        return False
    if left_number and right_number:
        return left_number.value == right_number.value
    return bool(left.body) and left.body == right.body
