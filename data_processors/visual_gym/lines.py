"""Straight lines over a grid: intercepts, slopes and equations."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import partial

from data_processors.visual_gym.answers import Answer, integer, rational
from data_processors.visual_gym.plot import MIN_SIZE, Plot
from data_processors.visual_gym.problem import Family, Problem, by_level, offer_choices

Line = tuple[Fraction, Fraction]  # slope and intercept

ONES = (Fraction(1), Fraction(-1))
WHOLE = (Fraction(2), Fraction(3), Fraction(-2), Fraction(-3))
HALVES = (Fraction(1, 2), Fraction(-1, 2), Fraction(3, 2), Fraction(-3, 2))
RISING = (Fraction(1), Fraction(2), Fraction(3))
FALLING = (Fraction(-1), Fraction(-2), Fraction(-3))


def _line(slope: Fraction, intercept: Fraction) -> str:
    """Text of slope * x + intercept."""
    factor = {1: "", -1: "-"}.get(slope.numerator, str(slope.numerator))
    term = f"{factor}x" if slope.denominator == 1 else f"({slope.numerator}/{slope.denominator})x"
    if not slope:
        return str(intercept)
    return f"{term} {'+' if intercept > 0 else '-'} {abs(intercept)}" if intercept else term


def line_at(line: Line, x: int) -> Fraction:
    return line[0] * x + line[1]


def _line_problem(
    plot: Plot,
    line: Line,
    question: str,
    answer: Answer,
    *,
    working: str,
    mistakes: tuple[str, ...] = (),
    dots: tuple[tuple[int, int], ...] = (),
) -> Problem:
    slope, intercept = line
    steep, high = float(slope), float(intercept)
    plot.curve(lambda x: steep * x + high, straight=True)
    for dot in dots:
        plot.dot(*dot)
    whole = dots or tuple((x, int(line_at(line, x))) for x in range(-6, 7) if line_at(line, x).denominator == 1)
    return Problem(
        question=question,
        answer=answer,
        working=working,
        picture=plot.canvas.picture(),
        description=f"A straight line goes through {whole[0]} and {whole[-1]}.",
        facts={"slope": str(slope), "intercept": str(intercept)},
        mistakes=mistakes,
    )


def _draw_line(rng: random.Random, slopes: tuple[Fraction, ...]) -> Line:
    """A slope and a whole intercept other than 0."""
    return rng.choice(slopes), Fraction(rng.choice([k for k in range(-4, 5) if k]))


def _intercept(rng: random.Random, size: int, slopes: tuple[Fraction, ...]) -> Problem:
    line = _draw_line(rng, slopes)
    y = int(line[1])
    mistakes = (str(-y), rational(line[0]).text, str(y + 1), str(y - 1))
    working = f"The line crosses the y-axis at (0, {y})."
    return _line_problem(
        Plot(rng, size),
        line,
        "At which y does the line cross the y-axis?",
        integer(y),
        working=working,
        mistakes=mistakes,
    )


def _zero(rng: random.Random, size: int) -> Problem:
    while True:
        line = _draw_line(rng, WHOLE + HALVES)
        x = -line[1] / line[0]
        if x.denominator == 1 and abs(x) <= 5:
            break
    working = f"The line crosses the x-axis at ({x}, 0)."
    mistakes = (str(-x), str(line[1]), str(x + 1), str(x - 1))
    return _line_problem(
        Plot(rng, size),
        line,
        "At which x does the line cross the x-axis?",
        integer(int(x)),
        working=working,
        mistakes=mistakes,
    )


def _extrapolate(rng: random.Random, size: int) -> Problem:
    line, x = _draw_line(rng, WHOLE + HALVES), rng.choice((10, 12, 16, 20))
    y = line_at(line, x)
    working = f"The line is y = {_line(*line)}, so at x = {x} it has y = {y}."
    mistakes = (str(y - 2 * line[1]), str(line[0] * x), str(x + line[1]), str(-y))
    question = f"The line goes on beyond the picture. What is y at x = {x}?"
    return _line_problem(Plot(rng, size), line, question, integer(int(y)), working=working, mistakes=mistakes)


def _slope(rng: random.Random, size: int, slopes: tuple[Fraction, ...]) -> Problem:
    line = _draw_line(rng, slopes)
    slope = line[0]
    answer = rational(slope)
    working = f"For {slope.denominator} to the right the line goes {slope.numerator:+d} up: the slope is {answer.text}."
    mistakes = tuple(rational(wrong).text for wrong in (-slope, 1 / slope, -1 / slope, line[1], slope + 1))
    return _line_problem(
        Plot(rng, size), line, "What is the slope of the line?", answer, working=working, mistakes=mistakes
    )


def _two_dots(rng: random.Random) -> tuple[Line, tuple[tuple[int, int], tuple[int, int]]]:
    """A line with a slope that is no integer, through two points of the grid."""
    while True:
        (x1, y1), (x2, y2) = sorted((rng.randint(-5, 5), rng.randint(-5, 5)) for _ in range(2))
        if x2 - x1 >= 3 and y1 != y2:
            slope = Fraction(y2 - y1, x2 - x1)
            if slope.denominator > 1:
                return (slope, y1 - slope * x1), ((x1, y1), (x2, y2))


def _slope_dots(rng: random.Random, size: int) -> Problem:
    line, dots = _two_dots(rng)
    answer = rational(line[0])
    (x1, y1), (x2, y2) = dots
    working = f"From {dots[0]} to {dots[1]} the line goes {x2 - x1} right and {y2 - y1:+d} up: {answer.text}."
    mistakes = tuple(rational(wrong).text for wrong in (-line[0], 1 / line[0], -1 / line[0], line[0] + 1))
    question = "What is the slope of the line through the two red points?"
    return _line_problem(Plot(rng, size), line, question, answer, working=working, mistakes=mistakes, dots=dots)


def _slope_perpendicular(rng: random.Random, size: int) -> Problem:
    line, dots = _two_dots(rng)
    answer = rational(-1 / line[0])
    working = f"The slope is {rational(line[0]).text}; the perpendicular has the negative reciprocal {answer.text}."
    mistakes = tuple(rational(wrong).text for wrong in (-line[0], 1 / line[0], line[0], 1 - line[0]))
    question = "What is the slope of a line perpendicular to the line through the two red points?"
    return _line_problem(Plot(rng, size), line, question, answer, working=working, mistakes=mistakes, dots=dots)


def equation(rng: random.Random, difficulty: int, size: int) -> Problem:
    """Which equation the line has; always a choice whose wrong options differ in a sign or swap the two numbers."""
    line = _draw_line(rng, (ONES, WHOLE, HALVES[:2], HALVES, HALVES + WHOLE)[difficulty - 1])
    slope, intercept = line
    right = f"y = {_line(*line)}"
    wrong = [(-slope, intercept), (slope, -intercept), (-slope, -intercept), (1 / slope, intercept), (intercept, slope)]
    texts = [f"y = {_line(*other)}" for other in wrong if other[1].denominator == 1]
    texts = [text for text in dict.fromkeys(texts) if text != right]
    problem = _line_problem(
        Plot(rng, size),
        line,
        "Which equation does the line have?",
        Answer(right, "text"),
        working=f"The slope is {slope} and the line crosses the y-axis at {intercept}.",
    )
    # Harder: the options that swap or invert the numbers come in before those that flip one sign.
    order = texts if difficulty <= 2 else texts[::-1]
    return offer_choices(problem, rng, [right, *order[:3]])


FAMILIES = {
    "functions/intercept": Family(
        make=by_level(
            partial(_intercept, slopes=ONES),
            partial(_intercept, slopes=WHOLE),
            partial(_intercept, slopes=HALVES),
            _zero,
            _extrapolate,
        ),
        min_size=MIN_SIZE,
    ),
    "functions/slope": Family(
        make=by_level(
            partial(_slope, slopes=RISING),
            partial(_slope, slopes=FALLING),
            partial(_slope, slopes=HALVES),
            _slope_dots,
            _slope_perpendicular,
        ),
        min_size=MIN_SIZE,
    ),
    "functions/line_equation": Family(make=equation, min_size=MIN_SIZE),
}
