"""Every place where an answer can be looked for."""

from dataclasses import replace

import pytest

from mm_agrae.verify import PROFILES, Question
from mm_agrae.verify.extract import extract
from mm_agrae.verify.profiles import GENERIC
from mm_agrae.verify.verifier import begin


def found(text, source, kind="math"):
    extraction = extract(text, kind, profile=replace(GENERIC, sources=(source,)))
    if extraction is None:
        return None
    assert text[slice(*extraction.span)] == extraction.answer
    return extraction.answer


@pytest.mark.parametrize(
    ("source", "text", "answer"),
    [
        ("spaced_box", "so $\\boxed 5$, with 3 to spare", "5"),
        ("spaced_box", "so $\\boxed{5}$", None),
        ("json", '{"solution": "a", "short answer": "2.5"}', "2.5"),
        ("json", '{"short answer": 2.5}', "2.5"),
        ("json", '{"short answer": "1"} or {"short answer": "2"}', "2"),
        ("json", '{"short answer": ""}', None),
        ("json", '{"answer": "2"}', None),
        ("hashes", "#### 1,080\n#### 3", "1,080"),
        ("hashes", "#### none", None),
        ("answer_line", "Answer: 5\nanswer : 6 units\nbye", "6 units"),
        ("answer_line", "Answer: 5" + "\n" * 301, None),
        ("after_answer", "Answer: A. Answer: <B>", "<B>"),
        ("after_answer", "answer: A", None),
        ("last_number", "from 3 to $1,234.50.", "$1,234.50"),
        ("last_number", "five", None),
        ("whole", " a, b. ", "a, b."),
        ("phrase", "The correct option is C.", "C"),
        ("phrase", "故选：C", "C"),
        ("phrase", "不选A", None),
        ("phrase", "答案应该是 5", "5"),
        ("alone", "It is 5 miles.", "5 miles"),
        ("alone", "It is 5 cm tall.", "5 cm"),
        ("alone", "Take 5 m for each.", "5"),
        ("alone", "There are 5 in all.", "5"),
        ("alone", "It measures 5 in.", "5 in"),
        ("alone", "It rises by 5% a year", "5%"),
        ("alone", "so \\boxed{5", None),
    ],
)
def test_source(source, text, answer):
    assert found(text, source) == answer


def test_what_stands_alone_depends_on_the_kind():
    assert found("Yes, they do.", "alone", "yes_no") == "Yes"
    assert found("They do, yes.", "alone", "yes_no") is None
    assert found("BCD", "alone", "choices") == "BCD"
    assert found("B", "alone", "choice") is None
    assert found("Surely (B).", "letter", "choice") == "B"
    assert found("Surely (B).", "letter", "math") is None


def test_the_first_source_that_finds_something_wins_and_an_empty_box_is_final():
    text = "#### 3\n\\boxed{4}"
    for sources, answer in ((("hashes", "box"), "3"), (("box", "hashes"), "4")):
        extraction = extract(text, profile=replace(GENERIC, sources=sources))
        assert extraction is not None
        assert extraction.answer == answer
    assert extract("#### 3\n\\boxed{}", profile=replace(GENERIC, sources=("box", "hashes"))) is None
    assert extract("Answer\n#### 3", profile=replace(GENERIC, sources=("after_answer",))) is not None


@pytest.mark.parametrize("unit", ["\\boxed{", '"short answer":"', "Answer: ", "9", "9,", "is so ", "A, ", "("])
def test_hostile_repetition_is_scanned_in_linear_time_under_every_profile(unit):
    # A quadratic scan of 60,000 characters would not come back within the patience of anyone.
    for profile in PROFILES:
        for text in (unit * (60_000 // len(unit)), f"\\boxed{{{unit * 6_000}}}"):
            for kind in ("math", "choice"):
                begin(text, Question(target="B", answer_kind=kind, profile=profile))
