"""Right triangles. Every length is drawn to scale."""

from __future__ import annotations

import random
from fractions import Fraction
from math import isqrt

from data_processors.visual_gym.answers import decimal, integer, square_root
from data_processors.visual_gym.drawing import Point
from data_processors.visual_gym.figure import MIN_SIZE, Figure, any_turn, figure_problem
from data_processors.visual_gym.problem import Family, Problem, by_level

FIND_X = "Find the length x."
TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (20, 21, 29))


def _right(rng: random.Random, size: int, legs: tuple[float, float], labels: dict[str, str]) -> Figure:
    """Right angle at C, legs CA and CB."""
    figure = Figure({"A": (0.0, legs[0]), "B": (legs[1], 0.0), "C": (0.0, 0.0)}, size, turn=any_turn(rng))
    figure.lines("ABCA")
    figure.right_angle("ACB")
    figure.name_points("ABC", centre=figure.middle("ABC"))
    for side, words in labels.items():
        figure.length(side, words, inside=figure.middle("ABC"))
    return figure


def _triple(rng: random.Random) -> tuple[int, int, int]:
    a, b, c = rng.choice(TRIPLES)
    factor = rng.randint(1, max(1, 40 // c))
    a, b = rng.sample((a, b), 2)
    return factor * a, factor * b, factor * c


def _hypotenuse(rng: random.Random, size: int) -> Problem:
    a, b, c = _triple(rng)
    figure = _right(rng, size, (a, b), {"CA": str(a), "CB": str(b), "AB": "x"})
    return figure_problem(
        figure,
        FIND_X,
        integer(c),
        working=f"x² = {a}² + {b}² = {c * c}, so x = {c}.",
        description=f"Triangle ABC has a right angle at C, CA = {a}, CB = {b} and AB = x.",
        mistakes=(str(a + b), str(abs(a - b) + c), str(c + 1), str(c - 1)),
    )


def _leg(rng: random.Random, size: int) -> Problem:
    a, b, c = _triple(rng)
    figure = _right(rng, size, (a, b), {"CA": str(a), "CB": "x", "AB": str(c)})
    return figure_problem(
        figure,
        FIND_X,
        integer(b),
        working=f"x² = {c}² - {a}² = {b * b}, so x = {b}.",
        description=f"Triangle ABC has a right angle at C, CA = {a}, AB = {c} and CB = x.",
        mistakes=(str(c - a), str(b + 1), str(b + 2), str(c + a)),
    )


def _surd_hypotenuse(rng: random.Random, size: int) -> Problem:
    while True:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        square = a * a + b * b
        if isqrt(square) ** 2 != square and max(a, b) <= 3 * min(a, b):
            break
    figure = _right(rng, size, (a, b), {"CA": str(a), "CB": str(b), "AB": "x"})
    x = square_root(square)
    return figure_problem(
        figure,
        FIND_X,
        x,
        working=f"x² = {a}² + {b}² = {square}, so x = {x.text}.",
        description=f"Triangle ABC has a right angle at C, CA = {a}, CB = {b} and AB = x.",
        mistakes=(str(a + b), f"\\sqrt{{{a + b}}}", str(square), f"\\sqrt{{{a * b}}}"),
    )


def _surd_leg(rng: random.Random, size: int) -> Problem:
    """A leg that is a root, asked for exactly or rounded."""
    while True:
        a, c = rng.randint(2, 14), rng.randint(5, 18)
        square = c * c - a * a
        if square > 0 and isqrt(square) ** 2 != square and a * a <= 9 * square and square <= 9 * a * a:
            break
    figure = _right(rng, size, (a, square**0.5), {"CA": str(a), "CB": "x", "AB": str(c)})
    exact = square_root(square)
    is_rounded = rng.random() < 0.5
    tenth = decimal(Fraction(isqrt(square * 10**12), 10**6), decimals=1)
    return figure_problem(
        figure,
        f"{FIND_X} Round to 1 decimal place." if is_rounded else FIND_X,
        tenth if is_rounded else exact,
        working=f"x² = {c}² - {a}² = {square}, so x = {exact.text}{f' ≈ {tenth.text}' if is_rounded else ''}.",
        description=f"Triangle ABC has a right angle at C, CA = {a}, AB = {c} and CB = x.",
        mistakes=() if is_rounded else (str(c - a), f"\\sqrt{{{c * c + a * a}}}", f"\\sqrt{{{c - a}}}", str(square)),
    )


def _two_right_triangles(rng: random.Random, size: int) -> Problem:
    """CD stands on the hypotenuse AC of triangle ABC at a right angle."""
    while True:
        a, b, d = (rng.randint(2, 9) for _ in range(3))
        first, square = a * a + b * b, a * a + b * b + d * d
        if max(a, b) <= 2 * min(a, b) and 0.4 <= d / first**0.5 <= 1.6:
            break
    points: dict[str, Point] = {"A": (0.0, float(a)), "B": (0.0, 0.0), "C": (float(b), 0.0)}
    points["D"] = (b + d * a / first**0.5, d * b / first**0.5)
    figure = Figure(points, size, turn=any_turn(rng))
    figure.lines("ABCA", "CDA")
    figure.right_angle("ABC")
    figure.right_angle("ACD")
    figure.name_points("ABCD", centre=figure.middle("AC"))
    figure.length("AB", str(a), inside=figure.at["C"])
    figure.length("BC", str(b), inside=figure.at["A"])
    figure.length("CD", str(d), inside=figure.at["A"])
    figure.length("AD", "x", inside=figure.at["C"])
    x = square_root(square)
    return figure_problem(
        figure,
        FIND_X,
        x,
        working=f"AC² = {a}² + {b}² = {first}; x² = {first} + {d}² = {square}, so x = {x.text}.",
        description=f"Triangle ABC has a right angle at B, AB = {a}, BC = {b}. Triangle ACD has a right angle at C, "
        f"CD = {d}, AD = x.",
        mistakes=(str(a + b + d), f"\\sqrt{{{first}}}", f"\\sqrt{{{square + d}}}", str(square)),
    )


FAMILIES = {
    "geometry/right_triangle": Family(
        make=by_level(_hypotenuse, _leg, _surd_hypotenuse, _surd_leg, _two_right_triangles), min_size=MIN_SIZE
    ),
}
