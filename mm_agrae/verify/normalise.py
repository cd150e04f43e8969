"""Bring an answer into one normal form. Second stage of extract -> normalise -> compare.

Answers longer than MAX_CHARS are not normalised at all; that bounds every regular expression below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_CHARS = 400
_MAX_EXPONENT = 400  # of ten; larger ones are compared as text or refused

_SYMBOLS = {
    "−": "-", "–": "-", "×": "\\times ", "·": "\\cdot ", "÷": "/", "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ",
    "≥": "\\ge ", "≠": "\\ne ", "±": "\\pm ", "∪": "\\cup ", "∈": "\\in ", "°": "^\\circ ", "º": "^\\circ ",
    "掳": "^\\circ ", "²": "^{2}", "³": "^{3}", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}",
    "√": "\\sqrt ", "≈": "\\approx ", "％": "%", "，": ",", "（": "(", "）": ")", "\u00a0": " ", "\u2009": " ",
    "。": ".",
}  # fmt: skip
_SYMBOL_TABLE = str.maketrans(_SYMBOLS)

# Known units and their canonical names. A unit is dropped from the form and kept beside it: "5 cm" equals "5" and
# "5 centimeters" but not "5 m". Words that are not here are dropped only when LaTeX marks them as text.
_UNIT_NAMES = {
    "%": "% percent pct percentage", "°": "degree degrees deg",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters", "km": "km kilometer kilometers kilometre kilometres",
    "m": "meter meters metre metres 米", "ft": "ft feet foot", "in": "inch inches", "mi": "mile miles",
    "yd": "yard yards yd", "kg": "kg kilogram kilograms", "g": "gram grams", "lb": "pound pounds lb lbs", "mph": "mph",
    "h": "hour hours hr hrs", "min": "minute minutes min", "s": "second seconds sec", "day": "day days",
    "year": "year years", "$": "dollar dollars usd", "cent": "cent cents", "": "unit units", "L": "liter liters",
    "ml": "ml milliliter milliliters", "week": "week weeks", "month": "month months",
}  # fmt: skip
_UNITS = {word: name for name, words in _UNIT_NAMES.items() for word in words.split()}
_LETTER_UNITS = frozenset("mgshLNJWVAKC")  # read as units only where the target is a number

_TEXT = r"\\(?:text(?:normal|rm|bf|it|sf)?|mathrm|mathbf|mathit|mathsf|mbox|operatorname)"
_SPACING = re.compile(
    r"\\[!,;: ]|\\q?quad\b|~|\\(?:displaystyle|limits)\b|\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\.?"
)
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_PLAIN_NUMBER = re.compile(rf"[+-]?{_NUMBER}")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_RATIO = re.compile(rf"([+-]?)(?:\\frac\{{([+-]?{_NUMBER})\}}\{{([+-]?{_NUMBER})\}}|({_NUMBER})/({_NUMBER}))")
_MIXED = re.compile(r"([+-]?)(\d+)\\frac\{(\d+)\}\{(\d+)\}")
_POWER_OF_TEN = re.compile(
    rf"([+-]?)(?:({_NUMBER})(?:[eE]([+-]?\d+)|(?:\\times|\\cdot|\*)10\^\{{?([+-]?\d+)\}}?)|10\^\{{?([+-]?\d+)\}}?)"
)
_TRAILING_UNIT = re.compile(
    rf"(?P<value>.*[\d}})\]]|.*\\pi)\s*(?:\\?(?P<percent>%)|(?P<degree>\^\{{?\\circ\}}?|\\degree)"
    rf"|{_TEXT}\{{(?P<marked>[^{{}}]*)\}}|(?P<word>(?:square |sq\.? ?|cubic )?[A-Za-z米]+))(?P<power>\^\{{?[23]\}}?)?"
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """An answer in normal form: LaTeX without layout, and the unit that stood beside it (None: none or unknown)."""

    body: str
    unit: str | None


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number that was read exactly; `is_decimal` when it was written with a decimal point or a power of ten."""

    value: Fraction
    is_decimal: bool


@lru_cache(maxsize=4096)
def normal_form(raw: str, *, numeric: bool = False) -> Form:
    """Normal form of an answer.

    Args:
        raw: At most MAX_CHARS characters.
        numeric: The target is a number, so a single trailing letter such as "m" is a unit and no variable.
    """
    text = _plain_latex(unwrapped(raw).translate(_SYMBOL_TABLE))
    text, currency = _without_currency(re.sub(r"^(?:=|\\approx(?![A-Za-z]))\s*", "", text))
    body, unit = _split_unit(text, numeric=numeric)
    return Form(body=_tight(body), unit=currency or unit)


def unwrapped(raw: str) -> str:
    """The answer without what is only packing: tags, boxes, dollars, bold marks, outer text command, full stop."""
    text = raw.strip()
    while True:
        before = text
        text = re.sub(r"^<answer>(.*)</answer>$", r"\1", text, flags=re.DOTALL | re.IGNORECASE)
        text = re.sub(r"^\\(?:boxed|fbox)\s*\{(.*)\}$", r"\1", text, flags=re.DOTALL)
        text = re.sub(r"^\\boxed\s+(\S+)$", r"\1", text)
        text = re.sub(r"^\\[(\[](.*)\\[)\]]$", r"\1", text, flags=re.DOTALL)
        text = re.sub(r"^(\$\$?|\*\*?)([^$*]*)\1$", r"\2", text)
        text = re.sub(rf"^{_TEXT}\{{([^{{}}]*)\}}$", r"\1", text)
        text = re.sub(r"(?<!\\)[.。]$", "", text).strip()
        if text == before:
            return text


def words(raw: str) -> str:
    """Normal form of an answer that is compared as words: one case, single spaces, no packing or end punctuation."""
    return " ".join(flattened(raw).casefold().split()).strip(" .,;:!?\"'")


def flattened(raw: str) -> str:
    """The answer without packing, with text commands replaced by their text."""
    text = re.sub(rf"{_TEXT}\{{([^{{}}]*)\}}", r"\1", unwrapped(raw)).replace("\\ ", " ")
    return re.sub(r"^\{([^{}]*)\}$", r"\1", text)


def read_number(body: str) -> Number | None:
    """The exact value of a form that is one number, else None.

    Read: 12, -0.5, .4, 3/4, \\frac{3}{4}, the mixed 1\\frac{1}{2}, 3\\times10^{8}, 10^6, 1e6.
    """
    if _PLAIN_NUMBER.fullmatch(body):
        return Number(value=Fraction(body), is_decimal="." in body)
    if match := _RATIO.fullmatch(body):
        sign, top, bottom = match[1], Fraction(match[2] or match[4]), Fraction(match[3] or match[5])
        if bottom == 0:
            return None
        return Number(value=_signed(sign, top / bottom), is_decimal="." in body)
    if match := _MIXED.fullmatch(body):
        if int(match[4]) == 0:
            return None
        return Number(value=_signed(match[1], int(match[2]) + Fraction(int(match[3]), int(match[4]))), is_decimal=False)
    if match := _POWER_OF_TEN.fullmatch(body):
        exponent = int(match[3] or match[4] or match[5])
        if abs(exponent) > _MAX_EXPONENT:
            return None
        return Number(
            value=_signed(match[1], Fraction(match[2] or 1) * Fraction(10) ** exponent), is_decimal="." in body
        )
    return None


def split_list(body: str) -> list[str]:
    """The parts of a form between commas that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(body):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char in ",;" and depth == 0:
            parts.append(body[start:index])
            start = index + 1
    return [*parts, body[start:]]


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _plain_latex(text: str) -> str:
    text = re.sub(r"\\!\s*", "", text.replace("{,}", ","))
    text = re.sub(r"(?<=\d)\\,(?=\d{3})", "", text)
    text = _SPACING.sub(" ", text)
    text = re.sub(rf",?\s*(?:{_TEXT}\{{\s*,?\s*(?:and|or)\s*\}}|\b(?:and|or)\b)\s*", ", ", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\(le|ge|ne)q(?![A-Za-z])", r"\\\1", text)
    text = re.sub(r"\s*([{}])\s*", r"\1", text)
    text = re.sub(r"\\frac\s*(\d)(?=\s*[\d{])", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}", text)
    text = re.sub(r"(?<![A-Za-z\\])sqrt(?![A-Za-z])", r"\\sqrt", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt\s*(\d+|[A-Za-z])", _braced_root, text)
    return re.sub(r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi", text).strip()


def _braced_root(match: re.Match[str]) -> str:
    # "\sqrt12" is the root of 1 times 2 in LaTeX, but nobody who writes it means that.
    return f"\\sqrt{{{match[1]}}}"


def _without_currency(text: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"([+-]?)\s*\\?([$€£¥])\s*(.*)", text, re.DOTALL)
    return (match[1] + match[3], match[2]) if match else (text, None)


def _split_unit(text: str, *, numeric: bool) -> tuple[str, str | None]:
    match = _TRAILING_UNIT.fullmatch(text)
    if match is None:
        return text, None
    value = match["value"]
    power = (match["power"] or "").strip("^{}")
    if match["percent"]:
        return value, "%"
    if match["degree"]:
        return value, "°"
    if match["marked"] is not None:
        name = _unit_name(match["marked"].strip(), power, numeric=True)
        return value, name or None
    name = _unit_name(match["word"], power, numeric=numeric)
    return (text, None) if name is None else (value, name or None)


def _unit_name(word: str, power: str, *, numeric: bool) -> str | None:
    """Canonical unit with its power; "" for a nameless unit; None for a word that is no known unit."""
    shape = re.fullmatch(r"(square |sq\.? ?|cubic )?(.*)", word)
    prefix, base = (shape[1] or "", shape[2]) if shape else ("", word)
    known = _UNITS.get(base.lower())
    if known is None and numeric and base in _LETTER_UNITS:
        known = base
    if known is None:
        return None
    power = power or {"s": "2", "c": "3"}.get(prefix[:1], "")
    return known + power if known else ""


def _tight(text: str) -> str:
    """No spaces but those that keep two numbers or two names apart; thousands closed up; no outer braces."""
    text = re.sub(rf"{_TEXT}\{{([^{{}}]*)\}}", r"\1", text)
    if not any(bracket in text for bracket in "([{"):  # in brackets a comma separates: (1,200) is a point
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", _kept_space, text)
    text = re.sub(r"^\{([^{}]*)\}$", r"\1", text)
    return text.removeprefix("+")


def _kept_space(match: re.Match[str]) -> str:
    left = match.string[match.start() - 1 : match.start()]
    right = match.string[match.end() : match.end() + 1]
    return " " if left.isalpha() and right.isalpha() else ""
