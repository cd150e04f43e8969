"""Bar charts without a word in the picture: heights 1-9 over one faint line per unit, readable from 64 pixels on."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

from data_processors.visual_gym.answers import integer
from data_processors.visual_gym.drawing import COLOURS, FAINT, INK, Canvas
from data_processors.visual_gym.problem import Family, Problem

MAX_HEIGHT = 9
TOP_HEIGHT = (4, 5, 7, 9, 9)  # by difficulty


def tallest_bar(rng: random.Random, difficulty: int, size: int) -> Problem:
    """The height of the tallest bar. Harder: taller bars, then a rival one unit lower, then a bar more."""
    heights = _heights(rng, difficulty)
    if difficulty >= 4 and max(heights) > 1:
        lower = [i for i, height in enumerate(heights) if height < max(heights)] or [0]
        heights[rng.choice(lower)] = max(heights) - 1
    colours = _colours(rng, difficulty, len(heights))
    return Problem(
        question="What is the value of the tallest bar?",
        answer=integer(max(heights)),
        working=f"The tallest bar is {max(heights)}.",
        picture=_draw(rng, heights, colours, size),
        description=_list(heights),
        facts={"heights": heights},
    )


def bar_sum(rng: random.Random, difficulty: int, size: int) -> Problem:
    """The sum of all bars. Harder: taller bars, then a bar more."""
    heights = _heights(rng, difficulty)
    colours = _colours(rng, difficulty, len(heights))
    return Problem(
        question="What is the sum of all bars?",
        answer=integer(sum(heights)),
        working=f"{'+'.join(map(str, heights))}={sum(heights)}.",
        picture=_draw(rng, heights, colours, size),
        description=_list(heights),
        facts={"heights": heights},
    )


def red_bar(rng: random.Random, difficulty: int, size: int) -> Problem:
    """The height of the red bar. Harder: taller bars, more colours beside it, then a bar more."""
    heights = _heights(rng, difficulty)
    others = [name for name in COLOURS if name != "red"]
    palette = rng.sample(others, (1, 2, 3, 5, 5)[difficulty - 1])
    colours = [rng.choice(palette) for _ in heights]
    red = rng.randrange(len(heights))
    colours[red] = "red"
    listed = ", ".join(f"{name} {height}" for name, height in zip(colours, heights, strict=True))
    return Problem(
        question="What is the value of the red bar?",
        answer=integer(heights[red]),
        working=f"The red bar is {heights[red]}.",
        picture=_draw(rng, heights, colours, size),
        description=f"Bars, left to right: {listed}.",
        facts={"heights": heights, "colours": colours},
    )


def _heights(rng: random.Random, difficulty: int) -> list[int]:
    return [rng.randint(1, TOP_HEIGHT[difficulty - 1]) for _ in range(5 if difficulty == 5 else 4)]


def _colours(rng: random.Random, difficulty: int, count: int) -> list[str]:
    """One colour for all bars of an easy chart, any colours in a harder one."""
    names = list(COLOURS)
    return [rng.choice(names)] * count if difficulty <= 2 else [rng.choice(names) for _ in range(count)]


def _list(heights: Sequence[int]) -> str:
    return f"Bars, left to right: {', '.join(map(str, heights))}."


def _draw(rng: random.Random, heights: Sequence[int], colours: Sequence[str], size: int) -> Image.Image:
    """Every edge lies on a whole pixel: a unit is 6 pixels high and a bar 8 wide (7 of five bars) at size 64."""
    unit = (size - 10) // MAX_HEIGHT
    floor = size - (size - unit * MAX_HEIGHT) // 2
    slot = (size - 8) // len(heights)
    width = slot * 2 // 3
    left = 4 + rng.randint(0, size - 8 - slot * len(heights) + slot - width)
    canvas = Canvas(size, scale=1)
    for level in range(1, MAX_HEIGHT + 1):
        canvas.rectangle((0, floor - level * unit), (size, floor - level * unit + 1), fill=FAINT)
    for index, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        start = left + index * slot
        canvas.rectangle((start, floor - height * unit), (start + width, floor), fill=COLOURS[colour])
    canvas.rectangle((0, floor), (size, floor + 1), fill=INK)
    return canvas.picture()


FAMILIES = {
    "charts/tallest_bar": Family(make=tallest_bar, min_size=64),
    "charts/bar_sum": Family(make=bar_sum, min_size=64),
    "charts/red_bar": Family(make=red_bar, min_size=64),
}
