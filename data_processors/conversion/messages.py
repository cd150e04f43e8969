"""Chat messages with one question -> its text, its images and the system message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_processors.conversion.cells import answer_tag, has_box, images_of, last_box, one_mark_per_image, text_of
from data_processors.conversion.description import Drop, Row
from mm_agrae.records import IMAGE_MARK

NOT_ONE_QUESTION = "prompt is not one question of a user"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question as chat messages ask it.

    Attributes:
        question: Text with one "<image>" per image.
        images: Encoded images.
        system: Text of the system message; "" without one.
    """

    question: str
    images: tuple[bytes, ...]
    system: str


def read_prompt(prompt: Any, pictures: Any, row: Row) -> Asked | Drop:
    """A prompt with the images beside it.

    Args:
        prompt: A text, or messages {"role", "content"} whose content is a text or a list of parts {"type": "text",
            "text"} and {"type": "image"}; an image part may hold its image as "image".
        pictures: Image or images of the row's column, for the parts that hold none; None without the column.
        row: The row, whose files a path is looked up in.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        return Drop(NOT_ONE_QUESTION)
    systems = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if len(others) != 1 or others[0]["role"] != "user":
        return Drop(NOT_ONE_QUESTION)
    text, held = _content(others[0]["content"])
    images = images_of(held, row) or images_of(_unwrapped(pictures), row)
    question = one_mark_per_image(text_of(text), len(images))
    if question is None:
        return Drop("number of image marks is not the number of images")
    system = "\n".join(_content(content)[0] for content in systems)
    return Asked(question=question, images=images, system=text_of(system))


def plain_answer(text: str) -> str | Drop:
    """An answer out of its <answer> tag and its box, if it stands in one."""
    inner = answer_tag(text) or text.strip()
    if not has_box(inner):
        return inner or Drop("no answer")
    return last_box(inner) or Drop("answer box is not closed")


def _content(content: Any) -> tuple[str, list[Any]]:
    """Text of a content with a mark where an image stands, and the images that it holds itself."""
    if isinstance(content, str):
        return content, []
    parts = [part for part in content or () if part.get("type") in ("text", "image")]
    text = "".join(IMAGE_MARK if part["type"] == "image" else part["text"] or "" for part in parts)
    return text, [part["image"] for part in parts if part.get("image")]


def _unwrapped(pictures: Any) -> list[Any]:
    """Images of a column, of which {"image": ...} wraps some."""
    cells = pictures if isinstance(pictures, (list, tuple)) else [pictures]
    return [cell["image"] if isinstance(cell, Mapping) and cell.get("image") else cell for cell in cells]
