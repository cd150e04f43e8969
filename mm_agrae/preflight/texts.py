"""Normal form of a question, so that two sets' wordings of one problem meet."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

from mm_agrae.records import Sample

# Shorter questions ("Find x.", "Which is true?") say too little to be recognised without their options or picture.
LONG_QUESTION = 8

_MARK = re.compile(r"<\s*image[ _]?\d*\s*>", re.IGNORECASE)
_OPTION = re.compile(r"(?:^|\n|\s(?=\())[ \t]*(?:\(([A-Z])\)|([A-Z])[.:)])[ \t]*(?=\S)")
_HEADER = re.compile(r"\s*\b(?:choices|options)\s*:?\s*$", re.IGNORECASE)
_LAYOUT = re.compile(r"\\(?:left|right|text|textbf|mathrm|mbox|displaystyle|quad|qquad|[,;:! ()\[\]])(?![A-Za-z])")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
# Words, numbers, Chinese characters, and the signs that change what a formula means; other punctuation is packing.
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+|[-+*/=<>^%|±×÷·≤≥≠°√∠△⊥∥∪∩∈!]")


@dataclass(frozen=True, slots=True)
class TextKey:
    """Hashes of the normal forms of a question and of its options, whatever their order or letters.

    Attributes:
        stem: The question without image marks and options.
        options: The options, in the row's own column or in the question; None when there are none.
        is_long: The stem has LONG_QUESTION words or more.
    """

    stem: bytes
    options: bytes | None
    is_long: bool

    def same_problem(self, other: TextKey) -> bool:
        """Whether two rows without pictures ask the same.

        Equal options decide; when one of the two has none, a long question is the same problem in free form.
        """
        if self.stem != other.stem:
            return False
        return self.options == other.options or (self.is_long and None in (self.options, other.options))


def text_key(sample: Sample) -> TextKey:
    """The question of a sample as hashes."""
    stem, inline = split_options(_MARK.sub(" ", sample.question))
    words = normal_form(stem)
    options = sorted(" ".join(normal_form(option)) for option in sample.options or inline)
    return TextKey(
        stem=_hashed(" ".join(words)),
        options=_hashed("\n".join(options)) if options else None,
        is_long=len(words) >= LONG_QUESTION,
    )


def normal_form(text: str) -> list[str]:
    """The words, numbers and signs of a text: one case, one Unicode form, no LaTeX layout, no punctuation."""
    plain = unicodedata.normalize("NFKC", text).replace("−", "-")
    plain = _FRACTION.sub(r"\\frac", _LAYOUT.sub(" ", plain))
    return _TOKEN.findall(plain.casefold())


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    """A question and the options that are written in it as A, B, ... in lines or brackets; () when there are none."""
    # The last run that starts with A: a stem may itself speak of "(A)".
    marks = list(_OPTION.finditer(question))
    starts = [index for index, mark in enumerate(marks) if (mark[1] or mark[2]) == "A"]
    for start in reversed(starts):
        run = marks[start:]
        letters = "".join(mark[1] or mark[2] for mark in run)
        if len(run) >= 2 and "ABCDEFGHIJKLMNOPQRSTUVWXYZ".startswith(letters):
            ends = [*(mark.start() for mark in run[1:]), len(question)]
            options = tuple(question[mark.end() : end].strip() for mark, end in zip(run, ends, strict=True))
            return _HEADER.sub("", question[: run[0].start()]), options
    return question, ()


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
