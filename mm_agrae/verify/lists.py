"""Compare what has parts: lists, sets, tuples, intervals, matrices. All work on normal forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import chain

from mm_agrae.records import AnswerKind, Tolerance
from mm_agrae.verify.normalise import Number, read_number, split_list
from mm_agrae.verify.outcome import Comparison, Outcome, compare_numbers
from mm_agrae.verify.profiles import Profile

_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_ROWS = re.compile(r"\[\[(.*)\]\]")
_RELATION = r"(<|>|\\[lg]e(?![a-z]))"
_END = r"([^<>=\\]*(?:\\(?![lg]e(?![a-z]))[^<>=\\]*)*)"  # of a range: no relation inside
_BOUNDS = re.compile(rf"{_END}{_RELATION}\s*([A-Za-z]){_RELATION}{_END}")
_BOUND = re.compile(rf"[A-Za-z]?{_RELATION}{_END}")
_LEFT = re.compile(rf"{_END}{_RELATION}\s*[A-Za-z]")
_UNEQUAL = re.compile(r"[A-Za-z]\\ne(?![a-z])\s*([^<>=\\]+)")
_OUTWARD = re.compile(r"([\[\]])([^\[\],]+),([^\[\],]+)([\[\]])")  # ]1,2[ is open at both ends
_BUILDER = re.compile(r"(?:\\?\{)?([A-Za-z])(?:\\in\\mathbb\{R\})?(?::|\||\\mid(?![a-z]))\s*(.+?)(?:\\?\})?")
_ALL_REALS = frozenset({"\\mathbb{R}", "\\mathbb R", "\\mathbbR", "\\R", "ℝ"})
_RAY = re.compile(r"\(-\\infty,([^,]+)([)\]])|([(\[])([^,]+),\\infty\)")
_SEVERAL = re.compile(r"\\(?:cup|pm|le|ge)(?![a-z])|[<>]")
_ANY_BRACKETS = frozenset({"list", "set", "coordinate"})  # kinds whose brackets are a matter of taste
_OPENING = {"<": "(", "\\le": "["}
_CLOSING = {"<": ")", "\\le": "]"}
_MIRRORED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """A list taken apart: its brackets ("" for none, "{}" for a set), its parts, and their values if all have one."""

    brackets: str
    parts: list[str]
    numbers: list[Number] | None


def compare_lists(
    answer: str, target: str, kind: AnswerKind, tolerance: Tolerance | None, profile: Profile
) -> Outcome | Comparison | None:
    """Decide lists, sets, tuples and intervals by shape and, where all parts are numbers, by value.

    Returns:
        None when neither side has several parts, or when only algebra can tell.
    """
    left, right = _taken_apart(answer), _taken_apart(target)
    if len(left.parts) == len(right.parts) == 1 and not (kind in _ANY_BRACKETS and left.brackets + right.brackets):
        return None
    if _SEVERAL.search(answer + target):
        return None  # an inequality may equal an interval, and unions and signs stand for several parts
    if kind == "set" or left.brackets == right.brackets == "{}":
        left, right = _without_repeats(left), _without_repeats(right)
    if len(left.parts) != len(right.parts):
        return Outcome(equal=False, rule="list_length")
    loose = kind in _ANY_BRACKETS or profile.brackets == "ignored" or _is_set_as_tuple(left, right, profile)
    if not loose and left.brackets.replace("{}", "") != right.brackets.replace("{}", ""):
        return Outcome(equal=False, rule="brackets")
    if _is_unordered(left, right, kind, profile):
        left, right = _sorted(left), _sorted(right)
    if left.numbers is None or right.numbers is None:
        if left.parts == right.parts:
            return Outcome(equal=True, rule="same_parts")
        shape = "\\{{{}\\}}" if kind == "set" else "({})"
        if len(left.parts) == 1:
            return Comparison(answer=left.parts[0], target=right.parts[0]) if loose else None
        if not left.brackets and not right.brackets and _is_unordered(left, right, kind, profile):
            return Comparison(
                answer=",".join(left.parts), target=",".join(right.parts), tolerance=tolerance, unordered=True
            )
        if not loose and left.brackets:
            return None
        # Bare lists whose order counts are tuples to the algebra, which takes them for sets otherwise.
        return Comparison(answer=shape.format(",".join(left.parts)), target=shape.format(",".join(right.parts)))
    pairs = zip(left.numbers, right.numbers, strict=True)
    equal = all(compare_numbers(a, b, tolerance, closeness=profile.closeness).equal for a, b in pairs)
    return Outcome(equal=equal, rule="same_parts")


def _is_set_as_tuple(left: _Parts, right: _Parts, profile: Profile) -> bool:
    return profile.brackets == "set_as_tuple" and {left.brackets, right.brackets} == {"{}", "()"}


def _is_unordered(left: _Parts, right: _Parts, kind: AnswerKind, profile: Profile) -> bool:
    if kind in ("set", "list", "coordinate", "tuple"):
        return kind == "set"
    if profile.brackets == "ignored" or _is_set_as_tuple(left, right, profile):
        return False
    return "{}" in (left.brackets, right.brackets) or (not left.brackets and profile.unordered_lists)


def _taken_apart(form: str) -> _Parts:
    brackets, inside = brackets_of(form)
    parts = split_list(inside)
    numbers = [number for number in map(read_number, parts) if number is not None]
    return _Parts(brackets=brackets, parts=parts, numbers=numbers if len(numbers) == len(parts) else None)


def _without_repeats(one: _Parts) -> _Parts:
    """The parts of a set, each once: by value where all have one, else by text."""
    if one.numbers is None:
        return replace(one, parts=list(dict.fromkeys(one.parts)))
    numbers = list({number.value: number for number in one.numbers}.values())
    return replace(one, parts=[str(number.value) for number in numbers], numbers=numbers)


def _sorted(one: _Parts) -> _Parts:
    """Parts in an order that two equal lists share: by value, then by text."""
    if one.numbers is None:
        return _Parts(brackets=one.brackets, parts=sorted(one.parts), numbers=None)
    return _Parts(brackets=one.brackets, parts=one.parts, numbers=sorted(one.numbers, key=lambda number: number.value))


def brackets_of(form: str) -> tuple[str, str]:
    """The kind of outer brackets ("" for none, "{}" for a set) and what stands inside."""
    form = form.replace("\\{", "{").replace("\\}", "}")
    kind = form[:1] + form[-1:]
    if kind in ("()", "[]", "(]", "[)", "{}") and _closes_at_end(form):
        return kind, form[1:-1]
    return "", form


def _closes_at_end(form: str) -> bool:
    depth = 0
    for index, char in enumerate(form):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index == len(form) - 1
    return False


def with_signs_apart(form: str) -> str:
    """A list in which every part with "\\pm" stands twice, once with each sign: 1\\pm2 becomes 1+2,1-2."""
    if not re.search(r"\\(?:pm|mp)(?![a-z])", form):
        return form
    brackets, inside = brackets_of(form)
    if brackets not in ("", "{}"):
        brackets, inside = "", form
    parts: list[str] = []
    for part in split_list(inside):
        upper = re.sub(r"\\pm(?![a-z])", "+", re.sub(r"\\mp(?![a-z])", "-", part))
        lower = re.sub(r"\\pm(?![a-z])", "-", re.sub(r"\\mp(?![a-z])", "+", part))
        parts.extend(dict.fromkeys((upper.removeprefix("+"), lower.removeprefix("+"))))
    joined = ",".join(parts)
    return f"\\{{{joined}\\}}" if brackets == "{}" else joined


def as_ranges(answer: str, target: str) -> tuple[str, str]:
    """Both forms as intervals, where one is an interval or a union, or where both are inequalities in one variable."""
    here, there = as_interval(answer), as_interval(target)
    if _is_range(target) or _is_range(answer):
        return here or answer, there or target
    if here and there and len(_names(answer) | _names(target)) == 1:
        return here, there
    return answer, target


def _is_range(form: str) -> bool:
    return brackets_of(form)[0] not in ("", "{}") or form in _ALL_REALS or "\\cup" in form or "[" in form


def as_interval(form: str) -> str | None:
    """The interval or union that a form in one variable states, or None.

    "-2<x\\le7" becomes "(-2,7]", and so do its mirror image, "\\{x:-2<x\\le7\\}" and "x>-2,x\\le7". Ranges that do
    not meet, and "x\\ne3", become unions. The variable may be missing (">3").
    """
    if built := _BUILDER.fullmatch(form):
        form = built[2]
    if form in _ALL_REALS:
        return "(-\\infty,\\infty)"
    if match := _OUTWARD.fullmatch(form):
        return f"{'(['[match[1] == '[']}{match[2]},{match[3]}{')]'[match[4] == ']']}"
    if match := _BOUNDS.fullmatch(form):
        ends = (match[1], match[2], match[4], match[5])
        if match[2] in (">", "\\ge"):
            ends = (match[5], _MIRRORED[match[4]], _MIRRORED[match[2]], match[1])
        low, first, second, high = ends
        if first not in _OPENING or second not in _OPENING:
            return None
        return f"{_OPENING[first]}{low},{high}{_CLOSING[second]}"
    if match := _UNEQUAL.fullmatch(form):
        return f"(-\\infty,{match[1]})\\cup({match[1]},\\infty)"
    if match := _BOUND.fullmatch(form):
        relation, bound = match[1], match[2]
    elif match := _LEFT.fullmatch(form):
        relation, bound = _MIRRORED[match[2]], match[1]
    else:
        return _of_several(form)
    if "," in bound:
        return _of_several(form)
    return {
        "<": f"(-\\infty,{bound})",
        "\\le": f"(-\\infty,{bound}]",
        ">": f"({bound},\\infty)",
        "\\ge": f"[{bound},\\infty)",
    }[relation]


def _of_several(form: str) -> str | None:
    """What "x<2,x>1" says: an interval when two rays meet, where "or" would say nothing, and otherwise a union."""
    parts = split_list(form)
    if len(parts) < 2 or len(_names(form)) > 1:
        return None
    ranges = [as_interval(part) for part in parts]
    if any(
        one is None or not re.search(r"[<>]|\\[lg]e(?![a-z])", part) for one, part in zip(ranges, parts, strict=True)
    ):
        return None
    rays = [_RAY.fullmatch(one or "") for one in ranges]
    lower = next((ray for ray in rays if ray and ray[1]), None)
    upper = next((ray for ray in rays if ray and ray[4]), None)
    if lower is not None and upper is not None and len(parts) == 2:
        low, high = read_number(upper[4]), read_number(lower[1])
        if low is None or high is None:
            return None
        if low.value < high.value:
            return f"{upper[3]}{upper[4]},{lower[1]}{lower[2]}"
    return "\\cup".join(one or "" for one in ranges)


def _names(form: str) -> set[str]:
    return set(re.findall(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", form))


def compare_matrices(answer: str, target: str) -> Outcome | Comparison | None:
    """Compare entry by entry; None when neither side is a matrix."""
    left, right = _rows(answer), _rows(target)
    if left is None and right is None:
        return None
    if left is None or right is None or [len(row) for row in left] != [len(row) for row in right]:
        return Outcome(equal=False, rule="matrix_shape")
    for mine, theirs in zip(chain(*left), chain(*right), strict=True):
        here, there = read_number(mine), read_number(theirs)
        if here and there and not compare_numbers(here, there).equal:
            return Outcome(equal=False, rule="entries")
        if mine != theirs and not (here and there):
            return Comparison(answer=_as_matrix(left), target=_as_matrix(right))
    return Outcome(equal=True, rule="entries")


def _rows(form: str) -> list[list[str]] | None:
    if match := _MATRIX.fullmatch(form):
        rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[2]) if row.strip()]
        return [row.split("&") for row in rows]
    if match := _ROWS.fullmatch(form):
        return [row.split(",") for row in re.split(r"\],\[", match[1])]
    return None


def _as_matrix(rows: list[list[str]]) -> str:
    return "\\begin{pmatrix}" + "\\\\".join("&".join(row) for row in rows) + "\\end{pmatrix}"
