"""Multimodal Open-R1 8k: mathematics with pictures and verified reasoning.

Columns: image, problem (options inline), solution ("<think>...</think>\\n<answer>B</answer>"), original_question
and original_answer. The original answer is prose, so the target comes from the answer tag; the reasoning becomes
the worked solution.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import gold_of
from data_processors.conversion.r1v import REQUIRED, read_tagged
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="multimodal_open_r1",
    title="Multimodal Open-R1 8k",
    hub_id="lmms-lab/multimodal-open-r1-8k-verified",
    licence="unknown",
    splits={"train": (Part(split="train"),)},
    uses=("training",),
    profile="generic",
    rows="train 7,689",
    required=REQUIRED,
    note="Rewritten from MathV360K and Geo170K, which share sources with MathVista, MathVerse and GeoQA.",
)
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def convert(row: Row) -> Sample | Drop:
    """One row as a choice where its answer is a letter, else as a free-form question."""
    tagged = read_tagged(row)
    if isinstance(tagged, Drop):
        return tagged
    gold = gold_of(tagged.question, tagged.answer)
    if isinstance(gold, Drop):
        return gold
    thought = _THOUGHT.search(text_of(row.values["solution"]))
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=tagged.question,
        target=gold.target,
        answer_kind=gold.kind,
        options=gold.options,
        images=(tagged.image,),
        solution=f"{thought[1].strip()}\n\\boxed{{{gold.target}}}" if thought else None,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={} if gold.target == tagged.answer else {"answer_raw": tagged.answer},
    )
