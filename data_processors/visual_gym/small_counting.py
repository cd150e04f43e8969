"""Counting problems without a word in the picture, readable from 64 pixels on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from data_processors.visual_gym.answers import integer
from data_processors.visual_gym.drawing import COLOURS, Canvas
from data_processors.visual_gym.problem import Family, Problem

CELLS = 4  # shapes stand in a grid of 4 x 4 cells, one in a cell, so that they never touch
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles"}


@dataclass(frozen=True)
class Shape:
    kind: str
    colour: str


def circles(rng: random.Random, difficulty: int, size: int) -> Problem:
    """Circles among squares. Harder: more circles, more squares, then many colours, then triangles as well."""
    count = rng.randint(0, (3, 5, 7, 9, 9)[difficulty - 1])
    num_others = rng.randint(*((1, 2), (1, 3), (2, 4), (2, 6), (3, 7))[difficulty - 1])
    others = ("square", "triangle") if difficulty == 5 else ("square",)
    palette = list(COLOURS) if difficulty >= 4 else [rng.choice(list(COLOURS))]
    kinds = ["circle"] * count + [rng.choice(others) for _ in range(num_others)]
    shapes = [Shape(kind, rng.choice(palette)) for kind in kinds]
    rng.shuffle(shapes)
    is_one = count == 1
    return Problem(
        question="How many circles are there?",
        answer=integer(count),
        working=f"There {'is' if is_one else 'are'} {count} circle{'' if is_one else 's'}.",
        picture=_draw(rng, shapes, size).picture(),
        description=f"Shapes: {', '.join(shape.kind for shape in shapes)}.",
        facts={"shapes": [[shape.kind, shape.colour] for shape in shapes]},
    )


def colour(rng: random.Random, difficulty: int, size: int) -> Problem:
    """Shapes of one colour. Harder: more shapes, more colours, then several kinds of shapes."""
    names = rng.sample(["red", "blue", "green", "purple", "grey"], (2, 2, 3, 4, 5)[difficulty - 1])
    wanted, *rest = names
    count = rng.randint(0, (3, 5, 7, 9, 9)[difficulty - 1])
    num_others = rng.randint(*((1, 2), (1, 3), (2, 4), (2, 6), (3, 7))[difficulty - 1])
    kinds = ("circle",) if difficulty <= 2 else ("circle", "square") if difficulty <= 4 else tuple(PLURALS)
    shapes = [Shape(rng.choice(kinds), wanted) for _ in range(count)]
    shapes += [Shape(rng.choice(kinds), rng.choice(rest)) for _ in range(num_others)]
    rng.shuffle(shapes)
    return Problem(
        question=f"How many {wanted} shapes are there?",
        answer=integer(count),
        working=f"There {'is' if count == 1 else 'are'} {count} {wanted} shape{'' if count == 1 else 's'}.",
        picture=_draw(rng, shapes, size).picture(),
        description=f"Shapes: {', '.join(f'{shape.colour} {shape.kind}' for shape in shapes)}.",
        facts={"wanted": wanted, "shapes": [[shape.kind, shape.colour] for shape in shapes]},
    )


def _draw(rng: random.Random, shapes: list[Shape], size: int) -> Canvas:
    """The shapes in reading order, in cells chosen at random."""
    canvas = Canvas(size, scale=4 if size < 128 else 2)
    cell = size / CELLS
    places = sorted(rng.sample(range(CELLS * CELLS), len(shapes)))
    for shape, place in zip(shapes, places, strict=True):
        radius = cell * rng.uniform(0.27, 0.35)
        slack = cell / 2 - radius - cell / 16
        row, column = divmod(place, CELLS)
        centre = ((column + 0.5) * cell + rng.uniform(-slack, slack), (row + 0.5) * cell + rng.uniform(-slack, slack))
        draw_shape(canvas, shape.kind, centre, radius, COLOURS[shape.colour])
    return canvas


def draw_shape(
    canvas: Canvas, kind: str, centre: tuple[float, float], radius: float, fill: tuple[int, int, int]
) -> None:
    """A filled shape inside a circle of the given radius (a square of nearly its width)."""
    x, y = centre
    if kind == "circle":
        canvas.disc(centre, radius, fill=fill)
    elif kind == "square":
        half = radius * 0.9
        canvas.polygon(
            [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)],
            fill=fill,
            outline=None,
        )
    else:
        corners = [(x, y - radius), (x + radius, y + 0.8 * radius), (x - radius, y + 0.8 * radius)]
        canvas.polygon(corners, fill=fill, outline=None)


FAMILIES = {
    "counting/circles": Family(make=circles, min_size=64),
    "counting/colour": Family(make=colour, min_size=64),
}
