"""What holds for every family: exact repetition, readable pictures, a worked solution, and levels that differ."""

import json
import re

import numpy as np
import pytest

from data_processors.visual_gym import ALL, FAMILIES, as_text, make_problem
from data_processors.visual_gym.families import DEFAULT_SIZE, expand_families
from data_processors.visual_gym.sheet import contact_sheet
from mm_agrae.data.columns import check_sample
from mm_agrae.data.images import open_image
from mm_agrae.errors import DataError
from mm_agrae.records import Sample

SEEDS = range(8)
CELLS = [(family, difficulty) for family in ALL for difficulty in range(1, 6)]


def problems(family: str, difficulty: int) -> list[Sample]:
    return [make_problem(family, difficulty, seed, size=FAMILIES[family].min_size) for seed in SEEDS]


@pytest.mark.parametrize(("family", "difficulty"), CELLS)
def test_every_cell_is_whole(family: str, difficulty: int) -> None:
    samples = problems(family, difficulty)
    for seed, sample in zip(SEEDS, samples, strict=True):
        assert sample == make_problem(family, difficulty, seed, size=FAMILIES[family].min_size)
        check_sample(sample)
        picture = open_image(sample.images[0], sample.id)
        assert picture.size == (FAMILIES[family].min_size,) * 2
        assert len(picture.getcolors(1 << 20) or []) > 1
        assert sample.solution is not None
        assert sample.solution.endswith(f" \\boxed{{{sample.target}}}")
        assert sample.question.startswith("<image>")
        assert (sample.family, sample.difficulty, sample.source) == (family, difficulty, "visual_gym")
        assert (sample.metadata["seed"], sample.metadata["size"]) == (seed, FAMILIES[family].min_size)
        assert json.loads(json.dumps(sample.metadata)) == sample.metadata
        if sample.answer_kind == "choice":
            assert sample.options[ord(sample.target) - ord("A")] == sample.metadata["right_option"]
            assert len(set(sample.options)) == len(sample.options) >= 3
            assert all(f"\n{'ABCDE'[i]}. {option}" in sample.question for i, option in enumerate(sample.options))
        else:
            assert sample.options == ()
    assert len({sample.images for sample in samples}) > 4


@pytest.mark.parametrize("family", [name for name in ALL if name.startswith("geometry")])
def test_no_figure_is_cut_off(family: str) -> None:
    for difficulty in range(1, 6):
        for seed in SEEDS:
            sample = make_problem(family, difficulty, seed, size=224)
            pixels = np.asarray(open_image(sample.images[0], sample.id))
            inner = pixels.copy()
            inner[2:-2, 2:-2] = 255
            assert inner.min() == 255, sample.id


@pytest.mark.parametrize("family", ALL)
def test_levels_differ(family: str) -> None:
    """Levels 1 and 5 never show the same and ask the same."""
    shown = [
        {(s.question, s.metadata["description"]) for s in problems(family, difficulty)} for difficulty in range(1, 6)
    ]
    assert not shown[0] & shown[4]
    assert all(shown[i] != shown[j] for i in range(5) for j in range(i))


def test_all_answer_kinds_occur() -> None:
    samples = [sample for cell in CELLS for sample in problems(*cell)]
    kinds = {sample.answer_kind for sample in samples}
    assert kinds == {"integer", "decimal", "fraction", "expression", "choice", "math"}
    choosing = {sample.family.split("/")[0] for sample in samples if sample.answer_kind == "choice"}
    assert choosing == {"geometry", "charts", "functions"}
    for sample in samples:
        if sample.answer_kind == "decimal":
            assert sample.tolerance is not None
            assert len(sample.target.split(".")[1]) == sample.tolerance.value
            assert re.search(f"[Rr]ound to {sample.tolerance.value} decimal", sample.question)
        if sample.answer_kind == "integer":
            assert str(int(sample.target)) == sample.target


def test_the_text_twin_has_the_description_in_place_of_the_picture() -> None:
    sample = make_problem("charts/bar_sum", 2, 3, size=64)
    twin = as_text(sample)
    listed = ", ".join(map(str, sample.metadata["heights"]))
    assert twin.question == f"Bars, left to right: {listed}. What is the sum of all bars?"
    assert (twin.images, twin.target) == ((), sample.target)
    assert twin.id != sample.id


def test_the_size_changes_the_picture_and_nothing_else() -> None:
    small, large = make_problem("charts/bar_value", 3, 1, size=224), make_problem("charts/bar_value", 3, 1)
    assert open_image(large.images[0], "").width == DEFAULT_SIZE
    assert (small.question, small.target) == (large.question, large.target)


def test_groups_and_repeats_are_expanded() -> None:
    counting = ("counting/circles", "counting/colour", "counting/shapes")
    assert expand_families(["counting"]) == counting
    assert expand_families(["counting/shapes", "counting", "counting/circles"]) == counting


@pytest.mark.parametrize(
    ("family", "difficulty", "size", "words"),
    [
        ("counting/circle", 1, 64, "nearest name is 'counting/circles'"),
        ("counting/circles", 6, 64, "difficulty is 6"),
        ("geometry/circle", 1, 64, r"size is 64 pixels.*geometry/circle \(224\)"),
        ("counting/circles", 1, 63, r"counting/circles \(64\)"),
    ],
)
def test_impossible_requests_are_refused(family: str, difficulty: int, size: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_problem(family, difficulty, 0, size=size)


def test_a_contact_sheet_shows_every_cell() -> None:
    sheet = contact_sheet(["counting/circles", "charts/red_bar"], size=64, seed=4)
    picture = open_image(make_problem("charts/red_bar", 1, 4, size=64).images[0], "")
    assert any(sheet.crop((0, top, 64, top + 64)).tobytes() == picture.tobytes() for top in range(sheet.height - 63))
