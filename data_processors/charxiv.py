"""CharXiv: reasoning questions on charts of scientific papers.

Columns: image, category, year, original_id, num_subplots, subplot_loc, descriptive_q1 ... a4, reasoning_q, reasoning_a,
reasoning_q_source (1-3) and reasoning_a_type (1 text in the chart, 2 other text, 3 number in the chart, 4 other
number); both count from 1. Answers of the test split are null. A number in general is asked for as a whole number or
with the decimals of the answer, which the question has to say; the type of the answer decides that, never the source of
the question. The descriptive questions are numbers of templates that the rows do not hold, and are left out.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import image_of, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, AnswerKind, Sample

DESCRIPTION = Description(
    name="charxiv",
    title="CharXiv, reasoning questions",
    hub_id="princeton-nlp/CharXiv",
    licence="CC-BY-SA-4.0",
    splits={name: (Part(split=name),) for name in ("validation", "test")},
    uses=("benchmark",),
    profile="charxiv",
    rows="validation 1,000, test 1,323 (answers withheld)",
    required=("image", "category", "reasoning_q", "reasoning_a", "reasoning_a_type"),
    note="The official score is a judge model's; the rule here is exact on numbers and on normalised text.",
)
TYPES = {"1": "text in chart", "2": "text in general", "3": "number in chart", "4": "number in general"}
FORMS = {
    "1": "The answer is text that stands in the chart.",
    "2": "The answer is a word or a short phrase.",
    "3": "The answer is a number that stands in the chart, written as it is there.",
}


def convert(row: Row) -> Sample | Drop:
    """The reasoning question of one chart, with the form in which its answer is wanted."""
    values = row.values
    target, number = text_of(values["reasoning_a"]), text_of(values["reasoning_a_type"])
    image = image_of(values["image"], row)
    if not target:
        return Drop("answer is withheld")
    if image is None:
        return Drop("no image")
    if number not in TYPES:
        return Drop("answer type is not 1 to 4")
    form = FORMS[number] if number in FORMS else number_form(target)
    category = text_of(values["category"])
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=f"{IMAGE_MARK}{text_of(values['reasoning_q'])}\n{form}",
        target=target,
        answer_kind="text" if number in ("1", "2") else number_kind(target),
        images=(image,),
        family=category,
        source=DESCRIPTION.name,
        metadata={
            "category": category,
            "answer_type": TYPES[number],
            "question_source": text_of(values.get("reasoning_q_source")),
            "subplots": text_of(values.get("num_subplots")),
            "year": text_of(values.get("year")),
        },
    )


def number_form(target: str) -> str:
    """How a number in general is to be written: whole, or with as many decimals as the answer has."""
    match = re.fullmatch(r"[+-]?[\d,]*(?:\.(\d+))?%?", target)
    if match is None:
        return "The answer is a number."
    if not match[1]:
        return "The answer is a whole number."
    return f"The answer is a number with {len(match[1])} decimal{'s' if len(match[1]) > 1 else ''}."


def number_kind(target: str) -> AnswerKind:
    """ "-3" is an integer, "0.25" a decimal; "1e+06", "85.5%" and "30, 40" are left to the verifier."""
    if re.fullmatch(r"[+-]?\d+", target):
        return "integer"
    return "decimal" if re.fullmatch(r"[+-]?\d*\.\d+", target) else "math"
