"""HallusionBench: yes and no, rows without a picture, and what questions are scored together with."""

from collections import Counter
from pathlib import Path

from mm_agrae.records import IMAGE_MARK
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason


def test_yes_and_no(tmp_path: Path) -> None:
    samples = drawn_samples("hallusionbench", "test", tmp_path)
    assert [sample.target for sample in samples] == [
        "yes", "no", "no", "no", "yes", "no", "no", "yes", "yes", "no",
    ]  # fmt: skip
    assert {sample.answer_kind for sample in samples} == {"yes_no"}


def test_only_rows_of_visual_input_0_lack_a_picture(tmp_path: Path) -> None:
    samples = drawn_samples("hallusionbench", "test", tmp_path)
    bare = [sample for sample in samples if not sample.images]
    assert {sample.metadata["visual_input"] for sample in bare} == {"0"}
    assert [sample.id for sample in bare] == [f"hallusionbench/test/VS/chart/0/0/{number}" for number in range(2)]
    assert all(IMAGE_MARK not in sample.question for sample in bare)


def test_figures_and_questions_of_a_set_can_be_told_apart(tmp_path: Path) -> None:
    samples = drawn_samples("hallusionbench", "test", tmp_path)
    assert Counter(sample.group for sample in samples) == {"VD/illusion/0": 4, "VS/chart/0": 6}
    assert len({sample.metadata["figure"] for sample in samples}) == 5
    assert Counter(sample.metadata["question"] for sample in samples) == {
        "VD/illusion/0/0": 2,
        "VD/illusion/0/1": 2,
        "VS/chart/0/0": 3,
        "VS/chart/0/1": 3,
    }
    assert samples[0].metadata["figure"] == "VD/illusion/0/0"
    assert samples[0].metadata["category"] == "VD"


def test_a_picture_may_be_a_file_and_must_be_there() -> None:
    row = {
        "category": "VD",
        "subcategory": "map",
        "set_id": "1",
        "figure_id": "0",
        "question_id": "0",
        "visual_input": "1",
        "question": "Is it?",
        "gt_answer": "1",
    }
    assert drop_reason("hallusionbench", row) == "no image"
    assert convert_one("hallusionbench", {**row, "filename": "./VD/map/1_0.png"}).images == (b"",)
    # A row without a picture ignores what stands in its column.
    assert convert_one("hallusionbench", {**row, "visual_input": "0", "filename": "x.png"}).images == ()
