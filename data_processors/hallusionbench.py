"""HallusionBench: yes-or-no questions on pictures that tempt, and on the same pictures edited.

Columns, all text: category (VD depends on the picture, VS is supplemented by it), subcategory, visual_input ("0" none,
"1" as it was, "2" edited), set_id, figure_id, question_id, question, sample_note, gt_answer ("1" yes, "0" no),
gt_answer_details, filename (null without a picture), and on the hub image. Rows of VS with figure 0 have no picture and
are asked in text alone.

Figures and questions are scored too: "figure" and "question" of the metadata name them with their category, subcategory
and set, as numbers start anew in every set; the set itself is the group. The judge of the paper also accepts an answer
that it cannot be known where there is no picture; the rule here does not.
"""

from __future__ import annotations

from data_processors.conversion.cells import image_of, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, Sample

PARTS = {name: (Part(split=name),) for name in ("image", "non_image")}
KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id", "visual_input")
DESCRIPTION = Description(
    name="hallusionbench",
    title="HallusionBench",
    hub_id="lmms-lab/HallusionBench",
    licence="BSD-3-Clause",
    splits={"test": (*PARTS["image"], *PARTS["non_image"]), **PARTS},
    uses=("benchmark",),
    profile="hallusionbench",
    rows="test 1,129 = image 951 + non_image 178",
    required=(*KEYS, "question", "gt_answer"),
    archives=("*.zip",),
    note="Figure and question accuracy need all questions of a set; many results are on the split image alone.",
)
ANSWERS = {"1": "yes", "0": "no"}


def convert(row: Row) -> Sample | Drop:
    """One question, with its picture or without one."""
    values = row.values
    target = ANSWERS.get(text_of(values["gt_answer"]))
    has_image = text_of(values["visual_input"]) != "0"
    image = image_of(values.get("image") or values.get("filename"), row) if has_image else None
    if target is None:
        return Drop("answer is neither 0 nor 1")
    if has_image and image is None:
        return Drop("no image")
    category, subcategory, number, figure, question, visual_input = (text_of(values[name]) for name in KEYS)
    group = f"{category}/{subcategory}/{number}"
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{group}/{figure}/{question}",
        question=(IMAGE_MARK if has_image else "") + text_of(values["question"]),
        target=target,
        answer_kind="yes_no",
        images=() if image is None else (image,),
        group=group,
        family=subcategory,
        source=DESCRIPTION.name,
        metadata={
            "category": category,
            "subcategory": subcategory,
            "visual_input": visual_input,
            "figure": f"{group}/{figure}",
            "question": f"{group}/{question}",
        },
    )
