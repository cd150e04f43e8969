"""MM-Eureka: the first data of that project, chat messages in JSON lines.

Columns: id, message (older builds: conversations), which is the JSON text of chat messages, and answer. Images are
named by "file:///" and a path of somebody else's disk: the longest end of that path that exists beside the rows is
taken. A prompt may hold an instruction above the line "Question:"; then it is kept whole as the data set's own
prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from data_processors.conversion.cells import MISSING_IMAGE, one_mark_per_image, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.files import Files
from data_processors.conversion.golds import gold_of
from mm_agrae.records import IMAGE_MARK, Sample

DESCRIPTION = Description(
    name="mm_eureka",
    title="MM-Eureka",
    hub_id="FanqingM/MM-Eureka-Dataset",
    licence="unknown",
    splits={"train": (Part(split="train", files=("*.jsonl",)),)},
    uses=("training",),
    profile="generic",
    rows="",
    required=("id", "answer"),
    archives=("*.zip",),
    note="Has rows of the same sources as MMK12.",
)


def convert(row: Row) -> Sample | Drop:
    """The user's words of one row as a question; its images in the order in which they are named."""
    messages = read_messages(row.values.get("message") or row.values.get("conversations"))
    if isinstance(messages, Drop):
        return messages
    parts = list(user_parts(messages))
    images = tuple(read_rerooted(text, row.files) for kind, text in parts if kind == "image")
    written = "".join(text for kind, text in parts if kind == "text")
    # Some texts carry the marks themselves; else an image stands where its part stands.
    whole = (
        written if IMAGE_MARK in written else "".join(IMAGE_MARK if kind == "image" else text for kind, text in parts)
    )
    prompt = one_mark_per_image(text_of(whole), len(images))
    if prompt is None:
        return Drop("number of image marks is not the number of images")
    instruction, title, asked = prompt.rpartition("Question:\n")
    question = IMAGE_MARK * instruction.count(IMAGE_MARK) + asked.strip()
    answer = text_of(row.values["answer"])
    gold = gold_of(question, answer)
    if isinstance(gold, Drop):
        return gold
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(row.values['id']) or row.index}",
        question=question,
        target=gold.target,
        answer_kind=gold.kind,
        options=gold.options,
        images=images,
        own_prompt=prompt if title else None,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={} if gold.target == answer else {"answer_raw": answer},
    )


def read_messages(cell: Any) -> list[Mapping[str, Any]] | Drop:
    """Chat messages, given as such or as JSON text."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (json.JSONDecodeError, RecursionError):
            return Drop("message is no JSON")
    if not isinstance(cell, list) or not all(isinstance(message, Mapping) for message in cell):
        return Drop("message is no list of messages")
    return cell


def user_parts(messages: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """("image", address) and ("text", words) of what the user says, in order."""
    for message in messages:
        content = message.get("content") if message.get("role") == "user" else None
        if isinstance(content, str):
            yield "text", content
        for part in content if isinstance(content, list) else []:
            if part.get("type") in ("image", "text"):
                yield part["type"], text_of(part.get(part["type"]))


def read_rerooted(address: str, files: Files) -> bytes:
    """The image that the longest end of an address names among the files of the data set."""
    parts = address.removeprefix("file://").strip("/").split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((data for end in ends if (data := files.read(end))), MISSING_IMAGE)
