"""MathVista: option text to letter, precision, units, lists, its own prompt."""

from pathlib import Path

import pytest

from data_processors.mathvista import convert
from mm_agrae.records import IMAGE_MARK, Sample, Tolerance
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason, raw_row

ROW = {
    "pid": "1",
    "question": "q",
    "image": b"x",
    "question_type": "free_form",
    "answer_type": "float",
    "answer": "1.2",
}


def test_every_kind_of_answer(tmp_path: Path) -> None:
    samples = drawn_samples("mathvista", "testmini", tmp_path)
    assert [(sample.target, sample.answer_kind) for sample in samples] == [
        ("B", "choice"),
        ("B", "choice"),  # "6" stands twice: the letter of the first
        ("B", "choice"),
        ("3", "integer"),
        ("3.3", "decimal"),
        ("[3, 5, 2]", "list"),
    ]
    assert samples[1].options == ("4", "6", "6", "8")
    assert samples[1].metadata["answer_raw"] == "6"
    assert [sample.tolerance for sample in samples[3:]] == [None, Tolerance(kind="round", value=1), None]


def test_options_and_units_stand_in_the_question(tmp_path: Path) -> None:
    samples = drawn_samples("mathvista", "testmini", tmp_path)
    assert samples[2].question == f"{IMAGE_MARK}What colour is the square?\nA. blue\nB. red"
    assert samples[3].question == f"{IMAGE_MARK}How much older is Ann than Ben? (Unit: years)"


def test_its_own_prompt_is_the_query_with_plain_line_ends(tmp_path: Path) -> None:
    prompt = drawn_samples("mathvista", "testmini", tmp_path)[0].own_prompt
    assert prompt is not None
    assert prompt.startswith(f"{IMAGE_MARK}Hint:")
    assert prompt.endswith("Choices:\n(A) A\n(B) B\n(C) C")


def test_what_results_are_broken_down_by(tmp_path: Path) -> None:
    sample = drawn_samples("mathvista", "testmini", tmp_path)[0]
    assert sample.family == "figure question answering"
    assert sample.metadata["source"] == "drawn"
    assert sample.metadata["skills"] == ["statistical reasoning"]
    assert sample.metadata["question_type"] == "multi_choice"


@pytest.mark.parametrize(("precision", "decimals"), [(2, 2), (1.0, 1), (None, None), (float("nan"), None)])
def test_precision_is_an_int_a_float_or_missing(precision: float | None, decimals: int | None) -> None:
    sample = convert_one("mathvista", {**ROW, "precision": precision}, split="testmini")
    assert (sample.tolerance.value if sample.tolerance else None) == decimals
    assert sample.own_prompt is None


def test_a_picture_beside_the_rows_is_read_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(b"jpeg")
    row = {**ROW, "decoded_image": None, "image": "images/1.jpg"}
    sample = convert(raw_row("mathvista", row, split="testmini", root=tmp_path))
    assert isinstance(sample, Sample)
    assert sample.images == (b"jpeg",)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"answer": ""}, "answer is withheld"),
        ({"image": ""}, "no image"),
        ({"answer_type": "poem"}, "answer type poem has no rule"),
        ({"question_type": "multi_choice", "choices": ["1", "2"]}, "answer is none of the options"),
    ],
)
def test_drops(changed: dict[str, object], reason: str) -> None:
    assert drop_reason("mathvista", {**ROW, **changed}, split="testmini") == reason
