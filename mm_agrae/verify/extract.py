"""Find the answer in a completion. First stage of extract -> normalise -> compare.

Every scan is linear in the length of the text, so that a hostile completion costs no more than a long one.

Only what stands after the last "</think>" is searched. A "<think>" that stays open holds no answer: it was cut off.

A profile names its sources in order, and the first that finds something wins:

- "box": the last closed \\boxed{...} or \\fbox{...}. "spaced_box": what follows the last "\\boxed " without braces.
- "answer_tag": the last closed <answer>...</answer>.
- "box_or_tag": the last box or the last closed <answer>...</answer>, whichever closes last.
- "json": the value of the last key "short answer". "hashes": the number after the first "####"; "strict_hashes": it
  must follow at one space and without a currency.
- "answer_line": the rest of the line after the last "Answer:" among the last 300 characters. "after_answer": whatever
  follows the last "Answer".
- "phrase": what follows the last "answer is", "answer:" or their Chinese forms.
- "letter", for a choice: "leading_letter" ("D. because ..."), "sole_letter" (one option letter set apart in the text).
- "alone", for all else: "whole_text" when the text is nothing but a short expression, "sole_math" or "sole_number" when
  the last line holds exactly one, "leading_word" for yes or no. A line that lists several candidates is no answer:
  guessing widely must not pay.
- "last_number": the last number. "whole": the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mm_agrae.records import AnswerKind
from mm_agrae.verify.choices import names_other
from mm_agrae.verify.kinds import yes_or_no
from mm_agrae.verify.normalise import MAX_CHARS
from mm_agrae.verify.profiles import GENERIC, Profile, Source
from mm_agrae.verify.units import unit_name

_PHRASE_REACH = 400  # characters after "answer is" that can belong to the answer
_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*(\{)?|\\.|[{}]", re.DOTALL)
_OPEN_TAG = re.compile(r"<answer>", re.IGNORECASE)
_CLOSE_TAG = re.compile(r"</answer>", re.IGNORECASE)
_PHRASE = re.compile(
    r"\banswer(?: is| would be| should be| must be|\s?[:：])|\b(?:correct|right|best) (?:option|choice) is",
    re.IGNORECASE,
)
_CHINESE_PHRASE = re.compile(r"答案(?:应该|应)?(?:是|为|选|：|:)|(?<!不)(?:应选|故选|选择|选)[：:]?\s?(?=[A-H①-⑧(（])")
_PHRASE_END = re.compile(r"[.。;；!?](?=\s|$)|。|\n|,\s(?=because|since|as|so|which|where)", re.IGNORECASE)
_LEADING_LETTER = re.compile(r"[\s\"'“]*(?:\*\*)?[(（\[【]?([A-Z])(?:[)）\]】]|\.(?=\s|$)|:|\*\*|[\s\"'”]*$)")
_SET_APART_LETTER = re.compile(
    r"[(（\[【]([A-Z])[)）\]】]|\*\*([A-Z])\*\*|\b(?:[Oo]ption|[Cc]hoice)\s([A-Z])\b"
    r"|\b(?:is|choose|pick|select|[Hh]ence|[Tt]hus|[Tt]herefore|[Ss]o),?\s([A-Z])[.!]?\s*$"
    r"|(?<![A-Za-z'])([A-Z]) is (?:the |my )?(?:(?:correct|right|best) )?(?:answer|option|choice)\b"
)
_BARE_LETTER = re.compile(r"(?<![A-Za-z'])([B-HJ-Z]|A(?!\s+(?!or\b|and\b|nor\b)[a-z]))(?![A-Za-z'])")
_LATEX_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{[^{}]*\}|\\[A-Za-z]+")
_NUMBER = re.compile(r"(?<![\d.A-Za-z])[-−+]?\d[\d.,/:]*(?![A-Za-z])")
_LEADING_WORD = re.compile(r"\W{0,4}(yes|no|true|false|是|否|不是|对|错)(?![A-Za-z])", re.IGNORECASE)
_UNIT_BESIDE = re.compile(r"\s?(%|°|(?:square |cubic )?[A-Za-z]{1,12}(?:/[A-Za-z]{1,12})?(?:\^?[23])?)")
_LINE_ENDS = re.compile(r"[\s.,;!?]*$")
_SPACED_BOX = re.compile(r"\\boxed\s+([^\s{}$\\.,;]+)")
_OPENED_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_STRICT_HASHES = re.compile(r"#### (-?[0-9.,]+)")
_HASHES = re.compile(r"####\s{0,20}([-−]?[$\d.,]*\d)")
_ANSWER_LINE = re.compile(r"answer\s{0,9}[:：]\s{0,9}([^\n]+)", re.IGNORECASE)
_SHORT_ANSWER = re.compile(
    r'"short[ _]answer"\s{0,9}:\s{0,9}(?:"((?:[^"\\]|\\.){0,400})"|([^,}\n"]{1,400}))', re.IGNORECASE
)
_ANY_NUMBER = re.compile(r"-?(?:\$)?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_ANSWER_LINE_REACH = 300
_THINKING, _THOUGHT = "<think>", "</think>"
_FINAL_SOURCES = frozenset({"box", "answer_tag", "box_or_tag", "json"})
_QUOTES = ('""', "''", "“”", "‘’")
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


def extract(
    text: str, kind: AnswerKind = "math", *, num_options: int = 0, profile: Profile = GENERIC
) -> Extraction | None:
    """The answer that a completion gives, or None when it gives none (an empty box gives none).

    Args:
        text: The completion.
        kind: Kind of answer that is looked for.
        num_options: Options of a choice; 0 when unknown, then letters A to H count.
        profile: Says where to look, and in which order.
    """
    first = start_of_reply(text)
    if first is None:
        return None
    search = _Search(text=text[first:], kind=kind, num_options=num_options or 8, profile=profile)
    for source in profile.sources:
        place = _SOURCES[source](search)
        if place is None:
            continue
        found = _trimmed(search.text, place)
        if found is not None:
            return replace(found, span=(found.span[0] + first, found.span[1] + first))
        if source in _FINAL_SOURCES:
            return None
    return None


def start_of_reply(text: str) -> int | None:
    """Where the text goes on after the last "</think>", 0 without one; None when a "<think>" after it stays open."""
    closed = text.rfind(_THOUGHT)
    first = 0 if closed < 0 else closed + len(_THOUGHT)
    return None if text.find(_THINKING, first) >= 0 else first


@dataclass(frozen=True, kw_only=True)
class _Search:
    text: str
    kind: AnswerKind
    num_options: int
    profile: Profile


@dataclass(frozen=True)
class _Place:
    """Offsets of an answer before its edges are trimmed, and the rule that found it."""

    start: int
    end: int
    rule: str


def _trimmed(text: str, place: _Place) -> Extraction | None:
    inside = text[place.start : place.end]
    # Where the whole text counts, its punctuation does too.
    edge = " \t\r\n" if place.rule == "whole" else _EDGE
    answer = inside.strip(edge)
    if not answer:
        return None
    start = place.start + len(inside) - len(inside.lstrip(edge))
    if place.rule == "phrase" and len(answer) > 2 and answer[0] + answer[-1] in _QUOTES:
        start, answer = start + 1, answer[1:-1]
    return Extraction(answer=answer, span=(start, start + len(answer)), rule=place.rule)


def _box(search: _Search) -> _Place | None:
    boxes, num_commands = find_boxes(search.text)
    if search.profile.unclosed_box and num_commands:
        openings = [match for match in _BOX_TOKEN.finditer(search.text) if match[1]]
        if openings and (not boxes or openings[-1].start() >= boxes[-1].end):
            return _Place(openings[-1].end(), len(search.text), "unclosed_box")
    return _Place(*boxes[-1].inner, "box") if boxes else None


def _spaced_box(search: _Search) -> _Place | None:
    return _last_group(_SPACED_BOX, search.text, "spaced_box")


def _answer_tag(search: _Search) -> _Place | None:
    """What the last closed answer tag holds."""
    closings = [match.start() for match in _CLOSE_TAG.finditer(search.text)]
    if not closings:
        return None
    openings = [match.end() for match in _OPEN_TAG.finditer(search.text, 0, closings[-1])]
    return _Place(openings[-1], closings[-1], "answer_tag") if openings else None


def _box_or_tag(search: _Search) -> _Place | None:
    box, tag = _box(search), _answer_tag(search)
    if box is None or tag is None:
        return box or tag
    # A box inside the tag is the answer too, and its last brace stands before the closing tag.
    return box if box.end > tag.start else tag


def _json(search: _Search) -> _Place | None:
    return _last_group(_SHORT_ANSWER, search.text, "json")


def _hashes(search: _Search) -> _Place | None:
    match = _HASHES.search(search.text)
    return _Place(*match.span(1), "hashes") if match else None


def _strict_hashes(search: _Search) -> _Place | None:
    match = _STRICT_HASHES.search(search.text)
    return _Place(*match.span(1), "strict_hashes") if match else None


def _answer_line(search: _Search) -> _Place | None:
    return _last_group(_ANSWER_LINE, search.text, "answer_line", first=max(0, len(search.text) - _ANSWER_LINE_REACH))


def _after_answer(search: _Search) -> _Place | None:
    found = search.text.rfind("Answer")
    return None if found < 0 else _Place(found + len("Answer"), len(search.text), "after_answer")


def _last_number(search: _Search) -> _Place | None:
    return _last_group(_ANY_NUMBER, search.text, "last_number")


def _whole(search: _Search) -> _Place | None:
    return _Place(0, len(search.text), "whole")


def _last_group(pattern: re.Pattern[str], text: str, rule: str, *, first: int = 0) -> _Place | None:
    place = None
    for match in pattern.finditer(text, first):
        place = _Place(*match.span(match.lastindex or 0), rule)
    return place


def _phrase(search: _Search) -> _Place | None:
    start = None
    for pattern in (_PHRASE, _CHINESE_PHRASE) if search.profile.chinese else (_PHRASE,):
        for match in pattern.finditer(search.text):
            start = max(match.end(), start or 0)
    if start is None:
        return None
    reach = search.text[start : start + _PHRASE_REACH]
    leading = len(reach) - len(reach.lstrip(_EDGE))
    end = _PHRASE_END.search(reach, leading)
    return _Place(start, start + (end.start() if end else len(reach)), "phrase")


def _letter(search: _Search) -> _Place | None:
    if search.kind != "choice":
        return None
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: search.num_options]
    leading = _LEADING_LETTER.match(search.text)
    if leading and leading[1] in letters:
        if names_other(search.text[leading.end() :], leading[1], num_options=search.num_options):
            return None
        return _Place(*leading.span(1), "leading_letter")
    found = [match for match in _SET_APART_LETTER.finditer(search.text) if match[match.lastindex or 0] in letters]
    bare = [match for match in _BARE_LETTER.finditer(search.text) if match[1] in letters]
    everywhere = {match[match.lastindex or 0] for match in (*found, *bare)}
    if not found or len(everywhere) != 1:
        return None
    return _Place(*found[-1].span(found[-1].lastindex or 0), "sole_letter")


def _alone(search: _Search) -> _Place | None:
    """An answer that nothing announces: the whole text, or the only formula or number of the last line."""
    text, kind = search.text, search.kind
    if kind == "choice":
        return None
    if kind == "yes_no":
        word = _LEADING_WORD.match(text)
        says = yes_or_no(text[word.start(1) :][:MAX_CHARS], search.profile) if word and word[1].isascii() else None
        is_said = word is not None and (says is not None or not word[1].isascii())
        return _Place(*word.span(1), "leading_word") if word and is_said else None
    start, end = _last_line(text)
    line = text[start:end]
    if len(line) > _PHRASE_REACH or _OPENED_BOX.search(line):
        return None  # a box that never closes was cut off, and half an answer is none
    is_whole = not text[:start].strip()
    is_short = kind == "text" or not re.search(r"[^\W\d_]{2}", _LATEX_COMMAND.sub(" ", line))
    if is_whole and (is_short or (kind == "choices" and re.fullmatch(r"[A-Z]{2,8}", line))):
        return _Place(start, end, "whole_text")
    dollars = [match.start() for match in re.finditer(r"(?<!\\)\$", line)]
    if len(dollars) == 2:
        return _Place(start + dollars[0] + 1, start + dollars[1], "sole_math")
    numbers = list(_NUMBER.finditer(line))
    if dollars or len(numbers) != 1:
        return None
    stop = numbers[0].start() + len(numbers[0][0].rstrip(".,/:"))
    return _Place(start + numbers[0].start(), start + _with_unit(line, stop), "sole_number")


def _with_unit(line: str, stop: int) -> int:
    """Where a number ends that ends at `stop`, with the unit beside it: 5 miles must not be taken for 5."""
    beside = _UNIT_BESIDE.match(line, stop)
    if beside is None:
        return stop
    is_last = _LINE_ENDS.match(line, beside.end()) is not None  # "5 in all" is no length
    known = unit_name(beside[1], numeric=is_last)
    is_sure = is_last or beside[1] in "%°" or (len(beside[1]) > 1 and beside[1].lower() != "in")
    return beside.end() if known and is_sure else stop


def _last_line(text: str) -> tuple[int, int]:
    """Offsets of the last line that is not blank."""
    end = len(text.rstrip())
    return text.rfind("\n", 0, end) + 1, end


_SOURCES: Mapping[Source, Callable[[_Search], _Place | None]] = {
    "box": _box,
    "spaced_box": _spaced_box,
    "answer_tag": _answer_tag,
    "box_or_tag": _box_or_tag,
    "json": _json,
    "hashes": _hashes,
    "strict_hashes": _strict_hashes,
    "answer_line": _answer_line,
    "after_answer": _after_answer,
    "phrase": _phrase,
    "letter": _letter,
    "alone": _alone,
    "last_number": _last_number,
    "whole": _whole,
}
