"""The answers of drawn training sets verify against themselves, as training judges them."""

from collections import Counter
from pathlib import Path

import pytest

from data_processors import PROCESSORS
from data_processors.conversion.samples import read_samples
from data_processors.conversion.sources import open_source
from mm_agrae.verify import Question, verify
from tests.fixtures import FIXTURES

TRAINING = [name for name in FIXTURES if "training" in PROCESSORS[name].description.uses]


@pytest.mark.parametrize("name", TRAINING)
def test_a_boxed_target_is_correct_and_another_answer_is_not(name: str, tmp_path: Path) -> None:
    processor, fixture = PROCESSORS[name], FIXTURES[name]
    fixture.draw(tmp_path)
    splits = list(fixture.expected.samples)
    source = open_source(processor.description, str(tmp_path), splits)
    for split in splits:
        for sample in read_samples(processor, source, split, Counter()):
            question = Question.of(sample)
            right = verify(f"So the answer is \\boxed{{{sample.target}}}.", question)
            wrong = verify("So the answer is \\boxed{86420}.", question)
            assert right.correct, f"{sample.id}: {sample.target!r} is {right}"
            assert not wrong.correct, f"{sample.id}: 86420 is {wrong}"
