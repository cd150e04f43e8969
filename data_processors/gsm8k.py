"""GSM8K: word problems of primary school.

Columns: question and answer, which is a worked solution with calculator notes ("<<16-3=13>>") and a last line "####
18". Some answers have commas between thousands; the target has none.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="gsm8k",
    title="GSM8K",
    hub_id="openai/gsm8k",
    licence="MIT",
    splits={name: (Part(split=name, config="main"),) for name in ("train", "test")},
    uses=("training", "benchmark"),
    profile="gsm8k",
    rows="train 7,473, test 1,319",
    required=("question", "answer"),
)
_CALCULATION = re.compile(r"<<[^<>]*>>")


def convert(row: Row) -> Sample | Drop:
    """One row, its solution without calculator notes and with the answer in a box."""
    steps, mark, final = text_of(row.values["answer"]).rpartition("####")
    if not mark:
        return Drop("no line with ####")
    raw = final.strip()
    target = raw.replace(",", "").removeprefix("$")
    if not re.fullmatch(r"-?\d+(?:\.\d+)?", target):
        return Drop("answer is no number")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=text_of(row.values["question"]),
        target=target,
        answer_kind="decimal" if "." in target else "integer",
        solution=f"{_CALCULATION.sub('', steps).strip()}\n\\boxed{{{target}}}",
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={} if raw == target else {"answer_raw": raw},
    )
