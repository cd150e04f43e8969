"""Plane figures: fitted into the canvas, and marked the way textbooks mark them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import atan2, cos, degrees, hypot, pi, sin

from data_processors.visual_gym.answers import Answer
from data_processors.visual_gym.drawing import INK, Canvas, Point, text_width
from data_processors.visual_gym.problem import Problem

TEXT = 0.05  # text height as a share of the picture's side
MIN_SIZE = 224


class Figure:
    """Named points on a canvas; lines and marks are given by the names of their points."""

    def __init__(
        self,
        points: Mapping[str, Point],
        size: int,
        *,
        turn: float = 0.0,
        margin: float = 0.14,
        extent: float | None = None,
    ) -> None:
        """Place points, given with y upwards in any unit, in the middle of the canvas.

        Args:
            points: By name.
            size: Side of the picture in pixels.
            turn: Counter-clockwise turn in radians.
            margin: Space on each side for labels, as a share of the size.
            extent: Width and height in units that the figure takes when it is more than that of its points
                (a circle around the first point).
        """
        self._points = dict(points)
        self._angles: dict[str, str] = {}
        self._lengths: dict[str, str] = {}
        turned = {name: _turn(point, turn) for name, point in points.items()}
        xs, ys = zip(*turned.values(), strict=True)
        if extent is None:
            width, height = max(xs) - min(xs), max(ys) - min(ys)
            middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
        else:
            width = height = extent
            middle = next(iter(turned.values()))
        self.unit = size * (1 - 2 * margin) / max(width, height)
        self.size = size
        self.canvas = Canvas(size, scale=2)
        self.at: dict[str, Point] = {
            name: (size / 2 + (x - middle[0]) * self.unit, size / 2 - (y - middle[1]) * self.unit)
            for name, (x, y) in turned.items()
        }

    def facts(self) -> dict[str, object]:
        """The points in the figure's own units, and what is written on angles and lengths, by the points' names."""
        return {"points": {name: list(at) for name, at in self._points.items() if name.isalpha()}} | {
            "angles": dict(self._angles),
            "lengths": dict(self._lengths),
        }

    def lines(self, *paths: str, fill: tuple[int, int, int] = INK) -> None:
        """Each path names its points in one word of single letters ("ABCA")."""
        for path in paths:
            self.canvas.line([self.at[name] for name in path], width=1.6, fill=fill)

    def dot(self, name: str) -> None:
        self.canvas.disc(self.at[name], 0.011 * self.size, fill=INK)

    def name_points(self, names: str, *, centre: str | Point) -> None:
        """Write each point's name on its far side from `centre`, a point's name or a place on the canvas."""
        origin = self.at[centre] if isinstance(centre, str) else centre
        for name in names:
            x, y = self.at[name]
            along = _unit((x - origin[0], y - origin[1]))
            self.write((x + along[0] * 0.05 * self.size, y + along[1] * 0.05 * self.size), name)

    def name_on_side(self, name: str, side: str, *, inside: Point) -> None:
        """Write the name of a point on a side square to it, on the side away from the place `inside`."""
        a, b = self.at[side[0]], self.at[side[1]]
        normal = _normal(a, b, inside)
        x, y = self.at[name]
        self.write((x + normal[0] * 0.05 * self.size, y + normal[1] * 0.05 * self.size), name)

    def write(self, at: Point, words: str) -> None:
        self.canvas.text(at, words, size=TEXT * self.size)

    def middle(self, names: str) -> Point:
        points = [self.at[name] for name in names]
        return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)

    def length(self, side: str, words: str, *, inside: Point) -> None:
        """Write a length beside a side, on the side away from the place `inside`."""
        self._lengths[side] = words
        (ax, ay), (bx, by) = self.at[side[0]], self.at[side[1]]
        mid = ((ax + bx) / 2, (ay + by) / 2)
        normal = _normal((ax, ay), (bx, by), inside)
        # The box of the words must clear the line: half its extent along the normal, and a little air.
        half = (text_width(words, TEXT * self.size) / 2, TEXT * self.size / 2)
        away = abs(normal[0]) * half[0] + abs(normal[1]) * half[1] + 0.018 * self.size
        self.write((mid[0] + normal[0] * away, mid[1] + normal[1] * away), words)

    def angle(self, arms: str, words: str, *, radius: float = 0.075) -> None:
        """Mark the angle at the middle one of three points with an arc, and write its size in it."""
        start, end = self._directions(arms)
        vertex = self.at[arms[1]]
        self.canvas.arc(vertex, radius * self.size, (degrees(start), degrees(end)))
        self._angles[arms] = words
        self._write_in_angle(vertex, (start, end), words, radius)

    def right_angle(self, arms: str) -> None:
        """Mark the right angle at the middle one of three points with a small square."""
        self._angles[arms] = "90°"
        vertex = self.at[arms[1]]
        a, b = (_unit(_minus(self.at[name], vertex)) for name in (arms[0], arms[2]))
        step = 0.045 * self.size
        corner = (vertex[0] + (a[0] + b[0]) * step, vertex[1] + (a[1] + b[1]) * step)
        self.canvas.line(
            [
                (vertex[0] + a[0] * step, vertex[1] + a[1] * step),
                corner,
                (vertex[0] + b[0] * step, vertex[1] + b[1] * step),
            ],
            width=1.2,
        )

    def ticks(self, *sides: str, count: int = 1) -> None:
        """Mark sides of equal length with short strokes across."""
        for side in sides:
            a, b = self.at[side[0]], self.at[side[1]]
            along = _unit(_minus(b, a))
            across = (-along[1] * 0.02 * self.size, along[0] * 0.02 * self.size)
            for index in range(count):
                shift = (index - (count - 1) / 2) * 0.02 * self.size
                x, y = (a[0] + b[0]) / 2 + along[0] * shift, (a[1] + b[1]) / 2 + along[1] * shift
                self.canvas.line([(x - across[0], y - across[1]), (x + across[0], y + across[1])], width=1.5)

    def arrow(self, side: str, *, share: float = 0.75) -> None:
        """Mark a line as parallel with an arrow head at a share of its length."""
        a, b = self.at[side[0]], self.at[side[1]]
        along = _unit(_minus(b, a))
        tip = (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)
        for turn in (2.6, -2.6):
            x, y = _turn(along, turn)
            self.canvas.line([tip, (tip[0] + x * 0.035 * self.size, tip[1] + y * 0.035 * self.size)], width=1.6)

    def circle(self, centre: str, radius: float) -> None:
        """A circle; the radius is in units of the figure."""
        self.canvas.disc(self.at[centre], radius * self.unit, fill=None, outline=INK, width=1.6)

    def _directions(self, arms: str) -> tuple[float, float]:
        """Directions of the arms on the screen, from the one that sweeps clockwise less than half a turn."""
        vertex = self.at[arms[1]]
        first, second = (atan2(*reversed(_minus(self.at[name], vertex))) for name in (arms[0], arms[2]))
        if (second - first) % (2 * pi) > pi:
            first, second = second, first
        return first, first + (second - first) % (2 * pi)

    def _write_in_angle(self, vertex: Point, directions: tuple[float, float], words: str, radius: float) -> None:
        middle, half = sum(directions) / 2, (directions[1] - directions[0]) / 2
        box = text_width(words, TEXT * self.size) / 2, TEXT * self.size / 2
        # The words' box must clear both arms, and the arc.
        arms = max(abs(sin(arm)) * box[0] + abs(cos(arm)) * box[1] for arm in directions)
        between = (arms + 0.012 * self.size) / sin(min(half, pi / 2))
        beyond = (radius + 0.02) * self.size + abs(cos(middle)) * box[0] + abs(sin(middle)) * box[1]
        distance = min(max(between, beyond), 0.3 * self.size)
        self.write((vertex[0] + cos(middle) * distance, vertex[1] + sin(middle) * distance), words)


def figure_problem(
    figure: Figure, question: str, answer: Answer, *, working: str, description: str, mistakes: Sequence[str]
) -> Problem:
    """The problem of a finished figure."""
    return Problem(
        question=question,
        answer=answer,
        working=working,
        picture=figure.canvas.picture(),
        description=description,
        facts=figure.facts(),
        mistakes=tuple(mistakes),
    )


def triangle(angle_a: float, angle_b: float) -> dict[str, Point]:
    """A, B and C of a triangle with the given angles at A and B (degrees), AB along the x axis and C above it."""
    a, b = angle_a * pi / 180, angle_b * pi / 180
    side = sin(b) / sin(a + b)
    return {"A": (0.0, 0.0), "B": (1.0, 0.0), "C": (side * cos(a), side * sin(a))}


def on_circle(angle: float, radius: float = 1.0) -> Point:
    """The point of a circle around the origin in a direction (degrees, counter-clockwise)."""
    return radius * cos(angle * pi / 180), radius * sin(angle * pi / 180)


def any_turn(rng: random.Random) -> float:
    return rng.uniform(0, 2 * pi)


def _turn(point: Point, turn: float) -> Point:
    return point[0] * cos(turn) - point[1] * sin(turn), point[0] * sin(turn) + point[1] * cos(turn)


def _minus(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1]


def _normal(a: Point, b: Point, inside: Point) -> Point:
    """The unit normal of the line through a and b that points away from the place `inside`."""
    normal = _unit((b[1] - a[1], a[0] - b[0]))
    is_towards = (inside[0] - a[0]) * normal[0] + (inside[1] - a[1]) * normal[1] > 0
    return (-normal[0], -normal[1]) if is_towards else normal


def _unit(vector: Point) -> Point:
    length = hypot(*vector) or 1.0
    return vector[0] / length, vector[1] / length
