"""Circles and their parts. Every length is drawn to scale."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

from data_processors.visual_gym.answers import Answer, decimal, integer, times_pi
from data_processors.visual_gym.drawing import WHITE, Point
from data_processors.visual_gym.figure import MIN_SIZE, Figure, any_turn, figure_problem, on_circle
from data_processors.visual_gym.geometry_areas import SHADE
from data_processors.visual_gym.problem import Family, Problem, by_level

PI = Fraction(31415926535897932384626433832795, 10**31)
EXACT = "Give the exact answer in terms of π."
STEPS = 48  # corners of a drawn arc


def _disc(rng: random.Random, size: int, points: dict[str, Point], paths: Sequence[str]) -> Figure:
    figure = Figure({"O": (0.0, 0.0), **points}, size, turn=any_turn(rng), extent=2.0)
    figure.canvas.disc(figure.at["O"], figure.unit, fill=SHADE)
    figure.circle("O", 1.0)
    figure.lines(*paths)
    figure.dot("O")
    return figure


def _circumference(rng: random.Random, size: int) -> Problem:
    """From a radius or a diameter to the circumference."""
    r = rng.randint(2, 20)
    has_radius = rng.random() < 0.5
    points = {"A": on_circle(0)} if has_radius else {"A": on_circle(0), "B": on_circle(180)}
    figure = _disc(rng, size, points, ["OA" if has_radius else "BA"])
    given = r if has_radius else 2 * r
    figure.length("OA" if has_radius else "BA", str(given), inside=(0.0, 0.0))
    name = "radius" if has_radius else "diameter"
    return figure_problem(
        figure,
        f"What is the circumference of the circle? {EXACT}",
        times_pi(Fraction(2 * r)),
        working=f"The {name} is {given}: {'2 · ' if has_radius else ''}{given} · π = {2 * r}π.",
        description=f"A circle has {name} {given}.",
        mistakes=[times_pi(Fraction(v)).text for v in (r, 4 * r, r * r, 3 * r)],
    )


def _circle_area(rng: random.Random, size: int) -> Problem:
    """From a diameter to the area, exactly or rounded; or from the area back to the radius."""
    r = rng.randint(2, 15)
    form = rng.choice(("exact", "rounded", "back"))
    figure = _disc(rng, size, {"A": on_circle(0), "B": on_circle(180)}, ["OA" if form == "back" else "BA"])
    figure.length("OA" if form == "back" else "BA", "x" if form == "back" else str(2 * r), inside=(0.0, 0.0))
    if form == "back":
        return figure_problem(
            figure,
            f"The area of the circle is {r * r}π. Find the radius x.",
            integer(r),
            working=f"π · x² = {r * r}π, so x = {r}.",
            description="A circle has radius x.",
            mistakes=(str(2 * r), str(r * r), str(4 * r)),
        )
    exact, rounded = times_pi(Fraction(r * r)), decimal(PI * r * r, decimals=1)
    is_exact = form == "exact"
    return figure_problem(
        figure,
        f"What is the area of the circle? {EXACT if is_exact else 'Round to 1 decimal.'}",
        exact if is_exact else rounded,
        working=f"The radius is {r}: π · {r}² = {r * r}π{'' if is_exact else f' ≈ {rounded.text}'}.",
        description=f"A circle has diameter {2 * r}.",
        mistakes=[times_pi(Fraction(v)).text for v in (2 * r, 4 * r * r, 2 * r * r, 4 * r)] if is_exact else (),
    )


def _slice(rng: random.Random, size: int, radius: int, angle: int, label: str) -> Figure:
    """A sector with its radius and angle; O is the centre."""
    points = {"O": (0.0, 0.0), "A": on_circle(0, radius), "B": on_circle(angle, radius)}
    edge = {f"{i}": on_circle(angle * i / STEPS, radius) for i in range(STEPS + 1)}
    figure = Figure({**points, **edge}, size, turn=any_turn(rng))
    rim = [figure.at[str(i)] for i in range(STEPS + 1)]
    figure.canvas.polygon([figure.at["O"], *rim], fill=SHADE, outline=None)
    figure.canvas.line([figure.at["O"], *rim, figure.at["O"]], width=1.6)
    figure.length("OA", str(radius), inside=figure.middle("AB") if angle < 180 else rim[STEPS // 2])
    if angle == 90:
        figure.right_angle("AOB")
    elif angle == 180:
        figure.dot("O")
    else:
        figure.angle("AOB", label)
    return figure


def _half_or_quarter(rng: random.Random, size: int) -> Problem:
    """Area or perimeter of a semicircle or a quarter circle."""
    r, angle = rng.randint(2, 12), rng.choice((90, 180))
    figure = _slice(rng, size, r, angle, "90°")
    part, name = Fraction(angle, 360), "semicircle" if angle == 180 else "quarter circle"
    description = f"A {name} has radius {r}."
    area, arc = part * r * r, part * 2 * r
    if rng.random() < 0.5:
        return figure_problem(
            figure,
            f"What is the area of the {name}? {EXACT}",
            times_pi(area),
            working=f"{part} · π · {r}² = {times_pi(area).text}.",
            description=description,
            mistakes=[times_pi(v).text for v in (Fraction(r * r), arc, area / 2, area * 4, Fraction(2 * r))],
        )
    answer = Answer(f"{2 * r}+{times_pi(arc).text}", "expression")
    return figure_problem(
        figure,
        f"What is the perimeter of the {name}? {EXACT}",
        answer,
        working=f"The arc is {part} · 2π · {r} = {times_pi(arc).text}, the straight part is {2 * r} long.",
        description=description,
        mistakes=(times_pi(arc).text, f"{r}+{times_pi(arc).text}", f"{2 * r}+{times_pi(2 * arc).text}"),
    )


def _sector(rng: random.Random, size: int) -> Problem:
    """Arc length or area of a sector."""
    r, angle = rng.randint(3, 12), rng.choice((40, 45, 60, 72, 80, 100, 120, 135, 140, 150))
    figure = _slice(rng, size, r, angle, f"{angle}°")
    part = Fraction(angle, 360)
    asks_area = rng.random() < 0.5
    factor = part * r * r if asks_area else part * 2 * r
    answer = times_pi(factor)
    whole = f"π · {r}²" if asks_area else f"2π · {r}"
    return figure_problem(
        figure,
        f"What is {'the area of the sector' if asks_area else 'the length of the arc'}? {EXACT}",
        answer,
        working=f"{angle}/360 · {whole} = {answer.text}.",
        description=f"A sector of a circle has radius {r} and angle {angle}°.",
        mistakes=[times_pi(v).text for v in (part * r * r, part * 2 * r, part * r, (1 - part) * r * r, factor * 3)],
    )


def _ring_or_rest(rng: random.Random, size: int) -> Problem:
    """A ring, or what a circle leaves of the square around it."""
    return _ring(rng, size) if rng.random() < 0.5 else _square_rest(rng, size)


def _ring(rng: random.Random, size: int) -> Problem:
    outer = rng.randint(5, 14)
    inner = rng.randint(max(2, outer // 3), outer - 2)
    points = {"O": (0.0, 0.0), "A": on_circle(0, outer), "B": on_circle(rng.randint(100, 260), inner)}
    figure = Figure(points, size, turn=any_turn(rng), extent=2.0 * outer, margin=0.08)
    figure.canvas.disc(figure.at["O"], outer * figure.unit, fill=SHADE)
    figure.canvas.disc(figure.at["O"], inner * figure.unit, fill=WHITE)
    figure.circle("O", outer)
    figure.circle("O", inner)
    figure.lines("OA", "OB")
    figure.dot("O")
    figure.length("OA", str(outer), inside=figure.at["B"])
    figure.length("OB", str(inner), inside=figure.at["A"])
    area = outer * outer - inner * inner
    return figure_problem(
        figure,
        f"What is the shaded area? {EXACT}",
        times_pi(Fraction(area)),
        working=f"π · {outer}² - π · {inner}² = {outer * outer}π - {inner * inner}π = {area}π.",
        description=f"Two circles around O have radii {outer} and {inner}; the ring between them is shaded.",
        mistakes=[
            times_pi(Fraction(v)).text
            for v in ((outer - inner) ** 2, outer**2 + inner**2, outer**2, 2 * (outer - inner))
        ],
    )


def _square_rest(rng: random.Random, size: int) -> Problem:
    side = 2 * rng.randint(2, 10)
    r = side // 2
    corners = {"A": (-r, -r), "B": (r, -r), "C": (r, r), "D": (-r, r)}
    figure = Figure({"O": (0.0, 0.0), **{name: (float(x), float(y)) for name, (x, y) in corners.items()}}, size)
    figure.canvas.polygon([figure.at[name] for name in "ABCD"], fill=SHADE, outline=None)
    figure.canvas.disc(figure.at["O"], r * figure.unit, fill=WHITE)
    figure.circle("O", r)
    figure.lines("ABCDA")
    figure.length("AB", str(side), inside=figure.at["O"])
    if rng.random() < 0.5:
        answer, ask = decimal(side * side - PI * r * r, decimals=2), "Round to 2 decimals."
        mistakes: tuple[str, ...] = ()
    else:
        answer, ask = Answer(f"{side * side}-{times_pi(Fraction(r * r)).text}", "expression"), EXACT
        mistakes = (
            f"{side * side}-{times_pi(Fraction(side)).text}",
            f"{4 * side}-{times_pi(Fraction(r * r)).text}",
            f"{side * side}-{times_pi(Fraction(side * side)).text}",
            times_pi(Fraction(r * r)).text,
        )
    return figure_problem(
        figure,
        f"What is the shaded area? {ask}",
        answer,
        working=f"The square has area {side * side}, the circle of radius {r} has area {r * r}π.",
        description=f"A circle lies in a square of side {side} and touches all sides; the square outside it is shaded.",
        mistakes=mistakes,
    )


FAMILIES = {
    "geometry/circle": Family(
        make=by_level(_circumference, _circle_area, _half_or_quarter, _sector, _ring_or_rest), min_size=MIN_SIZE
    ),
}
