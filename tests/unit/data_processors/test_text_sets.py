"""MATH 12k, DAPO-Math, GSM8K, DeepScaleR, OpenR1-Math."""

from pathlib import Path
from typing import Any

import pytest

from data_processors import dapo_math
from data_processors.openr1_math import flags
from mm_agrae.verify import Question, verify
from tests.fixtures.dapo_math import AFTER, BEFORE, raw_row
from tests.unit.data_processors import drawn
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason


def test_math12k() -> None:
    assert convert_one("math12k", {"problem": "Solve.", "answer": "$\\pm 3$."}).target == "\\pm 3"
    assert drop_reason("math12k", {"problem": "", "answer": "3"}) == "no question"
    assert drop_reason("math12k", {"problem": "Solve.", "answer": "$ $"}) == "no answer"


def test_dapo_question_and_own_prompt() -> None:
    sample = convert_one("dapo_math", raw_row("What is\n\n$2^3$?", "8", 0), split="train")
    assert sample.question == "What is\n\n$2^3$?"
    assert sample.own_prompt == f"{BEFORE}What is\n\n$2^3$?{AFTER}"
    assert (sample.target, sample.answer_kind) == ("8", "integer")
    # The rule of this set reads the last line that the prompt asks for.
    assert verify("So it is 8.\nAnswer: 8", Question.of(sample, profile="dapo")).correct


def test_dapo_processed_layout() -> None:
    raw = raw_row("What is $2^3$?", "8", 0)
    processed = {**raw, "prompt": "What is $2^3$?", "source_prompt": raw["prompt"], "solution": "8"}
    assert convert_one("dapo_math", processed) == convert_one("dapo_math", raw)
    bare = convert_one("dapo_math", {**processed, "source_prompt": None})
    assert (bare.question, bare.own_prompt) == ("What is $2^3$?", None)


def test_dapo_copies_have_one_key() -> None:
    first, copy, other = (
        raw_row(*row) for row in (("What is 1?", "1", 0), ("What is 1?", "1", 1), ("What is 2?", "2", 2))
    )
    keys = [dapo_math.key(drawn.raw_row("dapo_math", row, split="train")) for row in (first, copy, other)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("answer", ["1.5", "\\frac{1}{2}", "", None, "12 cm"])
def test_dapo_answers_are_integers(answer: Any) -> None:
    assert drop_reason("dapo_math", raw_row("What?", answer, 0)) == "answer is no integer"


def test_dapo_rows_without_a_prompt() -> None:
    assert drop_reason("dapo_math", {**raw_row("What?", "1", 0), "prompt": []}) == "no question"
    assert drop_reason("dapo_math", {**raw_row("What?", "1", 0), "reward_model": None}) == "answer is no integer"


@pytest.mark.parametrize(
    ("answer", "target", "kind"),
    [
        ("#### 18", "18", "integer"),
        ("It is.\n####  2,125", "2125", "integer"),
        ("#### -5", "-5", "integer"),
        ("#### 1,234.5", "1234.5", "decimal"),
        ("#### 3\n#### 4", "4", "integer"),
    ],
)
def test_gsm8k_answers(answer: str, target: str, kind: str) -> None:
    sample = convert_one("gsm8k", {"question": "How many?", "answer": answer})
    assert (sample.target, sample.answer_kind) == (target, kind)


def test_gsm8k_solutions(tmp_path: Path) -> None:
    first = drawn_samples("gsm8k", "train", tmp_path)[0]
    assert first.solution == "There are 16-3=13 eggs left.\nThey sell for 13*2=$26.\n\\boxed{26}"
    assert drop_reason("gsm8k", {"question": "How many?", "answer": "It is 4."}) == "no line with ####"
    assert drop_reason("gsm8k", {"question": "How many?", "answer": None}) == "no line with ####"
    assert drop_reason("gsm8k", {"question": "How many?", "answer": "#### four"}) == "answer is no number"


def test_deepscaler_solutions(tmp_path: Path) -> None:
    solutions = [sample.solution for sample in drawn_samples("deepscaler", "train", tmp_path)]
    assert solutions == [None, "$6\\cdot5/2=15$, so it is $\\boxed{15}$.", None]


def test_openr1_counts_what_is_there() -> None:
    assert flags([True, None], 3) == [True, False, False]
    assert flags(None, 2) == [False, False]
    assert flags([True, True], 1) == [True]
    row = {
        "problem": "What is $1+1$?",
        "answer": "2",
        "generations": ["a", "b", "c"],
        "is_reasoning_complete": [True],
        "correctness_math_verify": [True, False],
        "correctness_llama": [None, None, True],
    }
    metadata = convert_one("openr1_math", row).metadata
    assert metadata == {"origin": "", "num_generations": 3, "num_complete": 1, "num_verified": 2}
    assert convert_one("openr1_math", {"problem": "1+1?", "answer": "2"}).metadata["num_verified"] == 0


def test_openr1_kinds_of_question() -> None:
    row = {"problem": "Which is prime?\nA. 9\nB. 11", "answer": "B", "question_type": "MCQ"}
    assert convert_one("openr1_math", row).options == ("9", "11")
    assert convert_one("openr1_math", row | {"question_type": "math-word-problem"}).answer_kind == "math"
    assert drop_reason("openr1_math", row | {"question_type": "proof"}) == "a proof has no answer to compare"
    assert drop_reason("openr1_math", row | {"answer": None, "question_type": "MCQ"}) == "no answer"
