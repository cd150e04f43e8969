"""MathV360K: visual mathematics from 24 sets, for instruction tuning.

Columns: id, image ("TabMWP/images/x.png", in data_images.zip), conversations: one turn of "human" ("<image>\\nHint:
... \\nQuestion: ...\\nChoices:\\n(A) ...") and one of "gpt" ("The answer is B", or the answer alone). The hints are
those of MathVista, and say how the answer is to be written: they are read for that, and taken out of the question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from data_processors.conversion.cells import MISSING_IMAGE, one_mark_per_image, strip_hint, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import Gold, gold_of
from mm_agrae.records import IMAGE_MARK, AnswerKind, Sample, Tolerance

DESCRIPTION = Description(
    name="mathv360k",
    title="MathV360K",
    hub_id="Zhiqiang007/MathV360K",
    licence="Apache-2.0",
    splits={"train": (Part(split="train", files=("train_samples_all_tuning.json",)),)},
    uses=("training",),
    profile="generic",
    rows="train about 339,000",
    required=("image", "conversations"),
    archives=("*.zip",),
    note="Drawn from the sets that MathVista is drawn from: remove images that both hold.",
)
_ANNOUNCED = re.compile(r".*\banswer(?:\s+is\s*:?|\s*:)\s*", re.IGNORECASE | re.DOTALL)
# What a hint says of the answer -> how it is compared.
HINTS: Mapping[str, tuple[AnswerKind, Tolerance | None]] = {
    "requiring an integer answer": ("integer", None),
    "with one decimal place": ("decimal", Tolerance(kind="round", value=1)),
    "with two decimal places": ("decimal", Tolerance(kind="round", value=2)),
}


def convert(row: Row) -> Sample | Drop:
    """One exchange as a question; its family is the set that it was drawn from."""
    turns = [(turn.get("from"), text_of(turn.get("value"))) for turn in row.values["conversations"] or ()]
    if [who for who, _ in turns] != ["human", "gpt"]:
        return Drop("conversation is not one question and one answer")
    path = text_of(row.values["image"])
    images = (row.files.read(path) or row.files.read(f"data_images/{path}") or MISSING_IMAGE,) if path else ()
    hinted = turns[0][1].replace(IMAGE_MARK, "").strip()
    question = one_mark_per_image(strip_hint(hinted), len(images)) or ""
    gold = gold_of(question, _ANNOUNCED.sub("", turns[1][1]))
    if isinstance(gold, Drop):
        return gold
    kind, tolerance = asked_for(hinted, gold)
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=gold.target,
        answer_kind=kind,
        options=gold.options,
        tolerance=tolerance,
        images=images,
        family=path.split("/")[0],
        source=DESCRIPTION.name,
        metadata={} if gold.target == turns[1][1] else {"answer_raw": turns[1][1]},
    )


def asked_for(hinted: str, gold: Gold) -> tuple[AnswerKind, Tolerance | None]:
    """Kind and tolerance that a hint states for a number; else the kind that the answer itself shows."""
    if gold.kind == "math" and re.fullmatch(r"-?\d*\.?\d+", gold.target) and hinted.startswith("Hint:"):
        for words, asked in HINTS.items():
            if words in hinted:
                return asked
    return gold.kind, None
