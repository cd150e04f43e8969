"""MathVista: mathematics in pictures of 31 sources.

Columns: pid, question, image (a path), decoded_image, choices (list or null), unit, precision (decimals of a float
answer; itself a float in parquet), answer, question_type (multi_choice, free_form), answer_type (text, integer, float,
list), metadata (task, source, category, context, grade, skills, language ...), query (hint, question and choices in the
set's own words). Multiple-choice answers are the text of an option: the target is its letter, of the first one where
two options are equal. Answers of the test split are withheld. Lines end in "\\r\\n" here and there.
"""

from __future__ import annotations

from typing import Any

from data_processors.conversion.cells import image_of, letter_of, literal_list, text_of, with_options
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, AnswerKind, Sample, Tolerance

DESCRIPTION = Description(
    name="mathvista",
    title="MathVista",
    hub_id="AI4Math/MathVista",
    licence="CC-BY-SA-4.0",
    splits={name: (Part(split=name),) for name in ("testmini", "test")},
    uses=("benchmark",),
    profile="mathvista",
    rows="testmini 1,000, test 5,141 (answers withheld)",
    required=("pid", "question", "image", "choices", "answer", "question_type", "answer_type"),
    note="Its licence allows testing only: it may not be trained on.",
)
KINDS: dict[str, AnswerKind] = {"integer": "integer", "float": "decimal", "list": "list", "text": "text"}
AXES = ("task", "source", "category", "context", "grade", "language")


def convert(row: Row) -> Sample | Drop:
    """One row as a choice, or as an open question whose floats count when they round to the answer."""
    values = row.values
    answer, answer_type = text_of(values["answer"]), text_of(values["answer_type"])
    options = tuple(literal_list(values["choices"]) or ())
    image = image_of(values.get("decoded_image"), row) or image_of(values["image"], row)
    is_choice = text_of(values["question_type"]) == "multi_choice"
    target = letter_of(answer, options) if is_choice else answer
    if not answer:
        return Drop("answer is withheld")
    if image is None:
        return Drop("no image")
    if target is None:
        return Drop("answer is none of the options")
    if answer_type not in KINDS:
        return Drop(f"answer type {answer_type or 'none'} has no rule")
    unit, query = text_of(values.get("unit")), text_of(values.get("query"))
    question = text_of(values["question"]) + (f" (Unit: {unit})" if unit else "")
    about = values.get("metadata") or {}
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(values['pid'])}",
        question=f"{IMAGE_MARK}{with_options(question, options) if is_choice else question}",
        target=target,
        answer_kind="choice" if is_choice else KINDS[answer_type],
        images=(image,),
        options=options if is_choice else (),
        tolerance=None if is_choice else _tolerance(values.get("precision")),
        own_prompt=f"{IMAGE_MARK}{query}" if query else None,
        family=text_of(about.get("task")) or DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={
            **{name: text for name in AXES if (text := text_of(about.get(name)))},
            "skills": literal_list(about.get("skills")) or [],
            "question_type": text_of(values["question_type"]),
            "answer_type": answer_type,
            **({"answer_raw": answer} if is_choice else {}),
        },
    )


def _tolerance(precision: Any) -> Tolerance | None:
    """What rounds to the answer's decimals counts; parquet gives them as 1.0, and a missing one as null or nan."""
    decimals = text_of(precision)
    return Tolerance(kind="round", value=int(decimals)) if decimals.isdecimal() else None
