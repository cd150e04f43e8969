"""LogicVista: one letter, several, a digit, and the empty row."""

from pathlib import Path

import pytest

from data_processors.logicvista import read_answer
from mm_agrae.records import AnswerKind
from tests.unit.data_processors.drawn import convert_one, drawn_samples


def test_answers_and_ids(tmp_path: Path) -> None:
    samples = drawn_samples("logicvista", "test", tmp_path)
    assert [(sample.id.split("/")[-1], sample.target, sample.answer_kind) for sample in samples] == [
        ("v1_0", "F", "choice"),
        ("v1_1", "A,C", "choices"),
        ("v1_20", "5", "integer"),
        ("v1_21", "B", "choice"),
        ("v1_22", "B", "choice"),
    ]
    assert [sample.family for sample in samples] == ["inductive", *["numerical"] * 3, "spatial"]
    assert samples[0].metadata["capabilities"] == ["diagram"]


def test_the_mirror_holds_the_picture_itself() -> None:
    row = {"id": "v1_7", "question": "q", "answer": "A", "skill": "deductive", "image": {"bytes": b"x", "path": None}}
    sample = convert_one("logicvista", row)
    assert (sample.id, sample.images, sample.family) == ("logicvista/test/v1_7", (b"x",), "deductive")


@pytest.mark.parametrize(
    ("raw", "target", "kind"),
    [
        ("G", "G", "choice"),
        ("B, D", "B,D", "choices"),
        ("C,A", "A,C", "choices"),
        ("3", "3", "integer"),
        ("both", "", "text"),
    ],
)
def test_read_answer(raw: str, target: str, kind: AnswerKind) -> None:
    assert read_answer(raw) == (target, kind)
