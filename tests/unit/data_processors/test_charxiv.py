"""CharXiv: types of answers, and the form that the question asks for."""

from pathlib import Path

import pytest

from data_processors.charxiv import number_form, number_kind
from mm_agrae.records import AnswerKind
from tests.unit.data_processors.drawn import drawn_samples


def test_types_decide_kind_and_form(tmp_path: Path) -> None:
    samples = drawn_samples("charxiv", "validation", tmp_path)
    assert [(sample.target, sample.answer_kind, sample.question.split("\n")[1]) for sample in samples] == [
        ("MLP", "text", "The answer is text that stands in the chart."),
        ("Lower", "text", "The answer is a word or a short phrase."),
        ("1e+06", "math", "The answer is a number that stands in the chart, written as it is there."),
        ("2.5", "decimal", "The answer is a number with 1 decimal."),
        ("2", "integer", "The answer is a whole number."),
        ("50%", "math", "The answer is a whole number."),
    ]
    # The source of the question is another column, with other numbers.
    assert [sample.metadata["answer_type"] for sample in samples[:2]] == ["text in chart", "text in general"]
    assert [sample.metadata["question_source"] for sample in samples[:2]] == ["2", "3"]


@pytest.mark.parametrize(
    ("target", "form"),
    [
        ("0.25", "The answer is a number with 2 decimals."),
        ("40,000", "The answer is a whole number."),
        ("10^-1", "The answer is a number."),
    ],
)
def test_number_form(target: str, form: str) -> None:
    assert number_form(target) == form


@pytest.mark.parametrize(
    ("target", "kind"),
    [("-3", "integer"), (".5", "decimal"), ("40,000", "math"), ("85.5%", "math"), ("30, 40", "math")],
)
def test_number_kind(target: str, kind: AnswerKind) -> None:
    assert number_kind(target) == kind
