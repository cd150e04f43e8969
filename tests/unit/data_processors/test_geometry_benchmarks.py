"""Geometry3K as multiple choice, and the GeoQA test."""

from pathlib import Path

import pytest

from data_processors.geoqa import latex_roots
from mm_agrae.records import IMAGE_MARK
from tests.unit.data_processors.drawn import drawn_samples, drop_reason


def test_geometry3k_choice_asks_for_the_letter(tmp_path: Path) -> None:
    sine, total = drawn_samples("geometry3k_choice", "test", tmp_path)
    assert (sine.target, sine.answer_kind) == ("B", "choice")
    assert sine.question.endswith("\nA. \\frac { 3 } { 5 }\nB. \\frac { 4 } { 5 }\nC. \\frac { 3 } { 4 }\nD. 1")
    assert sine.metadata["answer_text"] == "\\frac { 4 } { 5 }"
    assert (len(total.images), total.target) == (2, "C")


def test_geometry3k_choice_needs_a_letter_that_is_there() -> None:
    row = {"images": [], "problem": "p", "choices": ["1", "2"], "ground_truth": "C"}
    assert drop_reason("geometry3k_choice", row) == "answer is none of the choices"


def test_geoqa_reads_both_layouts(tmp_path: Path) -> None:
    samples = drawn_samples("geoqa", "test", tmp_path)
    assert [sample.target for sample in samples] == [
        "5",
        "55°",
        "12cm",
        "2\\sqrt{10}米",
        "9\\pi cm^{2}",
        "6",
    ]
    assert samples[1].question.startswith(f"{IMAGE_MARK}As shown in the figure, the acute angle")
    assert samples[3].metadata == {"answer_raw": "2√{10}米"}
    assert all(len(sample.images) == 1 for sample in samples)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("√{3}", "\\sqrt{3}"),
        ("8√3", "8\\sqrt{3}"),
        ("√(a+b)", "\\sqrt{a+b}"),
        ("\\frac{1}{2}cm²", "\\frac{1}{2}cm²"),
        ("9π", "9\\pi"),
    ],
)
def test_roots_become_latex(text: str, latex: str) -> None:
    assert latex_roots(text) == latex
