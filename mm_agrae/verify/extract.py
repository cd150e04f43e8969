"""Find the answer in a completion. First stage of extract -> normalise -> compare.

Every scan is linear in the length of the text, so that a hostile completion costs no more than a long one.

Order of the rules, first hit wins:

1. "box" or "answer_tag", whichever closes last: the last closed \\boxed{...} / \\fbox{...}, or <answer>...</answer>.
2. "phrase": what follows the last "answer is", "answer:" or their Chinese forms.
3. For a choice: "leading_letter" ("D. because ..."), "sole_letter" (one option letter set apart in the whole text).
4. Otherwise: "whole_text" when the text is nothing but a short expression, "sole_math" or "sole_number" when the last
   line holds exactly one. A line that lists several candidates is no answer: guessing widely must not pay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mm_agrae.records import AnswerKind

_PHRASE_REACH = 400  # characters after "answer is" that can belong to the answer
_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*(\{)?|\\.|[{}]", re.DOTALL)
_OPEN_TAG = re.compile(r"<answer>", re.IGNORECASE)
_CLOSE_TAG = re.compile(r"</answer>", re.IGNORECASE)
_PHRASE = re.compile(r"\banswer(?: is|\s?[:：])|答案(?:是|为|：|:)", re.IGNORECASE)
_PHRASE_END = re.compile(r"[.。;；!?](?=\s|$)|。|\n|,\s(?=because|since|as|so|which|where)", re.IGNORECASE)
_LEADING_LETTER = re.compile(r"\s*(?:\*\*)?\(?([A-Z])(?:\)|\.(?=\s|$)|:|\*\*|\s*$)")
_SET_APART_LETTER = re.compile(r"\(([A-Z])\)|\*\*([A-Z])\*\*|\b(?:[Oo]ption|[Cc]hoice)\s([A-Z])\b")
_BARE_LETTER = re.compile(r"(?<![A-Za-z'])([B-HJ-Z])(?![A-Za-z'])")
_LATEX_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{[^{}]*\}|\\[A-Za-z]+")
_NUMBER = re.compile(r"(?<![\d.A-Za-z])[-−+]?\d[\d.,/:]*(?![A-Za-z])")
_EDGE = " \t\r\n*_:：,，"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """An answer, where it stands in the text (start and end offsets), and the rule that found it."""

    answer: str
    span: tuple[int, int]
    rule: str


@dataclass(frozen=True, kw_only=True)
class Box:
    """A closed box: offsets of the whole command and of what is inside its braces."""

    start: int
    end: int
    inner: tuple[int, int]


def find_boxes(text: str) -> tuple[list[Box], int]:
    """The outermost closed boxes in order, and how many box commands the text holds, closed or not.

    Braces escaped as \\{ and \\} do not count. A box inside a box belongs to the outer one.
    """
    boxes: list[Box] = []
    open_braces: list[tuple[int, int] | None] = []  # (start of the command, start of the content); None: plain brace
    num_commands = 0
    for token in _BOX_TOKEN.finditer(text):
        head = token[0]
        if head.startswith(("\\boxed", "\\fbox")):
            num_commands += 1
            if token[1]:
                open_braces.append((token.start(), token.end()))
        elif head == "{":
            open_braces.append(None)
        elif head == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None:
                while boxes and boxes[-1].start > opened[0]:
                    boxes.pop()
                boxes.append(Box(start=opened[0], end=token.end(), inner=(opened[1], token.start())))
    return boxes, num_commands


def extract(text: str, kind: AnswerKind = "math", *, num_options: int = 0) -> Extraction | None:
    """The answer that a completion gives, or None when it gives none (an empty box gives none).

    Args:
        text: The completion.
        kind: Kind of answer that is looked for.
        num_options: Options of a choice; 0 when unknown, then letters A to H count.
    """
    boxes, _ = find_boxes(text)
    tag = _last_tag(text)
    if boxes and (tag is None or boxes[-1].end > tag[0]):
        return _trimmed(text, *boxes[-1].inner, rule="box")
    if tag is not None:
        return _trimmed(text, *tag, rule="answer_tag")
    phrase = _phrase(text)
    if phrase is not None:
        return phrase
    if kind == "choice":
        return _letter(text, num_options or 8)
    return _unmarked(text, kind)


def _trimmed(text: str, start: int, end: int, *, rule: str) -> Extraction | None:
    inside = text[start:end]
    answer = inside.strip(_EDGE)
    if not answer:
        return None
    start += len(inside) - len(inside.lstrip(_EDGE))
    return Extraction(answer=answer, span=(start, start + len(answer)), rule=rule)


def _last_tag(text: str) -> tuple[int, int] | None:
    """Offsets of what the last closed answer tag holds."""
    closings = [match.start() for match in _CLOSE_TAG.finditer(text)]
    if not closings:
        return None
    openings = [match.end() for match in _OPEN_TAG.finditer(text, 0, closings[-1])]
    return (openings[-1], closings[-1]) if openings else None


def _phrase(text: str) -> Extraction | None:
    start = None
    for match in _PHRASE.finditer(text):
        start = match.end()
    if start is None:
        return None
    reach = text[start : start + _PHRASE_REACH]
    leading = len(reach) - len(reach.lstrip(_EDGE))
    end = _PHRASE_END.search(reach, leading)
    return _trimmed(text, start, start + (end.start() if end else len(reach)), rule="phrase")


def _letter(text: str, num_options: int) -> Extraction | None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:num_options]
    leading = _LEADING_LETTER.match(text)
    if leading and leading[1] in letters:
        return Extraction(answer=leading[1], span=leading.span(1), rule="leading_letter")
    found = [match for match in _SET_APART_LETTER.finditer(text) if match[match.lastindex or 0] in letters]
    bare = [match for match in _BARE_LETTER.finditer(text) if match[1] in letters]
    everywhere = {match[match.lastindex or 0] for match in (*found, *bare)}
    if not found or len(everywhere) != 1:
        return None
    last = found[-1]
    group = last.lastindex or 0
    return Extraction(answer=last[group], span=last.span(group), rule="sole_letter")


def _unmarked(text: str, kind: AnswerKind) -> Extraction | None:
    """An answer that nothing announces: the whole text, or the only formula or number of the last line."""
    start, end = _last_line(text)
    line = text[start:end]
    if len(line) > _PHRASE_REACH:
        return None
    is_whole = not text[:start].strip()
    if is_whole and (kind == "text" or not re.search(r"[^\W\d_]{2}", _LATEX_COMMAND.sub(" ", line))):
        return _trimmed(text, start, end, rule="whole_text")
    dollars = [match.start() for match in re.finditer(r"(?<!\\)\$", line)]
    if len(dollars) == 2:
        return _trimmed(text, start + dollars[0] + 1, start + dollars[1], rule="sole_math")
    numbers = list(_NUMBER.finditer(line))
    if dollars or len(numbers) != 1:
        return None
    shown = numbers[0][0].rstrip(".,/:")
    begin = start + numbers[0].start()
    return Extraction(answer=shown, span=(begin, begin + len(shown)), rule="sole_number")


def _last_line(text: str) -> tuple[int, int]:
    """Offsets of the last line that is not blank."""
    end = len(text.rstrip())
    return text.rfind("\n", 0, end) + 1, end
