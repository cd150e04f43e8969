from pathlib import Path

import pytest

from mm_agrae.records import Tolerance
from tests.fixtures.mathv360k import INTEGER, ONE_DECIMAL
from tests.fixtures.pictures import bars
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason


def talk(asked: str, answer: str) -> dict[str, object]:
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return {"id": "1", "image": "", "conversations": turns}


def test_hints_are_read_and_stripped(tmp_path: Path) -> None:
    samples = drawn_samples("mathv360k", "train", tmp_path)
    assert not any("Hint" in sample.question or "Question:" in sample.question for sample in samples)
    assert [sample.answer_kind for sample in samples] == ["choice", "integer", "decimal", "yes_no", "math"]
    assert [sample.family for sample in samples] == ["PlotQA", "CLEVR-Math", "TabMWP", "PlotQA", "Geometry3K"]
    assert samples[2].tolerance == Tolerance(kind="round", value=1)
    assert samples[0].images == (bars([3, 5], ["left", "right"]),)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("The answer is 4", "4"),
        ("the answer is: 4.", "4"),
        ("Answer: $4$", "4"),
        ("4", "4"),
        ("Two and two make four. The answer is 4.", "4"),
    ],
)
def test_answers(answer: str, target: str) -> None:
    sample = convert_one("mathv360k", talk("How many?", answer))
    assert (sample.target, sample.images, sample.family) == (target, (), "")


def test_a_hint_says_nothing_of_an_answer_that_is_no_number() -> None:
    assert (
        convert_one("mathv360k", talk(f"{INTEGER}\nQuestion: How many?", "The answer is 12")).answer_kind == "integer"
    )
    assert convert_one("mathv360k", talk(f"{ONE_DECIMAL}\nQuestion: What?", "The answer is blue")).answer_kind == "math"


def test_options_by_letter_and_by_text() -> None:
    asked = "Question: Which?\nChoices:\n(A) red\n(B) blue"
    for answer in ("The answer is B", "The answer is blue", "The answer is (B) blue"):
        sample = convert_one("mathv360k", talk(asked, answer))
        assert (sample.target, sample.options) == ("B", ("red", "blue"))


def test_conversations_that_are_not_one_exchange() -> None:
    reason = "conversation is not one question and one answer"
    row = talk("How many?", "4")
    assert drop_reason("mathv360k", row | {"conversations": None}) == reason
    assert drop_reason("mathv360k", row | {"conversations": row["conversations"][:1]}) == reason  # type: ignore[index]
    assert drop_reason("mathv360k", talk("How many?", "The answer is")) == "no answer"
