"""Geometry3K: plane geometry from textbooks.

Columns: images, problem (with one "<image>" per image) and answer; newer revisions also have id, choices and
ground_truth (the letter of the right choice), which go into the metadata. The target is the text of the answer.
"""

from __future__ import annotations

from data_processors.conversion.cells import images_of, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="geometry3k",
    title="Geometry3K",
    hub_id="hiyouga/geometry3k",
    licence="MIT",
    splits={name: (Part(split=name),) for name in ("train", "validation", "test")},
    uses=("training", "benchmark"),
    profile="mathruler",
    rows="train 2,101, validation 300, test 601",
    required=("images", "problem", "answer"),
    note="Answers are rounded to one decimal though the questions do not say so.",
)


def convert(row: Row) -> Sample | Drop:
    """One row as a free-form question; its choices, where the revision has them, are kept in the metadata."""
    images = images_of(row.values["images"], row)
    question = one_mark_per_image(text_of(row.values["problem"]), len(images))
    target = text_of(row.values["answer"])
    if question is None:
        return Drop("number of image marks is not the number of images")
    if not target:
        return Drop("no answer")
    metadata = {name: row.values.get(name) for name in ("id", "choices", "ground_truth")}
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=target,
        images=images,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={name: value for name, value in metadata.items() if value is not None},
    )
