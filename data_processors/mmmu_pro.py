"""MMMU-Pro: MMMU without the questions that text alone answers, with up to ten options, and as screenshots.

Three configurations, each with the one split test and 1,730 rows; here they are splits: standard_4, standard_10 and
vision. Columns of the standard ones: as MMMU without question_type, and subject. In vision the question and its options
are in the picture: columns id, image, options, answer, subject. Options are the Python literal of a list; their number
goes from 1 to 12.
"""

from __future__ import annotations

from data_processors.conversion.cells import LETTERS, image_of, literal_list, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.mmmu import axes, choice_sample
from mm_agrae.records import IMAGE_MARK, Sample

CONFIGS = {"standard_4": "standard (4 options)", "standard_10": "standard (10 options)", "vision": "vision"}
DESCRIPTION = Description(
    name="mmmu_pro",
    title="MMMU-Pro",
    hub_id="MMMU/MMMU_Pro",
    licence="Apache-2.0",
    splits={name: (Part(split="test", config=config),) for name, config in CONFIGS.items()},
    uses=("benchmark",),
    profile="mmmu",
    rows="standard_4, standard_10 and vision 1,730 each",
    required=("id", "options", "answer", "subject"),
    note="The overall score is the mean of standard_10 and vision.",
)
SHOWN = "Answer the question that the image shows with the letter of an option."


def convert(row: Row) -> Sample | Drop:
    """One row as a choice; in the split vision the question is only in the picture."""
    subject = text_of(row.values["subject"])
    if row.part.config != "vision":
        return choice_sample(row, DESCRIPTION.name, subject)
    options = literal_list(row.values["options"])
    target = text_of(row.values["answer"])
    image = image_of(row.values.get("image"), row)
    if image is None:
        return Drop("no image")
    if not options:
        return Drop("options cannot be read")
    if len(target) != 1 or target not in LETTERS[: len(options)]:
        return Drop("answer is none of the options")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(row.values['id'])}",
        question=IMAGE_MARK + SHOWN,
        target=target,
        answer_kind="choice",
        images=(image,),
        options=tuple(options),
        family=subject,
        source=DESCRIPTION.name,
        metadata=axes(row, subject),
    )
