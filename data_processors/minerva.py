"""Minerva: 272 problems of undergraduate science courses.

Columns: question and answer, or in older copies problem, solution, type and idx, where the answer is the one box of the
solution. Only half of the answers are plain numbers; others are "4.5e33", "-1./3", "np.arcsin(10/13)" or the long
solution of a differential equation. A unit stands outside the box, in the solution, and is no part of the answer.
"""

from __future__ import annotations

from data_processors.conversion.cells import last_box, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="minerva",
    title="Minerva",
    hub_id="math-ai/minervamath",
    licence="unknown",
    splits={"test": (Part(split="test"),)},
    uses=("benchmark",),
    profile="math",
    rows="test 272",
    required=(),
)


def convert(row: Row) -> Sample | Drop:
    """One row as a question in text; the answer is the box of the solution where it has no column of its own."""
    values = row.values
    question = text_of(values.get("question") or values.get("problem"))
    target = text_of(values.get("answer")) or last_box(text_of(values.get("solution")))
    if not question:
        return Drop("no problem")
    if not target:
        return Drop("no answer and no closed box in the solution")
    course = text_of(values.get("type"))
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=target,
        family=course or DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={"subject": course} if course else {},
    )
