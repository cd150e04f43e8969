"""Normal form of a question, so that two sets' wordings of one problem meet."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from mm_agrae.prompts.texts import INSTRUCTIONS
from mm_agrae.records import Sample

# Shorter questions ("Find x.", "Which is true?") say too little to be recognised without their options or picture.
LONG_QUESTION = 8

_MARK = re.compile(r"<\s*image[ _]?\d*\s*>", re.IGNORECASE)
_OPTION = re.compile(r"(?:^|\n|\s(?=\())[ \t]*(?:\(([A-Z])\)|([A-Z])[.:)])[ \t]*(?=\S)")
_HEADER = re.compile(r"\s*\b(?:choices|options)\s*:?\s*$", re.IGNORECASE)
_LAYOUT = re.compile(
    r"\\(?:(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|[()\[\]]|[,;:! ](?![A-Za-z]))|\(\s*\)|\[\s*\]"
)
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dtc]?frac(?![A-Za-z])(?:\s*(\d)\s*(\d))?")
# Braces around one word or number change nothing: "x^{2}" is "x^2".
_ONE_IN_BRACES = re.compile(r"\{\s*(\d+(?:\.\d+)?|[A-Za-z]+)\s*\}")
_BARE_DECIMAL = re.compile(r"(?<![\w.])\.(?=\d)")
# NFKC would put these in line with their neighbours: 2³ would be 23, x₁ x1, and 2½ 21/2.
_RAISED, _LOWERED, _VULGAR = (
    re.compile(
        f"[{''.join(c for c in map(chr, range(0x80, 0x2200)) if unicodedata.decomposition(c).startswith(kind))}]+"
    )
    for kind in ("<super>", "<sub>", "<fraction>")
)
_MATH_SIGNS = "".join(c for c in map(chr, range(0x80, 0x3000)) if unicodedata.category(c) == "Sm")
# Words, numbers, Chinese characters, and the signs that change what a formula means; other punctuation is packing. A
# prime follows a name and ends it; a row of underscores is a gap to fill in.
_TOKEN = re.compile(
    r"\d+(?:\.\d+)?|[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+|(?<=[\w)'])'(?!\w)|(?<![\\_])_(?!_)"
    rf"|[-+*/=<>^%|!°·∠△(){{}}\[\]{_MATH_SIGNS}]"
)
_SAME_SIGNS = str.maketrans("−⁄’′", "-/''")
_BRACKETS = frozenset("()[]{}_'")
# Instructions that sets bake into their questions.
_USUAL_INSTRUCTIONS = (
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "Let's think step by step and output the final answer within \\boxed{}.",
    "Put your final answer within \\boxed{}.",
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.",
    'Remember to put your answer on its own line after "Answer:".',
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}.",
    "Answer the question using a single word or phrase.",
    "Answer the question with a single word.",
    "Answer with the option's letter from the given choices directly.",
    "Please answer yes or no.",
)


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
        is_long=sum(word not in _BRACKETS for word in words) >= LONG_QUESTION,
    )


def normal_form(text: str) -> list[str]:
    """The words, numbers and signs of a text.

    One case, one Unicode form, no LaTeX layout, no punctuation, no instruction on how to answer.
    """
    joined = f" {' '.join(_tokens(text))} "
    for instruction in _instructions():
        joined = joined.replace(instruction, " ")
    return joined.split()


def _tokens(text: str) -> list[str]:
    marked = _LOWERED.sub(r"_{\g<0>}", _RAISED.sub(r"^{\g<0>}", _VULGAR.sub(r" \g<0> ", text)))
    plain = unicodedata.normalize("NFKC", marked).translate(_SAME_SIGNS)
    plain = _FRACTION.sub(r"\\frac \1 \2 ", _TEXT.sub(r" \1 ", _LAYOUT.sub(" ", plain)))
    plain = _ONE_IN_BRACES.sub(r" \1 ", _BARE_DECIMAL.sub("0.", plain))
    return _TOKEN.findall(plain.casefold())


@cache
def _instructions() -> tuple[str, ...]:
    """The known instructions in normal form, the longest first, because one may be part of another."""
    texts = [*_USUAL_INSTRUCTIONS, *(text for text in INSTRUCTIONS.values() if text)]
    return tuple(sorted((f" {' '.join(_tokens(text))} " for text in texts), key=len, reverse=True))


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
