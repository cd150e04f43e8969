"""MMK12: school mathematics for training, and mathematics, physics, chemistry and biology for a test.

Columns: id, image, question (no mark; options of the test inline as lines "A. ..."), answer, subject. Answers of
the training split come in "$", "$$" or plain, with a full stop, with an alternative in brackets, as several blanks
or as whole sentences; the last two cannot be compared and are dropped.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import image_of, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import gold_of
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="mmk12",
    title="MMK12",
    hub_id="FanqingM/MMK12",
    licence="Apache-2.0",
    splits={name: (Part(split=name),) for name in ("train", "test")},
    uses=("training", "benchmark"),
    profile="generic",
    rows="train 15,616, test 2,000",
    required=("image", "question", "answer"),
    note="Answers that fill several blanks, and answers in sentences, are dropped.",
)
MAX_WORDS = 4  # "isosceles right triangle" is an answer, a sentence is none
_ALTERNATIVE = re.compile(r"\s*\((?:or|or fill in)\s[^()]*(?:\([^()]*\)[^()]*)*\)\.?$")
_NUMBERED = re.compile(r"(?<![A-Za-z0-9])[(（]\d[)）]|[①-⑨]")
_BLANKS_IN_A_ROW = re.compile(r"\$\s+\$")
_LATEX = re.compile(r"\$[^$]*\$|\\[A-Za-z]+")


def convert(row: Row) -> Sample | Drop:
    """One row as a choice where its answer is a letter, else as a free-form question."""
    image = image_of(row.values["image"], row)
    if image is None:
        return Drop("no image")
    question = one_mark_per_image(text_of(row.values["question"]), 1)
    if question is None:
        return Drop("number of image marks is not the number of images")
    answer = text_of(row.values["answer"])
    single = single_answer(answer)
    gold = single if isinstance(single, Drop) else gold_of(question, single)
    if isinstance(gold, Drop):
        return gold
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(row.values.get('id')) or row.index}",
        question=question,
        target=gold.target,
        answer_kind=gold.kind,
        options=gold.options,
        images=(image,),
        family=text_of(row.values.get("subject")) or "math",
        source=DESCRIPTION.name,
        metadata={} if gold.target == answer else {"answer_raw": answer},
    )


def single_answer(answer: str) -> str | Drop:
    """The one answer that is asked for, without its alternative: "$$6$$(or fill in $$6.0$$)" is "$$6$$"."""
    text = _ALTERNATIVE.sub("", answer)
    if "\n" in text or _NUMBERED.search(text) or _BLANKS_IN_A_ROW.search(text):
        return Drop("answer fills several blanks")
    if len(re.findall(r"[A-Za-z]{2,}", _LATEX.sub(" ", text))) > MAX_WORDS:
        return Drop("answer is a sentence")
    # "$$4$$,$$6$$" is a list of two: dollars inside it are no part of the answer.
    return text.replace("$", "")
