"""Agreement with the table of scoring cases that every verifier must share (profile "generic")."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mm_agrae.verify import Question, VerifierPool, verify

CASES = [
    case
    for case in map(json.loads, (Path(__file__).parents[2] / "data" / "verifier_cases.jsonl").read_text().splitlines())
    if case["profile"] == "generic"
]
# Cases that we are known to judge otherwise. The set may only shrink: a case that comes to agree must leave it.
KNOWN_DISAGREEMENTS: frozenset[str] = frozenset()


def test_the_table_is_there():
    assert len(CASES) == 102
    assert {case["id"] for case in CASES} >= KNOWN_DISAGREEMENTS


def question_of(case):
    return Question(target=case["gold"], answer_kind=case["answer_type"], options=tuple(case.get("options", ())))


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_generic_case(case):
    verdict = verify(case["prediction"], question_of(case))
    agrees = verdict.correct == case["expected"]
    assert agrees != (case["id"] in KNOWN_DISAGREEMENTS), f"{verdict.status} by {verdict.rule}: {verdict.answer!r}"


def test_the_pool_says_what_the_process_itself_would_say():
    texts, questions = [case["prediction"] for case in CASES], [question_of(case) for case in CASES]
    with VerifierPool(num_workers=1) as pool:
        pooled = pool.verify_all(texts, questions)
    for text, question, verdict in zip(texts, questions, pooled, strict=True):
        assert replace(verdict, seconds=0.0) == replace(verify(text, question), seconds=0.0)
