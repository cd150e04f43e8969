"""Targets computed again from the numbers behind the picture, and for the small pictures from the pixels."""

import random
import re
from fractions import Fraction
from itertools import pairwise
from math import acos, degrees, dist, pi, sqrt

import numpy as np
import pytest

from data_processors.visual_gym import answers, make_problem
from mm_agrae.data.images import open_image
from mm_agrae.records import Sample

SEEDS = range(12)


def every(family: str, size: int = 224) -> list[Sample]:
    return [make_problem(family, difficulty, seed, size=size) for difficulty in range(1, 6) for seed in SEEDS]


def answer(sample: Sample) -> str:
    return sample.metadata.get("right_option", sample.target)


def number(latex: str) -> float:
    """The value of an answer such as -\\frac{9\\pi}{2}, 8+4\\pi or 2\\sqrt{13}."""
    text = re.sub(r"\\frac\{(.*?)\}\{(.*?)\}", r"((\1)/\2)", latex)
    text = re.sub(r"(\d)\\(pi|sqrt)", r"\1*\\\2", text).replace("\\pi", str(pi))
    text = re.sub(r"\\sqrt\{(\d+)\}", r"(\1)**0.5", text)
    assert re.fullmatch(r"[-+*/().\d]+", text), latex
    return float(eval(text))  # only digits and signs are left


# --- geometry: the drawn figure has the angles and lengths that are written on it -------------------------------------


def angle_of(points: dict[str, list[float]], arms: str) -> float:
    a, vertex, b = (np.array(points[name]) for name in arms)
    u, v = a - vertex, b - vertex
    return degrees(acos(float(u @ v) / float(np.hypot(*u) * np.hypot(*v))))


def written(label: str, x: float) -> float:
    """The value of a label such as "(2x-15)°" or "12"."""
    text = re.sub(r"(\d)x", r"\1*x", label.strip("()°").replace(")", ""))
    factor, _, constant = re.match(r"(?:(\d*)\*?(x))?([-+]?\d*)$", text).groups()  # type: ignore[union-attr]
    return (int(factor or 1) * x if "x" in text else 0) + (int(constant) if constant else 0)


GEOMETRY = ["triangle_angles", "isosceles", "parallel_lines", "inscribed_angle", "right_triangle", "similar_triangles"]


@pytest.mark.parametrize("family", GEOMETRY)
def test_the_answer_can_be_measured_in_the_figure(family: str) -> None:
    for sample in every(f"geometry/{family}"):
        facts, x = sample.metadata, number(answer(sample))
        labels = [*facts["angles"].values(), *facts["lengths"].values()]
        assert any("x" in label for label in labels)
        for arms, label in facts["angles"].items():
            assert angle_of(facts["points"], arms) == pytest.approx(written(label, x), abs=1e-6), sample.id
        scales = [
            dist(facts["points"][side[0]], facts["points"][side[1]]) / written(label, x)
            for side, label in facts["lengths"].items()
        ]
        # An answer rounded to one decimal moves its scale by up to half a tenth.
        tolerance = 0.05 / x if sample.answer_kind == "decimal" else 1e-6
        assert scales == pytest.approx(scales[:1] * len(scales), rel=tolerance), sample.id


def polygon(points: dict[str, list[float]], names: str) -> tuple[float, float]:
    """Area and perimeter."""
    corners = [points[name] for name in names]
    around = list(pairwise([*corners, corners[0]]))
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in around)) / 2, sum(dist(a, b) for a, b in around)


def test_rectangles() -> None:
    for sample in every("geometry/rectangle"):
        points = sample.metadata["points"]
        names = "ABCD" if sample.difficulty == 4 else "".join(sorted(points))
        area, perimeter = polygon(points, names)
        value = number(answer(sample))
        if "Find the side" in sample.question:
            given = int(re.search(r"(?:area|perimeter) is (\d+)", sample.question)[1])  # type: ignore[index]
            assert given == pytest.approx(area if "area" in sample.question else perimeter)
            assert value == pytest.approx(dist(points["B"], points["C"]))
        elif "shaded" in sample.question:
            assert value == pytest.approx(area - polygon(points, "EFGH")[0])
        else:
            assert value == pytest.approx(area if "area" in sample.question else perimeter)


def test_circles() -> None:
    for sample in every("geometry/circle"):
        facts, value = sample.metadata, number(answer(sample))
        lengths = {side: int(label) for side, label in facts["lengths"].items() if label != "x"}
        r = lengths.get("OA") or Fraction(lengths.get("BA", 0), 2)
        part = angle_of(facts["points"], "AOB") / 360 if sample.difficulty in (3, 4) else 1
        if "Find the radius" in sample.question:
            expected = sqrt(int(re.search(r"is (\d+)π", sample.question)[1]))  # type: ignore[index]
        elif "circumference" in sample.question or "arc" in sample.question:
            expected = part * 2 * pi * r
        elif "perimeter" in sample.question:
            expected = part * 2 * pi * r + 2 * r
        elif "AB" in lengths:
            expected = lengths["AB"] ** 2 * (1 - pi / 4)
        else:
            expected = part * pi * (r**2 - lengths.get("OB", 0) ** 2)
        assert value == pytest.approx(float(expected), abs=0.06 if answer(sample).count(".") else 1e-6), sample.id


# --- charts and tables ------------------------------------------------------------------------------------------------


def expected_of_bars(family: str, sample: Sample) -> object:
    values = dict(zip(sample.metadata["labels"], sample.metadata["values"], strict=True))
    asked, order = sample.metadata["asked"], sorted(values, key=lambda name: values[name])
    if family == "bar_extremum":
        return order[{"lowest": 0, "second lowest": 1, "second highest": -2, "highest": -1}[asked]]
    if family == "bar_value":
        return values[asked]
    if family == "bar_difference":
        return values[asked[0]] - values[asked[1]]
    if family == "bar_total":
        return sum(values.values())
    return values[asked[-1]] - (values[asked[0]] if len(asked) == 2 else 0)


@pytest.mark.parametrize("family", ["bar_value", "bar_difference", "bar_extremum", "bar_total", "line_value"])
def test_bars_and_points(family: str) -> None:
    for sample in every(f"charts/{family}"):
        assert answer(sample) == str(expected_of_bars(family, sample)), sample.id


def test_trends() -> None:
    for sample in every("charts/line_trend"):
        sign = 1 if sample.metadata["rises"] else -1
        steps = [sign * (b - a) for a, b in pairwise(sample.metadata["values"])]
        spans = [f"{a} to {b}" for a, b in pairwise(sample.metadata["labels"])]
        counted = str(sum(step > 0 for step in steps))
        assert answer(sample) == (counted if sample.difficulty <= 2 else spans[steps.index(max(steps))])  # type: ignore[operator]
        assert ("rise" in sample.question) == sample.metadata["rises"]


def expected_of_pie(sample: Sample) -> float:
    shares = dict(zip(sample.metadata["labels"], sample.metadata["shares"], strict=True))
    assert sum(shares.values()) == 100
    question = sample.question.split("\n")[0]
    named = sorted((name for name in shares if name in question), key=question.index)
    given = [int(value) for value in re.findall(r"\d+", question)]
    return (
        lambda: shares[named[0]],
        lambda: given[0] * shares[named[0]] / 100,
        lambda: 3.6 * shares[named[0]],
        lambda: (shares[named[0]] + shares[named[1]]) / 100,
        lambda: given[0] * shares[named[1]] / shares[named[0]],
    )[(sample.difficulty or 0) - 1]()


def expected_of_table(sample: Sample) -> float:
    rows, columns = sample.metadata["rows"], sample.metadata["columns"]
    table = dict(zip(rows, np.array(sample.metadata["table"]), strict=True))
    named = [table[name] for name in rows if name in sample.question]
    column = next((i for i, name in enumerate(columns) if name in sample.question), 0)
    cells = [line[column] for line in table.values()]
    return (
        lambda: named[0][column],
        lambda: named[0][2] - named[0][0],
        lambda: sum(cells),
        lambda: sum(cells) / len(cells),
        lambda: sum(line[0] * line[1] for line in named),
    )[(sample.difficulty or 0) - 1]()


def expected_of_groups(sample: Sample) -> object:
    table = np.array(sample.metadata["table"])
    places, series = sample.metadata["places"], sample.metadata["series"]
    question = sample.question.split("\n")[0]
    row = next((i for i, name in enumerate(places) if name in question), 0)
    column = next((i for i, name in enumerate(series) if name in question), 0)
    return (
        lambda: table[row, column],
        lambda: table[row, column],
        lambda: abs(table[row, 0] - table[row, 1]),
        lambda: table[:, column].sum(),
        lambda: places[np.abs(table[:, 0] - table[:, 1]).argmax()],
    )[(sample.difficulty or 0) - 1]()


def test_pies_tables_and_groups() -> None:
    for sample in every("charts/pie_share"):
        assert number(answer(sample)) == pytest.approx(expected_of_pie(sample)), sample.id
    for sample in every("charts/table_lookup"):
        assert number(answer(sample)) == pytest.approx(float(expected_of_table(sample)), abs=0.051), sample.id
    for sample in every("charts/grouped_bars"):
        assert answer(sample) == str(expected_of_groups(sample)), sample.id


# --- functions --------------------------------------------------------------------------------------------------------


def test_lines() -> None:
    for family in ("intercept", "slope", "line_equation"):
        for sample in every(f"functions/{family}"):
            pairs = re.findall(r"\((-?\d+), (-?\d+)\)", sample.metadata["description"])
            (x1, y1), (x2, y2) = ((int(x), int(y)) for x, y in pairs)
            slope = Fraction(y2 - y1, x2 - x1)
            intercept = y1 - slope * x1
            if family == "line_equation":
                right = answer(sample).removeprefix("y = ").replace(" ", "")
                at = [eval(re.sub(r"(?<=[\d)])x", f"*({x})", right).replace("x", f"({x})")) for x in (1, 2)]
                assert at == pytest.approx([float(slope * x + intercept) for x in (1, 2)]), sample.id
                continue
            if family == "slope":
                expected = -1 / slope if sample.difficulty == 5 else slope
            elif sample.difficulty == 5:
                expected = slope * int(re.search(r"at x = (\d+)", sample.question)[1]) + intercept  # type: ignore[index]
            else:
                expected = -intercept / slope if sample.difficulty == 4 else intercept
            assert number(answer(sample)) == pytest.approx(float(expected)), sample.id


def test_parabolas() -> None:
    for sample in every("functions/vertex"):
        a, h, k = Fraction(sample.metadata["a"]), sample.metadata["h"], sample.metadata["k"]
        at = [a * (x - h) ** 2 + k for x in (0, 1)]
        expected = {1: k, 2: h, 4: a}.get(sample.difficulty or 0)
        if sample.difficulty == 3:
            assert answer(sample) == f"({h}, {k})"
            continue
        if sample.difficulty == 5:
            expected = at[1] - at[0] - a if "Find b" in sample.question else at[0]
        assert number(answer(sample)) == pytest.approx(float(expected)), sample.id  # type: ignore[arg-type]


# --- counting, and the pictures without words -------------------------------------------------------------------------


def test_counts() -> None:
    for sample in every("counting/circles", 64):
        assert int(sample.target) == sum(kind == "circle" for kind, _ in sample.metadata["shapes"])
    for sample in every("counting/colour", 64):
        assert f"How many {sample.metadata['wanted']} shapes" in sample.question
        assert int(sample.target) == sum(colour == sample.metadata["wanted"] for _, colour in sample.metadata["shapes"])
    for sample in every("counting/shapes"):
        kind, colour, rule = (sample.metadata[key] for key in ("kind", "colour", "rule"))
        is_kind = np.array([shape[0] == kind for shape in sample.metadata["shapes"]])
        is_colour = np.array([shape[1] == colour for shape in sample.metadata["shapes"]])
        counted = {"kind": is_kind, "both": is_kind & is_colour, "either": is_kind | is_colour}[rule]
        assert int(sample.target) == counted.sum(), sample.id
        assert kind in sample.question
        assert rule == "kind" or colour in sample.question


def bars_in(sample: Sample) -> list[tuple[int, tuple[int, ...]]]:
    """Height in pixels and colour of every bar, read from the picture."""
    pixels = np.asarray(open_image(sample.images[0], sample.id)).astype(int)
    coloured = np.ptp(pixels, axis=2) > 60
    grey = (pixels == 120).all(axis=2)
    columns = (coloured | grey).sum(axis=0)
    starts = [x for x in range(1, len(columns)) if columns[x] and not columns[x - 1]]
    floor = np.flatnonzero((coloured | grey).any(axis=1))[-1]
    return [(int(columns[x]), tuple(pixels[floor, x].tolist())) for x in starts]


@pytest.mark.parametrize(("family", "size"), [(f, s) for f in ("tallest_bar", "bar_sum", "red_bar") for s in (64, 112)])
def test_small_charts_say_their_answer_in_pixels(family: str, size: int) -> None:
    unit = {64: 6, 112: 11}[size]
    for sample in every(f"charts/{family}", size):
        bars = bars_in(sample)
        assert [height / unit for height, _ in bars] == sample.metadata["heights"], sample.id
        red = [height // unit for height, colour in bars if colour == (220, 38, 38)]
        heights = [height // unit for height, _ in bars]
        expected = {"tallest_bar": max(heights), "bar_sum": sum(heights), "red_bar": (red or [0])[0]}[family]
        assert int(sample.target) == expected
        assert family != "red_bar" or len(red) == 1


# --- how answers are written ------------------------------------------------------------------------------------------


def test_exact_forms() -> None:
    assert answers.decimal(Fraction(5, 4), decimals=1).text == "1.3"  # half away from zero
    assert answers.decimal(Fraction(-5, 4), decimals=1).text == "-1.3"
    assert answers.decimal(Fraction(-1, 100), decimals=1).text == "0.0"
    assert answers.decimal(Fraction(7), decimals=2).text == "7.00"
    assert answers.rational(Fraction(-6, 4)) == answers.Answer("-\\frac{3}{2}", "fraction")
    assert answers.rational(Fraction(4, 2)) == answers.integer(2)
    assert answers.square_root(72).text == "6\\sqrt{2}"
    assert answers.square_root(7).text == "\\sqrt{7}"
    assert answers.square_root(49) == answers.integer(7)
    assert answers.times_pi(Fraction(1)).text == "\\pi"
    assert answers.times_pi(Fraction(9, 2)).text == "\\frac{9\\pi}{2}"
    assert answers.times_pi(Fraction(1, 3)).text == "\\frac{\\pi}{3}"


def test_options_hold_the_answer_once_and_are_refused_when_too_few() -> None:
    rng = random.Random(0)
    for value in (-7, 0, 3, 120):
        options = answers.four_options(rng, answers.integer(value), (str(value), "9", "9"))
        assert options is not None
        assert len(set(options)) == 4
        assert options.count(str(value)) == 1
    assert answers.four_options(rng, answers.times_pi(Fraction(1)), ("\\pi", "2\\pi", "2\\pi", "3\\pi")) is None
