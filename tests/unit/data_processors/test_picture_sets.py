"""CLEVR counting, Multimodal Open-R1, We-Math 2.0."""

from pathlib import Path

from tests.fixtures.pictures import dots
from tests.fixtures.tables import image_cell
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason

PICTURE = image_cell(dots(4))


def test_clevr_counts() -> None:
    values = {"image": PICTURE, "problem": "How many items?", "solution": "<answer> 04 </answer>"}
    sample = convert_one("clevr_count", values, split="train")
    assert (sample.target, sample.answer_kind, sample.family) == ("4", "integer", "counting")
    for answer in ("four", "4.0", "-4", "4 items", "²"):
        tagged = values | {"solution": f"<answer> {answer} </answer>"}
        assert drop_reason("clevr_count", tagged) == "answer is no whole number"


def test_open_r1_takes_the_tag_and_keeps_the_reasoning() -> None:
    values = {
        "image": PICTURE,
        "problem": "How many dots?\nA. 3\nB. 4",
        "solution": "<think>It says <answer>A</answer>, but no.</think>\n<answer>B</answer>",
        "original_answer": "There are three, A.",
    }
    sample = convert_one("multimodal_open_r1", values)
    assert (sample.target, sample.answer_kind, sample.options) == ("B", "choice", ("3", "4"))
    assert sample.solution == "It says <answer>A</answer>, but no.\n\\boxed{B}"
    assert convert_one("multimodal_open_r1", values | {"solution": "<answer>B</answer>"}).solution is None
    outside = values | {"solution": "<answer>C</answer>"}
    assert drop_reason("multimodal_open_r1", outside) == "answer letter is not among the options"


def test_we_math_2_levels_and_groups(tmp_path: Path) -> None:
    standard = drawn_samples("we_math2", "standard", tmp_path)
    assert [(sample.group, sample.difficulty) for sample in standard] == [("", None), ("", None)]
    assert standard[1].options == ("2π", "4π", "8π", "No correct answer")
    pro = drawn_samples("we_math2", "pro", tmp_path / "again")
    assert [(sample.group, sample.difficulty) for sample in pro] == [("7", 3), ("7", 1)]
    named = {"image": PICTURE, "question": "How many?", "answer": "4", "question_id": "q", "difficulty": "level 5"}
    assert convert_one("we_math2", named).difficulty == 5
