"""Scoring profiles: every policy on which verifiers differ, by name, once for training and once per benchmark rule.

A profile is chosen by name in a question ("generic", "chartqa", ...). Two profiles may judge one answer differently;
that is what they are for. Each field changes some verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from mm_agrae.errors import ConfigError

Source = Literal[
    "box", "spaced_box", "answer_tag", "box_or_tag", "json", "hashes", "answer_line", "after_answer", "phrase",
    "letter", "alone", "last_number", "whole",
]  # fmt: skip
Comparator = Literal[
    "forms", "relaxed", "chartqapro", "mathvista", "mathvision", "mathverse", "mmmu", "dynamath", "wemath", "letters",
    "yes_no", "olympiad", "integer_text", "dapo", "math_text", "mathruler", "charxiv",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How answers are found, read and compared.

    Attributes:
        sources: Where the answer is looked for, first hit wins (see `extract`).
        comparator: The rule that compares answer and target (see `comparators`); "forms" is the general one.
        percent: What "%" does to a number. "unit": a unit like any other, so 28% equals 28 and not 0.28.
            "hundredth": 28% is 0.28 and nothing else. "either": 28%, 28, 0.28 and 2800 are all equal.
            "ignored": the sign is dropped, whatever unit stands on the other side.
        units: "convert": known units are converted within a dimension, and refused across (5 m is 500 cm, never 5 mi).
            "strip": all units are dropped, so 5 meters equals 5 miles.
        decimal_comma: "1000,99" is a number. Otherwise it is a list of two.
        spaced_thousands: "1 000" is a number. Otherwise it is two.
        unordered_lists: Lists without brackets are equal in any order.
        loose_brackets: (1,2), [1,2] and {1,2} are equal when their parts are, in order.
        unclosed_box: A box that never closes reaches to the end of the text.
        chinese: Chinese phrases, circled options, and words for units and yes or no are read.
        mojibake: "掳", the trace of a degree sign in the wrong encoding, is a degree sign.
        closeness: Largest relative difference of two numbers of which one is written with decimals.
    """

    sources: tuple[Source, ...] = ("box_or_tag", "spaced_box", "phrase", "letter", "alone")
    comparator: Comparator = "forms"
    percent: Literal["unit", "hundredth", "either", "ignored"] = "unit"
    units: Literal["convert", "strip"] = "convert"
    decimal_comma: bool = False
    spaced_thousands: bool = False
    unordered_lists: bool = True
    loose_brackets: bool = False
    unclosed_box: bool = False
    chinese: bool = True
    mojibake: bool = True
    closeness: float = 1e-6


GENERIC = Profile()

PROFILES: Mapping[str, Profile] = {
    "generic": GENERIC,
    "chartqa": GENERIC,
    "chartqapro": GENERIC,
    "mathvista": GENERIC,
    "mathvision": GENERIC,
    "mathverse": GENERIC,
    "mmmu": GENERIC,
    "dynamath": GENERIC,
    "wemath": GENERIC,
    "logicvista": GENERIC,
    "hallusionbench": GENERIC,
    "olympiadbench": GENERIC,
    "dapo": GENERIC,
    "gsm8k": GENERIC,
    "gsm8k_strict": GENERIC,
    "gsm8k_flexible": GENERIC,
    "math": GENERIC,
    "qwen_math": GENERIC,
    "mathruler": GENERIC,
    "math_verify": GENERIC,
    "charxiv": GENERIC,
}


def profile_named(name: str) -> Profile:
    """The profile of a name.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    if name in PROFILES:
        return PROFILES[name]
    nearest = get_close_matches(name, PROFILES, n=1, cutoff=0.0)[0]
    raise ConfigError(
        f'scoring profile is "{name}", but must be one of {", ".join(PROFILES)}. The nearest is "{nearest}".'
    )
