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
    "box", "spaced_box", "answer_tag", "box_or_tag", "json", "hashes", "strict_hashes", "answer_line",
    "after_answer", "phrase", "letter", "alone", "last_number", "whole",
]  # fmt: skip
Comparator = Literal[
    "forms", "relaxed", "chartqapro", "mathvista", "mathvision", "mathverse", "mmmu", "dynamath", "wemath", "letters",
    "yes_no_word", "olympiad", "integer_text", "dapo", "math", "mathruler", "charxiv",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How answers are found, read and compared.

    Attributes:
        sources: Where the answer is looked for, first hit wins (see `extract`).
        comparator: The rule that compares answer and target (see `comparators`); "forms" is the general one.
        percent: What "%" does to a number. "unit": a unit like any other, so 28% equals 28 and not 0.28.
            "either": the sign is dropped, and a hundredth or hundredfold of the target is right too.
            "ignored": the sign is dropped, whatever unit stands on the other side.
        units: "convert": known units are converted within a dimension, and refused across (5 m is 500 cm, never 5 mi).
            "strip": all units are dropped, so 5 meters equals 5 miles.
        decimal_comma: "1000,99" is a number. Otherwise it is a list of two.
        spaced_thousands: "1 000" is a number. Otherwise it is two.
        unordered_lists: Lists without brackets are equal in any order.
        brackets: "kept": (1,2), [1,2] and {1,2} are three things. "set_as_tuple": (1,2) equals {1,2}, in this order.
            "ignored": all three are equal when their parts are, in order.
        unclosed_box: A box that never closes reaches to the end of the text.
        chinese: Chinese phrases, circled options, and words for units and yes or no are read.
        mojibake: "掳", the trace of a degree sign in the wrong encoding, is a degree sign.
        closeness: Largest relative difference of two numbers of which one is written with decimals.
    """

    sources: tuple[Source, ...] = ("box_or_tag", "spaced_box", "phrase", "letter", "alone")
    comparator: Comparator = "forms"
    percent: Literal["unit", "either", "ignored"] = "unit"
    units: Literal["convert", "strip"] = "convert"
    decimal_comma: bool = False
    spaced_thousands: bool = False
    unordered_lists: bool = True
    brackets: Literal["kept", "set_as_tuple", "ignored"] = "kept"
    unclosed_box: bool = False
    chinese: bool = True
    mojibake: bool = True
    closeness: float = 1e-6


GENERIC = Profile()

_MARKED: tuple[Source, ...] = ("box_or_tag", "spaced_box", "phrase", "letter")

PROFILES: Mapping[str, Profile] = {
    "generic": GENERIC,
    # Charts. The published metric reads the whole reply; ours reads the box or the tag where there is one.
    "chartqa": Profile(sources=("box_or_tag", "whole"), comparator="relaxed"),
    "chartqapro": Profile(sources=("box_or_tag", "phrase", "whole"), comparator="chartqapro"),
    "charxiv": Profile(sources=("box_or_tag", "phrase", "whole"), comparator="charxiv"),
    # Visual mathematics. Where the published score lets a language model extract, ours looks for what is marked.
    "mathvista": Profile(sources=(*_MARKED, "alone", "whole"), comparator="mathvista"),
    "mathvision": Profile(
        sources=(*_MARKED, "alone", "whole"), comparator="mathvision", units="strip",
        unclosed_box=True, unordered_lists=False,
    ),
    "mathverse": Profile(sources=(*_MARKED, "alone", "whole"), comparator="mathverse"),
    "dynamath": Profile(sources=("json", *_MARKED, "alone"), comparator="dynamath"),
    "wemath": Profile(sources=("box_or_tag", "after_answer", "whole"), comparator="wemath"),
    # Reasoning and knowledge.
    "logicvista": Profile(sources=(*_MARKED, "whole"), comparator="letters"),
    "mmmu": Profile(sources=("box_or_tag", "whole"), comparator="mmmu"),
    "hallusionbench": Profile(sources=("box_or_tag", "whole"), comparator="yes_no_word"),
    # Text mathematics.
    "olympiadbench": Profile(comparator="olympiad", percent="either"),
    "dapo": Profile(sources=("answer_line",), comparator="dapo"),
    "gsm8k": Profile(sources=("hashes", "last_number"), comparator="integer_text"),
    "gsm8k_strict": Profile(sources=("strict_hashes",), comparator="integer_text"),
    "gsm8k_flexible": Profile(sources=("last_number",), comparator="integer_text"),
    "math": Profile(sources=("box", "spaced_box"), comparator="math", percent="ignored", chinese=False, mojibake=False),
    "mathruler": Profile(sources=("box",), comparator="mathruler"),
    # The grader of Qwen2.5-Math, by which the pass@k of A-GRAE was measured.
    "qwen_math": Profile(
        sources=("box", "phrase", "last_number"), percent="either", units="strip", brackets="ignored",
        unclosed_box=True, closeness=1e-4,
    ),
    "math_verify": Profile(
        sources=("box_or_tag", "spaced_box", "phrase", "alone", "last_number"),
        decimal_comma=True, spaced_thousands=True, brackets="set_as_tuple",
    ),
    # The reward of R1-V reads what its answer tag holds, whatever boxes stand elsewhere.
    "r1v": Profile(sources=("answer_tag", "box", "spaced_box", "phrase", "alone")),
}  # fmt: skip


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
