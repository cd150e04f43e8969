"""OlympiadBench: problems of olympiads and entrance examinations, in text and with pictures, English and Chinese.

Columns: id, question, context, solution (list), final_answer (list of one text; several answers are joined by commas),
is_multiple_answer, unit, answer_type (Numerical, Expression, Equation, Tuple, Interval), error (tolerance, as text),
subfield, subject, language, modality, difficulty, and image_1 ... image_5, named in the text as <image_1>.
A configuration is OE_MODALITY_subject_language_SOURCE: OE open ended, TO text or MM with pictures, COMP competition or
CEE entrance examination; those that begin with TP are theorems to prove and are left out. Its one split is called
train. Answers do not repeat the unit, so the question states it. Of several tolerances the widest counts; the raw cell
is in the metadata.
"""

from __future__ import annotations

from typing import Any

from data_processors.conversion.cells import image_of, literal_list, numbered_marks, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import AnswerKind, Sample, Tolerance

CONFIGS = tuple(
    f"OE_{modality}_{rest}"
    for modality in ("TO", "MM")
    for rest in ("maths_en_COMP", "maths_zh_COMP", "maths_zh_CEE", "physics_en_COMP", "physics_zh_CEE")
)
MAX_IMAGES = 9
DESCRIPTION = Description(
    name="olympiadbench",
    title="OlympiadBench",
    hub_id="Hothan/OlympiadBench",
    licence="Apache-2.0",
    splits={
        "test": (Part(split="train", config="OE_TO_maths_en_COMP"),),
        **{config: (Part(split="train", config=config),) for config in CONFIGS},
    },
    uses=("benchmark",),
    profile="olympiadbench",
    rows="OE_TO_maths_en_COMP 674",
    required=("question", "final_answer", "answer_type"),
    note='"test" is the usual text set, OE_TO_maths_en_COMP; the other splits bear the names of their configurations.',
)
KINDS: dict[str, AnswerKind] = {
    "Numerical": "math",
    "Expression": "expression",
    "Equation": "equation",
    "Tuple": "tuple",
    "Interval": "interval",
}


def convert(row: Row) -> Sample | Drop:
    """One row as an open question; theorems to prove and answers that only people can judge are dropped."""
    values = row.values
    answers = literal_list(values["final_answer"]) or []
    target = ", ".join(answer.strip().strip("$").strip() for answer in answers if answer)
    answer_type = text_of(values["answer_type"])
    if not target:
        return Drop("no final answer")
    if answer_type not in KINDS:
        return Drop(f"answer type {answer_type or 'none'} has no rule")
    question = "\n".join(text for name in ("context", "question") if (text := text_of(values.get(name))))
    unit = text_of(values.get("unit"))
    question, order = numbered_marks(f"{question} (Unit: {unit})" if unit else question)
    images = tuple(image_of(values.get(f"image_{number}"), row) for number in order or range(1, MAX_IMAGES + 1))
    shown = tuple(image for image in images if image is not None)
    marked = one_mark_per_image(question, len(shown))
    if marked is None:
        return Drop("number of image marks is not the number of images")
    try:
        tolerance = _tolerance(text_of(values.get("error")))
    except ValueError:
        return Drop("tolerance is no number")
    axes = ("subfield", "subject", "language", "modality", "difficulty", "answer_type", "unit", "error")
    metadata: dict[str, Any] = {name: text for name in axes if (text := text_of(values.get(name)))}
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(values.get('id')) or row.index}",
        question=marked,
        target=target,
        # Several answers count in any order, which the kinds of one answer do not say.
        answer_kind="math" if values.get("is_multiple_answer") else KINDS[answer_type],
        images=shown,
        tolerance=tolerance,
        family=text_of(values.get("subfield")),
        source=DESCRIPTION.name,
        metadata={**metadata, "config": row.part.config},
    )


def _tolerance(error: str) -> Tolerance | None:
    """ "1e-1" is a largest difference of 0.1; of "1e-2,1e-1" the widest counts; None when nothing is said.

    Raises:
        ValueError: If a part is no number.
    """
    widths = [float(part) for part in error.split(",") if part.strip()]
    return Tolerance(kind="absolute", value=max(widths)) if widths else None
