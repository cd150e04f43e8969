import json

import pytest

from mm_agrae.errors import DataError
from mm_agrae.records import Tolerance, Verdict
from mm_agrae.verify import VerifierPool
from mm_agrae.verify.agreement import (
    ANSWER_TYPES,
    Judged,
    Share,
    agreement_of,
    as_json,
    as_lines,
    case_of,
    judge_cases,
    read_cases,
)

RECORD = {"id": "c1", "prediction": "\\boxed{5}", "gold": "5", "answer_type": "integer", "expected": True}


def lines_of(*records):
    return [json.dumps(record).encode() + b"\n" for record in records]


def judged(identity, *, correct, expected=True, profile="generic", category="fraction"):
    case = case_of({**RECORD, "id": identity, "expected": expected, "profile": profile, "category": category}, where="")
    verdict = Verdict(
        status="correct" if correct else "wrong",
        answer="5",
        span=(7, 8),
        answer_form="5",
        target_form="5",
        kind="integer",
        rule="box/same_text",
        formatted=True,
        seconds=0.0,
    )
    return Judged(case=case, verdict=verdict)


def test_a_case_takes_over_all_that_a_question_needs():
    case = case_of(
        {
            **RECORD,
            "answer_type": "multi_choice",
            "options": ["3", "5"],
            "tolerance": {"kind": "round", "digits": 1},
            "profile": "mathvista",
            "category": "choice",
            "source": "a paper",
        },
        where="",
    )
    assert (case.id, case.prediction, case.expected, case.category) == ("c1", "\\boxed{5}", True, "choice")
    question = case.question
    assert (question.target, question.answer_kind, question.options) == ("5", "choices", ("3", "5"))
    assert question.tolerance == Tolerance(kind="round", value=1)
    assert question.profile == "mathvista"


def test_what_may_be_absent_or_null():
    for record in (RECORD, {**RECORD, "options": None, "tolerance": None}):
        case = case_of(record, where="")
        assert (case.category, case.question.options, case.question.tolerance) == ("", (), None)
        assert case.question.profile == "generic"


@pytest.mark.parametrize(
    ("word", "kind"), [("float", "decimal"), ("yesno", "yes_no"), ("choices", "choices"), ("short_answer", "text")]
)
def test_words_of_the_field(word, kind):
    assert case_of({**RECORD, "answer_type": word}, where="").question.answer_kind == kind


def test_a_list_of_golds_and_whole_floats_as_digits():
    tolerance = {"kind": "round", "digits": 1.0}
    question = case_of({**RECORD, "gold": ["3", "4"], "tolerance": tolerance}, where="").question
    assert question.target == "3, 4"
    assert question.tolerance == Tolerance(kind="round", value=1)


def test_every_word_of_the_field_is_known():
    words = {"math", "integer", "float", "choice", "multi_choice", "text", "list", "relaxed", "year", "yesno"}
    assert words | {"short_answer"} <= set(ANSWER_TYPES)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"expected": "yes"}, "\"expected\" is 'yes', but must be true or false"),
        ({"expected": 1}, '"expected" is 1, but must be true or false'),
        ({"gold": ["3", 4]}, "\"gold\" is ['3', 4], but must be a text"),
        ({"gold": []}, '"gold" is [], but must be a text'),
        ({"gold": 5}, '"gold" is 5, but must be a text'),
        ({"category": None}, '"category" is None, but must be a text'),
        ({"options": "AB"}, "\"options\" is 'AB', but must be a list of texts"),
        ({"options": ["A", 1]}, "must be a list of texts"),
        ({"tolerance": 0.1}, '"tolerance" is 0.1, but must be null, {"kind": "round"'),
        ({"tolerance": {"kind": "near", "value": 1}}, '"tolerance" is'),
        ({"tolerance": {"kind": ["round"], "digits": 1}}, '"tolerance" is'),
        ({"tolerance": {"kind": "round", "value": 1}}, '"tolerance" is'),
        ({"tolerance": {"kind": "round", "digits": 1.5}}, "whole number of digits"),
        ({"tolerance": {"kind": "round", "digits": True}}, '"tolerance" is'),
        ({"tolerance": {"kind": "absolute", "value": -1}}, "at least 0"),
        ({"tolerance": {"kind": "relative", "value": float("nan")}}, "at least 0"),
        ({"tolerance": {"kind": "relative", "value": float("inf")}}, "at least 0"),
        ({"id": ["x"] * 500}, r"... (2500 characters)"),
    ],
)
def test_a_bad_value_is_named_with_its_line(change, told):
    with pytest.raises(DataError) as caught:
        list(read_cases(lines_of(RECORD, {**RECORD, **change}), source="cases.jsonl"))
    assert str(caught.value).startswith("cases.jsonl, line 2: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answer_type": "colour"}, "\"answer_type\" is 'colour', but must be one of math, "),
        ({"profile": "mathvist"}, 'The nearest is "mathvista"'),
    ],
)
def test_a_case_that_no_rule_can_judge_is_a_disagreement_and_the_others_are_judged(change, told):
    lines = lines_of({**RECORD, "id": "odd", **change}, RECORD)
    with VerifierPool(num_workers=1) as pool:
        found = agreement_of(judge_cases(read_cases(lines, source="cases.jsonl"), pool))
    assert found.overall == Share(agree=1, total=2)
    (odd,) = as_json(found)["disagreements"]
    assert (odd["id"], odd["status"]) == ("odd", "not judged")
    assert odd["rule"].startswith("cases.jsonl, line 1: ")
    assert told in odd["rule"]
    assert any("not judged, but labelled correct" in line for line in as_lines(found))


@pytest.mark.parametrize("key", ["id", "prediction", "gold", "answer_type", "expected"])
def test_a_missing_key_is_named(key):
    record = {name: value for name, value in RECORD.items() if name != key}
    with pytest.raises(DataError, match=f'line 1 has no "{key}", but a case needs "id", "prediction"'):
        list(read_cases(lines_of(record), source="cases.jsonl"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{'id': 1}", "is no JSON"),
        (b"\xff\xfe{}", "is no JSON .*utf-8"),
        (b"[1]", r"is \[1\], but each line must be one JSON object"),
        (b'{"id": ' + b"9" * 5000 + b"}", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_a_line_that_is_no_object(line, told):
    with pytest.raises(DataError, match=f"cases.jsonl, line 3 {told}"):
        list(read_cases([b"\n", *lines_of(RECORD), line], source="cases.jsonl"))


def test_a_byte_order_mark_and_blank_lines_are_no_cases():
    marked = b"\xef\xbb\xbf" + lines_of(RECORD)[0]
    assert [case.id for case in read_cases([marked, b"  \r\n", *lines_of(RECORD)], source="")] == ["c1", "c1"]


def test_agreement_is_counted_by_profile_and_by_category():
    found = agreement_of(
        [
            judged("a", correct=True),
            judged("b", correct=False),
            judged("c", correct=False, expected=False, profile="dapo"),
            judged("d", correct=True, expected=False, profile="dapo", category="unit"),
        ]
    )
    assert found.overall == Share(agree=2, total=4)
    assert found.by_profile == {"generic": Share(agree=1, total=2), "dapo": Share(agree=1, total=2)}
    assert found.by_category == {"fraction": Share(agree=2, total=3), "unit": Share(agree=0, total=1)}
    assert [one.case.id for one in found.disagreements] == ["b", "d"]


def test_nothing_judged_is_an_agreement_of_nothing():
    empty = agreement_of([])
    assert as_json(empty) == {"total": 0, "agree": 0, "disagreements": [], "by_profile": {}, "by_category": {}}
    assert list(as_lines(empty))[-1] == "0 of 0 agree"


def test_the_json_form():
    shown = as_json(agreement_of([judged("a", correct=True), judged("b", correct=True, expected=False)]))
    assert (shown["total"], shown["agree"]) == (2, 1)
    assert shown["by_profile"] == {"generic": {"total": 2, "agree": 1}}
    assert shown["disagreements"] == [
        {
            "id": "b",
            "profile": "generic",
            "category": "fraction",
            "kind": "integer",
            "prediction": "\\boxed{5}",
            "gold": "5",
            "expected": False,
            "status": "correct",
            "answer": "5",
            "rule": "box/same_text",
        }
    ]


def test_the_printed_form():
    shown = list(as_lines(agreement_of([judged("a", correct=True), judged("b\ud800", correct=False, category="")])))
    assert shown == [
        "profile  agree  total",
        "generic      1      2",
        "",
        "category  agree  total",
        "fraction      1      1",
        "-             0      1",
        "",
        "'b\\ud800' (generic, -): wrong, but labelled correct",
        "  prediction  '\\\\boxed{5}'",
        "  gold        '5'",
        "  answer      '5'",
        "  rule        'box/same_text'",
        "",
        "1 of 2 agree",
    ]


def test_cases_go_through_the_pool_in_order_and_are_read_no_further_than_it_asks():
    taken = []

    def cases():
        for number in range(5):
            taken.append(number)
            yield case_of({**RECORD, "id": str(number), "expected": number == 3}, where="")

    with VerifierPool(num_workers=1) as pool:
        results = judge_cases(cases(), pool)
        first = next(results)
        assert taken == [0]
        found = [first, *results]
    assert [(one.case.id, one.agrees) for one in found] == [(str(number), number == 3) for number in range(5)]
