"""MathVerse: versions, the question in the picture, answers that are no letter, the broken degree sign."""

from pathlib import Path

import pytest

from data_processors.mathverse import SHOWN, choice_target
from mm_agrae.records import IMAGE_MARK, AnswerKind
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason

CHOICES = ("$320^\\circ T$", "$040^\\circ T$", "True", "False")


def test_the_five_versions_are_one_choice(tmp_path: Path) -> None:
    versions = drawn_samples("mathverse", "testmini", tmp_path)[:5]
    assert {(sample.target, sample.answer_kind, sample.options) for sample in versions} == {
        ("A", "choice", ("5", "6", "7", "12"))
    }
    assert [sample.metadata["version"] for sample in versions] == [
        "Text Dominant",
        "Text Lite",
        "Vision Intensive",
        "Vision Dominant",
        "Vision Only",
    ]
    assert versions[4].question == IMAGE_MARK + SHOWN
    assert versions[4].own_prompt == f"{IMAGE_MARK}Please answer the question directly."


def test_text_only_has_no_picture(tmp_path: Path) -> None:
    (sample,) = drawn_samples("mathverse", "testmini_text_only", tmp_path)
    assert sample.images == ()
    assert IMAGE_MARK not in f"{sample.question}{sample.own_prompt}"
    assert sample.metadata["version"] == "Text Only"


def test_odd_answers(tmp_path: Path) -> None:
    odd = drawn_samples("mathverse", "testmini", tmp_path)[5:]
    assert [(sample.target, sample.answer_kind) for sample in odd] == [
        ("55°", "math"),
        ("A", "choice"),
        ("C,D", "choices"),
        ("B", "choice"),
    ]
    assert odd[0].metadata["answer_raw"] == "55掳"


@pytest.mark.parametrize(
    ("answer", "target", "kind"),
    [
        ("B", "B", "choice"),
        ("(C)", "C", "choice"),
        ("A\nC", "A,C", "choices"),
        ("040 ^\\circ T", "B", "choice"),
        ("False", "D", "choice"),
        ("090^\\circ T", "090^\\circ T", "math"),
        ("Maybe", "Maybe", "text"),
    ],
)
def test_answers_of_choices(answer: str, target: str, kind: AnswerKind) -> None:
    assert choice_target(answer, CHOICES) == (target, kind)


def test_a_letter_beyond_the_choices_that_could_be_read_is_kept() -> None:
    # The choices of this row do not follow each other, so only A and B are read.
    row = {
        "sample_index": "1",
        "problem_version": "Text Lite",
        "question": "q\nChoices:\nA:1\nB:2\nD:3",
        "image": b"x",
        "answer": "D",
        "question_type": "multi-choice",
    }
    sample = convert_one("mathverse", row, split="testmini")
    assert (sample.target, sample.options) == ("D", ())
    assert drop_reason("mathverse", {**row, "answer": "F"}, split="testmini") == "answer is none of the choices"


def test_metadata_may_be_the_text_of_a_dictionary() -> None:
    row = {
        "sample_index": "1",
        "problem_version": "Text Lite",
        "question": "q",
        "image": b"x",
        "answer": "1",
        "question_type": "free-form",
        "metadata": "{'split': 'testmini', 'subject': 'Functions', 'source': 'Functions'}",
    }
    sample = convert_one("mathverse", row, split="testmini")
    assert (sample.family, sample.metadata["source"]) == ("Functions", "Functions")
    assert convert_one("mathverse", {**row, "metadata": "{broken"}, split="testmini").family == "mathverse"
