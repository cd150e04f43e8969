"""The layout of the R1-V family: image, problem, and a solution whose answer stands between answer tags."""

from __future__ import annotations

from dataclasses import dataclass

from data_processors.conversion.cells import answer_tag, image_of, one_mark_per_image, text_of
from data_processors.conversion.description import Drop, Row

REQUIRED = ("image", "problem", "solution")


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """One row: its question with one mark, its encoded image, and what stands between the answer tags."""

    question: str
    image: bytes
    answer: str


def read_tagged(row: Row) -> Tagged | Drop:
    """The parts of a row, or why it has to go."""
    image = image_of(row.values["image"], row)
    question = one_mark_per_image(text_of(row.values["problem"]), 1)
    answer = answer_tag(text_of(row.values["solution"]))
    if image is None:
        return Drop("no image")
    if question is None:
        return Drop("number of image marks is not the number of images")
    if answer is None:
        return Drop("no answer between answer tags")
    return Tagged(question=question, image=image, answer=answer) if answer else Drop("no answer")
