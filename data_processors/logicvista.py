"""LogicVista: logical reasoning in pictures, choices of one or several letters.

Columns: id, question (choices inside it or in the picture), answer, reasoning, image (or imagename, a path, in the
repository's dataset.json), skill (list), broad_capability, specific_capability, imagesource, sourcelink, liscenced.
One answer is the digit of a numbered choice. Row v1_382 has neither question nor answer; one row misspells its source
("sourceli,nk"), which nothing here reads. dataset.json holds its rows by their id.
"""

from __future__ import annotations

import re
from typing import Any

from data_processors.conversion.cells import MISSING_IMAGE, image_of, literal_list, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, AnswerKind, Sample

DESCRIPTION = Description(
    name="logicvista",
    title="LogicVista",
    hub_id="lscpku/LogicVista",
    licence="Apache-2.0",
    splits={"test": (Part(split="test", files=("**/test*.parquet", "**/dataset.json")),)},
    uses=("benchmark",),
    profile="logicvista",
    rows="test 448, 447 of them usable",
    required=("question", "answer", "skill"),
    archives=("images.zip",),
)


def convert(row: Row) -> Sample | Drop:
    """One row as a choice of one letter or of several."""
    values = row.values
    question, raw = text_of(values["question"]), text_of(values["answer"])
    if not question or not raw:
        return Drop("no question or no answer")
    image = _image(row)
    if image is None:
        return Drop("no image")
    target, kind = read_answer(raw)
    if not target:
        return Drop("answer is neither letters nor a digit")
    skills, capabilities = (_names(values.get(name)) for name in ("skill", "broad_capability"))
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(values.get('id') or values.get('key')) or row.index}",
        question=IMAGE_MARK + question,
        target=target,
        answer_kind=kind,
        images=(image,),
        family=skills[0],
        source=DESCRIPTION.name,
        metadata={
            "skill": skills[0],
            "skills": skills,
            "capabilities": capabilities,
            **({"answer_raw": raw} if raw != target else {}),
        },
    )


def read_answer(raw: str) -> tuple[str, AnswerKind]:
    """ "B" is a choice, "A, C" several, "3" the number of a choice; ("", "text") for anything else."""
    if raw.isdecimal():
        return raw, "integer"
    if not re.fullmatch(r"[A-Za-z](?:[,\s]+[A-Za-z])*,?", raw):
        return "", "text"
    letters = sorted(set(re.findall(r"[A-Z]", raw.upper())))
    return ",".join(letters), "choice" if len(letters) == 1 else "choices"


def _names(cell: Any) -> list[str]:
    """Names given as a list, as the literal of one, or as one text."""
    return literal_list(cell) or [text_of(cell)]


def _image(row: Row) -> bytes | None:
    """The picture from its column, or by its name, on the top or in the folder images."""
    image = image_of(row.values.get("image"), row)
    name = text_of(row.values.get("imagename"))
    for path in (name, f"images/{name}") if name else ():
        if image in (None, MISSING_IMAGE):
            image = image_of(path, row)
    return image
