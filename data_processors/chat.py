"""A user's own set in the layout of TRL: prompt (chat messages), images or image, and the answer.

The answer is in the column answer, solution or ground_truth, in this order; a box or an <answer> tag around it is taken
off.
"""

from __future__ import annotations

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Drop, Row, own_layout
from data_processors.conversion.messages import plain_answer, read_prompt
from mm_agrae.records import Sample

DESCRIPTION = own_layout(
    "chat",
    "Your own: chat messages (TRL)",
    required=("prompt",),
    note="Columns prompt, images or image, and answer, solution or ground_truth.",
)
ANSWERS = ("answer", "solution", "ground_truth")


def convert(row: Row) -> Sample | Drop:
    """One row; a system message goes into the metadata, because a recipe names its own."""
    values = row.values
    pictures = values["images"] if values.get("images") is not None else values.get("image")
    asked = read_prompt(values["prompt"], pictures, row)
    answer = plain_answer(next((text_of(values[name]) for name in ANSWERS if values.get(name) is not None), ""))
    if isinstance(asked, Drop):
        return asked
    if isinstance(answer, Drop):
        return answer
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=asked.question,
        target=answer,
        images=asked.images,
        source=DESCRIPTION.name,
        metadata={"system": asked.system} if asked.system else {},
    )
