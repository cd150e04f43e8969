"""DynaMath: 501 seed questions, each drawn anew in ten variants.

Columns: id (of the seed, the same in every variant), question (choices inside it), image (a path), decoded_image,
ground_truth, question_type, answer_type (float, multiple choice, text; a few "int" and "single answer"), subject,
level or knowledge_level. A variant is a split, sample_variant1 ... sample_variant10; our split "test" is all ten,
because the worst case over the variants of a seed is scored. group is the seed's id, metadata["variant"] "1" to "10".
Numbers bear the noise of their computation (5.000000000000001) and count within 0.001.
"""

from __future__ import annotations

import math
import re

from data_processors.conversion.cells import image_of, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, AnswerKind, Sample, Tolerance

VARIANTS = tuple(f"sample_variant{number}" for number in range(1, 11))
DESCRIPTION = Description(
    name="dynamath",
    title="DynaMath",
    hub_id="DynaMath/DynaMath_Sample",
    licence="CC-BY-SA-4.0",
    splits={
        "test": tuple(Part(split=name) for name in VARIANTS),
        **{name: (Part(split=name),) for name in VARIANTS},
    },
    uses=("benchmark",),
    profile="dynamath",
    rows="10 variants of 501",
    required=("id", "question", "image", "ground_truth", "answer_type", "subject"),
    note="Worst-case accuracy needs all ten variants: the split test.",
)
DIFFERENCE = 0.001


def convert(row: Row) -> Sample | Drop:
    """One variant of a seed question as a number, a choice, or a text."""
    values = row.values
    image = image_of(values.get("decoded_image"), row) or image_of(values["image"], row)
    raw, answer_type = text_of(values["ground_truth"]), text_of(values["answer_type"])
    target, kind = read_answer(raw, answer_type)
    if image is None:
        return Drop("no image")
    if not raw:
        return Drop("no answer")
    if not target:
        return Drop("answer of a choice is no letter")
    seed, variant = text_of(values["id"]), re.sub(r"\D", "", row.part.split)
    subject = " ".join(text_of(values["subject"]).split())
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{seed}/{variant}",
        question=IMAGE_MARK + text_of(values["question"]),
        target=target,
        answer_kind=kind,
        images=(image,),
        tolerance=Tolerance(kind="absolute", value=DIFFERENCE) if kind == "decimal" else None,
        group=seed,
        family=subject,
        source=DESCRIPTION.name,
        metadata={
            "variant": variant,
            "subject": subject,
            "level": text_of(values.get("knowledge_level") or values.get("level")),
            "answer_type": answer_type,
            **({"answer_raw": raw} if raw != target else {}),
        },
    )


def read_answer(raw: str, answer_type: str) -> tuple[str, AnswerKind]:
    """The answer and its kind; "" for a choice without a letter.

    What is called a text stays one, even "5:0"; anything else that is no number is a text too.
    """
    if answer_type == "multiple choice":
        letter = re.fullmatch(r"\(?([A-Za-z])\)?\.?", raw)
        return (letter[1].upper() if letter else "", "choice")
    number = None if answer_type == "text" else _number(raw)
    # Ten digits are more than the tolerance needs and fewer than the noise has.
    return (raw, "text") if number is None else (f"{number:.10g}", "decimal")


def _number(raw: str) -> float | None:
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
