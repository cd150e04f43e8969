"""Does the verifier agree with labelled cases? Cases from JSON lines, and tables of where it agrees.

A case is one line: {"id", "prediction", "gold", "answer_type", "expected"} and, where they matter, "profile" ("generic"
when absent), "category", "options" and "tolerance" ({"kind": "round", "digits": 2}, or "absolute" or "relative" with
"value"). Other keys may stand there and mean nothing.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mm_agrae.errors import ConfigError, DataError
from mm_agrae.records import AnswerKind, Tolerance, Verdict
from mm_agrae.verify.pool import VerifierPool
from mm_agrae.verify.profiles import profile_named
from mm_agrae.verify.question import Question

# What data sets call their answers -> our kinds; our own names stand for themselves.
ANSWER_TYPES: Mapping[str, AnswerKind] = {
    **{kind: kind for kind in get_args(AnswerKind)},
    "float": "decimal",
    "multi_choice": "choices",
    "yesno": "yes_no",
    "relaxed": "math",  # a number within the tolerance, or words
    "short_answer": "text",
}
_TOLERANCE_FIELDS: Mapping[Literal["round", "absolute", "relative"], str] = {
    "round": "digits",
    "absolute": "value",
    "relative": "value",
}
_SHOWN_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class Case:
    """A prediction, the question that it answers, and the label: whether it counts as correct."""

    id: str
    category: str
    prediction: str
    question: Question
    expected: bool


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A case and what the verifier says of it."""

    case: Case
    verdict: Verdict

    @property
    def agrees(self) -> bool:
        return self.verdict.correct == self.case.expected

    def facts(self) -> dict[str, Any]:
        """What a disagreement shows."""
        question = self.case.question
        return {
            "id": self.case.id,
            "profile": question.profile,
            "category": self.case.category,
            "kind": question.answer_kind,
            "prediction": self.case.prediction,
            "gold": question.target,
            "expected": self.case.expected,
            "status": self.verdict.status,
            "answer": self.verdict.answer,
            "rule": self.verdict.rule,
        }


class UnknownRuleError(DataError):
    """A case asks for a profile or a kind of answer that there is not."""


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """A case that no rule here can judge. It agrees with nothing, and the others are judged all the same."""

    record: Mapping[str, Any]
    reason: str

    @property
    def agrees(self) -> bool:
        return False

    def facts(self) -> dict[str, Any]:
        """What a disagreement shows."""
        keys = ("id", "profile", "category", "prediction", "gold", "expected")
        stated = {key: self.record.get(key, "") for key in keys}
        return {**stated, "kind": None, "status": "not judged", "answer": None, "rule": self.reason}


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of how many cases agree."""

    agree: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement over a file: all cases, by profile and by category (names in order of appearance), and the rest."""

    overall: Share
    by_profile: Mapping[str, Share]
    by_category: Mapping[str, Share]
    disagreements: tuple[Judged | Unjudged, ...]


def read_cases(lines: Iterable[bytes], *, source: str) -> Iterator[Case | Unjudged]:
    """Cases from JSON lines, one at a time; blank lines are skipped.

    Args:
        lines: Lines as a file opened for bytes gives them; UTF-8.
        source: Name of the file, for messages.

    Raises:
        DataError: At the first line that holds no case; it names the line and what must be there.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{source}, line {number}"
            record = _record(line, where)
            try:
                yield case_of(record, where=where)
            except UnknownRuleError as error:
                yield Unjudged(record=record, reason=str(error))


def case_of(record: Mapping[str, Any], *, where: str) -> Case:
    """The case that a record states.

    Raises:
        DataError: If a key is missing or of another type; it starts with `where`.
        UnknownRuleError: If there is no such profile or answer type.
    """
    answer_type = _text(record, "answer_type", where)
    if answer_type not in ANSWER_TYPES:
        raise UnknownRuleError(
            f'{where}: "answer_type" is {answer_type!r}, but must be one of {", ".join(ANSWER_TYPES)}.'
        )
    expected = _required(record, "expected", where)
    if not isinstance(expected, bool):
        raise DataError(f'{where}: "expected" is {_shown(expected)}, but must be true or false.')
    return Case(
        id=_text(record, "id", where),
        category=_text({"category": "", **record}, "category", where),
        prediction=_text(record, "prediction", where),
        expected=expected,
        question=Question(
            target=_gold(record, where),
            answer_kind=ANSWER_TYPES[answer_type],
            options=_options(record.get("options"), where),
            tolerance=_tolerance(record.get("tolerance"), where),
            profile=_profile(_text({"profile": "generic", **record}, "profile", where), where),
        ),
    )


def judge_cases(cases: Iterable[Case | Unjudged], pool: VerifierPool) -> Iterator[Judged | Unjudged]:
    """Judge cases in a pool; read ahead no further than the pool does. What cannot be judged comes as it is."""
    under_way: deque[Case] = deque()
    unjudged: list[Unjudged] = []

    def items() -> Iterator[tuple[str, Question]]:
        for case in cases:
            if isinstance(case, Unjudged):
                unjudged.append(case)
            else:
                under_way.append(case)
                yield case.prediction, case.question

    for verdict in pool.verify_stream(items()):
        yield Judged(case=under_way.popleft(), verdict=verdict)
    yield from unjudged


def agreement_of(judged: Iterable[Judged | Unjudged]) -> Agreement:
    """Count agreement. Only disagreements are kept, so that any number of cases fits."""
    counts: dict[str, dict[str, Share]] = {"all": {"": Share(agree=0, total=0)}, "profile": {}, "category": {}}
    disagreements = []
    for one in judged:
        facts = one.facts()
        names = {"all": "", "profile": str(facts["profile"]), "category": str(facts["category"])}
        for axis, name in names.items():
            before = counts[axis].get(name, Share(agree=0, total=0))
            counts[axis][name] = Share(agree=before.agree + one.agrees, total=before.total + 1)
        if not one.agrees:
            disagreements.append(one)
    return Agreement(
        overall=counts["all"][""],
        by_profile=counts["profile"],
        by_category=counts["category"],
        disagreements=tuple(disagreements),
    )


def as_json(agreement: Agreement) -> dict[str, Any]:
    """The agreement as JSON values: "total", "agree", "disagreements", "by_profile", "by_category"."""
    return {
        **_counted(agreement.overall),
        "disagreements": [one.facts() for one in agreement.disagreements],
        "by_profile": {name: _counted(share) for name, share in agreement.by_profile.items()},
        "by_category": {name: _counted(share) for name, share in agreement.by_category.items()},
    }


def as_lines(agreement: Agreement) -> Iterator[str]:
    """The agreement for a terminal: two tables, then every disagreement with the rule that decided it."""
    yield from _table("profile", agreement.by_profile)
    yield ""
    yield from _table("category", agreement.by_category)
    for one in agreement.disagreements:
        facts = one.facts()
        label = "correct" if facts["expected"] else "wrong"
        yield ""
        place = f"{facts['profile']}, {_word(facts['category'])}"
        yield f"{_word(facts['id'])} ({place}): {facts['status']}, but labelled {label}"
        for key in ("prediction", "gold", "answer", "rule"):
            yield f"  {key:12}{_shown(facts[key])}"
    yield ""
    yield f"{agreement.overall.agree} of {agreement.overall.total} agree"


def _table(title: str, shares: Mapping[str, Share]) -> Iterator[str]:
    width = max([len(title), *(len(_word(name)) for name in shares)])
    yield f"{title:{width}}  agree  total"
    for name, share in shares.items():
        yield f"{_word(name):{width}}  {share.agree:5}  {share.total:5}"


def _counted(share: Share) -> dict[str, int]:
    return {"total": share.total, "agree": share.agree}


def _record(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of too many digits
        raise DataError(f"{where} is no JSON ({error}), but each line must be one JSON object.") from error
    if not isinstance(record, dict):
        raise DataError(f"{where} is {_shown(record)}, but each line must be one JSON object.")
    return record


def _gold(record: Mapping[str, Any], where: str) -> str:
    """The reference answer; a list of them is one answer of several parts."""
    value = _required(record, "gold", where)
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return _text(record, "gold", where)


def _required(record: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in record:
        raise DataError(
            f'{where} has no "{key}", but a case needs "id", "prediction", "gold", "answer_type" and "expected". '
            "Add what is missing."
        )
    return record[key]


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = _required(record, key, where)
    if not isinstance(value, str):
        raise DataError(f'{where}: "{key}" is {_shown(value)}, but must be a text.')
    return value


def _options(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(option, str) for option in value):
        raise DataError(f'{where}: "options" is {_shown(value)}, but must be a list of texts, or null.')
    return tuple(value)


def _tolerance(value: Any, where: str) -> Tolerance | None:
    if value is None:
        return None
    for kind, field in _TOLERANCE_FIELDS.items():
        if isinstance(value, dict) and value.get("kind") == kind and _is_size(value.get(field), whole=kind == "round"):
            return Tolerance(kind=kind, value=value[field])
    raise DataError(
        f'{where}: "tolerance" is {_shown(value)}, but must be null, {{"kind": "round", "digits": 2}} with a whole '
        'number of digits, or {"kind": "absolute", "value": 0.01} or "relative" with a number of at least 0.'
    )


def _is_size(value: Any, *, whole: bool) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf") and (not whole or value == int(value))


def _profile(name: str, where: str) -> str:
    try:
        profile_named(name)
    except ConfigError as error:
        raise UnknownRuleError(f"{where}: {error}") from error
    return name


def _word(name: str) -> str:
    """A name on one line of a terminal."""
    return (name if name.isprintable() else repr(name)) or "-"


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}... ({len(shown)} characters)"
