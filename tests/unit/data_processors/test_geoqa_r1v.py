from pathlib import Path

import pytest

from data_processors.geoqa_r1v import plain_answer
from mm_agrae.verify import Question, verify
from tests.fixtures.pictures import circle
from tests.fixtures.tables import image_cell
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason

VALUES = {"image": image_cell(circle("1")), "problem": "Then ∠1  is ()", "solution": "<answer> 145° </answer>"}


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("145°", "145°"),
        ("3cm", "3cm"),
        ("9米", "9\\text{ m}"),
        ("2√{15}米", "2\\sqrt{15}\\text{ m}"),
        ("6平方厘米", "6\\text{ cm}^{2}"),
        ("5 厘米", "5\\text{ cm}"),
        ("30度", "30°"),
        ("√{3}", "\\sqrt{3}"),
        ("\\frac{1}{2}cm²", "\\frac{1}{2}cm²"),
    ],
)
def test_plain_answer(raw: str, plain: str) -> None:
    assert plain_answer(raw) == plain


def test_what_the_row_said_is_kept_where_the_target_differs(tmp_path: Path) -> None:
    samples = drawn_samples("geoqa_r1v", "train", tmp_path)
    assert [sample.metadata.get("answer_raw") for sample in samples] == [None, "10米", "2√{5}米", "9πcm^{2}"]
    assert "  " not in samples[0].question


@pytest.mark.parametrize(
    ("index", "answer"),
    [(0, "55"), (0, "55^\\circ"), (1, "10\\text{ m}"), (2, "\\sqrt{20}"), (3, "9\\pi"), (3, "9\\pi\\text{ cm}^2")],
)
def test_answers_as_models_write_them(index: int, answer: str, tmp_path: Path) -> None:
    sample = drawn_samples("geoqa_r1v", "train", tmp_path)[index]
    assert verify(f"\\boxed{{{answer}}}", Question.of(sample)).correct


def test_rows() -> None:
    assert convert_one("geoqa_r1v", VALUES).question == "<image>Then ∠1 is ()"
    twice = "<answer> 1 </answer> no, <answer> 2 </answer>"
    assert convert_one("geoqa_r1v", VALUES | {"solution": twice}).target == "2"
    assert drop_reason("geoqa_r1v", VALUES | {"solution": None}) == "no answer between answer tags"
    assert drop_reason("geoqa_r1v", VALUES | {"solution": "<answer> </answer>"}) == "no answer"
    assert drop_reason("geoqa_r1v", VALUES | {"solution": "<answer>相等</answer>"}) == "answer has Chinese words"
    two = VALUES | {"problem": "<image><image>Which?"}
    assert drop_reason("geoqa_r1v", two) == "number of image marks is not the number of images"
