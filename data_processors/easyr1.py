"""A user's own set in the layout of EasyR1: images, problem (with one "<image>" per image) and answer."""

from __future__ import annotations

from data_processors.conversion.cells import images_of, one_mark_per_image, text_of
from data_processors.conversion.description import Drop, Row, own_layout
from data_processors.conversion.messages import plain_answer
from mm_agrae.records import Sample

DESCRIPTION = own_layout(
    "easyr1",
    "Your own: images, problem, answer (EasyR1)",
    required=("problem", "answer"),
    note="Columns problem, answer and, unless all rows are text, images.",
)


def convert(row: Row) -> Sample | Drop:
    """One row; a box or an <answer> tag around the answer is taken off."""
    images = images_of(row.values.get("images"), row)
    question = one_mark_per_image(text_of(row.values["problem"]), len(images))
    answer = plain_answer(text_of(row.values["answer"]))
    if question is None:
        return Drop("number of image marks is not the number of images")
    if isinstance(answer, Drop):
        return answer
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=answer,
        images=images,
        source=DESCRIPTION.name,
    )
