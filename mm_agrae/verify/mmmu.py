"""The rule of MMMU and MMMU-Pro, without its random choice.     MMMU, arXiv:2311.16502"""

from __future__ import annotations

import re

from mm_agrae.verify.literals import literal_list, plain_number
from mm_agrae.verify.normalise import MAX_CHARS, flattened
from mm_agrae.verify.outcome import Outcome
from mm_agrae.verify.question import Question

_REACH = 20_000  # characters of a completion that are searched, from its end
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
_GROUPED = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
# A number is entered at its first digit only, which keeps the scans linear.
_SCIENTIFIC = re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+")
_SIMPLE = re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d)(?![,\d])")
_MARKS = ",.!?;:'"


def compare_mmmu(answer: str, question: Question) -> Outcome:
    """MMMU: for a choice the letter that a reply names last, else a key phrase or number that meets the target.

    An open answer is right when a number in it equals the target to two decimals, or when the target is part of a key
    phrase: what follows "is", "so", "thus", "answer" ... in the sentences of the reply. A target may be a list of
    alternatives. "$242,110.62" is not read as a number, as in the published rule.

    Departures: a reply that names no option is wrong, where the published rule draws one at random; sentences are
    split before the case is dropped, and only the last 20,000 characters are searched.
    """
    if question.answer_kind == "choice":
        letter = _chosen(answer[-_REACH:], question.options)
        return Outcome(equal=letter is not None and letter == _target_letter(question), rule="last_letter")
    targets = {value for target in _alternatives(question.target) for value in _normalised(target)}
    said = _said(answer[-_REACH:])
    for value in said:
        if isinstance(value, str):
            if any(isinstance(target, str) and target.strip() and target in value for target in targets):
                return Outcome(equal=True, rule="part_of_phrase")
        elif value in targets:
            return Outcome(equal=True, rule="two_decimals")
    return Outcome(equal=False, rule="key_phrases")


def as_target(answer: str) -> str:
    """What an open answer says, as a target has it: the last number of its last key phrase, else that phrase."""
    phrase = _key_phrases(answer[-_REACH:])[-1]
    numbers = [] if plain_number(phrase.replace(",", "")) is not None else _SIMPLE.findall(phrase)
    return numbers[-1] if numbers else phrase


def _target_letter(question: Question) -> str:
    shown = flattened(question.target).strip("() .")
    if len(shown) > 1 and shown in question.options:
        return chr(ord("A") + question.options.index(shown))
    return shown if len(shown) == 1 else _chosen(question.target[-_REACH:], question.options) or shown


def _chosen(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter that stands last, in brackets, else before a space, else before a full stop; else an option's text."""
    shown = f" {flattened(answer) if len(answer) <= MAX_CHARS else answer} "
    for mark in _MARKS:
        shown = f" {shown.strip().strip(mark)} "
    letters = [chr(ord("A") + index) for index in range(len(options) or 9)]
    for shape in ("({})", " {} ", " {}. "):
        places = {letter: shown.rfind(shape.format(letter)) for letter in letters}
        found = [letter for letter in letters if places[letter] >= 0]
        if found:
            return max(found, key=lambda letter: places[letter])
    if len(shown.split()) > 5 or shown.strip().lower() in {option.lower() for option in options}:
        texts = [
            (shown.lower().rfind(option.lower()), letter) for option, letter in zip(options, letters, strict=False)
        ]
        found_texts = [
            (place, letter) for (place, letter), option in zip(texts, options, strict=False) if place >= 0 and option
        ]
        return max(found_texts)[1] if found_texts else None
    return None


def _alternatives(target: str) -> list[str]:
    """The targets that a target written as a Python list names; else itself."""
    return literal_list(target) or [target]


def _said(answer: str) -> list[str | float]:
    phrases = _key_phrases(answer)
    numbers = [
        number[0] for phrase in phrases for kind in (_GROUPED, _SCIENTIFIC, _SIMPLE) for number in kind.finditer(phrase)
    ]
    return [value for piece in (*phrases, *numbers) for value in _normalised(piece)]


def _key_phrases(answer: str) -> list[str]:
    """What follows the last key word of each sentence; the whole answer where there is no key word."""
    sentences = _SENTENCES.split(answer.strip().strip("."))
    phrases = []
    for place, sentence in enumerate(sentences):
        shown = sentence.lower()
        keys = (*_KEYS, "=") if place == len(sentences) - 1 else _KEYS
        after = [shown.rsplit(key, 1)[1].strip() for key in keys if key in shown]
        shortest = min((phrase for phrase in after if phrase), key=len, default="")
        if shortest and shortest not in _MARKS:
            phrases.append(shortest)
    return phrases or [answer.strip().strip(".").lower()]


def _normalised(text: str) -> list[str | float]:
    """A number to two decimals, else lower-case text; a single letter with a space on either side, so that it stands
    apart."""
    shown = text.strip()
    number = plain_number(shown.replace(",", ""))
    if number is not None:
        return [round(float(number), 2)]
    shown = shown.lower()
    return [f" {shown}", f"{shown} "] if len(shown) == 1 else [shown]
