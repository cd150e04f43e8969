"""Exact answers as they are written: integers, decimals, fractions, roots, multiples of pi, letters of a choice."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from mm_agrae.records import AnswerKind, Tolerance


@dataclass(frozen=True)
class Answer:
    """An answer as it stands in the box.

    Attributes:
        text: Plain text or LaTeX.
        kind: How it is compared.
        tolerance: How exact an answer must be; None when nothing is said.
    """

    text: str
    kind: AnswerKind
    tolerance: Tolerance | None = None


def letter(index: int) -> str:
    """The letter of an option: 0 is A."""
    return chr(ord("A") + index)


def integer(value: int) -> Answer:
    return Answer(str(value), "integer")


def decimal(value: Fraction, *, decimals: int) -> Answer:
    """A value rounded half away from zero, always with the stated number of decimals."""
    scale = 10**decimals
    units = (abs(value) * scale * 2 + 1) // 2
    sign = "-" if value < 0 and units else ""
    whole, rest = divmod(int(units), scale)
    text = f"{sign}{whole}.{rest:0{decimals}d}" if decimals else f"{sign}{whole}"
    return Answer(text, "decimal", Tolerance(kind="round", value=decimals))


def rational(value: Fraction) -> Answer:
    """An integer where the value is one, a fraction in lowest terms elsewhere."""
    if value.denominator == 1:
        return integer(value.numerator)
    sign = "-" if value < 0 else ""
    return Answer(f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}", "fraction")


def square_root(square: int) -> Answer:
    """The root of a positive integer with its square factors taken out: 12 -> 2\\sqrt{3}, 9 -> 3."""
    outside, inside = split_root(square)
    if inside == 1:
        return integer(outside)
    return Answer(f"{outside if outside > 1 else ''}\\sqrt{{{inside}}}", "expression")


def split_root(square: int) -> tuple[int, int]:
    """(a, b) with a * sqrt(b) = sqrt(square) and b free of squares."""
    outside = next(d for d in range(isqrt(square), 0, -1) if square % (d * d) == 0)
    return outside, square // (outside * outside)


def times_pi(factor: Fraction) -> Answer:
    """A positive multiple of pi: 1 -> \\pi, 9/2 -> \\frac{9\\pi}{2}."""
    top = f"{factor.numerator if factor.numerator != 1 else ''}\\pi"
    return Answer(top if factor.denominator == 1 else f"\\frac{{{top}}}{{{factor.denominator}}}", "expression")


def four_options(rng: random.Random, right: Answer, mistakes: Iterable[str]) -> list[str] | None:
    """The right answer and three wrong ones: first results of typical mistakes, then integers nearby.

    None when there are fewer than three wrong ones, as when two mistakes happen to give the same.
    """
    wrong = [text for text in dict.fromkeys(mistakes) if text != right.text]
    rng.shuffle(wrong)
    if right.kind == "integer":
        value = int(right.text)
        near = [value + step for step in rng.sample((-10, -5, -2, 2, 5, 10), 6)]
        wrong += [str(other) for other in near if other * value >= 0 and other and str(other) not in wrong]
    return [right.text, *wrong[:3]] if len(wrong) >= 3 else None
