"""MATH: competition problems in text (hub ids with the columns problem, level, type and solution).

There is no answer column: the target is the content of the last box of the solution.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import has_box, last_box, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="math",
    title="MATH",
    hub_id="DigitalLearningGmbH/MATH-lighteval",
    licence="MIT",
    splits={name: (Part(split=name),) for name in ("train", "test")},
    uses=("training", "benchmark"),
    profile="qwen_math",
    rows="train 7,500, test 5,000",
    required=("problem", "level", "type", "solution"),
    note="MATH-500 is a part of its test split.",
)


def convert(row: Row) -> Sample | Drop:
    """One row; the answer is read from the last \\boxed of its solution."""
    solution = text_of(row.values["solution"])
    target = last_box(solution)
    if not target:
        return Drop("answer box is not closed" if has_box(solution) else "no answer in a box")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=text_of(row.values["problem"]),
        target=target,
        solution=solution,
        family=text_of(row.values["type"]),
        difficulty=_level(row.values["level"]),
        source=DESCRIPTION.name,
    )


def _level(level: str | int) -> int | None:
    """ "Level 5" is 5; the rare "Level ?" is None."""
    digits = re.search(r"\d+", str(level))
    return int(digits[0]) if digits else None
