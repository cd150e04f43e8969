"""MATH-Vision: names of pictures, pictured options, and traces of writing in the answers."""

from pathlib import Path

import pytest

from data_processors.mathvision import clean_answer, one_picture
from mm_agrae.records import IMAGE_MARK
from tests.unit.data_processors.drawn import drawn_samples


def test_kinds_and_targets(tmp_path: Path) -> None:
    samples = drawn_samples("mathvision", "test", tmp_path)
    assert [(sample.target, sample.answer_kind) for sample in samples] == [
        ("C", "choice"),
        ("C", "choice"),
        ("11", "math"),
        ("6", "math"),
        ("\\frac{3}{5}", "math"),
        ("E", "choice"),  # a letter without options: a choice of what the picture shows
        ("D", "choice"),
        ("12", "math"),
    ]
    assert samples[4].metadata["answer_raw"] == "$\x0crac{3}{5}$"
    assert (samples[1].difficulty, samples[1].family) == (3, "counting")


def test_pictured_options_are_not_listed(tmp_path: Path) -> None:
    letters, parts, *_ = drawn_samples("mathvision", "test", tmp_path)
    assert letters.options == ()
    assert letters.question == f"Which box holds three dots?\n{IMAGE_MARK}"
    assert parts.options == ("image 2", "image 3", "image 4", "image 5", "image 6")
    assert parts.question.endswith("\nA. image 2\nB. image 3\nC. image 4\nD. image 5\nE. image 6")
    assert len(parts.images) == parts.question.count(IMAGE_MARK) == 1


@pytest.mark.parametrize(
    ("question", "placed"),
    [
        ("Find x. <image1>", "Find x. <image>"),
        ("<image1> and <image2> and <image1>", "<image> and image 2 and image 1"),
        ("Find x.", "<image>Find x."),
    ],
)
def test_one_picture_has_one_mark(question: str, placed: str) -> None:
    assert one_picture(question) == placed


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("11 ", "11"),
        ("$\\boxed{7}$", "7"),
        ("\x0crac{36}{13}", "\\frac{36}{13}"),
        ("$5 \\sqrt{3}$", "5 \\sqrt{3}"),
        ("$1$ or $2$", "$1$ or $2$"),
        ("8.0", "8.0"),
    ],
)
def test_clean_answers(raw: str, clean: str) -> None:
    assert clean_answer(raw) == clean
