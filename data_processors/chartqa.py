"""ChartQA: questions about charts, asked by people or made by a machine.

Three layouts: HuggingFaceM4/ChartQA (query, label: a list of one text, human_or_machine: 0 or 1),
ahmed-masry/ChartQA (imgname, image as bytes, query, label: a text, type: human or augmented), lmms-lab/ChartQA
(question, answer, type: human_test or augmented_test; only the test split). Its rule accepts a number within 5 %; a
year is a number to that rule, but a sample that asks for one says so, and other profiles then compare it exactly.
"""

from __future__ import annotations

import re
from typing import Any

from data_processors.conversion.cells import image_of, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import AnswerKind, Sample, Tolerance

DESCRIPTION = Description(
    name="chartqa",
    title="ChartQA",
    hub_id="HuggingFaceM4/ChartQA",
    licence="GPL-3.0",
    splits={"train": (Part(split="train"),), "validation": (Part(split="val"),), "test": (Part(split="test"),)},
    uses=("training", "benchmark"),
    profile="chartqa",
    rows="train 28,299, validation 1,920, test 2,500",
    required=("image",),
    note="The test split is 1,250 human and 1,250 augmented questions: report both.",
)
RELAXED = Tolerance(kind="relative", value=0.05)
FAMILIES = {"0": "human", "1": "augmented", "human_test": "human", "augmented_test": "augmented"}
_NUMBER = re.compile(r"[-+]?[$€£]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)\s?%?")
_YEAR = re.compile(r"(?:1[89]|20)\d\d")
_ASKS_FOR_A_YEAR = re.compile(r"\b(?:years?|when)\b", re.IGNORECASE)


def convert(row: Row) -> Sample | Drop:
    """One row of any of the three layouts."""
    image = image_of(row.values["image"], row)
    question = text_of(row.values.get("query") or row.values.get("question"))
    label = row.values.get("label")
    answer = single_label(row.values.get("answer") if label is None else label)
    if image is None:
        return Drop("no image")
    marked = one_mark_per_image(question, 1)
    if not question or marked is None:
        return Drop("no question" if not question else "number of image marks is not the number of images")
    if isinstance(answer, Drop):
        return answer
    kind = answer_kind(question, answer)
    asker = text_of(row.values.get("type")) or text_of(row.values.get("human_or_machine"))
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=marked,
        target=answer.casefold() if kind == "yes_no" else answer,
        answer_kind=kind,
        tolerance=RELAXED if kind == "decimal" else None,
        images=(image,),
        family=FAMILIES.get(asker, asker),
        source=DESCRIPTION.name,
    )


def single_label(cell: Any) -> str | Drop:
    """The one label of a cell that holds a text or a list of one text."""
    labels = [text_of(item) for item in cell] if isinstance(cell, (list, tuple)) else [text_of(cell)]
    if len(labels) > 1:
        return Drop("several labels")
    return labels[0] if labels and labels[0] else Drop("no answer")


def answer_kind(question: str, answer: str) -> AnswerKind:
    """How an answer is compared where the rule of ChartQA is not used."""
    if answer.casefold() in ("yes", "no"):
        return "yes_no"
    if _YEAR.fullmatch(answer) and _ASKS_FOR_A_YEAR.search(question):
        return "year"
    if _NUMBER.fullmatch(answer):
        return "decimal"
    return "list" if answer.startswith("[") and answer.endswith("]") else "text"
