"""Judge a completion: extract -> normalise -> compare. Rewards and benchmark scores both come from here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from mm_agrae.records import Verdict
from mm_agrae.verify.comparators import compare_answer
from mm_agrae.verify.equivalence import shown_form
from mm_agrae.verify.extract import Extraction, extract, find_boxes, start_of_reply
from mm_agrae.verify.outcome import Comparison, Outcome
from mm_agrae.verify.question import Question

_AFTER_BOX = re.compile(r"(?:[\s$.,;:!?*。]|\\[)\]]|</answer>|</s>|<\|[a-z_]{1,20}\|>)*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A judgement that waits for computer algebra."""

    text: str
    question: Question
    extraction: Extraction
    comparison: Comparison


def verify(text: str, question: Question) -> Verdict:
    """Judge a completion in this process. Never raises on model text and never evaluates it as code.

    There is no deadline here: the guards keep out what is known to hang, but only `VerifierPool` can end what is not.
    """
    begun = time.perf_counter()
    first = begin(text, question)
    if isinstance(first, Verdict):
        return first
    from mm_agrae.verify.symbolic import compare  # costs a second, and plain answers never need it

    outcome = compare(first.comparison)
    return settle(first, outcome, seconds=time.perf_counter() - begun)


def begin(text: str, question: Question) -> Verdict | Pending:
    """Do everything that needs no computer algebra."""
    begun = time.perf_counter()
    extraction = extract(text, question.answer_kind, num_options=len(question.options), profile=question.rules)
    if extraction is None:
        return _verdict(text, question, None, Outcome(equal=False, rule="no_answer"), time.perf_counter() - begun)
    first = compare_answer(extraction.answer, question)
    if isinstance(first, Comparison):
        return Pending(text=text, question=question, extraction=extraction, comparison=first)
    return _verdict(text, question, extraction, first, time.perf_counter() - begun)


def settle(pending: Pending, outcome: Outcome | None, *, seconds: float, rule: str = "timeout") -> Verdict:
    """The verdict of a pending judgement; without an outcome it is a timeout, for the reason that `rule` names."""
    if outcome is None:
        stopped = Outcome(equal=False, rule=rule)
        return _verdict(pending.text, pending.question, pending.extraction, stopped, seconds, timed_out=True)
    return _verdict(pending.text, pending.question, pending.extraction, outcome, seconds)


def is_formatted(text: str) -> bool:
    """Whether a completion ends in the form that was asked for.

    After its thinking (see `extract`) it holds exactly one box command, that box is closed and not blank, and after it
    comes nothing but white space, "$", ". , ; : ! ? *", closing math delimiters, "</answer>" or special tokens such as
    "<|im_end|>".
    """
    first = start_of_reply(text)
    if first is None:
        return False
    text = text[first:]
    boxes, num_commands = find_boxes(text)
    if num_commands != 1 or len(boxes) != 1:
        return False
    start, end = boxes[0].inner
    return bool(text[start:end].strip()) and _AFTER_BOX.fullmatch(text, boxes[0].end) is not None


def _verdict(
    text: str,
    question: Question,
    extraction: Extraction | None,
    outcome: Outcome,
    seconds: float,
    *,
    timed_out: bool = False,
) -> Verdict:
    kind, profile = question.answer_kind, question.rules
    if extraction is None:
        return Verdict(
            status="unparsed", answer=None, span=None, answer_form=None, target_form=None, kind=kind,
            rule=outcome.rule, formatted=is_formatted(text), seconds=seconds,
        )  # fmt: skip
    return Verdict(
        status="timeout" if timed_out else "correct" if outcome.equal else "wrong",
        answer=extraction.answer,
        span=extraction.span,
        answer_form=shown_form(extraction.answer, kind, profile),
        target_form=shown_form(question.target, kind, profile),
        kind=kind,
        rule=f"{extraction.rule}/{outcome.rule}",
        formatted=is_formatted(text),
        seconds=seconds,
    )
