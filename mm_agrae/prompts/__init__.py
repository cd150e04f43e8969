"""Sample -> chat messages."""

from __future__ import annotations

from typing import Any

from mm_agrae.errors import DataError
from mm_agrae.prompts.texts import INSTRUCTIONS, SYSTEMS
from mm_agrae.records import IMAGE_MARK, Prompt, Sample


def make_prompt(sample: Sample, *, system: str, instruction: str) -> Prompt:
    """Turn a sample into chat messages.

    Args:
        sample: The problem; its question holds one "<image>" per image.
        system: A name in SYSTEMS.
        instruction: A name in INSTRUCTIONS, appended to the question; "own" takes the sample's own wording of both.

    Raises:
        DataError: The number of "<image>" marks is not the number of images, or the sample has no wording of its own.
    """
    text = sample.question
    if instruction == "own":
        if not sample.own_prompt:
            raise DataError(
                f"sample {sample.id!r} has no prompt of its own, but prompt.instruction own needs one. Choose another "
                "instruction, or data that brings its prompts."
            )
        text = sample.own_prompt
    marks = text.count(IMAGE_MARK)
    if marks != len(sample.images):
        raise DataError(
            f"sample {sample.id!r} has {len(sample.images)} images and {marks} {IMAGE_MARK} marks in its text, but "
            "needs one mark per image. Mend the data set."
        )
    if instruction_text := INSTRUCTIONS[instruction]:
        text = f"{text.rstrip()}\n{instruction_text}"
    messages: list[dict[str, Any]] = [{"role": "user", "content": _parts(text)}]
    if system_text := SYSTEMS[system]:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system_text}]})
    return Prompt(sample=sample, messages=tuple(messages))


def _parts(text: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for index, piece in enumerate(text.split(IMAGE_MARK)):
        if index:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
