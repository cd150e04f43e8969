"""Areas and perimeters of rectangles and of shapes made of them. Every length is drawn to scale."""

from __future__ import annotations

import random
from collections.abc import Sequence

from data_processors.visual_gym.answers import integer
from data_processors.visual_gym.drawing import WHITE, Colour, Point
from data_processors.visual_gym.figure import MIN_SIZE, Figure, figure_problem
from data_processors.visual_gym.problem import Family, Problem, by_level

SHADE: Colour = (191, 219, 254)


def _outline(
    size: int, corners: Sequence[Point], labels: dict[str, str], *, right_angles: Sequence[str], insides: dict[str, str]
) -> Figure:
    """A shape with corners A, B, C ...; `insides` names, for a side, a corner on its inner side."""
    names = "ABCDEFGH"[: len(corners)]
    figure = Figure(dict(zip(names, corners, strict=True)), size)
    figure.canvas.polygon([figure.at[name] for name in names], fill=SHADE, outline=None)
    figure.lines(names + names[0])
    for arms in right_angles:
        figure.right_angle(arms)
    for side, words in labels.items():
        figure.length(side, words, inside=figure.at[insides[side]] if side in insides else figure.middle(names))
    return figure


def _rectangle(size: int, width: int, height: int, labels: dict[str, str]) -> Figure:
    corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    return _outline(size, corners, labels, right_angles=("DAB", "ABC", "BCD", "CDA"), insides={})


def _two_sides(rng: random.Random) -> tuple[int, int]:
    while True:
        width, height = rng.randint(3, 15), rng.randint(3, 15)
        if width != height and max(width, height) <= 3 * min(width, height):
            return width, height


def _rectangle_area(rng: random.Random, size: int) -> Problem:
    w, h = _two_sides(rng)
    figure = _rectangle(size, w, h, {"AB": str(w), "BC": str(h)})
    if rng.random() < 0.5:
        question, answer, working = "area", w * h, f"{w} · {h} = {w * h}."
    else:
        question, answer, working = "perimeter", 2 * (w + h), f"2 · ({w} + {h}) = {2 * (w + h)}."
    return figure_problem(
        figure,
        f"What is the {question} of the rectangle?",
        integer(answer),
        working=working,
        description=f"A rectangle has sides {w} and {h}.",
        mistakes=(str(w * h), str(2 * (w + h)), str(w + h), str(2 * w * h)),
    )


def _rectangle_side(rng: random.Random, size: int) -> Problem:
    w, h = _two_sides(rng)
    figure = _rectangle(size, w, h, {"AB": str(w), "BC": "x"})
    if rng.random() < 0.5:
        given, working = f"area is {w * h}", f"x = {w * h} / {w} = {h}."
    else:
        given, working = f"perimeter is {2 * (w + h)}", f"{w} + x = {2 * (w + h)} / 2 = {w + h}, so x = {h}."
    return figure_problem(
        figure,
        f"The {given}. Find the side x.",
        integer(h),
        working=working,
        description=f"A rectangle has sides {w} and x.",
        mistakes=(str(w), str(w * h - w), str(2 * h), str(w + 2 * h)),
    )


def _l_shape(rng: random.Random, size: int) -> tuple[Figure, tuple[int, int, int, int]]:
    """An L: a rectangle w by h without its upper right corner of a by b. Only w, h, a and b are labelled."""
    w, h = rng.randint(7, 14), rng.randint(7, 14)
    a, b = rng.randint(3, w - 3), rng.randint(3, h - 3)
    corners = [(0, 0), (w, 0), (w, h - b), (w - a, h - b), (w - a, h), (0, h)]
    figure = _outline(
        size,
        [(float(x), float(y)) for x, y in corners],
        {"AB": str(w), "FA": str(h), "CD": str(a), "DE": str(b)},
        right_angles=("FAB", "ABC", "BCD", "DEF", "EFA"),
        insides={"CD": "A", "DE": "A"},
    )
    return figure, (w, h, a, b)


def _l_text(w: int, h: int, a: int, b: int) -> str:
    return f"An L-shape is a rectangle {w} wide and {h} high without its upper right corner, {a} wide and {b} high."


def _l_area(rng: random.Random, size: int) -> Problem:
    figure, (w, h, a, b) = _l_shape(rng, size)
    area = w * h - a * b
    return figure_problem(
        figure,
        "All angles are right angles. What is the area of the shape?",
        integer(area),
        working=f"{w} · {h} - {a} · {b} = {w * h} - {a * b} = {area}.",
        description=_l_text(w, h, a, b),
        mistakes=(str(w * h), str(w * h + a * b), str(2 * (w + h)), str(w * h - a - b)),
    )


def _frame(rng: random.Random, size: int) -> Problem:
    w, h = rng.randint(8, 15), rng.randint(8, 15)
    a, b = rng.randint(3, w - 4), rng.randint(3, h - 4)
    x, y = rng.uniform(1.8, w - a - 1.8), rng.uniform(1.8, h - b - 1.8)
    points = {"A": (0, 0), "B": (w, 0), "C": (w, h), "D": (0, h)}
    hole = {"E": (x, y), "F": (x + a, y), "G": (x + a, y + b), "H": (x, y + b)}
    figure = Figure({name: (float(px), float(py)) for name, (px, py) in {**points, **hole}.items()}, size)
    figure.canvas.polygon([figure.at[name] for name in "ABCD"], fill=SHADE, outline=None)
    figure.canvas.polygon([figure.at[name] for name in "EFGH"], fill=WHITE, outline=None)
    figure.lines("ABCDA", "EFGHE")
    for side, words, inside in (("AB", w, "EFGH"), ("BC", h, "EFGH"), ("EF", a, "AB"), ("FG", b, "BC")):
        figure.length(side, str(words), inside=figure.middle(inside))
    area = w * h - a * b
    return figure_problem(
        figure,
        "A rectangle is cut out of a rectangle. What is the shaded area?",
        integer(area),
        working=f"{w} · {h} - {a} · {b} = {w * h} - {a * b} = {area}.",
        description=f"The outer rectangle is {w} by {h}, the one cut out {a} by {b}; the rest is shaded.",
        mistakes=(str(w * h), str(w * h + a * b), str((w - a) * (h - b)), str(2 * (w + h) - 2 * (a + b))),
    )


def _l_perimeter(rng: random.Random, size: int) -> Problem:
    figure, (w, h, a, b) = _l_shape(rng, size)
    perimeter = 2 * (w + h)
    return figure_problem(
        figure,
        "All angles are right angles. What is the perimeter of the shape?",
        integer(perimeter),
        working=f"The sides without a label are {w} - {a} = {w - a} and {h} - {b} = {h - b}: "
        f"{w} + {h - b} + {a} + {b} + {w - a} + {h} = {perimeter}.",
        description=_l_text(w, h, a, b),
        mistakes=(str(w + h + a + b), str(perimeter - a - b), str(perimeter + a + b), str(w * h - a * b)),
    )


FAMILIES = {
    "geometry/rectangle": Family(
        make=by_level(_rectangle_area, _rectangle_side, _l_area, _frame, _l_perimeter), min_size=MIN_SIZE
    ),
}
