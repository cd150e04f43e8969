from pathlib import Path
from typing import Any

import pytest

from data_processors import PROCESSORS
from data_processors.medical_vqa import convert
from mm_agrae.records import Sample
from tests.fixtures.medical_vqa import scan
from tests.unit.data_processors.drawn import drawn_samples, drop_reason, raw_row

PROBLEM = "Which organ?\nA) Heart\nB) Lung\nC) Liver"
VALUES = {"image": ["a.png"], "problem": PROBLEM, "solution": "B", "answer": "lung"}


def test_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(scan("CT", spot_at="left"))
    sample = convert(raw_row("medical_vqa", VALUES, split="ct", root=tmp_path))
    assert isinstance(sample, Sample)
    assert sample.images == (scan("CT", spot_at="left"),)
    assert (sample.question, sample.target) == (f"<image>{PROBLEM}", "B")
    assert (sample.answer_kind, sample.options, sample.family) == ("choice", ("Heart", "Lung", "Liver"), "ct")


def test_families_of_the_splits(tmp_path: Path) -> None:
    for split, family in (("train", "mri"), ("mri", "mri"), ("ct", "ct"), ("xray", "xray")):
        assert {sample.family for sample in drawn_samples("medical_vqa", split, tmp_path / split)} == {family}
    assert PROCESSORS["medical_vqa"].description.uses == ("training", "benchmark")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": []}, "no image"),
        ({"solution": "D", "answer": ""}, "answer letter is not among the options"),
        ({"solution": "AB", "answer": ""}, "answer letter is not among the options"),
        ({"solution": None}, "answer letter is not among the options"),
        ({"answer": "Heart"}, "answer letter and answer text disagree"),
        ({"problem": "Which organ?"}, "options cannot be told apart"),
        ({"image": ["a.png", "b.png"], "problem": f"<image>{PROBLEM}"},
         "number of image marks is not the number of images"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(changes: dict[str, Any], reason: str) -> None:
    assert drop_reason("medical_vqa", VALUES | changes) == reason
