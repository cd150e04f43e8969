"""Counting shapes by kind and colour in a crowd that overlaps from level 3 on."""

from __future__ import annotations

import random
from math import hypot

from data_processors.visual_gym.answers import integer
from data_processors.visual_gym.drawing import COLOURS, WHITE, Canvas, Point
from data_processors.visual_gym.problem import Family, Problem
from data_processors.visual_gym.small_counting import PLURALS, Shape, draw_shape

MIN_SIZE = 128
NUM_SHAPES = ((4, 7), (7, 10), (9, 13), (12, 16), (15, 20))
# Smallest distance of two centres in radii: 2 touches. At 1.4 at least half of the lower shape stays in sight.
SPACING = (2.3, 2.2, 1.7, 1.5, 1.4)
KINDS = tuple(PLURALS)


def shapes(rng: random.Random, difficulty: int, size: int) -> Problem:
    """One kind, then one kind in one colour, then kind or colour, with more shapes and more overlap."""
    palette = rng.sample(list(COLOURS), (2, 3, 3, 4, 4)[difficulty - 1])
    crowd = [Shape(rng.choice(KINDS), rng.choice(palette)) for _ in range(rng.randint(*NUM_SHAPES[difficulty - 1]))]
    # Mostly something that is there, so that "none" is not the best guess.
    wanted = rng.choice(crowd) if rng.random() < 0.85 else Shape(rng.choice(KINDS), rng.choice(palette))
    kind, colour = wanted.kind, wanted.colour
    if difficulty <= 2:
        what, counted = PLURALS[kind], [shape for shape in crowd if shape.kind == kind]
        rule = "kind"
    elif difficulty <= 4:
        what = f"{colour} {PLURALS[kind]}"
        counted, rule = [shape for shape in crowd if shape == Shape(kind, colour)], "both"
    else:
        what = f"shapes that are {colour} or a {kind} (or both)"
        counted, rule = [shape for shape in crowd if shape.kind == kind or shape.colour == colour], "either"
    return Problem(
        question=f"How many {what} are there?",
        answer=integer(len(counted)),
        working=f"Counting them gives {len(counted)}.",
        picture=_draw(rng, crowd, SPACING[difficulty - 1], size).picture(),
        description=f"Shapes: {', '.join(f'{shape.colour} {shape.kind}' for shape in crowd)}.",
        facts={"kind": kind, "colour": colour, "rule": rule, "shapes": [[s.kind, s.colour] for s in crowd]},
    )


def _draw(rng: random.Random, crowd: list[Shape], spacing: float, size: int) -> Canvas:
    canvas = Canvas(size, scale=2)
    radius = size * min(0.09, 0.36 / len(crowd) ** 0.5)
    for shape, centre in zip(crowd, _places(rng, len(crowd), spacing * radius, radius, size), strict=True):
        # A white rim keeps two overlapping shapes of one colour apart.
        draw_shape(canvas, shape.kind, centre, radius * 1.14, WHITE)
        draw_shape(canvas, shape.kind, centre, radius, COLOURS[shape.colour])
    return canvas


def _places(rng: random.Random, count: int, distance: float, radius: float, size: int) -> list[Point]:
    """Places at least `distance` apart where shapes overlap in pairs only; a crowd that got stuck starts again."""
    places: list[Point] = []
    paired: set[Point] = set()
    tries = 0
    while len(places) < count:
        point = rng.uniform(1.2 * radius, size - 1.2 * radius), rng.uniform(1.2 * radius, size - 1.2 * radius)
        near = [place for place in places if hypot(point[0] - place[0], point[1] - place[1]) < 2.2 * radius]
        if not near or (
            len(near) == 1 and near[0] not in paired and hypot(point[0] - near[0][0], point[1] - near[0][1]) >= distance
        ):
            places.append(point)
            paired.update([point, *near] if near else [])
        tries += 1
        if tries % 400 == 0:
            places.clear()
            paired.clear()
    return places


FAMILIES = {"counting/shapes": Family(make=shapes, min_size=MIN_SIZE)}
