"""AIME 2025: 30 competition problems whose answers are whole numbers from 0 to 999.

Columns: problem (or question) and answer, not padded; some copies have id and url too. Copies that lie apart as AIME I
and AIME II are read one after the other when their files lie in one folder.
"""

from __future__ import annotations

from data_processors.aime24 import competition_sample
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="aime25",
    title="AIME 2025",
    hub_id="math-ai/aime25",
    licence="unknown",
    splits={"test": (Part(split="test"),)},
    uses=("benchmark",),
    profile="qwen_math",
    rows="test 30",
    required=("answer",),
)


def convert(row: Row) -> Sample | Drop:
    """One row as a question with a whole number for an answer."""
    return competition_sample(row, DESCRIPTION.name)
