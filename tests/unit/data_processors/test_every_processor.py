"""What holds for every data processor, shown on its drawn fixture."""

from collections import Counter
from pathlib import Path

import pytest

from data_processors import PROCESSORS
from data_processors.conversion.samples import read_samples
from data_processors.conversion.sources import open_source
from mm_agrae.data.columns import from_row, to_row
from mm_agrae.data.images import open_image
from mm_agrae.records import IMAGE_MARK
from tests.fixtures import FIXTURES


def test_every_processor_has_a_fixture() -> None:
    assert set(FIXTURES) == set(PROCESSORS)


@pytest.mark.parametrize("name", FIXTURES)
def test_the_samples_of_a_fixture(name: str, tmp_path: Path) -> None:
    processor, fixture = PROCESSORS[name], FIXTURES[name]
    fixture.draw(tmp_path)
    source = open_source(processor.description, str(tmp_path), list(fixture.expected.samples))
    drops: Counter[str] = Counter()
    samples = {split: list(read_samples(processor, source, split, drops)) for split in fixture.expected.samples}
    assert {split: len(found) for split, found in samples.items()} == fixture.expected.samples
    assert drops == fixture.expected.drops

    every = [sample for found in samples.values() for sample in found]
    assert len({sample.id for sample in every}) == len(every)
    for split, found in samples.items():
        assert all(sample.id.startswith(f"{name}/{split}/") for sample in found)
    for sample in every:
        assert sample.source == name
        assert sample.target == sample.target.strip() != ""
        assert sample.question.count(IMAGE_MARK) == len(sample.images)
        assert sample.own_prompt is None or sample.own_prompt.count(IMAGE_MARK) == len(sample.images)
        assert not sample.options or sample.answer_kind in ("choice", "choices")
        assert all(open_image(image, sample.id).mode == "RGB" for image in sample.images)
        assert from_row(to_row(sample)) == sample
        if sample.answer_kind == "choice":
            last = chr(ord("A") + len(sample.options) - 1) if sample.options else "Z"
            assert "A" <= sample.target <= last, f"{sample.id}: {sample.target!r} is no option"


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_a_description_says(name: str) -> None:
    description = PROCESSORS[name].description
    assert description.name == name
    assert description.title
    assert description.licence
    assert description.uses
    assert set(description.uses) <= {"training", "benchmark"}
    assert description.hub_id.count("/") == bool(description.hub_id)
    assert not description.note or description.note.endswith(".")
