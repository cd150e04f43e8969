"""Parallel lines with a transversal, and angles in a circle. Every angle is drawn true."""

from __future__ import annotations

import random
from math import cos, pi, sin, tan

from data_processors.visual_gym.drawing import Point
from data_processors.visual_gym.figure import MIN_SIZE, Figure, any_turn, on_circle
from data_processors.visual_gym.geometry_angles import find_x, linear
from data_processors.visual_gym.problem import Family, Problem, by_level

# --- parallel lines: L-P-R above, K-Q-S below, the transversal T-P-Q-U ------------------------------------------------

WHERE = {
    "RPT": "above the upper line, right of the transversal",
    "LPQ": "below the upper line, left of the transversal",
    "RPQ": "below the upper line, right of the transversal",
    "SQP": "above the lower line, right of the transversal",
}


def _slope(rng: random.Random) -> int:
    """Direction of the transversal in degrees, clearly not at a right angle."""
    return rng.choice([*range(45, 81), *range(100, 136)])


def _parallels(rng: random.Random, size: int, slope: int, marks: dict[str, str]) -> tuple[Figure, str]:
    angle = slope * pi / 180
    points: dict[str, Point] = {"L": (-1.7, 0.85), "R": (1.7, 0.85), "K": (-1.7, -0.85), "S": (1.7, -0.85)}
    points["P"], points["Q"] = (0.85 / tan(angle), 0.85), (-0.85 / tan(angle), -0.85)
    points["T"] = points["P"][0] + cos(angle) * 0.75, 0.85 + sin(angle) * 0.75
    points["U"] = points["Q"][0] - cos(angle) * 0.75, -0.85 - sin(angle) * 0.75
    figure = Figure(points, size, turn=rng.uniform(-0.35, 0.35), margin=0.08)
    figure.lines("LR", "KS", "TU")
    figure.arrow("LR", share=0.93)
    figure.arrow("KS", share=0.93)
    for arms, words in marks.items():
        figure.angle(arms, words)
    shown = " and ".join(f"the angle {WHERE[arms]} is {words}" for arms, words in marks.items())
    return figure, f"A transversal crosses two parallel lines; {shown}."


def _equal_pair(rng: random.Random) -> tuple[str, str]:
    """The upper one of two equal angles, and what the pair is called; the lower one is SQP."""
    return rng.choice((("RPT", "Corresponding"), ("LPQ", "Alternate")))


def _equal_angles(rng: random.Random, size: int) -> Problem:
    slope, (arms, pair) = _slope(rng), _equal_pair(rng)
    figure, description = _parallels(rng, size, slope, {arms: f"{slope}°", "SQP": "x°"})
    working = f"{pair} angles at parallel lines are equal: x = {slope}."
    return find_x(figure, slope, working=working, description=description, mistakes=(180 - slope,))


def _interior_angles(rng: random.Random, size: int) -> Problem:
    slope = _slope(rng)
    figure, description = _parallels(rng, size, slope, {"RPQ": f"{180 - slope}°", "SQP": "x°"})
    working = f"Interior angles on one side add up to 180°: x = 180 - {180 - slope} = {slope}."
    return find_x(figure, slope, working=working, description=description, mistakes=(180 - slope, 360 - slope))


def _equal_algebra(rng: random.Random, size: int) -> Problem:
    slope, (arms, pair) = _slope(rng), _equal_pair(rng)
    factor = rng.randint(2, 5)
    x = slope // factor + rng.randint(-3, 3)
    constant = slope - factor * x
    figure, description = _parallels(rng, size, slope, {arms: linear(factor, constant), "SQP": f"{slope}°"})
    working = (
        f"{pair} angles are equal: {factor}x{f' {constant:+d}' if constant else ''} = {slope}, "
        f"so {factor}x = {slope - constant} and x = {x}."
    )
    mistakes = (slope, (180 - slope - constant) // factor, (slope + constant) // factor)
    return find_x(figure, x, working=working, description=description, mistakes=mistakes)


def _interior_algebra(rng: random.Random, size: int) -> Problem:
    while True:
        slope = _slope(rng)
        upper, lower, x = rng.randint(1, 4), rng.randint(1, 4), rng.randint(12, 40)
        constants = 180 - slope - upper * x, slope - lower * x
        if max(map(abs, constants)) <= 40:
            break
    marks = {"RPQ": linear(upper, constants[0]), "SQP": linear(lower, constants[1])}
    figure, description = _parallels(rng, size, slope, marks)
    rest, total = sum(constants), upper + lower
    working = (
        f"Interior angles add up to 180°: {total}x{f' {rest:+d}' if rest else ''} = 180, "
        f"so {total}x = {180 - rest} and x = {x}."
    )
    mistakes = ((180 + rest) // total, 180 // total, slope, 180 - slope)
    return find_x(figure, x, working=working, description=description, mistakes=mistakes)


def _bend(rng: random.Random, size: int) -> Problem:
    """A bent line between the parallels: its angle is the sum of the two that it makes with them."""
    a, c = rng.randint(36, 68), rng.randint(36, 68)
    level = rng.uniform(-0.12, 0.12)
    left = 0.7 - (0.8 - level) / tan(a * pi / 180), 0.7 - (0.8 + level) / tan(c * pi / 180)
    points = {"A": (left[0], 0.8), "C": (left[1], -0.8), "E": (0.7, level)}
    ends = {"L": (-1.4, 0.8), "R": (1.6, 0.8), "K": (-1.4, -0.8), "S": (1.6, -0.8)}
    figure = Figure({**points, **ends}, size, turn=rng.uniform(-0.35, 0.35), margin=0.1)
    figure.lines("LR", "KS", "AEC")
    figure.arrow("LR", share=0.93)
    figure.arrow("KS", share=0.93)
    asks_bend = rng.random() < 0.5
    figure.angle("RAE", f"{a}°" if asks_bend else "x°")
    figure.angle("SCE", f"{c}°")
    figure.angle("AEC", "x°" if asks_bend else f"{a + c}°")
    figure.name_points("ACE", centre=figure.middle("AC"))
    x = a + c if asks_bend else a
    sides = "A parallel through E splits angle AEC into the angles at A and C: "
    return find_x(
        figure,
        x,
        working=sides + (f"x = {a} + {c} = {x}." if asks_bend else f"x = {a + c} - {c} = {x}."),
        description="A lies on the upper and C on the lower of two parallel lines, E between them. AE makes an angle "
        f"of {f'{a}°' if asks_bend else 'x°'} with the upper line, CE one of {c}° with the lower line, both on "
        f"the side of E; angle AEC = {'x°' if asks_bend else f'{a + c}°'}.",
        mistakes=(180 - x, abs(a - c), 180 - a, 180 - c, 90),
    )


# --- angles in a circle -----------------------------------------------------------------------------------------------


def _circle(rng: random.Random, size: int, points: dict[str, Point], *paths: str) -> Figure:
    figure = Figure({"O": (0.0, 0.0), **points}, size, turn=any_turn(rng), extent=2.0, margin=0.13)
    figure.circle("O", 1.0)
    figure.lines(*paths)
    figure.name_points("".join(points), centre="O")
    return figure


def _arc_points(rng: random.Random, half: int) -> dict[str, Point]:
    """A and B with a central angle of 2 * half degrees, and C on the larger arc."""
    return {"A": on_circle(-90 - half), "B": on_circle(-90 + half), "C": on_circle(90 + rng.uniform(-0.4, 0.4) * half)}


def _name_centre(figure: Figure) -> None:
    figure.dot("O")
    figure.name_points("O", centre=figure.middle("AB"))


def _central_to_inscribed(rng: random.Random, size: int, *, reverse: bool = False) -> Problem:
    half = rng.randint(30, 72)
    figure = _circle(rng, size, _arc_points(rng, half), "ACB", "AOB")
    central, inscribed = ("x°", f"{half}°") if reverse else (f"{2 * half}°", "x°")
    figure.angle("AOB", central)
    figure.angle("ACB", inscribed)
    _name_centre(figure)
    x = 2 * half if reverse else half
    step = f"x = 2 · {half} = {x}" if reverse else f"x = {2 * half} / 2 = {x}"
    return find_x(
        figure,
        x,
        working=f"The angle at the centre is twice the angle on the circle: {step}.",
        description=f"A, B and C lie on a circle with centre O, O inside angle ACB. Angle AOB = {central}, "
        f"angle ACB = {inscribed}.",
        mistakes=(180 - 2 * half, 90 - half, 2 * half, half, 180 - half),
    )


def _inscribed_to_central(rng: random.Random, size: int) -> Problem:
    return _central_to_inscribed(rng, size, reverse=True)


def _semicircle(rng: random.Random, size: int) -> Problem:
    a = rng.randint(32, 58)
    points = {"A": on_circle(180), "B": on_circle(0), "C": on_circle(2 * a)}
    figure = _circle(rng, size, points, "ABCA")
    figure.angle("CAB", f"{a}°")
    figure.angle("ABC", "x°")
    figure.dot("O")
    figure.name_points("O", centre="C")
    return find_x(
        figure,
        90 - a,
        working=f"AB is a diameter, so angle C = 90°: x = 90 - {a} = {90 - a}.",
        description=f"AB is a diameter of a circle with centre O, C lies on the circle. Angle A = {a}°, angle B = x°.",
        mistakes=(a, 2 * a, 180 - a, 180 - 2 * a),
    )


def _cyclic_quadrilateral(rng: random.Random, size: int) -> Problem:
    while True:
        arcs = [2 * rng.randint(30, 60) for _ in range(3)]
        arcs.append(360 - sum(arcs))
        angle_a = (arcs[1] + arcs[2]) // 2
        if 60 <= arcs[3] <= 120 and abs(angle_a - 90) >= 4:
            break
    at = [0, arcs[0], arcs[0] + arcs[1], arcs[0] + arcs[1] + arcs[2]]
    figure = _circle(rng, size, {name: on_circle(angle) for name, angle in zip("ABCD", at, strict=True)}, "ABCDA")
    figure.angle("DAB", f"{angle_a}°")
    figure.angle("BCD", "x°")
    return find_x(
        figure,
        180 - angle_a,
        working="Opposite angles of a quadrilateral in a circle add up to 180°: "
        f"x = 180 - {angle_a} = {180 - angle_a}.",
        description=f"A, B, C and D lie in this order on a circle. Angle DAB = {angle_a}°, angle BCD = x°.",
        mistakes=(angle_a, abs(90 - angle_a), 360 - 2 * angle_a, 2 * angle_a),
    )


def _radius_and_chord(rng: random.Random, size: int) -> Problem:
    half = rng.randint(34, 62)
    figure = _circle(rng, size, _arc_points(rng, half), "ABCA", "AOB")
    figure.angle("OAB", f"{90 - half}°", radius=0.1)
    figure.angle("ACB", "x°")
    _name_centre(figure)
    a = 90 - half
    return find_x(
        figure,
        half,
        working=f"OA = OB, so angle AOB = 180 - 2 · {a} = {2 * half}; angle ACB is half of it: x = {half}.",
        description=f"A, B and C lie on a circle with centre O inside triangle ABC. Angle OAB = {a}°, angle ACB = x°.",
        mistakes=(a, 2 * half, 2 * a, 180 - half),
    )


FAMILIES = {
    "geometry/parallel_lines": Family(
        make=by_level(_equal_angles, _interior_angles, _equal_algebra, _interior_algebra, _bend),
        min_size=MIN_SIZE,
    ),
    "geometry/inscribed_angle": Family(
        make=by_level(
            _central_to_inscribed, _inscribed_to_central, _semicircle, _cyclic_quadrilateral, _radius_and_chord
        ),
        min_size=MIN_SIZE,
    ),
}
