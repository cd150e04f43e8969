"""Samples of drawn fixtures and of single rows, for the tests of one processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_processors import PROCESSORS
from data_processors.conversion.description import Drop, Part, Row
from data_processors.conversion.files import Files
from data_processors.conversion.samples import read_samples
from data_processors.conversion.sources import open_source
from mm_agrae.records import Sample
from tests.fixtures import FIXTURES


def drawn_samples(name: str, split: str, folder: Path) -> list[Sample]:
    """The samples of one split of a fixture, drawn into an empty folder."""
    FIXTURES[name].draw(folder)
    processor = PROCESSORS[name]
    return list(read_samples(processor, open_source(processor.description, str(folder), [split]), split, Counter()))


def raw_row(name: str, values: Mapping[str, Any], *, split: str, root: Path | None = None) -> Row:
    """A raw row of the first part of a split, with None in the required columns that it does not give."""
    description = PROCESSORS[name].description
    parts = description.splits.get(split, (Part(split=split),))
    blank = dict.fromkeys(description.required)
    return Row(values={**blank, **values}, index=0, split=split, part=parts[0], files=Files(root=root))


def convert_one(name: str, values: Mapping[str, Any], *, split: str = "test") -> Sample:
    """The sample that a row becomes."""
    result = PROCESSORS[name].convert(raw_row(name, values, split=split))
    assert isinstance(result, Sample), result
    return result


def drop_reason(name: str, values: Mapping[str, Any], *, split: str = "test") -> str:
    """Why a row is dropped."""
    result = PROCESSORS[name].convert(raw_row(name, values, split=split))
    assert isinstance(result, Drop), result
    return result.reason
