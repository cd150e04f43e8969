from dataclasses import asdict, fields, replace

import pytest

from mm_agrae.errors import ConfigError
from mm_agrae.records import Sample
from mm_agrae.verify import PROFILES, Question, profile_named, verify
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


# (profile, field): (text, target) on which the profile's setting decides
OVERRIDES = {
    ("mathvision", "units"): ("\\boxed{5\\sqrt{3} km}", "5\\sqrt{3} cm"),
    ("mathvision", "unordered_lists"): ("\\boxed{\\sqrt{2},\\sqrt{3}}", "\\sqrt{3},\\sqrt{2}"),
    ("mathvision", "unclosed_box"): ("\\boxed{12", "12"),
    ("olympiadbench", "percent"): ("\\boxed{50}", "0.5"),
    ("math", "percent"): ("\\boxed{28\\%}", "28 cm"),
    ("math", "chinese"): ("\\boxed{145度}", "145"),
    ("math", "mojibake"): ("\\boxed{118掳}", "118"),
    ("qwen_math", "percent"): ("\\boxed{0.25}", "25\\%"),
    ("qwen_math", "units"): ("\\boxed{5 miles}", "5 meters"),
    ("qwen_math", "brackets"): ("\\boxed{[1,2]}", "(1,2)"),
    ("qwen_math", "unclosed_box"): ("\\boxed{x", "x"),
    ("qwen_math", "closeness"): ("\\boxed{3.1416}", "3.14159"),
    ("math_verify", "decimal_comma"): ("\\boxed{1000,99}", "1000.99"),
    ("math_verify", "spaced_thousands"): ("\\boxed{1 000}", "1000"),
    ("math_verify", "brackets"): ("\\boxed{(1,3)}", "\\{1,3\\}"),
}


def test_each_setting_of_a_profile_decides_a_verdict(monkeypatch):
    policies = {field.name for field in fields(GENERIC)} - {"sources", "comparator"}
    overridden = {
        (name, field)
        for name, profile in PROFILES.items()
        for field, value in asdict(profile).items()
        if field in policies and value != asdict(GENERIC)[field]
    }
    assert overridden == set(OVERRIDES)
    for (name, field), (text, target) in OVERRIDES.items():
        own, without = PROFILES[name], replace(PROFILES[name], **{field: asdict(GENERIC)[field]})
        statuses = []
        for profile in (own, without):
            monkeypatch.setitem(PROFILES, name, profile)
            statuses.append(verify(text, Question(target=target, profile=name)).correct)
        monkeypatch.setitem(PROFILES, name, own)
        assert statuses[0] != statuses[1], (name, field, statuses)


def test_where_an_answer_is_looked_for_is_a_policy():
    text = "<answer>3</answer> so \\boxed{4}, and the answer is 5"
    sources = ("answer_tag", "box", "phrase")
    found = {source: extract(text, profile=replace(GENERIC, sources=(source,))) for source in sources}
    assert [one and one.answer for one in found.values()] == ["3", "4", "5"]
    assert verify(text, Question(target="3", profile="r1v")).correct
    assert verify(text, Question(target="4")).correct
    open_box = replace(GENERIC, unclosed_box=True)
    assert extract("so \\boxed{4", profile=GENERIC) is None
    cut = extract("first \\boxed{3}, so \\boxed{4", profile=open_box)
    assert cut is not None
    assert (cut.answer, cut.rule) == ("4", "unclosed_box")
    assert extract("经过计算，答案是B", "choice", profile=replace(GENERIC, chinese=False)) is None


def test_every_field_is_tested_here():
    elsewhere = {"sources", "comparator", "unclosed_box"}
    assert set(CHANGES) | elsewhere == {field.name for field in fields(GENERIC)}
