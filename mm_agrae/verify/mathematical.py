"""The rules of the visual mathematics benchmarks: MathVista, MATH-Vision, MathVerse, DynaMath, We-Math."""

from __future__ import annotations

import re
from dataclasses import replace

from rapidfuzz.distance import Indel, Levenshtein

from mm_agrae.records import Tolerance
from mm_agrae.verify.choices import compare_choice, letter_index, letters_of
from mm_agrae.verify.equivalence import compare_forms, compare_simply
from mm_agrae.verify.literals import plain_number
from mm_agrae.verify.normalise import MAX_CHARS, flattened, normal_form, read_number, repaired
from mm_agrae.verify.outcome import Comparison, Outcome, compare_numbers
from mm_agrae.verify.profiles import profile_named
from mm_agrae.verify.question import Question

_BRACKETED_LETTER = re.compile(r"\(([A-Za-z])\)")
_LEAST_SIMILARITY = 0.5
_DYNAMATH_MARGIN = 0.001
_MATHVISION_DECIMALS = 2
_HALF_HUNDREDTH = Tolerance(kind="absolute", value=0.005)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_VARIABLE = re.compile(r"[A-Za-z=<>,]")


def compare_mathvista(answer: str, question: Question) -> Outcome:
    """MathVista: letter to option text, nearest option, whole part of integers, decimals rounded; then equal text.

    A choice is named by a letter, in brackets or alone, else by the option with the smallest edit distance. An integer
    is cut, not rounded: 7.9 is 7. A decimal is rounded to as many places as the tolerance says, a list is compared as
    it is written, spaces included.     calculate_score of MathVista, arXiv:2310.02255

    Departures: a letter that no option has names no option, nor does an answer without a letter or digit, or one whose
    similarity to the nearest option is below 0.5 (1 - insertions and deletions / length of both).
    """
    if question.answer_kind == "choice":
        return _compare_nearest_option(answer, question)
    if question.answer_kind == "integer":
        given, wanted = plain_number(answer), plain_number(question.target)
        equal = given is not None and wanted is not None and int(given) == int(wanted)
        return Outcome(equal=equal, rule="whole_part")
    if question.answer_kind == "decimal":
        given, wanted = plain_number(answer), plain_number(question.target)
        if given is None or wanted is None:
            return Outcome(equal=False, rule="no_number")
        places = int(question.tolerance.value) if question.tolerance and question.tolerance.kind == "round" else 2
        return Outcome(equal=round(float(given), places) == round(float(wanted), places), rule="rounded")
    return Outcome(equal=answer.strip() == question.target.strip(), rule="same_text")


def compare_mathvision(answer: str, question: Question) -> Outcome | Comparison:
    """MATH-Vision: the letter or the value of the right option; values to two decimals, without units.

    Both sides are rounded to two decimals, so 0.3 is not 1/3, but 0.33 is. What stands before "=" or "\\approx" is
    dropped.     is_equal of MATH-Vision, arXiv:2402.14804

    Departure: values are read by our own reader and never evaluated as code.
    """
    if len(answer) > MAX_CHARS:
        return Outcome(equal=answer == question.target, rule="refused_length")
    shown, target = _after_equals(answer), _after_equals(question.target)
    if question.answer_kind == "choice":
        by_letter = compare_choice(shown, target, question.options, profile_named(question.profile))
        # Two options with one text are both right: the rule also compares with the value.
        value = _option_text(target, question.options)
        if by_letter.equal or value is None:
            return by_letter
        shown, target = _option_text(shown, question.options) or shown, value
    if shown.lower() == target.lower():
        return Outcome(equal=True, rule="same_text")
    numbers = [_rounded_parts(side, question.profile) for side in (shown, target)]
    if numbers[0] is not None and numbers[1] is not None:
        return Outcome(equal=numbers[0] == numbers[1], rule="two_decimals")
    found = compare_simply(shown, target, "math", tolerance=_HALF_HUNDREDTH, profile=profile_named(question.profile))
    if isinstance(found, Comparison) and not _VARIABLE.search(_COMMAND.sub(" ", found.answer + " " + found.target)):
        return replace(found, tolerance=_HALF_HUNDREDTH)
    return found


def compare_mathverse(answer: str, question: Question) -> Outcome | Comparison:
    """MathVerse by rule: the set of letters for a choice, where the target is letters; else the general rule.

    The published score lets a language model match answers (arXiv:2403.14624). Some targets of choices are no letters
    ("053^\\circ T", "False"), some are two ("C\\nD"): those are compared as what they are.
    """
    if question.answer_kind in ("choice", "choices"):
        wanted = letters_of(question.target)
        if wanted is not None and len(wanted) > 1:
            return Outcome(equal=letters_of(answer) == wanted, rule="letter_set")
        if wanted is not None:
            return compare_choice(answer, next(iter(wanted)), question.options, profile_named(question.profile))
        question = replace(question, answer_kind="math")
    return compare_forms(answer, question)


def compare_dynamath(answer: str, question: Question) -> Outcome:
    """DynaMath: numbers within 0.001, letters exactly, text when the answer is part of the target, without case.

    Departures: an empty answer is part of nothing, and one that names several letters names none.     arXiv:2411.00836
    """
    if question.answer_kind in ("decimal", "integer", "fraction"):
        forms = [normal_form(side[:MAX_CHARS], numeric=True) for side in (answer, question.target)]
        given, wanted = (read_number(form.body) for form in forms)
        if given is None or wanted is None:
            return Outcome(equal=False, rule="no_number")
        tolerance = question.tolerance or Tolerance(kind="absolute", value=_DYNAMATH_MARGIN)
        return compare_numbers(given, wanted, tolerance)
    if question.answer_kind == "choice":
        if len(answer) > MAX_CHARS:
            return Outcome(equal=False, rule="refused_length")
        letter = letter_index(answer, question.options)
        equal = letter is not None and letter == letter_index(question.target, question.options)
        return Outcome(equal=equal, rule="letter")
    shown = answer.strip().lower()
    return Outcome(equal=bool(shown) and shown in question.target.lower(), rule="part_of_target")


def compare_wemath(answer: str, question: Question) -> Outcome:
    """We-Math: the first character after stripping spaces and "<>:." must be the letter.     arXiv:2407.01284"""
    given, wanted = (side.strip().strip("<>:.()*").strip()[:1].upper() for side in (answer, question.target))
    return Outcome(equal=given != "" and given in "ABCDEFGH" and given == wanted, rule="letter")


def compare_letters(answer: str, question: Question) -> Outcome:
    """LogicVista: the set of letters must match fully; a reply that is not all letters has none. arXiv:2407.04973"""
    given, wanted = _capitals(answer), _capitals(question.target)
    if wanted is None:
        return Outcome(equal=answer.strip().lower() == question.target.strip().lower(), rule="same_text")
    return Outcome(equal=given == wanted, rule="letter_set")


def _capitals(text: str) -> frozenset[str] | None:
    shown = re.match(r"\(?([A-Z])\)?[.:]\s", text)
    return frozenset({shown[1]}) if shown else None if text.islower() else letters_of(text)


def _compare_nearest_option(answer: str, question: Question) -> Outcome:
    options, target = question.options, question.target
    if len(answer) > MAX_CHARS:
        return Outcome(equal=False, rule="refused_length")
    if not options:
        return Outcome(equal=flattened(answer).strip("() .") == flattened(target).strip("() ."), rule="same_text")
    given, rule = _nearest_option(answer, options)
    wanted = target if target in options else _nearest_option(target[:MAX_CHARS], options)[0]
    return Outcome(equal=given is not None and given == wanted, rule=rule)


def _nearest_option(text: str, options: tuple[str, ...]) -> tuple[str | None, str]:
    """The text of the option that an answer names, and the rule by which."""
    letter = _BRACKETED_LETTER.search(text)
    shown = letter[1].upper() if letter else flattened(text).strip()
    if re.fullmatch(r"[A-Za-z]\.?", shown) and text.strip() not in options:
        return _option_text(shown, options), "option_letter"
    nearest = min(options, key=lambda option: Levenshtein.distance(shown, option))
    is_near = Indel.normalized_similarity(shown, nearest) >= _LEAST_SIMILARITY
    return (nearest, "nearest_option") if is_near and any(map(str.isalnum, shown)) else (None, "no_option")


def _option_text(letter: str, options: tuple[str, ...]) -> str | None:
    shown = flattened(letter).strip("() .").upper()
    index = ord(shown) - ord("A") if len(shown) == 1 else -1
    return options[index] if 0 <= index < len(options) else None


def _after_equals(text: str) -> str:
    return re.split(r"=|\\approx(?![a-z])", repaired(text))[-1].strip().rstrip(".").strip()


def _rounded_parts(text: str, profile: str) -> tuple[float, ...] | None:
    """The numbers of a value or a tuple, to two decimals; None where a part is no plain number."""
    body = normal_form(text, numeric=True, profile=profile_named(profile)).body
    parts = [read_number(part) for part in body.strip("()[]{}").split(",")]
    values = [part.value for part in parts if part is not None]
    if len(values) != len(parts) or any(abs(value) > 10**300 for value in values):
        return None
    return tuple(round(float(value), _MATHVISION_DECIMALS) for value in values)
