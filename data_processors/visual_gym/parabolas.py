"""Parabolas over a grid: vertex, axis, and the numbers in the equation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

from data_processors.visual_gym.answers import Answer, integer, rational
from data_processors.visual_gym.plot import MIN_SIZE, Plot
from data_processors.visual_gym.problem import Family, Problem, by_level


def _problem(
    rng: random.Random,
    size: int,
    shape: tuple[Fraction, int, int],
    question: str,
    answer: Answer,
    *,
    working: str,
    mistakes: Sequence[str] = (),
) -> Problem:
    """A problem on y = a (x - h)^2 + k with the shape (a, h, k)."""
    a, h, k = shape
    plot = Plot(rng, size)
    factor = float(a)
    plot.curve(lambda x: factor * (x - h) ** 2 + k, straight=False)
    plot.dot(h, k)
    return Problem(
        question=question,
        answer=answer,
        working=working,
        picture=plot.canvas.picture(),
        description=f"A parabola has its vertex at ({h}, {k}) and goes through ({h + 2}, {k + 4 * a}).",
        facts={"a": str(a), "h": h, "k": k},
        mistakes=tuple(mistakes),
    )


def _shape(rng: random.Random, factors: Sequence[Fraction]) -> tuple[Fraction, int, int]:
    """A parabola that opens towards the side of the grid with room for it."""
    a, h = rng.choice(factors), rng.choice([h for h in range(-4, 5) if h])
    return a, h, rng.choice((-4, -3, -2, -1)) if a > 0 else rng.choice((1, 2, 3, 4))


def _extreme_value(rng: random.Random, size: int) -> Problem:
    shape = _shape(rng, (Fraction(1), Fraction(-1)))
    a, h, k = shape
    word = "smallest" if a > 0 else "largest"
    return _problem(
        rng,
        size,
        shape,
        f"What is the {word} value of y on the curve?",
        integer(k),
        working=f"The vertex is at ({h}, {k}), so the {word} y is {k}.",
        mistakes=(str(h), str(-k), str(-h), str(k + 1)),
    )


def _axis(rng: random.Random, size: int) -> Problem:
    shape = _shape(rng, (Fraction(1, 2), Fraction(-1, 2), Fraction(2), Fraction(-2)))
    _, h, k = shape
    return _problem(
        rng,
        size,
        shape,
        "At which x is the axis of symmetry of the parabola?",
        integer(h),
        working=f"The vertex is at ({h}, {k}), so the axis is at x = {h}.",
        mistakes=(str(k), str(-h), str(-k), str(h + 1)),
    )


def _vertex(rng: random.Random, size: int) -> Problem:
    shape = _shape(rng, (Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-1, 2)))
    _, h, k = shape
    return _problem(
        rng,
        size,
        shape,
        "What is the vertex of the parabola? Answer as (x, y).",
        Answer(f"({h}, {k})", "math"),
        working=f"The curve turns at x = {h}, y = {k}.",
        mistakes=(f"({k}, {h})", f"({-h}, {k})", f"({h}, {-k})", f"({h}, {k + 1})"),
    )


def _opening(rng: random.Random, size: int) -> Problem:
    shape = _shape(rng, (Fraction(1, 2), Fraction(-1, 2), Fraction(2), Fraction(-2), Fraction(1, 4), Fraction(-1, 4)))
    a, h, k = shape
    answer = rational(a)
    return _problem(
        rng,
        size,
        shape,
        "The curve is y = a(x - h)² + k. Find a.",
        answer,
        working=f"From the vertex ({h}, {k}), 2 to the right the curve changes by 4a = {4 * a}, so a = {answer.text}.",
        mistakes=tuple(rational(wrong).text for wrong in (-a, 1 / a, -1 / a, 4 * a)),
    )


def _coefficients(rng: random.Random, size: int) -> Problem:
    shape = _shape(rng, (Fraction(1), Fraction(-1)))
    a, h, k = shape
    b, c = int(-2 * a * h), int(a * h * h + k)
    lead, asks_b = "x²" if a > 0 else "-x²", rng.random() < 0.5
    return _problem(
        rng,
        size,
        shape,
        f"The curve is y = {lead} + bx + c. Find {'b' if asks_b else 'c'}.",
        integer(b if asks_b else c),
        working=f"The vertex is ({h}, {k}): {'b = -2ah' if asks_b else 'c = ah² + k'} = {b if asks_b else c}.",
        mistakes=(str(-b), str(h), str(2 * k)) if asks_b else (str(k), str(h * h), str(c - 2 * k)),
    )


FAMILIES = {
    "functions/vertex": Family(
        make=by_level(_extreme_value, _axis, _vertex, _opening, _coefficients), min_size=MIN_SIZE
    )
}
