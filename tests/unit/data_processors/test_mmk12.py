import pytest

from data_processors.conversion.description import Drop
from data_processors.mmk12 import single_answer
from tests.fixtures.pictures import dots
from tests.fixtures.tables import image_cell
from tests.unit.data_processors.drawn import convert_one, drop_reason

VALUES = {"id": "a-1", "image": image_cell(dots(2)), "question": "How many dots?", "answer": "$$2$$"}


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("$$2$$", "2"),
        ("18.", "18"),
        ("25°.", "25°"),
        ("12 meters.", "12 meters"),
        ("$$\\dfrac{35}{4}$$(or fill in $$8.75$$)", "\\dfrac{35}{4}"),
        ("$$6$$ (or $$6.0$$).", "6"),
        ("$$4$$,$$6$$", "4,6"),
        (">-2", ">-2"),
        ("isosceles right triangle", "isosceles right triangle"),
        ("$f(1)$", "f(1)"),
        ("(2, 3)", "(2, 3)"),
    ],
)
def test_answers_that_can_be_compared(answer: str, target: str) -> None:
    sample = convert_one("mmk12", VALUES | {"answer": answer})
    assert sample.target == target
    assert sample.metadata.get("answer_raw") == (None if answer == target else answer)


@pytest.mark.parametrize(
    "answer", ["3\n4", "(1)3;(2)3, quadrilateral", "①$2$ ②$3$", "$$4$$,$$6$$ $$-4$$,$$0$$", "（1）3"]
)
def test_several_blanks(answer: str) -> None:
    assert single_answer(answer) == Drop("answer fills several blanks")
    assert drop_reason("mmk12", VALUES | {"answer": answer}) == "answer fills several blanks"


def test_sentences_but_not_long_formulas() -> None:
    sentence = "The two triangles are congruent by two sides."
    assert drop_reason("mmk12", VALUES | {"answer": sentence}) == "answer is a sentence"
    formula = "\\frac{\\sqrt{a}+\\sqrt{b}}{\\sin\\alpha+\\cos\\beta+\\tan\\gamma}"
    assert convert_one("mmk12", VALUES | {"answer": formula}).target == formula


def test_choice_id_and_subject() -> None:
    asked = {"question": "How many dots?\nA. 1\nB. 2\nC. 3\nD. 4", "answer": "B", "subject": "physics"}
    sample = convert_one("mmk12", VALUES | asked)
    assert (sample.id, sample.family) == ("mmk12/test/a-1", "physics")
    assert (sample.answer_kind, sample.options) == ("choice", ("1", "2", "3", "4"))
    assert convert_one("mmk12", VALUES).family == "math"
    assert drop_reason("mmk12", VALUES | {"image": None}) == "no image"
