"""Medical VQA: choices about MRI, CT and X-ray pictures, as MedVLM-R1 drew them from OmniMedVQA.

Columns: image (list of relative paths), problem (options inline as lines "A) ..."), solution (the letter), answer
(the text of the option). Training sees 600 questions about MRI; the tests are 300 each of MRI, CT and X-ray, of
which the last two lie out of its domain.
"""

from __future__ import annotations

from data_processors.conversion.cells import LETTERS, images_of, lettered_options, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="medical_vqa",
    title="Medical VQA (MRI, CT, X-ray)",
    hub_id="",
    licence="unknown",
    splits={name: (Part(split=name),) for name in ("train", "mri", "ct", "xray")},
    uses=("training", "benchmark"),
    profile="generic",
    rows="train 600, mri 300, ct 300, xray 300",
    required=("image", "problem", "solution"),
    archives=("*.zip",),
    note="Not on the hub in this form: draw the rows from OmniMedVQA under its terms.",
)


def convert(row: Row) -> Sample | Drop:
    """One row as a choice."""
    images = images_of(row.values["image"], row)
    if not images:
        return Drop("no image")
    question = one_mark_per_image(text_of(row.values["problem"]), len(images))
    if question is None:
        return Drop("number of image marks is not the number of images")
    options = lettered_options(question)[1]
    if not options:
        return Drop("options cannot be told apart")
    letter, text = text_of(row.values["solution"]).upper(), text_of(row.values.get("answer"))
    if len(letter) != 1 or letter not in LETTERS[: len(options)]:
        return Drop("answer letter is not among the options")
    if text and text.casefold() != options[LETTERS.index(letter)].casefold():
        return Drop("answer letter and answer text disagree")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=letter,
        answer_kind="choice",
        options=options,
        images=images,
        family={"train": "mri"}.get(row.split, row.split),
        source=DESCRIPTION.name,
    )
