"""MATH-500: the 500 test problems of MATH that are usually reported.

Columns: problem, solution, answer, subject, level (a whole number 1-5), unique_id ("test/algebra/1.json"). Answers are
LaTeX of many forms: "52_8", "x=5", "90^\\circ", "\\text{(C)}", "11,\\! 111", "\\frac{270}7\\text{ degrees}".
"""

from __future__ import annotations

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="math500",
    title="MATH-500",
    hub_id="HuggingFaceH4/MATH-500",
    licence="MIT",
    splits={"test": (Part(split="test"),)},
    uses=("benchmark",),
    profile="math",
    rows="test 500",
    required=("problem", "answer", "subject", "level", "unique_id"),
    note="The 12,000 training rows of math12k are MATH without these; the 7,500 of MATH never hold them.",
)


def convert(row: Row) -> Sample | Drop:
    """One row as a question in text with an answer in LaTeX."""
    target = text_of(row.values["answer"])
    if not target:
        return Drop("no answer")
    subject, level = text_of(row.values["subject"]), text_of(row.values["level"])
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(row.values['unique_id']) or row.index}",
        question=text_of(row.values["problem"]),
        target=target,
        family=subject,
        difficulty=int(level) if level.isdigit() else None,
        source=DESCRIPTION.name,
        metadata={"subject": subject, "level": level},
    )
