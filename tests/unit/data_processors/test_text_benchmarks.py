"""Benchmarks in text: MATH-500, AIME, AMC, Minerva, OlympiadBench."""

from pathlib import Path
from typing import Any

import pytest

from data_processors import minerva, olympiadbench
from data_processors.aime24 import problem_of
from mm_agrae.records import IMAGE_MARK, Tolerance
from mm_agrae.verify import Question, verify
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason


def test_math500_keeps_answers_as_written(tmp_path: Path) -> None:
    samples = drawn_samples("math500", "test", tmp_path)
    assert [sample.target for sample in samples] == ["52_8", "90^\\circ", "\\text{(C)}", "111,\\!111", "1,-2"]
    assert samples[0].id == "math500/test/test/number_theory/100.json"
    assert (samples[1].family, samples[1].difficulty) == ("Geometry", 2)


def test_aime24_reads_both_layouts_and_padded_answers(tmp_path: Path) -> None:
    samples = drawn_samples("aime24", "test", tmp_path)
    assert [sample.target for sample in samples] == ["6", "25", "24", "21"]
    assert {sample.answer_kind for sample in samples} == {"integer"}
    assert [sample.metadata.get("answer_raw") for sample in samples] == ["006", "025", "024", None]
    # The problem that stands in both files is kept once, as it stood first.
    assert samples[1].own_prompt is None
    assert samples[3].own_prompt is not None
    assert samples[3].own_prompt.startswith("Solve the problem.")
    assert samples[3].question == "Find 3 \\cdot 7."


@pytest.mark.parametrize("year", [{"year": 2023}, {"url": "https://example.org/wiki/2022_AIME_I_Problems/Problem_1"}])
def test_aime24_is_of_2024(year: dict[str, Any]) -> None:
    assert drop_reason("aime24", {"problem": "Find 5^2.", "answer": "025", **year}) == "not of 2024"
    of_2024 = {name: str(text).replace("2022", "2024").replace("2023", "2024") for name, text in year.items()}
    assert convert_one("aime24", {"problem": "Find 5^2.", "answer": "025", **of_2024}).target == "25"


def test_aime24_takes_the_answer_from_the_solution_when_it_has_no_column() -> None:
    sample = convert_one("aime24", {"problem": "Find 5^2.", "solution": "So \\boxed{025}."})
    assert sample.target == "25"


def test_a_problem_is_found_in_every_layout() -> None:
    assert problem_of({"question": " q "}) == "q"
    assert problem_of({"extra_info": {"raw_problem": "p"}}) == "p"
    assert problem_of({}) == ""


def test_aime25_reads_two_files(tmp_path: Path) -> None:
    assert [sample.target for sample in drawn_samples("aime25", "test", tmp_path)] == ["78", "99"]


def test_amc23_floats_lose_their_zero(tmp_path: Path) -> None:
    samples = drawn_samples("amc23", "test", tmp_path)
    assert [sample.target for sample in samples] == ["27", "-1", "1.5"]
    assert samples[0].metadata["answer_raw"] == "27.0"
    assert convert_one("amc23", {"problem": "p", "answer": "27.0"}).target == "27"


def test_minerva_reads_the_box_of_the_solution(tmp_path: Path) -> None:
    samples = drawn_samples("minerva", "test", tmp_path)
    assert [sample.target for sample in samples] == ["4.5e33", "-1./3", "np.arcsin(10/13)", "3600"]
    assert [sample.family for sample in samples] == [*["Introduction to Astronomy"] * 3, minerva.DESCRIPTION.name]


def test_olympiadbench_kinds_and_tolerance(tmp_path: Path) -> None:
    samples = drawn_samples("olympiadbench", "test", tmp_path)
    assert [(sample.target, sample.answer_kind) for sample in samples] == [
        ("1", "math"),
        ("1.4", "math"),
        ("2,3", "math"),
        ("a^{2}+2 a+1", "expression"),
        ("(2,1)", "tuple"),
        ("(-2,2)", "interval"),
    ]
    assert [sample.tolerance for sample in samples[:2]] == [None, Tolerance(kind="absolute", value=0.1)]
    several = Question.of(samples[2], profile=olympiadbench.DESCRIPTION.profile)
    assert verify("\\boxed{3,2}", several).correct


def test_olympiadbench_places_its_pictures(tmp_path: Path) -> None:
    one, two = drawn_samples("olympiadbench", "OE_MM_maths_en_COMP", tmp_path)
    assert one.question == f"{IMAGE_MARK} Find x. (Unit: cm)"
    assert two.question.startswith(f"{IMAGE_MARK} shows a right triangle.\nHow much longer")
    assert two.images[0] == one.images[0] != two.images[1]
    assert one.metadata["config"] == "OE_MM_maths_en_COMP"


@pytest.mark.parametrize(
    ("error", "tolerance"), [("", None), ("1e-2,1e-1", 0.1), ("0.5", 0.5)], ids=["none", "several", "one"]
)
def test_olympiadbench_takes_the_widest_tolerance(error: str, tolerance: float | None) -> None:
    row = {"question": "q", "final_answer": ["1"], "answer_type": "Numerical", "error": error, "id": 1}
    sample = convert_one("olympiadbench", row)
    assert (sample.tolerance.value if sample.tolerance else None) == tolerance


def test_olympiadbench_drops_a_tolerance_that_is_no_number() -> None:
    row = {"question": "q", "final_answer": ["1"], "answer_type": "Numerical", "error": "about 1"}
    assert drop_reason("olympiadbench", row) == "tolerance is no number"


def test_olympiadbench_has_a_split_for_each_open_configuration() -> None:
    splits = olympiadbench.DESCRIPTION.splits
    assert len(splits) == 11
    assert all(part.config == name for name, (part,) in splits.items() if name != "test")
