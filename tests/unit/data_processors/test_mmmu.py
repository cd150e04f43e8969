"""MMMU and MMMU-Pro: options as literals, pictures in order of appearance, several accepted answers."""

from pathlib import Path

import pytest

from data_processors.mmmu import DESCRIPTION, SUBJECTS, subject_of
from mm_agrae.records import IMAGE_MARK
from mm_agrae.verify import Question, verify
from tests.fixtures.pictures import circle, right_triangle
from tests.unit.data_processors.drawn import drawn_samples, drop_reason


def test_every_subject_is_a_part() -> None:
    assert len(set(SUBJECTS)) == len(SUBJECTS) == 30
    assert [part.config for part in DESCRIPTION.splits["validation"]] == list(SUBJECTS)


def test_pictures_come_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    samples = {sample.id: sample for sample in drawn_samples("mmmu", "validation", tmp_path)}
    triangle, disc = right_triangle("4", "3", "x"), circle("7")
    in_options = samples["mmmu/validation/validation_Math_2"]
    assert in_options.question == f"Which picture is a circle?\nA. {IMAGE_MARK}\nB. {IMAGE_MARK}"
    assert in_options.images == (triangle, disc)
    assert in_options.target == "B"
    again = samples["mmmu/validation/validation_Math_3"]
    assert again.question.startswith(f"{IMAGE_MARK} and then {IMAGE_MARK}: is x in image 1 5?")
    assert again.images == (triangle, disc)
    assert again.options == ("It's 5", "no")
    unnamed = samples["mmmu/validation/validation_Math_4"]
    assert unnamed.question.startswith(f"{IMAGE_MARK}How many dots?")
    assert unnamed.target == "I"


def test_open_questions_and_single_options(tmp_path: Path) -> None:
    samples = {sample.id: sample for sample in drawn_samples("mmmu", "validation", tmp_path)}
    single, several, letter = (samples[f"mmmu/validation/validation_Math_{number}"] for number in (5, 6, 7))
    assert (single.target, single.options) == ("A", ("blue",))
    assert (several.target, several.answer_kind) == ("['5', 'five']", "text")
    asked = Question.of(several, profile=DESCRIPTION.profile)
    assert [verify(f"So the answer is {said}.", asked).correct for said in ("5", "five", "6")] == [True, True, False]
    assert (letter.target, letter.answer_kind, letter.options) == ("x", "text", ())


def test_what_results_are_broken_down_by(tmp_path: Path) -> None:
    samples = drawn_samples("mmmu", "validation", tmp_path)
    assert {sample.metadata["subject"] for sample in samples} == set(SUBJECTS)
    assert samples[0].metadata["discipline"] == "Business"
    assert samples[0].difficulty == 1
    assert samples[0].metadata["subfield"] == "Geometry"


@pytest.mark.parametrize("kind", ["multiple-choice", "open"])
def test_withheld_answers(kind: str) -> None:
    row = {"id": "test_Math_1", "question": "q", "options": "['a']", "answer": "?", "question_type": kind}
    assert drop_reason("mmmu", row) == "answer is withheld"


@pytest.mark.parametrize(
    ("row_id", "subject"),
    [
        ("validation_Basic_Medical_Science_7", "Basic_Medical_Science"),
        ("dev_Art_1", "Art"),
        ("test_Dance_1", ""),
        ("7", ""),
    ],
)
def test_subject_of(row_id: str, subject: str) -> None:
    assert subject_of(row_id) == subject


def test_mmmu_pro_has_three_forms(tmp_path: Path) -> None:
    (four,) = drawn_samples("mmmu_pro", "standard_4", tmp_path / "a")
    ten, single = drawn_samples("mmmu_pro", "standard_10", tmp_path / "b")
    (vision,) = drawn_samples("mmmu_pro", "vision", tmp_path / "c")
    assert (four.target, len(four.options)) == ("C", 4)
    assert (ten.target, len(ten.options), len(single.options)) == ("F", 10, 1)
    assert four.images == ten.images != vision.images
    assert vision.question == f"{IMAGE_MARK}Answer the question that the image shows with the letter of an option."
    assert (vision.target, len(vision.options), vision.metadata["subject"]) == ("D", 10, "Math")
