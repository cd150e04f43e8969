"""Reference answers as training sets write them: in dollars, with a full stop, as the letter of an inline option."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_processors.conversion.cells import LETTERS, letter_of, lettered_options
from data_processors.conversion.description import Drop
from mm_agrae.records import AnswerKind

_WRAPPERS = (
    re.compile(r"\$\$([^$]*)\$\$"),
    re.compile(r"\$([^$]*)\$"),
    re.compile(r"\\\((.*)\\\)", re.DOTALL),
    re.compile(r"\\\[(.*)\\\]", re.DOTALL),
)
_LETTER = re.compile(r"(?:\\text\{)?\(?([A-J])\)?\}?[.:)]?")
_LETTERS = re.compile(r"[A-J](?:\s*,?\s*[A-J])+")
_LETTER_AND_TEXT = re.compile(r"\(?([A-J])[.:)]\s*(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Gold:
    """A reference answer; fields as in `Sample`."""

    target: str
    kind: AnswerKind = "math"
    options: tuple[str, ...] = ()


def unwrapped(text: str) -> str:
    """An answer without outer dollars or math delimiters and without a final full stop: "$$18.$$" is "18"."""
    text = text.strip()
    while True:
        before = text
        for wrapper in _WRAPPERS:
            if match := wrapper.fullmatch(text):
                text = match[1].strip()
        if not text.endswith((r"\right.", "...")):
            text = text.removesuffix(".").removesuffix("。").strip()
        if text == before:
            return text


def gold_of(question: str, answer: str) -> Gold | Drop:
    """Target, kind and options of a question whose options, if it has any, stand in its text.

    A letter is a choice, even when its options cannot be told apart or stand in the picture; so is the text of an
    option. Several letters are choices only beside options, since "AB" may be a line. Yes and no are yes_no, and all
    else is "math".

    Args:
        question: With its options, if any, in the order A, B, C ... at its end.
        answer: As the data set has it.
    """
    target = unwrapped(answer)
    if target in ("", "None", "\\text{None}"):
        return Drop("no answer")
    options = lettered_options(question)[1]
    letters = _letters(target, options)
    if letters:
        if options and max(letters) > LETTERS[len(options) - 1]:
            return Drop("answer letter is not among the options")
        return Gold(target=",".join(letters), kind="choice" if len(letters) == 1 else "choices", options=options)
    if target.casefold() in ("yes", "no"):
        return Gold(target=target.casefold(), kind="yes_no")
    return Gold(target=target)


def _letters(target: str, options: tuple[str, ...]) -> list[str]:
    """The letters that an answer gives, sorted; none when it is no answer to a choice."""
    if match := _LETTER.fullmatch(target):
        return [match[1]]
    if not options:
        return []
    if _LETTERS.fullmatch(target):
        return sorted(set(re.findall("[A-J]", target)))
    named = _LETTER_AND_TEXT.fullmatch(target)
    if named and letter_of(named[2].strip(), options) == named[1]:
        return [named[1]]
    letter = letter_of(target, options)
    return [letter] if letter else []
