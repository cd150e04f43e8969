from dataclasses import fields, replace

import pytest

from mm_agrae.errors import ConfigError
from mm_agrae.records import Sample
from mm_agrae.verify import PROFILES, Question, profile_named
from mm_agrae.verify.comparators import COMPARATORS
from mm_agrae.verify.equivalence import compare_simply
from mm_agrae.verify.extract import extract
from mm_agrae.verify.outcome import Outcome
from mm_agrae.verify.profiles import GENERIC


def test_an_unknown_profile_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r'scoring profile is "chart_qa".*nearest is "chartqa"'):
        profile_named("chart_qa")
    with pytest.raises(ConfigError, match='nearest is "generic"'):
        Question(target="5", profile="genric")


def test_a_question_carries_its_profile():
    sample = Sample(id="1", question="?", target="5")
    assert Question.of(sample).profile == "generic"
    assert Question.of(sample, profile="mmmu").profile == "mmmu"
    assert profile_named("mmmu") is PROFILES["mmmu"]


def test_every_comparator_is_used_and_known():
    assert {profile.comparator for profile in PROFILES.values()} == set(COMPARATORS)


# field: (value, text, target, right under generic, right with the value)
CHANGES = {
    "percent": [
        ("hundredth", "28%", "0.28", False, True),
        ("hundredth", "28%", "28", True, False),
        ("either", "28", "0.28", False, True),
        ("either", "0.28", "28%", False, True),
        ("either", "0.29", "28%", False, False),
        ("ignored", "28%", "28 cm", False, True),
        ("ignored", "28%", "0.28", False, False),
    ],
    "units": [("strip", "5 miles", "5 meters", False, True), ("strip", "500 cm", "5 meters", True, False)],
    "decimal_comma": [(True, "1000,99", "1000.99", False, True), (True, "1.000,99", "1000.99", False, True)],
    "spaced_thousands": [(True, "7 425 000", "7425000", False, True), (True, "1 2 3", "123", False, False)],
    "unordered_lists": [(False, "2,1", "1,2", True, False), (False, "\\{2,1\\}", "1,2", True, True)],
    "brackets": [("set_as_tuple", "(1,3)", "\\{1,3\\}", False, True), ("ignored", "[1,2]", "(1,2)", False, True)],
    "chinese": [(False, "145度", "145", True, False), (False, "9米", "9", True, False)],
    "mojibake": [(False, "118掳", "118", True, False)],
    "closeness": [(1e-2, "3.15", "3.14", False, True), (1e-9, "0.33333333", "1/3", True, False)],
}


@pytest.mark.parametrize(("field", "changes"), CHANGES.items(), ids=list(CHANGES))
def test_a_policy_changes_a_verdict(field, changes):
    for value, answer, target, before, after in changes:
        for profile, expected in ((GENERIC, before), (replace(GENERIC, **{field: value}), after)):
            found = compare_simply(answer, target, "math", profile=profile)
            assert isinstance(found, Outcome)
            assert found.equal == expected, f"{field}={value}: {answer} against {target} by {found.rule}"


def test_where_an_answer_is_looked_for_is_a_policy():
    text = "<answer>3</answer> so \\boxed{4}, and the answer is 5"
    found = {source: extract(text, profile=replace(GENERIC, sources=(source,))) for source in ("box", "answer_tag")}
    assert [one and one.answer for one in found.values()] == ["4", "3"]
    open_box = replace(GENERIC, unclosed_box=True)
    assert extract("so \\boxed{4", profile=GENERIC) is None
    cut = extract("first \\boxed{3}, so \\boxed{4", profile=open_box)
    assert cut is not None
    assert (cut.answer, cut.rule) == ("4", "unclosed_box")
    assert extract("经过计算，答案是B", "choice", profile=replace(GENERIC, chinese=False)) is None


def test_every_field_is_tested_here():
    elsewhere = {"sources", "comparator", "unclosed_box"}
    assert set(CHANGES) | elsewhere == {field.name for field in fields(GENERIC)}
