"""DeepScaleR: about 40,000 competition problems (AIME to 2023, AMC, Omni-MATH, STILL).

Columns: problem, answer (LaTeX), solution (often empty).
"""

from __future__ import annotations

from data_processors.conversion.cells import last_box, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import unwrapped
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="deepscaler",
    title="DeepScaleR preview",
    hub_id="agentica-org/DeepScaleR-Preview-Dataset",
    licence="MIT",
    splits={"train": (Part(split="train", files=("deepscaler*.json",)),)},
    uses=("training",),
    profile="math",
    rows="train about 40,300",
    required=("problem", "answer"),
    note="Overlaps MATH-500, AMC23 and OlympiadBench: check for leaks before you report them.",
)


def convert(row: Row) -> Sample | Drop:
    """One row; its solution only where that ends in a box with the very answer."""
    question, answer = text_of(row.values["problem"]), text_of(row.values["answer"])
    target, solution = unwrapped(answer), text_of(row.values.get("solution"))
    if not question or not target:
        return Drop("no answer" if question else "no question")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=target,
        solution=solution if last_box(solution) == target else None,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={} if target == answer else {"answer_raw": answer},
    )
