"""We-Math: problems of two or three steps, each asked whole and step by step.

Columns, some with spaces: ID, split, "knowledge concept", question, option (one text), answer (a letter), image_path
(an image, or a path), key, "question number", "knowledge concept description". Rows of one ID belong together: the
whole problem (key 2steps_multi or 3steps_multi) and its steps (2steps_1, 2steps_2 ...); the score is over IDs, so group
is the ID. Options are separated by ";", with and without a space and with one at the end, and may hold ";" themselves;
a few skip letters, and then their texts are not given in order but stand in the question as they are.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import LETTERS, image_of, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, Sample

DESCRIPTION = Description(
    name="we_math",
    title="We-Math",
    hub_id="We-Math/We-Math",
    licence="CC-BY-NC-4.0",
    splits={"testmini": (Part(split="testmini"),)},
    uses=("benchmark",),
    profile="wemath",
    rows="testmini 1,740 = 525 problems with their steps",
    required=("ID", "question", "option", "answer", "image_path", "key"),
    archives=("*.zip",),
    note="The score needs every step of a problem; a part of the rows cannot be scored.",
)
_OPTION = re.compile(r"([A-H])\. ?(.*)", re.DOTALL)


def convert(row: Row) -> Sample | Drop:
    """One step, or one whole problem, as a choice."""
    values = row.values
    options = read_options(text_of(values["option"]))
    target = text_of(values["answer"])
    image = image_of(values["image_path"], row)
    letters = [letter for letter, _ in options]
    if image is None:
        return Drop("no image")
    if not options:
        return Drop("no options")
    if target not in letters:
        return Drop("answer is none of the options")
    in_order = "".join(letters) == LETTERS[: len(letters)]
    group, key = text_of(values["ID"]), text_of(values["key"])
    concept = text_of(values.get("knowledge concept"))
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{group}/{key}",
        question="\n".join(
            [IMAGE_MARK + text_of(values["question"]), *(f"{letter}. {text}" for letter, text in options)]
        ),
        target=target,
        answer_kind="choice",
        images=(image,),
        options=tuple(text for _, text in options) if in_order else (),
        group=group,
        family=concept or DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={"key": key, "steps": key.split("_")[0], "concept": concept},
    )


def read_options(text: str) -> list[tuple[str, str]]:
    """Letters and texts of "A. x;B. y; C. z;", in the order written."""
    # A ";" inside a text is not followed by the letter of an option.
    parts = re.split(r";\s*(?=[A-H]\. )", text)
    found = [_OPTION.fullmatch(part.strip()) for part in parts]
    return [(match[1], match[2].strip().rstrip(";").strip()) for match in found if match]
