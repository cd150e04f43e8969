"""Compare choices: by letter, by the text of an option, and several letters as a set."""

from __future__ import annotations

import re

from mm_agrae.verify.normalise import MAX_CHARS, flattened, normal_form, read_number, words
from mm_agrae.verify.outcome import Outcome
from mm_agrae.verify.profiles import GENERIC, Profile
from mm_agrae.verify.units import conversion

_CHOICE = re.compile(r"\(?([A-Za-z])(?:\)|\.|:|、|．|\*\*)?\s*(.*)", re.DOTALL)
_ANNOUNCED = re.compile(
    r"(?:the |my )?(?:(?:final|correct|right|best) )?(?:answer|option|choice)(?: is|:)?\s+(?:option |choice )?",
    re.IGNORECASE,
)
_BRACKETS = str.maketrans("（）[]［］【】．：，", "()()()().:,")
_QUOTES = "\"'“”‘’` "
# What may follow a bare letter that is the answer: a reason, or a denial of another one.
_AFTERTHOUGHT = re.compile(r"(?:because|since|as|for|which)\b|(?:,|but|and)\s*(?:it is )?not\b", re.IGNORECASE)
# Another option: a letter in brackets or bold anywhere, or with a mark where a list of options goes on.
_MARKED_LETTER = re.compile(
    r"(?<![A-Za-z0-9])(?<!not )\(([A-Z])\)|\*\*([A-Z])[.:]?\*\*"
    r"|(?:^|\n|\bor\b|\band\b|[,;/、])[ \t]*([A-Z])[).:、](?=\s|$)"
)
_JOINED_LETTER = re.compile(r"[\s,)*]*(?:\b(?:or|and)\b(?: maybe)?|[/&+、]|或|和)\s*([A-Z])(?![A-Za-z'])")
_NEXT_LETTER = re.compile(r"[\s,;]*([A-Z])(?=\s*(?:$|[,;/&]|[A-Z](?![A-Za-z'])))")
_CIRCLED = {chr(ord("①") + index): chr(ord("A") + index) for index in range(10)}
_SEVERAL_LETTERS = re.compile(r"\(?[A-Z]\)?(?:(?:\s*(?:[,;、/&+]|\band\b)\s*|\s*)\(?[A-Z]\)?)*")


def compare_choice(answer: str, target: str, options: tuple[str, ...], profile: Profile = GENERIC) -> Outcome:
    """Compare two choices, each given by its letter or by the text of its option."""
    if len(answer) > MAX_CHARS:
        return Outcome(equal=False, rule="refused_length")
    wanted, given = _option_index(target, options, profile), _option_index(answer, options, profile)
    if wanted is None:
        return Outcome(equal=words(answer) == words(target), rule="words")
    if given is not None:
        if given != wanted and given < len(options) and wanted < len(options):
            # Two options with one text: whoever says the text cannot tell them apart.
            is_letter = letter_index(answer, options, profile) is not None
            return Outcome(equal=not is_letter and same_option(answer, options[wanted]), rule="option_letter")
        return Outcome(equal=given == wanted, rule="option_letter")
    return Outcome(equal=wanted < len(options) and same_option(answer, options[wanted]), rule="option_text")


def compare_choices(answer: str, target: str) -> Outcome:
    """Compare two sets of letters: all of them and no other, in any order. "A, C" equals "CA" and "(A) and (C)"."""
    given, wanted = letters_of(answer), letters_of(target)
    if wanted is None:
        return Outcome(equal=words(answer) == words(target), rule="words")
    return Outcome(equal=given == wanted, rule="letter_set")


def letters_of(text: str) -> frozenset[str] | None:
    """The letters of an answer that is nothing but option letters, or None."""
    if len(text) > MAX_CHARS:
        return None
    shown = flattened(text).translate(_BRACKETS).replace("\n", ",").strip(" .{}")
    shown = re.sub(r"^\(([^()]*)\)$", r"\1", shown)
    if re.fullmatch(r"[a-z](?:\s*,\s*[a-z])*", shown):
        shown = shown.upper()
    if not _SEVERAL_LETTERS.fullmatch(shown):
        return None
    return frozenset(re.findall(r"[A-Z]", shown))


def letter_index(text: str, options: tuple[str, ...], profile: Profile = GENERIC) -> int | None:
    """Which option a text names by its letter; None when it begins with none, with one that no option has, or with
    several: a list of options is no choice."""
    shown = flattened(text).strip(_QUOTES)
    announced = _ANNOUNCED.match(shown)
    shown = shown[announced.end() :] if announced else shown
    shown = shown[:3].translate(_BRACKETS) + shown[3:]
    if profile.chinese:
        shown = re.sub(r"^选项?\s*", "", shown)
        shown = _CIRCLED.get(shown[:1], shown[:1]) + shown[1:]
    match = _CHOICE.fullmatch(shown)
    if match is None:
        return None
    index, rest = ord(match[1].upper()) - ord("A"), match[2]
    if options and index >= len(options):
        return None
    if not rest or (options and any(same_option(one, options[index]) for one in (rest, rest.strip("()")))):
        return index
    is_marked = shown.startswith("(") or shown[1:2] in (")", ".", ":", "、")
    if not match[1].isupper() or not (is_marked or _AFTERTHOUGHT.match(rest)):
        return None
    return None if names_other(rest, match[1], num_options=len(options) or 8) else index


def names_other(rest: str, letter: str, *, num_options: int) -> bool:
    """Whether a text that goes on after an option letter names another option: "(A) or (B)", "A. 5 B. 6", "A/B".

    Letters in running words are none: "D. it can't be A or B".
    """
    others = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:num_options]) - {letter}
    shown = rest.translate(_BRACKETS)
    marked = {match[match.lastindex or 0] for match in _MARKED_LETTER.finditer(shown)}
    beside = {match[1] for match in (_JOINED_LETTER.match(shown), _NEXT_LETTER.match(shown)) if match}
    return bool(others & (marked | beside))


def same_option(text: str, option: str) -> bool:
    """Whether a text says the same as the text of an option: the same words, number with unit, or form."""
    if words(text) == words(option):
        return True
    left, right = normal_form(text), normal_form(option)
    left_number, right_number = read_number(left.body), read_number(right.body)
    factor = conversion(left.unit, right.unit) if left.unit and right.unit else 1
    if factor is None:
        return False
    if left_number and right_number:
        return left_number.value * factor == right_number.value
    return bool(left.body) and left.body == right.body and factor == 1


def _option_index(text: str, options: tuple[str, ...], profile: Profile) -> int | None:
    """Which option a text names, by letter or by its text."""
    by_letter = letter_index(text, options, profile)
    if by_letter is not None:
        return by_letter
    return next((index for index, option in enumerate(options) if same_option(text, option)), None)
