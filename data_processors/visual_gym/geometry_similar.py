"""Similar triangles. Every length is drawn to scale."""

from __future__ import annotations

import random
from fractions import Fraction
from math import acos, degrees, isqrt

from data_processors.visual_gym.answers import integer, rational, square_root
from data_processors.visual_gym.drawing import Point
from data_processors.visual_gym.figure import MIN_SIZE, Figure, any_turn, figure_problem, on_circle
from data_processors.visual_gym.geometry_lengths import FIND_X
from data_processors.visual_gym.problem import Family, Problem, by_level

PARALLEL = "In triangle ABC, DE is parallel to BC with D on AB and E on AC."


def _scaled_copy(rng: random.Random, size: int) -> Problem:
    """Two triangles side by side, one an enlargement of the other."""
    factor = rng.choice((2, 3))
    base, side = rng.randint(4, 9), rng.randint(4, 9)
    x = factor * side
    angle = rng.uniform(50, 85)
    top = on_circle(angle, side)
    shift = base + 0.5 * factor * base + max(0.0, top[0] - base)
    points: dict[str, Point] = {"A": (0.0, 0.0), "B": (float(base), 0.0), "C": top, "D": (shift, 0.0)}
    points |= {"E": (shift + factor * base, 0.0), "F": (shift + factor * top[0], factor * top[1])}
    figure = Figure(points, size, turn=rng.uniform(-0.3, 0.3))
    figure.lines("ABCA", "DEFD")
    figure.name_points("ABC", centre=figure.middle("ABC"))
    figure.name_points("DEF", centre=figure.middle("DEF"))
    for edge, words, inside in (
        ("AB", base, "ABC"),
        ("AC", side, "ABC"),
        ("DE", factor * base, "DEF"),
        ("DF", "x", "DEF"),
    ):
        figure.length(edge, str(words), inside=figure.middle(inside))
    return figure_problem(
        figure,
        f"Triangles ABC and DEF are similar. {FIND_X}",
        integer(x),
        working=f"The scale factor is {factor * base} / {base} = {factor}, so x = {factor} · {side} = {x}.",
        description=f"Triangles ABC and DEF are similar. AB = {base}, AC = {side}, DE = {factor * base}, DF = x.",
        mistakes=(str(side + factor * base - base), str(side + factor), str(factor * base)),
    )


def _cut(rng: random.Random, size: int, ab: float, ac: float, *, apex: float, share: float) -> Figure:
    """DE parallel to BC in triangle ABC, with AD = share * AB; the apex angle at A in degrees."""
    b, c = on_circle(-90 - apex / 2, ab), on_circle(-90 + apex / 2, ac)
    points: dict[str, Point] = {"A": (0.0, 0.0), "B": b, "C": c}
    points |= {"D": (b[0] * share, b[1] * share), "E": (c[0] * share, c[1] * share)}
    figure = Figure(points, size, turn=any_turn(rng))
    figure.lines("ABCA", "DE")
    figure.arrow("DE")
    figure.arrow("BC")
    figure.name_points("ABC", centre=figure.middle("ABC"))
    figure.name_on_side("D", "AB", inside=figure.at["C"])
    figure.name_on_side("E", "AC", inside=figure.at["B"])
    return figure


def _cut_side(rng: random.Random, size: int) -> Problem:
    while True:
        p, q = rng.randint(2, 9), rng.randint(2, 9)
        stretch = rng.choice((Fraction(3, 2), Fraction(2), Fraction(4, 3), Fraction(1, 2), Fraction(3, 4)))
        ae, x = p * stretch, q * stretch
        if p != q and 0.3 <= p / (p + q) <= 0.7 and ae.denominator == x.denominator == 1:
            break
    figure = _cut(rng, size, p + q, float(ae + x), apex=rng.uniform(50, 65), share=p / (p + q))
    middle = figure.middle("BCDE")
    for edge, words in (("AD", str(p)), ("DB", str(q)), ("AE", str(ae)), ("EC", "x")):
        figure.length(edge, words, inside=middle)
    return figure_problem(
        figure,
        FIND_X,
        integer(int(x)),
        working=f"DE is parallel to BC: x / {ae} = {q} / {p}, so x = {x}.",
        description=f"{PARALLEL} AD = {p}, DB = {q}, AE = {ae}, EC = x.",
        mistakes=(str(q), str(ae + q), str(ae), str(int(ae + x))),
    )


def _cut_base(rng: random.Random, size: int) -> Problem:
    while True:
        p, q, base = rng.randint(2, 9), rng.randint(2, 9), rng.randint(4, 14)
        x = Fraction(base * p, p + q)
        if 0.35 <= p / (p + q) <= 0.7 and 0.7 <= base / (p + q) <= 1.3 and x.denominator > 1:
            break
    side = p + q
    apex = degrees(acos(1 - base * base / (2 * side * side)))
    figure = _cut(rng, size, side, side, apex=apex, share=p / side)
    for edge, words in (("AD", str(p)), ("DB", str(q)), ("BC", str(base))):
        figure.length(edge, words, inside=figure.middle("ABC"))
    figure.length("DE", "x", inside=figure.middle("BC"))
    answer = rational(x)
    return figure_problem(
        figure,
        FIND_X,
        answer,
        working=f"DE is parallel to BC: x / {base} = {p} / ({p} + {q}), so x = {answer.text}.",
        description=f"{PARALLEL} AD = {p}, DB = {q}, BC = {base}, DE = x.",
        mistakes=tuple(rational(Fraction(*wrong)).text for wrong in ((base * p, q), (base * q, p + q), (base * q, p))),
    )


def _crossing(rng: random.Random, size: int) -> Problem:
    """AB parallel to CD; AD and BC cross at O."""
    while True:
        a, d, ab = rng.randint(3, 9), rng.randint(3, 12), rng.randint(3, 9)
        x = Fraction(ab * d, a)
        if 1.2 <= d / a <= 2 and 0.7 <= ab / a <= 1.4 and x.denominator > 1:
            break
    half = degrees(acos(1 - ab * ab / (2 * a * a))) / 2
    points: dict[str, Point] = {"A": on_circle(90 + half, a), "B": on_circle(90 - half, a), "O": (0.0, 0.0)}
    points |= {"C": on_circle(-90 - half, d), "D": on_circle(-90 + half, d)}
    figure = Figure(points, size, turn=any_turn(rng))
    figure.lines("ABCDA")
    figure.arrow("AB")
    figure.arrow("CD")
    figure.name_points("ABCD", centre="O")
    figure.name_points("O", centre=_beside(figure))
    figure.length("AB", str(ab), inside=figure.at["O"])
    figure.length("CD", "x", inside=figure.at["O"])
    figure.length("OA", str(a), inside=figure.at["B"])
    figure.length("OD", str(d), inside=figure.at["C"])
    answer = rational(x)
    return figure_problem(
        figure,
        FIND_X,
        answer,
        working=f"AB is parallel to CD: x / {ab} = {d} / {a}, so x = {answer.text}.",
        description=f"AB is parallel to CD; AD and BC cross at O. OA = {a}, OD = {d}, AB = {ab}, CD = x.",
        mistakes=(str(d + ab - a), rational(Fraction(a * ab, d)).text, rational(Fraction(a * d, ab)).text, str(d)),
    )


def _beside(figure: Figure) -> Point:
    """A place such that O's name falls into the free angle between A and C, not onto a line."""
    (ax, ay), (bx, by), (ox, oy) = figure.at["A"], figure.at["B"], figure.at["O"]
    return ox - (ax - bx), oy - (ay - by)


def _altitude(rng: random.Random, size: int) -> Problem:
    """The altitude on the hypotenuse is the geometric mean of its parts."""
    while True:
        p, q = rng.randint(2, 12), rng.randint(2, 12)
        if p != q and max(p, q) <= 3 * min(p, q) and isqrt(p * q) ** 2 != p * q:
            break
    height = (p * q) ** 0.5
    points: dict[str, Point] = {
        "A": (0.0, 0.0),
        "B": (float(p + q), 0.0),
        "C": (float(p), height),
        "H": (float(p), 0.0),
    }
    figure = Figure(points, size, turn=any_turn(rng))
    figure.lines("ABCA", "CH")
    figure.right_angle("ACB")
    figure.right_angle("AHC")
    figure.name_points("ABC", centre=figure.middle("ABC"))
    figure.name_on_side("H", "AB", inside=figure.at["C"])
    figure.length("AH", str(p), inside=figure.at["C"])
    figure.length("HB", str(q), inside=figure.at["C"])
    figure.length("CH", "x", inside=figure.at["A"])
    x = square_root(p * q)
    return figure_problem(
        figure,
        FIND_X,
        x,
        working=f"Triangles AHC and CHB are similar: x / {p} = {q} / x, so x² = {p * q} and x = {x.text}.",
        description="Triangle ABC has a right angle at C; H is the foot of the altitude on AB. "
        f"AH = {p}, HB = {q}, CH = x.",
        mistakes=(str(p * q), rational(Fraction(p + q, 2)).text, f"\\sqrt{{{p + q}}}", square_root(p * p + q * q).text),
    )


FAMILIES = {
    "geometry/similar_triangles": Family(
        make=by_level(_scaled_copy, _cut_side, _cut_base, _crossing, _altitude), min_size=MIN_SIZE
    ),
}
