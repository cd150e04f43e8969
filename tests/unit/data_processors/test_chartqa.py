from pathlib import Path

import pytest

from data_processors.chartqa import RELAXED, answer_kind
from mm_agrae.records import AnswerKind
from mm_agrae.verify import Question, verify
from tests.fixtures.pictures import bars
from tests.fixtures.tables import image_cell
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason

PICTURE = bars([1, 2], ["a", "b"])
VALUES = {"image": image_cell(PICTURE), "query": "What is b?", "label": ["2"], "human_or_machine": 0}


@pytest.mark.parametrize(
    "values",
    [
        VALUES,
        {"imgname": "1.png", "image": PICTURE, "query": "What is b?", "label": "2", "type": "human"},
        {"type": "human_test", "question": "What is b?", "answer": "2", "image": image_cell(PICTURE)},
    ],
)
def test_three_layouts_are_one_sample(values: dict[str, object]) -> None:
    assert convert_one("chartqa", values) == convert_one("chartqa", VALUES)


def test_fields() -> None:
    sample = convert_one("chartqa", VALUES)
    assert (sample.id, sample.question, sample.target) == ("chartqa/test/0", "<image>What is b?", "2")
    assert (sample.answer_kind, sample.tolerance, sample.family) == ("decimal", RELAXED, "human")
    assert convert_one("chartqa", VALUES | {"human_or_machine": 1}).family == "augmented"
    year = convert_one("chartqa", VALUES | {"query": "Which year?", "label": ["2010"]})
    assert (year.answer_kind, year.tolerance) == ("year", None)


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("What?", "0.57", "decimal"),
        ("What?", "-.5", "decimal"),
        ("What?", "21%", "decimal"),
        ("What?", "21 %", "decimal"),
        ("What?", "3,000", "decimal"),
        ("What?", "$1,234.5", "decimal"),
        ("How many people?", "2010", "decimal"),
        ("Which year?", "2010", "year"),
        ("When was it?", "1898", "year"),
        ("In which year was it 12?", "12", "decimal"),
        ("What?", "NO", "yes_no"),
        ("What?", "[Blue, Red]", "list"),
        ("What?", "Dark blue", "text"),
        ("What?", "2010-2015", "text"),
        ("What?", "1:2", "text"),
        ("What?", "-", "text"),
        ("What?", "%", "text"),
    ],
)
def test_answer_kind(question: str, answer: str, kind: AnswerKind) -> None:
    assert answer_kind(question, answer) == kind


def test_rows_that_cannot_be_used() -> None:
    assert drop_reason("chartqa", VALUES | {"label": ["2", "3"]}) == "several labels"
    assert drop_reason("chartqa", VALUES | {"label": []}) == "no answer"
    assert drop_reason("chartqa", VALUES | {"label": None}) == "no answer"
    assert drop_reason("chartqa", VALUES | {"query": ""}) == "no question"
    assert drop_reason("chartqa", VALUES | {"image": None}) == "no image"


def test_training_is_relaxed_for_values_and_exact_for_years(tmp_path: Path) -> None:
    year, share = drawn_samples("chartqa", "train", tmp_path)[:2]
    assert verify("\\boxed{0.55}", Question.of(share)).correct  # 3.5 % off
    assert not verify("\\boxed{0.53}", Question.of(share)).correct  # 7 % off
    assert not verify("\\boxed{2010}", Question.of(year)).correct  # 0.05 % off
