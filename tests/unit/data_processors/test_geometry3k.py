from pathlib import Path
from typing import Any

import pytest

from data_processors.conversion.description import Drop, Part, Row
from data_processors.conversion.files import Files
from data_processors.geometry3k import convert
from mm_agrae.records import Sample
from tests.fixtures.pictures import circle
from tests.fixtures.tables import image_cell

PICTURE = image_cell(circle("7"))
VALUES = {"images": [PICTURE], "problem": "<image>Find x.", "answer": "2 \\sqrt { 221 } "}


def converted(**changes: Any) -> Sample | Drop:
    row = Row(values={**VALUES, **changes}, index=3, split="test", part=Part(split="test"), files=Files(Path("none")))
    return convert(row)


def test_old_columns() -> None:
    sample = converted()
    assert isinstance(sample, Sample)
    assert (sample.id, sample.question) == ("geometry3k/test/3", "<image>Find x.")
    assert (sample.target, sample.options, sample.metadata) == ("2 \\sqrt { 221 }", (), {})
    assert sample.images == (PICTURE["bytes"],)


def test_new_columns_go_into_the_metadata() -> None:
    sample = converted(id=12, choices=["60", "61"], ground_truth="A")
    assert isinstance(sample, Sample)
    assert sample.metadata == {"id": 12, "choices": ["60", "61"], "ground_truth": "A"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": []}, "number of image marks is not the number of images"),
        ({"images": [PICTURE, PICTURE]}, "number of image marks is not the number of images"),
        ({"answer": " "}, "no answer"),
        ({"answer": None}, "no answer"),
    ],
)
def test_rows_that_cannot_be_used(changes: dict[str, Any], reason: str) -> None:
    assert converted(**changes) == Drop(reason)
