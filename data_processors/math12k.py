"""MATH 12k: the MATH problems outside MATH-500 for training, and those 500 as a test.

Columns: problem and answer (LaTeX without a box).
"""

from __future__ import annotations

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import unwrapped
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="math12k",
    title="MATH 12k",
    hub_id="hiyouga/math12k",
    licence="MIT",
    splits={name: (Part(split=name),) for name in ("train", "test")},
    uses=("training",),
    profile="math",
    rows="train 12,000, test 500",
    required=("problem", "answer"),
    note="Its training split holds test problems of MATH; its test split is MATH-500.",
)


def convert(row: Row) -> Sample | Drop:
    """One row as a free-form question in text."""
    question, target = text_of(row.values["problem"]), unwrapped(text_of(row.values["answer"]))
    if not question or not target:
        return Drop("no answer" if question else "no question")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=target,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
    )
