"""ViRL39K: visual and textual reasoning questions with short answers, gathered from many sets.

Columns: question, answer (in a box), image (list of relative paths), qid, category, source, and PassRate_32BTrained
and PassRate_7BBase (older: PassRate_7BUntrained), the share of a model's answers that were right. The rows lie in
one parquet file, the images in an archive beside it. Most questions carry their "<image>" marks, some have none; a
few boxes are never closed.
"""

from __future__ import annotations

from data_processors.conversion.cells import has_box, images_of, last_box, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import gold_of
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="virl39k",
    title="ViRL39K",
    hub_id="TIGER-Lab/ViRL39K",
    licence="MIT",
    splits={"train": (Part(split="train", files=("39Krelease.parquet",)),)},
    uses=("training",),
    profile="generic",
    rows="train 38,870",
    required=("question", "answer", "image"),
    archives=("*.zip",),
    note="Holds rows of MMK12, MathV360K's sources, M3CoT and DeepScaleR.",
)
PASS_RATES = ("PassRate_32BTrained", "PassRate_7BBase", "PassRate_7BUntrained")


def convert(row: Row) -> Sample | Drop:
    """One row as a choice where its answer is a letter, else as a free-form question."""
    images = images_of(row.values["image"], row)
    question = one_mark_per_image(text_of(row.values["question"]), len(images))
    if question is None:
        return Drop("number of image marks is not the number of images")
    answer = text_of(row.values["answer"])
    boxed = last_box(answer)
    if boxed is None and has_box(answer):
        return Drop("answer box is not closed")
    gold = gold_of(question, answer if boxed is None else boxed)
    if isinstance(gold, Drop):
        return gold
    # -1 stands for a rate that nobody measured.
    rates = {name: rate for name in PASS_RATES if (rate := row.values.get(name)) is not None and 0 <= rate <= 1}
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(row.values.get('qid')) or row.index}",
        question=question,
        target=gold.target,
        answer_kind=gold.kind,
        options=gold.options,
        images=images,
        family=text_of(row.values.get("category")),
        source=DESCRIPTION.name,
        metadata={"origin": text_of(row.values.get("source")), **rates},
    )
