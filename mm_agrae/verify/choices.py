"""Compare choices: by letter, by the text of an option, and several letters as a set."""

from __future__ import annotations

import re

from mm_agrae.verify.normalise import MAX_CHARS, flattened, normal_form, read_number, words
from mm_agrae.verify.outcome import Outcome
from mm_agrae.verify.profiles import GENERIC, Profile
from mm_agrae.verify.units import conversion

_CHOICE = re.compile(r"\(?([A-Za-z])(?:\)|\.|:|、|．|\*\*)?\s*(.*)", re.DOTALL)
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
    shown = flattened(text).replace("\n", ",").strip(" .[]{}")
    if re.fullmatch(r"[a-z](?:\s*,\s*[a-z])*", shown):
        shown = shown.upper()
    if not _SEVERAL_LETTERS.fullmatch(shown):
        return None
    return frozenset(re.findall(r"[A-Z]", shown))


def letter_index(text: str, options: tuple[str, ...], profile: Profile = GENERIC) -> int | None:
    """Which option a text names by its letter; None when it begins with none, or with one that no option has."""
    shown = re.sub(r"^(?:option|choice)\s+", "", flattened(text), flags=re.IGNORECASE)
    if profile.chinese:
        shown = re.sub(r"^选项?\s*", "", shown)
        shown = _CIRCLED.get(shown[:1], shown[:1]) + shown[1:]
    match = _CHOICE.fullmatch(shown)
    if match is None:
        return None
    index, rest = ord(match[1].upper()) - ord("A"), match[2]
    if options and index >= len(options):
        return None
    if not rest or (options and same_option(rest, options[index])):
        return index
    is_marked = shown.startswith("(") or shown[1:2] in (")", ".", ":", "、", "．")
    return index if is_marked and match[1].isupper() else None


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
