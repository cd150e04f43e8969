"""A plot of a function over a unit grid."""

from __future__ import annotations

import random
from collections.abc import Callable

from data_processors.visual_gym.drawing import COLOURS, FAINT, Canvas, Point

MIN_SIZE = 224
REACHES = (6, 7, 8)  # the axes go from minus this to this
Function = Callable[[float], float]


class Plot:
    """A grid with one line per unit and a number at every second one."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self.canvas = Canvas(size, scale=2)
        self._reach, self._colour = rng.choice(REACHES), COLOURS[rng.choice(("blue", "green", "purple", "orange"))]
        self._size, self._unit = size, size * 0.47 / (self._reach + 0.3)
        reach = self._reach
        for k in range(-reach, reach + 1):
            self.canvas.line([self._at(k, -reach), self._at(k, reach)], fill=FAINT, width=1)
            self.canvas.line([self._at(-reach, k), self._at(reach, k)], fill=FAINT, width=1)
        self.canvas.line([self._at(-reach - 0.3, 0), self._at(reach + 0.3, 0)], width=1.4)
        self.canvas.line([self._at(0, -reach - 0.3), self._at(0, reach + 0.3)], width=1.4)
        for k in range(-reach + reach % 2, reach + 1, 2):
            if k:
                self.canvas.text(self._at(k, -0.5), str(k), size=0.04 * size)
                self.canvas.text(self._at(-0.2, k), str(k), size=0.04 * size, anchor="rm")
        self.canvas.text(self._at(reach, 0.55), "x", size=0.045 * size)
        self.canvas.text(self._at(0.45, reach), "y", size=0.045 * size)

    def curve(self, function: Function, *, straight: bool) -> None:
        """The graph inside the grid; a parabola is drawn finely."""
        steps = 1200
        points = [
            (self._reach * (2 * i / steps - 1), function(self._reach * (2 * i / steps - 1))) for i in range(steps + 1)
        ]
        inside = [point for point in points if abs(point[1]) <= self._reach]
        kept = [inside[0], inside[-1]] if straight else inside[:: 6 if len(inside) > 200 else 2]
        self.canvas.line([self._at(*point) for point in kept], fill=self._colour, width=2)

    def dot(self, x: float, y: float) -> None:
        self.canvas.disc(self._at(x, y), 0.014 * self._size, fill=COLOURS["red"])

    def _at(self, x: float, y: float) -> Point:
        return self._size / 2 + x * self._unit, self._size / 2 - y * self._unit
