"""Angles of triangles and of isosceles triangles. Every angle is drawn true."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import cos, pi, sin, tan

from data_processors.visual_gym.answers import integer
from data_processors.visual_gym.figure import MIN_SIZE, Figure, any_turn, triangle
from data_processors.visual_gym.problem import Family, Problem, by_level


def find_x(figure: Figure, x: int, *, working: str, description: str, mistakes: Sequence[int]) -> Problem:
    """The problem of a finished figure whose unknown angle is marked with an x."""
    return Problem(
        question="Find the value of x.",
        answer=integer(x),
        working=working,
        picture=figure.canvas.picture(),
        description=description,
        facts=figure.facts(),
        mistakes=tuple(str(value) for value in mistakes if value > 0),
    )


def _triangle_figure(rng: random.Random, size: int, angles: Sequence[int], labels: Sequence[str]) -> Figure:
    figure = Figure(triangle(angles[0], angles[1]), size, turn=any_turn(rng))
    figure.lines("ABCA")
    for arms, label in zip(("CAB", "ABC", "BCA"), labels, strict=True):
        figure.angle(arms, label)
    figure.name_points("ABC", centre=figure.middle("ABC"))
    return figure


def _three_angles(rng: random.Random, *, low: int) -> tuple[int, int, int]:
    while True:
        a, b = rng.randint(low, 100), rng.randint(low, 100)
        if low <= 180 - a - b <= 100:
            return a, b, 180 - a - b


def linear(factor: int, constant: int) -> str:
    """Text of factor * x + constant as an angle."""
    term = "x" if factor == 1 else f"{factor}x"
    return f"({term}{constant:+d})°" if constant else f"{term}°"


# --- the angle sum ----------------------------------------------------------------------------------------------------


def _sum_third(rng: random.Random, size: int) -> Problem:
    a, b, c = _three_angles(rng, low=35)
    figure = _triangle_figure(rng, size, (a, b, c), (f"{a}°", f"{b}°", "x°"))
    return find_x(
        figure,
        c,
        working=f"The angles of a triangle add up to 180°: x = 180 - {a} - {b} = {c}.",
        description=f"Triangle ABC has angles A = {a}°, B = {b}° and C = x°.",
        mistakes=(180 - a, 180 - b, a + b, 360 - a - b),
    )


def _sum_exterior(rng: random.Random, size: int) -> Problem:
    a, b, c = _three_angles(rng, low=40)
    points = triangle(a, b)
    figure = Figure({**points, "D": (1.55, 0.0)}, size, turn=any_turn(rng))
    figure.lines("ABCA", "BD")
    figure.angle("CAB", f"{a}°")
    figure.angle("BCA", f"{c}°")
    figure.angle("CBD", "x°")
    figure.name_points("ACD", centre=figure.middle("ABC"))
    figure.name_points("B", centre="C")
    return find_x(
        figure,
        a + c,
        working=f"The exterior angle is the sum of the two opposite angles: x = {a} + {c} = {a + c}.",
        description=f"In triangle ABC, angle A = {a}° and angle C = {c}°. AB is extended beyond B to D; "
        "angle CBD = x°.",
        mistakes=(b, 180 - a, 180 - c),
    )


def _sum_two_unknown(rng: random.Random, size: int) -> Problem:
    while True:
        x, extra = rng.randint(40, 75), rng.choice((-20, -15, -10, 10, 15, 20, 25, 30))
        a = 180 - 2 * x - extra
        if 40 <= a <= 90 and x + extra >= 40:
            break
    figure = _triangle_figure(rng, size, (a, x, x + extra), (f"{a}°", "x°", linear(1, extra)))
    return find_x(
        figure,
        x,
        working=f"{a} + x + (x{extra:+d}) = 180, so 2x = {180 - a - extra} and x = {x}.",
        description=f"Triangle ABC has angles A = {a}°, B = x° and C = {linear(1, extra)}.",
        mistakes=(x + extra, 180 - a - extra, (180 - a) // 2, 180 - a - x),
    )


def _sum_algebra(rng: random.Random, size: int) -> Problem:
    while True:
        x = rng.randint(12, 45)
        factors = [rng.randint(1, 4) for _ in range(3)]
        constants = [rng.choice((0, 0, 5, 10, 15, 20, -5, -10)) for _ in range(2)]
        constants.append(180 - x * sum(factors) - sum(constants))
        angles = [f * x + c for f, c in zip(factors, constants, strict=True)]
        if min(angles) >= 42 and max(angles) <= 95 and abs(constants[2]) <= 30:
            break
    labels = [linear(f, c) for f, c in zip(factors, constants, strict=True)]
    figure = _triangle_figure(rng, size, angles, labels)
    total, rest = sum(factors), sum(constants)
    return find_x(
        figure,
        x,
        working=f"The angles add up to 180: {total}x{f' {rest:+d}' if rest else ''} = 180, "
        f"so {total}x = {180 - rest} and x = {x}.",
        description=f"Triangle ABC has angles A = {labels[0]}, B = {labels[1]} and C = {labels[2]}.",
        mistakes=(180 // total, (180 + rest) // total, angles[0], angles[1]),
    )


def _sum_two_triangles(rng: random.Random, size: int) -> Problem:
    while True:
        b, left, c = rng.randint(38, 60), rng.randint(32, 50), rng.randint(38, 60)
        x = 180 - b - left - c
        if 32 <= x <= 60:
            break
    points = triangle(b, c)
    b_at, c_at, a_at = points["A"], points["B"], points["C"]
    reach = a_at[1] * tan(left * pi / 180 - (pi / 2 - b * pi / 180))
    figure = Figure({"A": a_at, "B": b_at, "C": c_at, "D": (a_at[0] + reach, 0.0)}, size, turn=any_turn(rng))
    figure.lines("ABCA", "AD")
    figure.name_on_side("D", "BC", inside=figure.at["A"])
    figure.angle("ABC", f"{b}°")
    figure.angle("BAD", f"{left}°", radius=0.1)
    figure.angle("BCA", f"{c}°")
    figure.angle("DAC", "x°", radius=0.12)
    figure.name_points("ABC", centre=figure.middle("ABC"))
    return find_x(
        figure,
        x,
        working=f"Angle ADC = {b} + {left} = {b + left}, so x = 180 - {b + left} - {c} = {x}.",
        description=f"In triangle ABC, D lies on BC. Angle B = {b}°, angle BAD = {left}°, angle C = {c}°, "
        "angle DAC = x°.",
        mistakes=(180 - b - c, 180 - left - c, b + left, 180 - b - left),
    )


# --- isosceles triangles ----------------------------------------------------------------------------------------------


def _isosceles(rng: random.Random, size: int, base: int, *, extended: bool = False) -> Figure:
    points = triangle(base, base)
    if extended:
        points["D"] = (1.5, 0.0)
    figure = Figure(points, size, turn=any_turn(rng))
    figure.lines("ABCA", *(["BD"] if extended else []))
    figure.ticks("AC", "BC")
    figure.name_points("ACD" if extended else "ABC", centre=figure.middle("ABC"))
    if extended:
        figure.name_points("B", centre="C")
    return figure


def _base_from_apex(rng: random.Random, size: int) -> Problem:
    base = rng.randint(40, 70)
    apex = 180 - 2 * base
    figure = _isosceles(rng, size, base)
    figure.angle("BCA", f"{apex}°")
    figure.angle("CAB", "x°")
    return find_x(
        figure,
        base,
        working=f"AC = BC, so the angles at A and B are equal: x = (180 - {apex}) / 2 = {base}.",
        description=f"Triangle ABC has AC = BC, angle C = {apex}° and angle A = x°.",
        mistakes=(180 - apex, apex, apex // 2),
    )


def _apex_from_base(rng: random.Random, size: int) -> Problem:
    base = rng.randint(40, 72)
    figure = _isosceles(rng, size, base)
    figure.angle("ABC", f"{base}°")
    figure.angle("BCA", "x°")
    return find_x(
        figure,
        180 - 2 * base,
        working=f"AC = BC, so angle A = {base} too: x = 180 - 2 · {base} = {180 - 2 * base}.",
        description=f"Triangle ABC has AC = BC, angle B = {base}° and angle C = x°.",
        mistakes=(base, 180 - base, (180 - base) // 2),
    )


def _isosceles_algebra(rng: random.Random, size: int) -> Problem:
    while True:
        x, factor, constant = rng.randint(40, 70), rng.choice((1, 2)), rng.choice((-30, -20, -15, 0, 15, 30, 45))
        if factor * x + constant == 180 - 2 * x:
            break
    figure = _isosceles(rng, size, x)
    figure.angle("CAB", "x°")
    figure.angle("BCA", linear(factor, constant))
    return find_x(
        figure,
        x,
        working=f"Angle B = x too, so {factor + 2}x{f' {constant:+d}' if constant else ''} = 180 and x = {x}.",
        description=f"Triangle ABC has AC = BC, angle A = x° and angle C = {linear(factor, constant)}.",
        mistakes=((180 - constant) // (factor + 1), 180 - 2 * x, 60),
    )


def _isosceles_exterior(rng: random.Random, size: int) -> Problem:
    base = rng.randint(42, 70)
    figure = _isosceles(rng, size, base, extended=True)
    figure.angle("CBD", f"{180 - base}°")
    figure.angle("BCA", "x°")
    return find_x(
        figure,
        180 - 2 * base,
        working=f"Angle B = 180 - {180 - base} = {base} = angle A, so x = 180 - 2 · {base} = {180 - 2 * base}.",
        description=f"Triangle ABC has AC = BC. AB is extended beyond B to D; angle CBD = {180 - base}°, angle C = x°.",
        mistakes=(base, 180 - base, (180 - base) // 2),
    )


def _isosceles_twice(rng: random.Random, size: int) -> Problem:
    base = rng.randint(31, 46)
    slope = base * pi / 180
    points = {"B": (0.0, 0.0), "C": (2 * cos(slope), 0.0), "A": (cos(slope), sin(slope))}
    figure = Figure({**points, "D": (1 / (2 * cos(slope)), 0.0)}, size, turn=any_turn(rng))
    figure.lines("ABCA", "AD")
    figure.name_on_side("D", "BC", inside=figure.at["A"])
    figure.ticks("AB", "AC")
    figure.ticks("AD", "BD", count=2)
    figure.angle("BCA", f"{base}°")
    figure.angle("DAC", "x°")
    figure.name_points("ABC", centre=figure.middle("ABC"))
    return find_x(
        figure,
        180 - 3 * base,
        working=f"AB = AC gives angle B = {base}; AD = BD gives angle BAD = {base}. Angle ADC = {2 * base}, "
        f"so x = 180 - {2 * base} - {base} = {180 - 3 * base}.",
        description=f"In triangle ABC, AB = AC and D lies on BC with AD = BD. Angle C = {base}°, angle DAC = x°.",
        mistakes=(180 - 2 * base, 2 * base, base, 90 - base),
    )


FAMILIES = {
    "geometry/triangle_angles": Family(
        make=by_level(_sum_third, _sum_exterior, _sum_two_unknown, _sum_algebra, _sum_two_triangles),
        min_size=MIN_SIZE,
    ),
    "geometry/isosceles": Family(
        make=by_level(_base_from_apex, _apex_from_base, _isosceles_algebra, _isosceles_exterior, _isosceles_twice),
        min_size=MIN_SIZE,
    ),
}
