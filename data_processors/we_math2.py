"""We-Math 2.0: mathematics by knowledge points, a standard set and one of seven levels of difficulty.

Columns: image, question (options inline), answer; the Pro set adds question_id and difficulty. The two lie in
repositories of their own.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import image_of, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import gold_of
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="we_math2",
    title="We-Math 2.0",
    hub_id="We-Math/We-Math2.0-Standard",
    licence="CC-BY-NC-4.0",
    splits={name: (Part(split=name),) for name in ("standard", "pro")},
    uses=("training",),
    profile="generic",
    rows="standard 5,843, pro 4,552",
    required=("image", "question", "answer"),
    note="The split pro lies in We-Math/We-Math2.0-Pro: name that as the source.",
)


def convert(row: Row) -> Sample | Drop:
    """One row; rows of the Pro set that vary one question form a group."""
    image = image_of(row.values["image"], row)
    if image is None:
        return Drop("no image")
    question = one_mark_per_image(text_of(row.values["question"]), 1)
    if question is None:
        return Drop("number of image marks is not the number of images")
    answer = text_of(row.values["answer"])
    gold = gold_of(question, answer)
    if isinstance(gold, Drop):
        return gold
    level = re.search(r"\d+", text_of(row.values.get("difficulty")))
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=gold.target,
        answer_kind=gold.kind,
        options=gold.options,
        images=(image,),
        group=text_of(row.values.get("question_id")),
        family=DESCRIPTION.name,
        difficulty=int(level[0]) if level else None,
        source=DESCRIPTION.name,
        metadata={} if gold.target == answer else {"answer_raw": answer},
    )
