"""Bring an answer into one normal form. Second stage of extract -> normalise -> compare.

Answers longer than MAX_CHARS are not normalised at all; that bounds every regular expression below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb

from mm_agrae.verify.profiles import GENERIC, Profile
from mm_agrae.verify.units import unit_name

MAX_CHARS = 400
_MAX_WRAPPINGS = 8  # a box in dollars in bold in a tag and so on; deeper ones are left as they are
_MAX_EXPONENT = 400  # of ten; larger ones are compared as text or refused

_SYMBOLS = {
    "−": "-", "–": "-", "×": "\\times ", "·": "\\cdot ", "÷": "/", "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ",
    "≥": "\\ge ", "≠": "\\ne ", "±": "\\pm ", "∪": "\\cup ", "∈": "\\in ", "°": "^\\circ ", "º": "^\\circ ",
    "²": "^{2}", "³": "^{3}", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}",
    "√": "\\sqrt ", "≈": "\\approx ", "％": "%", "，": ",", "（": "(", "）": ")", "\u00a0": " ", "\u2009": " ",
    "。": ".", "∅": "\\emptyset ",
}  # fmt: skip
_SYMBOL_TABLE = str.maketrans(_SYMBOLS)
_RANGE = "\ue000"  # stands for an en dash between digits while other dashes become minus signs
# What is left of "\frac", "\boxed" and "\begin" when a writer of JSON took the first letter for an escape.
_EATEN = {"\x0crac": "\\frac", "\x08oxed": "\\boxed", "\x08egin": "\\begin"}


_TEXT = r"\\(?:text(?:normal|rm|bf|it|sf)?|mathrm|mathbf|mathit|mathsf|mbox|operatorname)"
_SPACING = re.compile(
    r"(?<!\\)\\[!,;: ]|\\q?quad\b|~|\\(?:displaystyle|limits)\b|\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\.?"
)
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_PLAIN_NUMBER = re.compile(rf"[+-]?{_NUMBER}")
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_RATIO = re.compile(rf"([+-]?)(?:\\frac\{{([+-]?{_NUMBER})\}}\{{([+-]?{_NUMBER})\}}|({_NUMBER})/({_NUMBER}))")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar)\{(\d+)\}")
_MIXED = re.compile(r"([+-]?)(\d+)(?:\\frac\{(\d+)\}\{(\d+)\}| (\d+)/(\d+))")
_POWER_OF_TEN = re.compile(
    rf"([+-]?)(?:({_NUMBER})(?:[eE]([+-]?\d+)|(?:\\times|\\cdot|\*)10\^\{{?([+-]?\d+)\}}?)|10\^\{{?([+-]?\d+)\}}?)"
)
_TRAILING_UNIT = re.compile(
    rf"(?P<value>.*[\d}})\]]|.*\\pi)\s*(?:\\?(?P<percent>%)|(?P<degree>\^\{{?\\circ\}}?|\\degree)(?P<scale>\s*[TCF])?"
    rf"|{_TEXT}\{{(?P<marked>[^{{}}]*)\}}"
    r"|(?P<word>(?:square |sq\.? ?|cubic |平方|立方)?(?:[A-Za-zΩ]+|[一-龥]+)(?:\s?/\s?[A-Za-z]+| per [a-z]+)?))"
    r"(?P<power>\s*\^\{?[23]\}?)?"
)
# A marked text beside a value names a unit, known or not, unless it changes what is said.
_SAYS_MORE = re.compile(
    r"[\d,;=]|\b(?:or|and|not|is|to|hundred|thousand|million|billion|trillion|dozen|squared|cubed|half|halves|"
    r"thirds?|quarters?|fifths?)\b",
    re.IGNORECASE,
)
_MANNER = re.compile(r"(?<=\S)\s+(?:long|wide|tall|high|deep|old|each|away|apart|later|in total)$")
_FUNCTION = re.compile(
    r"(?<![A-Za-z\\])(?:np\.|math\.)?(arc(?:sin|cos|tan)|sin|cos|tan|cot|sec|csc|ln|log|exp)(?![A-Za-z])"
)
_CIRCULAR = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = re.compile(rf"({_NUMBER})(?:\^\{{?\\circ\}}?|\\degree(?![a-z]))")
_BINOMIAL = re.compile(r"\\binom(?:\{(\d{1,2})\}\{(\d{1,2})\}|(\d)(\d))")
_ABOUT = re.compile(
    r"^(?:=|\\approx(?![A-Za-z])|(?:\\text\{)?(?:approximately|about|roughly|around)\b\}?)\s*", re.IGNORECASE
)
# "The distance is" before a number; a sentence with a number, or one that says what it is not, is left alone.
_STATEMENT = re.compile(
    r"^(?:\\text\{)?(?!.*\b(?:not|no|or|if)\b)[A-Za-z][^\d=<>]{0,100}\b(?:is|are|equals)\b\s*\}?\s*(?=[\\$\d.+-])"
)
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[ \u202f]\d{3})+(?![\d ])")
_COMMA_DECIMAL = re.compile(r"([+-]?(?:\d{1,3}(?:\.\d{3})+|\d+)),(\d{1,2}|\d{4,}|(?<=\b0,)\d{3})(?!\d)")


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
def normal_form(raw: str, *, numeric: bool = False, profile: Profile = GENERIC) -> Form:
    """Normal form of an answer.

    Args:
        raw: At most MAX_CHARS characters.
        numeric: The target is a number, so a single trailing letter such as "m" is a unit and no variable.
        profile: Says which marks of other languages and encodings are read (decimal_comma, spaced_thousands, chinese,
            mojibake).
    """
    text = raw.replace("掳", "°") if profile.mojibake else raw
    text = re.sub(r"(?<=\d)\s?–\s?(?=\d)", _RANGE, unwrapped(text)).translate(_SYMBOL_TABLE)
    text = _without_dollars(text.replace(_RANGE, "–"))
    if profile.spaced_thousands:
        text = _SPACED_THOUSANDS.sub(lambda match: re.sub(r"\s", "", match[0]), text)
    if profile.decimal_comma:
        text = _decimal_point(text)
    text = _plain_latex(text)
    text = _STATEMENT.sub("", text) if numeric else text
    text, currency = _without_currency(_ABOUT.sub("", text))
    body, unit = _split_unit(text, numeric=numeric, chinese=profile.chinese)
    return Form(body=_tight(body), unit=currency or unit)


def unwrapped(raw: str) -> str:
    """The answer without what is only packing: tags, boxes, dollars, bold marks, outer text command, full stop."""
    text = repaired(raw).strip()
    for _ in range(_MAX_WRAPPINGS):
        before = text
        text = re.sub(r"^<answer>(.*)</answer>$", r"\1", text, flags=re.DOTALL | re.IGNORECASE)
        text = re.sub(r"^\\(?:boxed|fbox)\s*\{(.*)\}$", r"\1", text, flags=re.DOTALL)
        text = re.sub(r"^\\boxed\s+(\S+)$", r"\1", text)
        text = re.sub(r"^\\[(\[](.*)\\[)\]]$", r"\1", text, flags=re.DOTALL)
        text = re.sub(r"^(\$\$?|\*\*?)([^$*]*)\1$", r"\2", text)
        text = re.sub(rf"^{_TEXT}\{{([^{{}}]*)\}}$", r"\1", text)
        text = _without_end(text)
        if text == before:
            break
    return text


def _without_end(text: str) -> str:
    """The text without white space around it, and without full stops, semicolons and line breaks at its end."""
    bare = text.strip().rstrip(" \t\n.。;")
    if bare.endswith("\\\\"):
        return bare.removesuffix("\\\\").rstrip()
    return text.strip()[: len(bare) + 1] if bare.endswith("\\") else bare  # "\;" is a space, and "\." a mark


def repaired(raw: str) -> str:
    """The text with its eaten commands restored; before anything strips it, because a form feed is white space."""
    for eaten, command in _EATEN.items():
        raw = raw.replace(eaten, command)
    return raw


def words(raw: str) -> str:
    """Normal form of an answer that is compared as words: one case, single spaces, no packing or end punctuation."""
    return " ".join(flattened(raw).casefold().split()).strip(" .,;:!?\"'")


def flattened(raw: str) -> str:
    """The answer without packing, with text commands replaced by their text."""
    text = re.sub(rf"{_TEXT}\{{([^{{}}]*)\}}", r"\1", unwrapped(raw)).replace("\\ ", " ")
    return re.sub(r"^\{([^{}]*)\}$", r"\1", text)


def read_number(body: str) -> Number | None:
    """The exact value of a form that is one number, else None.

    Read: 12, -0.5, .4, 0.1\\overline{6}, 3/4, \\frac{3}{4}, the mixed 1\\frac{1}{2} and 1 1/2, 3\\times10^{8}, 1e6.
    """
    if _PLAIN_NUMBER.fullmatch(body):
        return Number(value=Fraction(body), is_decimal="." in body)
    if match := _REPEATING.fullmatch(body):
        sign, whole, fixed, cycle = match.groups()
        repeated = Fraction(int(cycle), 10 ** len(fixed) * (10 ** len(cycle) - 1))
        return Number(value=_signed(sign, Fraction(f"{whole or 0}.{fixed}0") + repeated), is_decimal=False)
    if match := _RATIO.fullmatch(body):
        sign, top, bottom = match[1], Fraction(match[2] or match[4]), Fraction(match[3] or match[5])
        if bottom == 0:
            return None
        return Number(value=_signed(sign, top / bottom), is_decimal="." in body)
    if match := _MIXED.fullmatch(body):
        part, whole = int(match[3] or match[5]), int(match[4] or match[6])
        if whole == 0 or (match[5] and part >= whole):
            return None
        return Number(value=_signed(match[1], int(match[2]) + Fraction(part, whole)), is_decimal=False)
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
    text = re.sub(r"\\[dt]binom(?![A-Za-z])", r"\\binom", text.replace("\\varnothing", "\\emptyset"))
    text = re.sub(r"(?<=\d)_(\d+)|_([A-Za-z\d])", r"_{\1\2}", text)
    text = re.sub(r"\\(le|ge|ne)q(?![A-Za-z])", r"\\\1", text)
    text = re.sub(r"\s*([{}])\s*", r"\1", text)
    text = re.sub(r"\\frac\s*(\d)(?=\s*[\d{])", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}", text)
    text = re.sub(r"\b(?:np|math)\.(?=(?:sqrt|pi)\b)", "", text.replace("**", "^"))
    text = _FUNCTION.sub(r"\\\1 ", text).replace("+\\infty", "\\infty")
    text = re.sub(r"(?<![A-Za-z\\])sqrt(?![A-Za-z])", r"\\sqrt", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\sqrt\s*(\d+|[A-Za-z])", _braced_root, text)
    return re.sub(r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi", text).strip()


def _braced_root(match: re.Match[str]) -> str:
    # "\sqrt12" is the root of 1 times 2 in LaTeX, but nobody who writes it means that.
    return f"\\sqrt{{{match[1]}}}"


def _without_dollars(text: str) -> str:
    """The text without pairs of math delimiters; a single "$" is a currency."""
    places = re.findall(r"(?<!\\)\$", text)
    return re.sub(r"(?<!\\)\$", "", text) if places and len(places) % 2 == 0 else text


def _decimal_point(text: str) -> str:
    match = _COMMA_DECIMAL.fullmatch(text.strip())
    return f"{match[1].replace('.', '')}.{match[2]}" if match else text


def _without_currency(text: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"([+-]?)\s*\\?([$€£¥])\s*(.*)", text, re.DOTALL)
    if match is None and (behind := re.fullmatch(r"(.*\d)\s*\\?([$€£¥])", text)):
        return behind[1], behind[2]
    return (match[1] + match[3], match[2]) if match else (text, None)


def _split_unit(text: str, *, numeric: bool, chinese: bool) -> tuple[str, str | None]:
    match = _TRAILING_UNIT.fullmatch(text)
    if match is None:
        return text, None
    value = match["value"]
    power = (match["power"] or "").strip(" ^{}")
    if match["percent"]:
        return value, "%"
    if match["degree"]:
        if _CIRCULAR.search(value):
            return text, None
        # A bearing such as 118°T is an angle from true north.
        scale = (match["scale"] or "").strip()
        return value, "°" + scale.replace("T", "")
    word = match["word"] if match["marked"] is None else match["marked"].strip()
    if match["marked"] is not None:
        word = _MANNER.sub("", word)
        known = unit_name(word + power, numeric=True, chinese=chinese)
        if known is None and _SAYS_MORE.search(word):
            return text, None
        return value, (" ".join(word.lower().split()).removesuffix("s") if known is None else known) or None
    name = unit_name(word + power, numeric=numeric, chinese=chinese)
    if name is None and numeric and _is_count(text, match):
        return value, word.lower().removesuffix("s")
    return (text, None) if name is None else (value, name or None)


def _is_count(text: str, match: re.Match[str]) -> bool:
    """Whether a number and one word apart from it are all, as in "12 students"."""
    word, value = match["word"], match["value"]
    is_apart = text[match.end("value") :][:1].isspace()
    is_word = re.fullmatch(r"[A-Za-z]{3,}", word) is not None and _SAYS_MORE.search(word) is None
    return is_apart and is_word and read_number(_tight(value)) is not None


def _tight(text: str) -> str:
    """No spaces but those that keep two numbers or two names apart; thousands closed up; no outer braces."""
    text = re.sub(rf"{_TEXT}\{{([^{{}}]*)\}}", r"\1", text)
    if not any(bracket in text for bracket in "([{"):  # in brackets a comma separates: (1,200) is a point
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", _kept_space, text)
    text = re.sub(r"^\{([^{}]*)\}$", r"\1", text)
    if _CIRCULAR.search(text):
        text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    return _BINOMIAL.sub(_counted, text).removeprefix("+")


def _counted(match: re.Match[str]) -> str:
    ways = comb(int(match[1] or match[3]), int(match[2] or match[4]))
    if match[0] == match.string:
        return str(ways)
    before = match.string[: match.start()][-1:]
    return f"\\cdot({ways})" if before.isalnum() or before in tuple(")}") else f"({ways})"


def _kept_space(match: re.Match[str]) -> str:
    left = match.string[match.start() - 1 : match.start()]
    right = match.string[match.end() : match.end() + 1]
    return " " if left.isalpha() and right.isalpha() else ""
