"""AMC 2023: 40 problems of a multiple-choice competition, their options taken away.

Columns: id, question (or problem), answer, url. The answer is a float in some copies (27.0), text in others; whole
numbers lose their ".0". One answer is -1.
"""

from __future__ import annotations

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="amc23",
    title="AMC 2023",
    hub_id="math-ai/amc23",
    licence="unknown",
    splits={"test": (Part(split="test"),)},
    uses=("benchmark",),
    profile="qwen_math",
    rows="test 40",
    required=("answer",),
)


def convert(row: Row) -> Sample | Drop:
    """One row as a question in text with a number for an answer."""
    question = text_of(row.values.get("question") or row.values.get("problem"))
    answer = row.values["answer"]
    # A number may be given as text too: "27.0".
    target = text_of(answer).removesuffix(".0")
    if not question:
        return Drop("no problem")
    if not target:
        return Drop("no answer")
    metadata = {name: text_of(row.values[name]) for name in ("id", "url") if row.values.get(name) is not None}
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=target,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={**metadata, **({"answer_raw": str(answer)} if str(answer) != target else {})},
    )
