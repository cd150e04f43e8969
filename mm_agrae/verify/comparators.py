"""The comparison that a profile names. Each is a small function of the extracted answer and its question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mm_agrae.verify.equivalence import compare_forms
from mm_agrae.verify.mathematical import (
    compare_dynamath,
    compare_letters,
    compare_mathverse,
    compare_mathvision,
    compare_mathvista,
    compare_wemath,
)
from mm_agrae.verify.mmmu import as_target, compare_mmmu
from mm_agrae.verify.outcome import Comparison, Outcome
from mm_agrae.verify.profiles import Comparator, profile_named
from mm_agrae.verify.question import Question
from mm_agrae.verify.relaxed import compare_chartqapro, compare_charxiv, compare_relaxed
from mm_agrae.verify.textual import (
    compare_dapo,
    compare_integer_text,
    compare_math,
    compare_mathruler,
    compare_olympiad,
    compare_yes_no_word,
)

COMPARATORS: Mapping[Comparator, Callable[[str, Question], Outcome | Comparison]] = {
    "forms": compare_forms,
    "relaxed": compare_relaxed,
    "chartqapro": compare_chartqapro,
    "charxiv": compare_charxiv,
    "mathvista": compare_mathvista,
    "mathvision": compare_mathvision,
    "mathverse": compare_mathverse,
    "mmmu": compare_mmmu,
    "dynamath": compare_dynamath,
    "wemath": compare_wemath,
    "letters": compare_letters,
    "yes_no_word": compare_yes_no_word,
    "olympiad": compare_olympiad,
    "integer_text": compare_integer_text,
    "dapo": compare_dapo,
    "math": compare_math,
    "mathruler": compare_mathruler,
}


def compare_answer(answer: str, question: Question) -> Outcome | Comparison:
    """Compare an extracted answer with the target of a question, as far as that needs no computer algebra."""
    return COMPARATORS[profile_named(question.profile).comparator](answer, question)


def compare_answers(one: str, other: str, question: Question) -> Outcome | Comparison:
    """Compare two extracted answers to a question: each must be right where the other is the target.

    Some rules favour the answer (an alternative in the target, a part of the target), so one direction is not enough.
    """
    if one.strip() == other.strip():
        return Outcome(equal=True, rule="same_text")
    first = compare_answer(one, replace(question, target=_as_target(other, question)))
    back = compare_answer(other, replace(question, target=_as_target(one, question)))
    for found in (first, back):
        if isinstance(found, Outcome) and not found.equal:
            return found
    return back if isinstance(first, Outcome) else first


def _as_target(answer: str, question: Question) -> str:
    is_open_mmmu = profile_named(question.profile).comparator == "mmmu" and question.answer_kind != "choice"
    return as_target(answer) if is_open_mmmu else answer
