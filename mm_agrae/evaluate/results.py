"""Saved groups of an evaluation -> scored problems. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
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
        found.append({**record, "answer_classes": asdict(answer_classes(answers, correct, same))})
    return found


def problem_result(record: Record, greedy: Record | None, categories: Sequence[str]) -> ProblemResult:
    """How one problem went.

    Args:
        record: Its sampled completions.
        greedy: Its most probable completion; None where it was not drawn.
        categories: Metadata keys whose values the figures are tabulated by.
    """
    rollouts = record["rollouts"]
    return ProblemResult(
        sample_id=record["sample_id"],
        family=record["family"],
        difficulty=record["difficulty"],
        num_correct=sum(_is_correct(rollout) for rollout in rollouts),
        num_samples=len(rollouts),
        num_formatted=sum(rollout["verdict"]["formatted"] for rollout in rollouts),
        num_truncated=sum(rollout["stop_reason"] == "length" for rollout in rollouts),
        greedy_correct=_is_correct(greedy["rollouts"][0]) if greedy else None,
        classes=_classes(record["answer_classes"]) if len(rollouts) > 1 else None,  # one sample holds no vote
        group=record["group"],
        categories={axis: str(record["metadata"][axis]) for axis in categories if axis in record["metadata"]},
    )


def scored_record(record: Record, keys: Iterable[str]) -> Scored:
    """One saved problem as a score over groups sees it; errors as `scored`."""
    facts = {"family": record["family"], **record["metadata"]}
    correct = tuple(_is_correct(rollout) for rollout in record["rollouts"])
    return scored(record["sample_id"], record["group"], facts, correct, keys)


def scored(
    sample_id: str, group: str, facts: Mapping[str, Any], correct: tuple[bool, ...], keys: Iterable[str]
) -> Scored:
    """One problem as a score over groups sees it.

    Args:
        sample_id: Its id.
        group: What it is scored together with.
        facts: Its family and its metadata.
        correct: One flag per completion.
        keys: Those of its facts that the score needs.

    Raises:
        DataError: A key is missing.
    """
    for key in keys:
        if key not in facts:
            raise DataError(
                f"sample {sample_id!r} has no metadata {key!r}, but its score over groups needs it; there is "
                f"{sorted(facts)}. Convert the data set again with its own processor."
            )
    return Scored(sample_id=sample_id, group=group, keys={key: str(facts[key]) for key in keys}, correct=correct)


def _classes(saved: Mapping[str, Any]) -> AnswerClasses:
    """What `with_classes` saved; JSON made lists of its tuples."""
    return AnswerClasses(**{**saved, "sizes": tuple(saved["sizes"]), "correct": tuple(saved["correct"])})


def _votes(record: Record) -> tuple[list[str | None], list[bool]]:
    rollouts = record["rollouts"]
    return [rollout["verdict"]["answer"] for rollout in rollouts], [_is_correct(rollout) for rollout in rollouts]


def _is_correct(rollout: Record) -> bool:
    return rollout["verdict"]["status"] == "correct"
