"""Agreement with the whole table of scoring cases, each under the profile that it names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mm_agrae.verify import VerifierPool, verify
from mm_agrae.verify.agreement import case_of

TABLE = Path(__file__).parents[2] / "data" / "verifier_cases.jsonl"
CASES = [case_of(json.loads(line), where=TABLE.name) for line in TABLE.read_text().splitlines()]


def test_the_table_is_there():
    assert len(CASES) == 135
    assert len({case.question.profile for case in CASES}) == 14


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(case):
    verdict = verify(case.prediction, case.question)
    assert verdict.correct == case.expected, f"{verdict.status} by {verdict.rule}: {verdict.answer!r}"


def test_the_pool_says_what_the_process_itself_would_say():
    texts, questions = [case.prediction for case in CASES], [case.question for case in CASES]
    with VerifierPool(num_workers=1) as pool:
        pooled = pool.verify_all(texts, questions)
    for text, question, verdict in zip(texts, questions, pooled, strict=True):
        assert replace(verdict, seconds=0.0) == replace(verify(text, question), seconds=0.0)
