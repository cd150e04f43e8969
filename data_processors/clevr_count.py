"""CLEVR-70k: counting solids in rendered scenes.

Columns: image (PNG with transparency), problem, and solution ("<answer> 3 </answer>").
"""

from __future__ import annotations

from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.r1v import REQUIRED, read_tagged
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="clevr_count",
    title="CLEVR-70k counting",
    hub_id="leonardPKU/clevr_cogen_a_train",
    licence="unknown",
    splits={"train": (Part(split="train"),)},
    uses=("training",),
    profile="generic",
    rows="train 70,000",
    required=REQUIRED,
    note="It has no test split: hold rows out yourself.",
)


def convert(row: Row) -> Sample | Drop:
    """One row as a question with a whole number as its answer."""
    tagged = read_tagged(row)
    if isinstance(tagged, Drop):
        return tagged
    if not tagged.answer.isdecimal():
        return Drop("answer is no whole number")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=tagged.question,
        target=str(int(tagged.answer)),
        answer_kind="integer",
        images=(tagged.image,),
        family="counting",
        source=DESCRIPTION.name,
    )
