"""DynaMath: ten variants of each seed, noise of floats, kinds of answers."""

from collections import Counter
from pathlib import Path

import pytest

from data_processors.dynamath import read_answer
from mm_agrae.records import AnswerKind, Tolerance
from tests.unit.data_processors.drawn import drawn_samples


def test_every_group_has_its_ten_variants(tmp_path: Path) -> None:
    samples = drawn_samples("dynamath", "test", tmp_path)
    assert Counter(sample.group for sample in samples) == dict.fromkeys("12345", 10)
    for seed in "12345":
        variants = [sample.metadata["variant"] for sample in samples if sample.group == seed]
        assert variants == [str(number) for number in range(1, 11)]
    assert len({sample.id for sample in samples}) == 50


def test_a_variant_is_a_split_too(tmp_path: Path) -> None:
    samples = drawn_samples("dynamath", "sample_variant10", tmp_path)
    assert {sample.metadata["variant"] for sample in samples} == {"10"}
    assert [sample.target for sample in samples] == ["20", "314.1592654", "A", "y = -10", "12"]
    assert samples[0].tolerance == Tolerance(kind="absolute", value=0.001)
    assert samples[2].tolerance is samples[3].tolerance is None
    assert samples[3].family == "analytic geometry"


@pytest.mark.parametrize(
    ("raw", "answer_type", "target", "kind"),
    [
        ("5.000000000000001", "int", "5", "decimal"),
        ("0.30000000000000004", "float", "0.3", "decimal"),
        ("-12345.678", "float", "-12345.678", "decimal"),
        ("nan", "float", "nan", "text"),
        ("(0.886, -0.465)", "text", "(0.886, -0.465)", "text"),
        ("5", "text", "5", "text"),
        ("7", "single answer", "7", "decimal"),
        ("(b)", "multiple choice", "B", "choice"),
        ("no", "multiple choice", "", "choice"),
    ],
)
def test_read_answer(raw: str, answer_type: str, target: str, kind: AnswerKind) -> None:
    assert read_answer(raw, answer_type) == (target, kind)
