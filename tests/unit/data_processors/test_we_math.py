"""We-Math: problems with their steps, and options as they are written."""

from collections import Counter
from pathlib import Path

import pytest

from data_processors.we_math import read_options
from tests.unit.data_processors.drawn import drawn_samples


def test_a_problem_and_its_steps_are_one_group(tmp_path: Path) -> None:
    samples = drawn_samples("we_math", "testmini", tmp_path)
    assert Counter(sample.group for sample in samples) == {"1": 3, "2": 4}
    assert [sample.metadata["key"] for sample in samples if sample.group == "2"] == [
        "3steps_1",
        "3steps_2",
        "3steps_3",
        "3steps_multi",
    ]
    assert {sample.metadata["steps"] for sample in samples if sample.group == "1"} == {"2steps"}
    assert samples[0].family == samples[0].metadata["concept"] == "Right Triangles"
    assert samples[0].id == "we_math/testmini/1/2steps_1"


def test_options_stand_in_the_question_with_their_letters(tmp_path: Path) -> None:
    samples = drawn_samples("we_math", "testmini", tmp_path)
    jumping = samples[2]
    assert jumping.options == ()
    assert jumping.question.endswith("What is x?\nA. 3\nC. 5\nD. 6")
    assert samples[0].options == ("9", "16", "25", "7", "No correct answer")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A. x;B. y", [("A", "x"), ("B", "y")]),
        ("A. x; B. y;", [("A", "x"), ("B", "y")]),
        ("A. 3; then more; B. 6", [("A", "3; then more"), ("B", "6")]),
        ("A. ①; C. ③", [("A", "①"), ("C", "③")]),
        ("", []),
    ],
)
def test_read_options(text: str, options: list[tuple[str, str]]) -> None:
    assert read_options(text) == options
