"""Compare answers that are neither mathematics nor choices: yes or no, years, times of day, words."""

from __future__ import annotations

import re
from fractions import Fraction

from mm_agrae.verify.normalise import flattened, words
from mm_agrae.verify.outcome import Outcome
from mm_agrae.verify.profiles import Profile

_YES = frozenset({"yes", "true", "1"})
_NO = frozenset({"no", "false", "0"})
# "no" as the article of a noun; after the answer "no" a clause or an alternative begins with one of these words.
_NO_NOUN = re.compile(
    r"\bno (?!(?:it|they|the|there|this|that|these|those|he|she|we|you|i)\b"
    r"|(?:because|since|as|or|and|maybe|yes|true|false|no)\b)(?=[a-z])"
)
_CHINESE_YES = frozenset({"是", "对", "正确"})
_CHINESE_NO = frozenset({"否", "不是", "错", "错误", "不"})
_YEAR = re.compile(r"(?:in |the year )?([12]\d{3})(?:年|\.0+)?", re.IGNORECASE)
_CLOCK = re.compile(
    r"(\d{1,2})(?:[:：](\d{1,2})(?:[:：](\d{1,2}))?)?\s*(?:o'?clock)?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE
)
_CHINESE_CLOCK = re.compile(r"(上午|下午|晚上)?(\d{1,2})[点时](?:(\d{1,2})分?)?")
_NOON = 12 * 60


def compare_words(answer: str, target: str) -> Outcome:
    """Compare as words: case, spaces, packing and end punctuation do not count."""
    return Outcome(equal=words(answer) == words(target), rule="words")


def compare_yes_no(answer: str, target: str, profile: Profile) -> Outcome:
    """Compare two answers to a yes-or-no question; true, 1 and (where Chinese is read) 是 are yes."""
    given, wanted = yes_or_no(answer, profile), yes_or_no(target, profile)
    if wanted is None:
        return compare_words(answer, target)
    return Outcome(equal=given == wanted, rule="yes_no")


def yes_or_no(text: str, profile: Profile) -> bool | None:
    """Whether an answer says yes or no as its first word; None when it says neither, or both.

    "no" before a noun is none ("no idea"), and a digit counts only when it stands alone.
    """
    shown = words(text)
    if profile.chinese and shown in _CHINESE_YES | _CHINESE_NO:
        return shown in _CHINESE_YES
    said = re.findall(r"[a-z0-9]+", _NO_NOUN.sub("", shown))
    if not said or said[0] not in _YES | _NO or (said[0].isdigit() and len(said) > 1):
        return None
    beside = next((word for word in said[1:3] if word not in ("or", "and", "maybe")), said[0])
    is_both = {"yes", "no"} <= set(said) or {"true", "false"} <= set(said)
    if is_both or (beside in _YES | _NO and (beside in _YES) != (said[0] in _YES)):
        return None
    return said[0] in _YES


def compare_years(answer: str, target: str) -> Outcome:
    """Compare two years exactly: 2010 is not 2009, however close the numbers are."""
    given, wanted = _YEAR.fullmatch(flattened(answer)), _YEAR.fullmatch(flattened(target))
    if wanted is None:
        return compare_words(answer, target)
    return Outcome(equal=given is not None and given[1] == wanted[1], rule="year")


def compare_times(answer: str, target: str) -> Outcome:
    """Compare two times of day. Where one of them says neither am nor pm, half a day makes no difference to it.

    So 1:30 pm equals 13:30, and 1:30 equals 1:30 pm but not 13:30.
    """
    given, wanted = _minutes(answer), _minutes(target)
    if wanted is None:
        return compare_words(answer, target)
    if given is None:
        return Outcome(equal=False, rule="time")
    (here, here_says), (there, there_says) = given, wanted
    if {here_says, there_says} == {"nothing", "half"}:
        return Outcome(equal=(here - there) % _NOON == 0, rule="time")
    return Outcome(equal=here == there, rule="time")


def _minutes(text: str) -> tuple[Fraction, str] | None:
    """Minutes since midnight, and what tells the half of the day: "half" (am or pm), "clock" of 24 hours, or "nothing".

    None when the text is no time.
    """
    shown = flattened(text).strip(" .")
    if match := _CHINESE_CLOCK.fullmatch(shown):
        hour, minute, second = int(match[2]), int(match[3] or 0), 0
        half = {"上午": "a", "下午": "p", "晚上": "p", None: ""}[match[1]]
    elif (match := _CLOCK.fullmatch(shown)) and not shown.isdigit():
        hour, minute, second = int(match[1]), int(match[2] or 0), int(match[3] or 0)
        half = (match[4] or "").lower()
    else:
        return None
    if hour > 24 or minute > 59 or second > 59:
        return None
    if half and hour <= 12:
        hour = hour % 12 + (12 if half == "p" else 0)
    says = "half" if half else "clock" if hour > 12 or hour == 0 else "nothing"
    return Fraction(hour * 60 + minute) + Fraction(second, 60), says
