"""The families of the gym by name, and one problem of a family as a sample."""

from __future__ import annotations

import difflib
import random
from collections.abc import Sequence
from dataclasses import replace

from data_processors.visual_gym import (
    bar_charts,
    counting,
    geometry_angles,
    geometry_areas,
    geometry_circles,
    geometry_lengths,
    geometry_lines,
    geometry_similar,
    line_charts,
    lines,
    parabolas,
    shares,
    small_charts,
    small_counting,
)
from data_processors.visual_gym.answers import four_options, letter
from data_processors.visual_gym.problem import DIFFICULTIES, Family, offer_choices
from mm_agrae.data.images import encode_png
from mm_agrae.errors import DataError
from mm_agrae.records import IMAGE_MARK, Sample
from mm_agrae.seeding import seed_for

SOURCE = "visual_gym"
DEFAULT_SIZE = 336
CHOICE_SHARE = 0.25  # of the problems whose family offers choices

FAMILIES: dict[str, Family] = {
    **small_counting.FAMILIES,
    **small_charts.FAMILIES,
    **counting.FAMILIES,
    **bar_charts.FAMILIES,
    **line_charts.FAMILIES,
    **shares.FAMILIES,
    **lines.FAMILIES,
    **parabolas.FAMILIES,
    **geometry_angles.FAMILIES,
    **geometry_lines.FAMILIES,
    **geometry_lengths.FAMILIES,
    **geometry_similar.FAMILIES,
    **geometry_areas.FAMILIES,
    **geometry_circles.FAMILIES,
}
ALL: tuple[str, ...] = tuple(FAMILIES)


def make_problem(family: str, difficulty: int, seed: int, *, size: int = DEFAULT_SIZE) -> Sample:
    """One problem; the same arguments give the same sample, picture bytes included.

    Args:
        family: A key of FAMILIES, such as "counting/circles".
        difficulty: 1 (easy) to 5.
        seed: Any integer.
        size: Side of the square picture in pixels.

    Raises:
        DataError: If the family is unknown, the difficulty is no level, or the size is below the family's minimum.
    """
    check_request([family], [difficulty], size=size)
    rng = random.Random(seed_for(seed, SOURCE, family, difficulty))
    problem = FAMILIES[family].make(rng, difficulty, size)
    if problem.mistakes and rng.random() < CHOICE_SHARE:
        options = four_options(rng, problem.answer, problem.mistakes)
        problem = offer_choices(problem, rng, options) if options else problem
    listed = "".join(f"\n{letter(i)}. {option}" for i, option in enumerate(problem.options))
    return Sample(
        id=f"{family}/{difficulty}/{seed}",
        question=f"{IMAGE_MARK}{problem.question}{listed}",
        target=problem.answer.text,
        answer_kind=problem.answer.kind,
        images=(encode_png(problem.picture),),
        options=problem.options,
        tolerance=problem.answer.tolerance,
        solution=f"{problem.working} \\boxed{{{problem.answer.text}}}",
        family=family,
        difficulty=difficulty,
        source=SOURCE,
        metadata={"seed": seed, "size": size, "description": problem.description, **problem.facts},
    )


def as_text(sample: Sample) -> Sample:
    """The twin of a gym sample without its picture: the picture's description stands before the question."""
    question = sample.question.removeprefix(IMAGE_MARK)
    return replace(sample, id=f"{sample.id}/text", question=f"{sample.metadata['description']} {question}", images=())


def expand_families(names: Sequence[str]) -> tuple[str, ...]:
    """Names of families from names of families or groups ("counting"), in the order of the table, each once.

    Raises:
        DataError: If a name is neither; the nearest name is given.
    """
    wanted: set[str] = set()
    for name in names:
        found = [family for family in FAMILIES if name in (family, family.split("/")[0])]
        if not found:
            raise DataError(_unknown(name))
        wanted.update(found)
    return tuple(family for family in FAMILIES if family in wanted)


def check_request(families: Sequence[str], difficulties: Sequence[int], *, size: int) -> None:
    """Refuses what no problem can be made of.

    Raises:
        DataError: On an unknown family, a difficulty outside 1-5, or a size below a family's minimum.
    """
    for name in families:
        if name not in FAMILIES:
            raise DataError(_unknown(name))
    for difficulty in difficulties:
        if difficulty not in DIFFICULTIES:
            raise DataError(f"difficulty is {difficulty!r}, but it must be one of 1, 2, 3, 4, 5. Ask for one of these.")
    too_small = [f"{name} ({FAMILIES[name].min_size})" for name in families if size < FAMILIES[name].min_size]
    if too_small:
        raise DataError(
            f"size is {size} pixels, but these families can be read only from their minimum on: "
            f"{', '.join(too_small)}. Raise the size, or leave these families out."
        )


def _unknown(name: str) -> str:
    groups = sorted({family.split("/")[0] for family in FAMILIES})
    near = difflib.get_close_matches(name, [*FAMILIES, *groups], n=1, cutoff=0.0)[0]
    return (
        f"there is no family or group {name!r}; the nearest name is {near!r}. "
        f"Groups: {', '.join(groups)}. Families: {', '.join(FAMILIES)}."
    )
