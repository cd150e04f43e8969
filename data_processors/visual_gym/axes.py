"""Charts over a value axis: bars, groups of bars and lines, with labelled grid lines."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_processors.visual_gym.drawing import COLOURS, FAINT, INK, WHITE, Canvas, Colour, Point

MIN_SIZE = 224
TEXT = 0.042  # text height as a share of the picture's side
NAMES = (
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul"),
    ("Ann", "Ben", "Cem", "Dee", "Eve", "Finn", "Gus"),
    ("Tea", "Milk", "Cola", "Soup", "Cake", "Rice", "Nuts"),
)
TIMES = NAMES[:2]


@dataclass(frozen=True)
class Scale:
    """A value axis: `levels` grid lines, `step` apart. Values are multiples of `grain`."""

    step: int
    grain: int
    levels: int = 10

    def values(self, rng: random.Random, count: int) -> list[int]:
        return [self.grain * rng.randint(1, self.step * self.levels // self.grain) for _ in range(count)]


# By difficulty: from values on every grid line to values between labelled lines.
SCALES = (Scale(1, 1, 8), Scale(2, 2), Scale(10, 10), Scale(10, 5), Scale(20, 5))
NUM_BARS = (4, 5, 5, 6, 7)


def names(rng: random.Random, count: int, *, ordered: bool = False) -> tuple[str, ...]:
    """Labels of one kind; a run of days or months when `ordered`."""
    return rng.choice(TIMES if ordered else NAMES)[:count]


def distinct(rng: random.Random, scale: Scale, count: int) -> list[int]:
    """Values that are all different."""
    return [scale.grain * k for k in rng.sample(range(1, scale.step * scale.levels // scale.grain + 1), count)]


class Axes:
    """A plot with labelled grid lines on the left and a label under each place."""

    def __init__(self, size: int, scale: Scale, labels: Sequence[str], *, legend: Sequence[str] = ()) -> None:
        self.canvas = Canvas(size, scale=2)
        self._size, self._scale, self._count = size, scale, len(labels)
        self._left, self._right = 0.13 * size, 0.97 * size
        self._bottom, self._top = 0.88 * size, (0.13 if legend else 0.06) * size
        for level in range(scale.levels + 1):
            y = self._height(level * scale.step)
            self.canvas.line([(self._left, y), (self._right, y)], fill=FAINT, width=1)
            at = self._left - 0.015 * size, y
            self.canvas.text(at, str(level * scale.step), size=TEXT * size, anchor="rm", fill=INK)
        self.canvas.line([(self._left, self._top), (self._left, self._bottom), (self._right, self._bottom)], width=1.3)
        for index, label in enumerate(labels):
            self.canvas.text((self._place(index), self._bottom + 0.05 * size), label, size=TEXT * size)
        for index, label in enumerate(legend):
            x = self._left + index * (self._right - self._left) / 3
            self.canvas.rectangle((x, 0.035 * size), (x + 0.04 * size, 0.075 * size), fill=series_colour(index))
            self.canvas.text((x + 0.055 * size, 0.055 * size), label, size=TEXT * size, anchor="lm")

    def bars(self, values: Sequence[int], fill: Sequence[Colour]) -> None:
        self.groups([[value] for value in values], [[colour] for colour in fill])

    def groups(self, values: Sequence[Sequence[int]], fill: Sequence[Sequence[Colour]]) -> None:
        """One bar per value, side by side in its place."""
        for index, (group, colours) in enumerate(zip(values, fill, strict=True)):
            width = self._slot * 0.68 / len(group)
            start = self._place(index) - width * len(group) / 2
            for k, (value, colour) in enumerate(zip(group, colours, strict=True)):
                x = start + k * width
                corners = (x, self._height(value)), (x + width, self._height(0))
                self.canvas.polygon(
                    [corners[0], (corners[1][0], corners[0][1]), corners[1], (corners[0][0], corners[1][1])],
                    fill=colour,
                    outline=WHITE if len(group) > 1 else None,
                )
        self.canvas.line([(self._left, self._bottom), (self._right, self._bottom)], width=1.3)

    def curve(self, values: Sequence[int], colour: Colour) -> None:
        points: list[Point] = [(self._place(i), self._height(value)) for i, value in enumerate(values)]
        self.canvas.line(points, fill=colour, width=2)
        for point in points:
            self.canvas.disc(point, 0.012 * self._size, fill=colour)

    @property
    def _slot(self) -> float:
        return (self._right - self._left) / self._count

    def _place(self, index: int) -> float:
        return self._left + (index + 0.5) * self._slot

    def _height(self, value: float) -> float:
        share = value / (self._scale.step * self._scale.levels)
        return self._bottom - share * (self._bottom - self._top)


def series_colour(index: int) -> Colour:
    return (COLOURS["blue"], COLOURS["orange"], COLOURS["green"])[index]


def any_colour(rng: random.Random) -> Colour:
    return COLOURS[rng.choice(("blue", "green", "orange", "purple", "red"))]


def listing(labels: Sequence[str], values: Sequence[int]) -> str:
    """ "Mon 3, Tue 7"."""
    return ", ".join(f"{label} {value}" for label, value in zip(labels, values, strict=True))
