"""Saved groups of an evaluation -> scored problems. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mm_agrae.errors import DataError
from mm_agrae.evaluate.statistics import ProblemResult
from mm_agrae.metrics.group_scores import Scored
from mm_agrae.metrics.majority import AnswerClasses, answer_classes, pairs_to_compare
from mm_agrae.records import Tolerance
from mm_agrae.verify import Question, VerifierPool

Record = Mapping[str, Any]


def question_of(record: Record, profile: str) -> Question:
    """What the completions of a saved group are judged against."""
    tolerance = record["tolerance"]
    return Question(
        target=record["target"],
        answer_kind=record["answer_kind"],
        options=tuple(record["options"]),
        tolerance=Tolerance(**tolerance) if tolerance else None,
        profile=profile,
    )


def with_classes(records: Sequence[Record], verifier: VerifierPool, profile: str) -> list[dict[str, Any]]:
    """The records, each with its answers sorted into classes of equal ones: what a majority votes on."""
    votes = [_votes(record) for record in records]
    pairs = [pairs_to_compare(answers, correct) for answers, correct in votes]
    questions = [question_of(record, profile) for record in records]
    flat = [(pair, question) for row, question in zip(pairs, questions, strict=True) for pair in row]
    equal = iter(verifier.same_answers([pair for pair, _ in flat], [question for _, question in flat]))
    found = []
    for record, (answers, correct), row in zip(records, votes, pairs, strict=True):
        same = [pair for pair in row if next(equal)]
        classes = answer_classes(answers, correct, same)
        found.append(
            {
                **record,
                "answer_classes": {
                    "sizes": list(classes.sizes),
                    "correct": list(classes.correct),
                    "num_unanswered": classes.num_unanswered,
                },
            }
        )
    return found


def problem_result(record: Record, greedy: Record | None, categories: Sequence[str]) -> ProblemResult:
    """How one problem went.

    Args:
        record: Its sampled completions.
        greedy: Its most probable completion; None where it was not drawn.
        categories: Metadata keys whose values the figures are tabulated by.
    """
    rollouts = record["rollouts"]
    classes = record["answer_classes"]
    return ProblemResult(
        sample_id=record["sample_id"],
        family=record["family"],
        difficulty=record["difficulty"],
        num_correct=sum(_is_correct(rollout) for rollout in rollouts),
        num_samples=len(rollouts),
        num_formatted=sum(rollout["verdict"]["formatted"] for rollout in rollouts),
        num_truncated=sum(rollout["stop_reason"] == "length" for rollout in rollouts),
        greedy_correct=_is_correct(greedy["rollouts"][0]) if greedy else None,
        classes=AnswerClasses(
            sizes=tuple(classes["sizes"]),
            correct=tuple(classes["correct"]),
            num_unanswered=classes["num_unanswered"],
        )
        if len(rollouts) > 1
        else None,  # one sample holds no vote
        group=record["group"],
        categories={axis: str(record["metadata"][axis]) for axis in categories if axis in record["metadata"]},
    )


def scored(record: Record, keys: Iterable[str]) -> Scored:
    """One problem as a score over groups sees it.

    Raises:
        DataError: The problem's metadata lack a key.
    """
    found = {"family": record["family"], **record["metadata"]}
    for key in keys:
        if key not in found:
            raise DataError(
                f"sample {record['sample_id']!r} has no metadata {key!r}, but its score over groups needs it; there is "
                f"{sorted(found)}. Convert the data set again with its own processor."
            )
    return Scored(
        sample_id=record["sample_id"],
        group=record["group"],
        keys={key: str(found[key]) for key in keys},
        correct=tuple(_is_correct(rollout) for rollout in record["rollouts"]),
    )


def _votes(record: Record) -> tuple[list[str | None], list[bool]]:
    rollouts = record["rollouts"]
    return [rollout["verdict"]["answer"] for rollout in rollouts], [_is_correct(rollout) for rollout in rollouts]


def _is_correct(rollout: Record) -> bool:
    return rollout["verdict"]["status"] == "correct"
