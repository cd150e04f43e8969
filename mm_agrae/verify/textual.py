"""The rules of the text benchmarks: GSM8K, DAPO, MATH, MathRuler, OlympiadBench; and yes or no of HallusionBench."""

from __future__ import annotations

import re
from dataclasses import replace

from mm_agrae.records import Tolerance
from mm_agrae.verify.equivalence import compare_forms
from mm_agrae.verify.guards import refusal
from mm_agrae.verify.normalise import MAX_CHARS, flattened, read_number, split_list, unwrapped
from mm_agrae.verify.outcome import Comparison, Outcome
from mm_agrae.verify.question import Question

_OLYMPIAD_ERROR = 1e-8
_OLYMPIAD_SLACK = 1.01
_WORD = re.compile(r"[a-z]+")
_TEXT_UNIT = re.compile(
    r"\\(?:text|mbox|textnormal)\{\s(?![^{}]*(?:[\d,;=]|\b(?:or|and|not|is)\b))[^{}]*\}(?:\^\{?\d\}?)?$"
)
_DAPO_REMOVED = re.compile(
    r"\b(?:square|ways|integers|dollars|mph|inches|ft|hours|km|units|points|feet|minutes|digits|cents|degrees|cm|gm|"
    r"pounds|meters|meals|edges|students|multiples)\b|\\(?:ldots|text\{s\}|text\{\.\}|\s|!|%|\$)|[%°]|\^\{?\\circ\}?"
)
_MATHRULER_UNITS = re.compile(
    r"(?:degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard)(?:es)?s? *"
    r"(?:\^\{?\d\}?)?"
)
_LETTER_UNIT = re.compile(r"[\d})]\s?[mghsLNJWV]$")
_PLAIN_FRACTION = re.compile(r"-?\d+/0*[1-9]\d*")
_LONG_EXPONENT = re.compile(r"\^[{(]|\^\d+\^|\^\d\d")
_BRACKETS = (("(", ")"), ("[", "]"), ("(", "]"), ("[", ")"))


def compare_yes_no_word(answer: str, question: Question) -> Outcome:
    """HallusionBench: a reply says yes when the word "yes" is in it and "no" is not, and the other way round.

    The target is "yes" or "no", or "1" or "0".     word extraction as in HallusionBench's evaluations, arXiv:2310.14566
    """
    target = {"1": "yes", "0": "no"}.get(question.target.strip(), question.target)
    said, wanted = ({"yes", "no"} & set(_WORD.findall(side.lower())) for side in (answer, target))
    return Outcome(equal=len(said) == 1 and said == wanted, rule="yes_no_word")


def compare_integer_text(answer: str, question: Question) -> Outcome:
    """GSM8K: the same characters, when "," and "$" and a final full stop are dropped.     arXiv:2110.14168"""
    shown, wanted = (re.sub(r"[,$]", "", side).removesuffix(".").strip().lower() for side in (answer, question.target))
    return Outcome(equal=shown == wanted, rule="number_text")


def compare_dapo(answer: str, question: Question) -> Outcome:
    """DAPO: the same characters in normal form.     DAPO, arXiv:2503.14476

    The right side of the last "=", out of dollars, boxes and text commands, without units and thousands separators.
    """
    if len(answer) > MAX_CHARS:
        return Outcome(equal=False, rule="refused_length")
    return Outcome(equal=_dapo_form(answer) == _dapo_form(question.target), rule="normal_text")


def compare_math(answer: str, question: Question) -> Outcome | Comparison:
    """MATH: the same characters in MATH's normal form, else equal by the general rule with "%" dropped.

    The normal form is that of the data set's own evaluation (arXiv:2103.03874): no layout, degrees, dollars, percent
    signs or text units, every fraction as \\frac{a}{b}. It alone would refuse 2\\sqrt{3} for \\sqrt{12}.
    """
    if len(answer) > MAX_CHARS:
        return Outcome(equal=False, rule="refused_length")
    if math_text(answer) == math_text(question.target) != "":
        return Outcome(equal=True, rule="normal_text")
    return compare_forms(answer, question)


def compare_mathruler(answer: str, question: Question) -> Outcome | Comparison:
    """MathRuler: text in normal form, then part by part; plain fractions as text, integers only with integers.

    So 2/4 is not 1/2, 25 is 25%, 5 meters is 5 miles, and a tuple needs the brackets of the target. Powers with a
    braced or long exponent are equal as text only.     grader of PRM800K, arXiv:2305.20050
    """
    if len(answer) > MAX_CHARS or len(question.target) > MAX_CHARS:
        return Outcome(equal=answer.strip() == question.target.strip(), rule="refused_length")
    given, wanted = mathruler_text(answer), mathruler_text(question.target)
    if math_text(answer) == math_text(question.target) or given == wanted:
        return Outcome(equal=given != "", rule="normal_text")
    (here, mine), (there, theirs) = _parts(given), _parts(wanted)
    if len(mine) != len(theirs) or (len(theirs) > 1 and here != there):
        return Outcome(equal=False, rule="shape")
    left: list[Comparison] = []
    for one, other in zip(mine, theirs, strict=True):
        found = _mathruler_part(one, other)
        if isinstance(found, Comparison):
            left.append(found)
        elif not found.equal:
            return found
    if not left:
        return Outcome(equal=True, rule="parts")
    if len(left) == 1:
        return left[0]
    answers, targets = ",".join(one.answer for one in left), ",".join(one.target for one in left)
    return Comparison(answer=f"({answers})", target=f"({targets})")


def compare_olympiad(answer: str, question: Question) -> Outcome | Comparison:
    """OlympiadBench: parts between commas in any order, numbers to 1e-8 or the stated error (with 1 % slack), and a
    hundredth or hundredfold of the target too. A letter after a number is a factor: 0.64 N is not 0.64.

    Source: judge of OlympiadBench, arXiv:2402.14008
    """
    for one, other in ((answer, question.target), (question.target, answer)):
        if len(other) <= MAX_CHARS and _LETTER_UNIT.search(one) and read_number(unwrapped(other)):
            return Outcome(equal=False, rule="unit")
    stated = question.tolerance or Tolerance(kind="absolute", value=_OLYMPIAD_ERROR)
    if stated.kind == "absolute":
        stated = replace(stated, value=stated.value * _OLYMPIAD_SLACK)
    return compare_forms(answer, replace(question, tolerance=stated))


def math_text(raw: str) -> str:
    """MATH's normal form of an answer, as text."""
    text = unwrapped(raw).replace("\n", "").replace("\\!", "").replace("\\ ", " ")
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:left|right)(?![a-z])|\^\{?\\circ\}?|\\?[$%]", "", text)
    text = _TEXT_UNIT.sub("", text)
    text = re.sub(r"^[A-Za-z]\s*=(?!.*=)", "", text)
    text = re.sub(r"(^|[\s{])\.(?=\d)", r"\g<1>0.", text)
    text = re.sub(r"\\sqrt\s*([^\s{\\])", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    text = re.sub(r"(\\frac\{[^{}]*\})(\d)", r"\1{\2}", text)
    text = "\\frac{1}{2}" if text == "0.5" else text
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", text)


def mathruler_text(raw: str) -> str:
    """MathRuler's normal form of an answer: plain text with fractions as a/b."""
    text = re.sub(r"\\[%$]|[%$]", "", flattened(raw))
    text = re.sub(r"\s(?:or|and)\s", ",", text)
    for word, power in (("million", 6), ("billion", 9), ("trillion", 12)):
        text = text.replace(word, f"*10^{power}")
    text = re.sub(r"\^ *\{?\\circ\}?", "", _MATHRULER_UNITS.sub("", text)).replace("°", "")
    text = re.sub(r",\\! *", "", re.sub(r"\\(?:left|right)(?![a-z])", "", text))
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\frac\s*\{\s*(-?[\w.]+)\s*\}\s*\{\s*([\w.]+)\s*\}", r" \1/\2", text)
    text = re.sub(r"- +", "-", text).strip()
    text = re.sub(r"(\d) +(\d+/\d)", r"\1+\2", text)  # 1 1/2 is the sum
    text = re.sub(r"\s+", "", text).lower()
    return _as_integer(text) or text


def _dapo_form(raw: str) -> str:
    text = raw.strip().rsplit("=", 1)[-1].strip()
    formula = re.search(r"\$([^$]*)\$", text)
    text = flattened(formula[1] if formula else text)
    text = _DAPO_REMOVED.sub("", text).replace("$", "").replace(" ", "")
    text = re.sub(r"\\[dt]?frac(\d)(\d)", r"\\frac{\1}{\2}", text).strip(".")
    bare = text.replace(",", "")
    return bare if re.fullmatch(r"\d+", bare) else text


def _as_integer(text: str) -> str | None:
    number = read_number(text.replace(",", "")) if re.fullmatch(r"-?[\d,]*\.?\d*", text) else None
    return str(number.value.numerator) if number and number.value.denominator == 1 else None


def _parts(text: str) -> tuple[str, list[str]]:
    ends = text[:1] + text[-1:]
    if len(text) > 2 and (text[0], text[-1]) in _BRACKETS and not set("()[]") & set(text[1:-1]):
        return ends, split_list(text[1:-1])
    return ends, [text]


def _mathruler_part(given: str, wanted: str) -> Outcome | Comparison:
    if given == wanted:
        return Outcome(equal=True, rule="normal_text")
    if _PLAIN_FRACTION.fullmatch(given) and _PLAIN_FRACTION.fullmatch(wanted):
        return Outcome(equal=False, rule="fraction_text")
    if (_as_integer(given) is None) != (_as_integer(wanted) is None):
        return Outcome(equal=False, rule="integer_text")
    here, there = read_number(given), read_number(wanted)
    if here and there:
        return Outcome(equal=here.value == there.value, rule="same_number")
    if not given or not wanted or _LONG_EXPONENT.search(given + " " + wanted):
        return Outcome(equal=False, rule="refused_exponent")
    unknown = set(re.sub(r"\\?sqrt|\\?frac", "", given)) & set("abcdefghijklmnopqrstuvwxyz")
    refused = refusal(given) or refusal(wanted)
    if refused or len(unknown) > 2:
        return Outcome(equal=False, rule=refused or "refused_words")
    return Comparison(answer=given, target=wanted)
