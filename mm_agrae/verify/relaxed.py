"""The relaxed accuracy of chart questions: ChartQA, ChartQAPro and CharXiv's rule without a judge."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

from mm_agrae.verify.kinds import compare_words
from mm_agrae.verify.literals import literal_list, plain_number
from mm_agrae.verify.normalise import MAX_CHARS, normal_form, read_number, words
from mm_agrae.verify.outcome import Outcome, compare_numbers
from mm_agrae.verify.question import Question

RELAXATION = 0.05
_ANLS_THRESHOLD = 0.5


def compare_relaxed(answer: str, question: Question) -> Outcome:
    """ChartQA: numbers may be off by 5 %, all else is compared as text without case.

    |answer - target| / |target| <= 0.05, a trailing "%" divides by 100     relaxed accuracy, ChartQA, arXiv:2203.10244

    As in the published rule: a target of 0 is compared as text, so "0.0" is wrong; "3,000" is no number; years are
    numbers like others, so 2009 is right for 2010; punctuation counts.

    Args:
        answer: The extracted answer.
        question: Its tolerance, where it is relative, replaces the 5 %.
    """
    given, wanted = _as_float(answer), _as_float(question.target)
    if given is not None and wanted:
        share = RELAXATION
        if question.tolerance is not None and question.tolerance.kind == "relative":
            share = question.tolerance.value
        # The limit belongs to the accepted; rounding of the quotient must not push it out.
        return Outcome(equal=abs(given - wanted) / abs(wanted) <= share + 1e-12, rule="relaxed_number")
    return Outcome(equal=answer.strip().lower() == question.target.strip().lower(), rule="relaxed_text")


def compare_chartqapro(answer: str, question: Question) -> Outcome:
    """ChartQAPro: years, letters and yes or no exactly, other numbers within 5 %, other text by edit distance.

    Text scores 1 - distance / length of the longer one; 0.5 or more is right (ANLS). "%" is stripped from both sides,
    a target of 0 must be met exactly, and lists are compared part by part, in order.     ChartQAPro, arXiv:2504.05506
    """
    if question.answer_kind in ("year", "choice", "choices", "yes_no"):
        if len(answer) > MAX_CHARS:
            return Outcome(equal=answer == question.target, rule="refused_length")
        return Outcome(equal=words(answer) == words(question.target), rule="exact_text")
    given, wanted = _listed(answer), _listed(question.target)
    if len(given) != len(wanted):
        return Outcome(equal=False, rule="list_length")
    return Outcome(
        equal=all(_is_near(here, there) for here, there in zip(given, wanted, strict=True)), rule="relaxed_parts"
    )


def compare_charxiv(answer: str, question: Question) -> Outcome:
    """CharXiv without a judge: numbers must be equal, text is compared as words.

    Stricter than the published scores, which a language model gives: another wording of the right answer is wrong.
    """
    if len(answer) > MAX_CHARS:
        return Outcome(equal=False, rule="refused_length")
    here, there = normal_form(answer, numeric=True), normal_form(question.target, numeric=True)
    given, wanted = read_number(here.body), read_number(there.body)
    if given and wanted and here.unit in (there.unit, None):
        return compare_numbers(given, wanted, question.tolerance)
    if here.body and here == there:
        return Outcome(equal=True, rule="same_form")
    return compare_words(answer, question.target)


def anls(answer: str, target: str) -> float:
    """1 - edit distance / length of the longer one, without case and outer spaces; 0 below one half. In [0, 1]."""
    similarity = Levenshtein.normalized_similarity(answer.strip().lower(), target.strip().lower())
    return similarity if similarity >= _ANLS_THRESHOLD else 0.0


def _as_float(text: str) -> float | None:
    """The value of a plain float, a trailing "%" read as hundredths; None for anything else."""
    shown = text.strip()
    divisor = 1.0
    if shown.endswith("%"):
        shown, divisor = shown.rstrip("%"), 100.0
    value = plain_number(shown)
    return None if value is None else float(value) / divisor


def _listed(text: str) -> list[str]:
    shown = text.strip()
    if not (shown.startswith("[") and shown.endswith("]")):
        return [shown]
    found = literal_list(shown)
    return [part.strip() for part in shown[1:-1].split(",")] if found is None else found


def _is_near(answer: str, target: str) -> bool:
    given, wanted = (_as_float(side.strip().strip("%").strip()) for side in (answer, target))
    if given is None or wanted is None:
        return bool(answer) and anls(answer, target) > 0
    return given == wanted if wanted == 0 else abs(given - wanted) / abs(wanted) <= RELAXATION + 1e-12
