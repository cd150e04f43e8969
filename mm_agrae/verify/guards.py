"""Refuse forms that computer algebra could choke on, before anything parses them.

The limits leave room for every ordinary answer. What passes them and still hangs is killed by the pool.
"""

from __future__ import annotations

import re

MAX_FORM_CHARS = 250
MAX_NESTING = 10  # the grammar backtracks: 0.6 s at 10 levels, 38 s at 18
MAX_EXPONENT = 1000
MAX_EXPONENT_OF_BRACKETS = 12  # all together: (x + y + z)^n is expanded
MAX_FACTORIAL = 100
MAX_DIGITS = 60
MAX_TERMS = 60

_WORD = re.compile(r"[A-Za-z]{4,}|[\u4e00-\u9fff]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_OPERATORS = re.compile(
    r"\\(?:i*int|sum|prod|lim|binom|dbinom|tbinom|frac\{d\}|oint|gcd|lcm|begin\{cases\})(?![A-Za-z])"
)
_FACTORIAL = re.compile(r"(?P<digits>\d+)?!(?!=)")
# The factorial of a letter, or of a letter and one small term: such as n! and (n-k)!
_LETTER_FACTORIAL = re.compile(r"(?:(?<![A-Za-z\\])[a-z]|\([a-z](?:[+-](?:\d{1,2}|[a-z]))?\))!(?![=!)])")
_OPENING = "([{"
_CLOSING = ")]}"


def refusal(form: str) -> str | None:
    """Why a form must not be parsed, as the name of a rule, or None when it may be."""
    if len(form) > MAX_FORM_CHARS:
        return "refused_length"
    depth = _nesting(form)
    if depth is None:
        return "refused_brackets"
    if depth > MAX_NESTING:
        return "refused_nesting"
    if "$" in form:
        return "refused_dollar"  # math-verify would read two formulas as a set
    if "{}" in form:
        return "refused_empty_group"
    if re.search(rf"\d{{{MAX_DIGITS + 1}}}", form):
        return "refused_digits"
    if len(re.findall(r"[+-]", form)) > MAX_TERMS:
        return "refused_terms"
    if re.search(r"\d\s+\d", form):
        return "refused_loose_numbers"  # the grammar would multiply "1 2 3"
    if _OPERATORS.search(form):
        return "refused_operator"
    for match in _FACTORIAL.finditer(_LETTER_FACTORIAL.sub("", form)):
        if match["digits"] is None or int(match["digits"]) > MAX_FACTORIAL:
            return "refused_factorial"
    return _exponent_refusal(form)


def is_wordy(form: str) -> bool:
    """Whether a form holds words, which are compared as words: algebra would read "even" as a product of letters."""
    return _WORD.search(_COMMAND.sub(" ", form)) is not None


def _nesting(form: str) -> int | None:
    """Greatest depth of brackets; None when braces do not match (half-open intervals may mix round and square)."""
    depth = deepest = braces = 0
    for char in form:
        if char in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif char in _CLOSING:
            depth -= 1
        braces += (char == "{") - (char == "}")
        if depth < 0 or braces < 0:
            return None
    return deepest if depth == 0 and braces == 0 else None


def _exponent_refusal(form: str) -> str | None:
    """Refuse towers of powers, huge exponents, and high powers of a bracket."""
    spent = 0  # everything before this offset has been judged
    of_brackets = 0
    for match in re.finditer(r"\^", form):
        if match.start() < spent:
            continue
        exponent, end = _group_after(form, match.end())
        spent = end
        numbers = [int(digits) for digits in re.findall(r"\d+", exponent)]
        if "^" in exponent or form[end : end + 1] == "^":
            return "refused_tower"
        if numbers and (max(numbers) > MAX_EXPONENT or len(numbers) > 2):
            return "refused_exponent"
        follows_bracket = form[match.start() - 1 : match.start()] in tuple(_CLOSING)
        of_brackets += max(numbers, default=0) if follows_bracket else 0
        if of_brackets > MAX_EXPONENT_OF_BRACKETS:
            return "refused_exponent"
    return None


def _group_after(form: str, start: int) -> tuple[str, int]:
    """The braced group or single sign at an offset, and where it ends."""
    if form[start : start + 1] != "{":
        digits = re.compile(r"\\[A-Za-z]+|[+-]?\d+|.?").match(form, start)
        return (digits[0], digits.end()) if digits else ("", start)
    depth = 0
    for index in range(start, len(form)):
        depth += (form[index] == "{") - (form[index] == "}")
        if depth == 0:
            return form[start + 1 : index], index + 1
    return form[start + 1 :], len(form)
