from fractions import Fraction

import pytest

from mm_agrae.records import AnswerKind
from mm_agrae.verify.equivalence import compare_simply
from mm_agrae.verify.outcome import Comparison, Outcome
from mm_agrae.verify.units import conversion, measure, unit_name


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("cm", "cm"), ("Meters", "m"), ("feet", "ft"), ("square feet", "ft2"), ("cubic cm", "cm3"), ("sq. m", None),
        ("cm^{2}", "cm2"), ("km/h", "km/h"), ("meters per second", "m/s"), ("mph", "mi/h"), ("m/s^2", "m/s2"),
        ("units", ""), ("apples", None), ("m", None), ("x/y", None), ("度", "°"), ("平方厘米", "cm2"), ("", None),
    ],
)  # fmt: skip
def test_names_of_units(word, name):
    assert unit_name(word, numeric=False) == name


def test_a_letter_is_a_unit_beside_numbers_only_and_chinese_may_be_off():
    assert unit_name("m", numeric=True) == "m"
    assert unit_name("sq. m", numeric=True) == "m2"
    assert unit_name("x", numeric=True) is None
    assert unit_name("米", numeric=False, chinese=False) is None


@pytest.mark.parametrize(
    ("unit", "to", "factor"),
    [
        ("m", "cm", Fraction(100)),
        ("h", "min", Fraction(60)),
        ("m2", "cm2", Fraction(10_000)),
        ("L", "cm3", Fraction(1000)),
        ("km/h", "m/s", Fraction(5, 18)),
        ("year", "month", Fraction(12)),
        ("in", "mm", Fraction(254, 10)),
        ("$", "cent", Fraction(100)),
        ("m", "s", None),
        ("m", "m2", None),
        ("%", "°", None),
        ("$", "€", None),
        ("day", "month", None),
    ],
)
def test_conversion_within_a_dimension_only(unit, to, factor):
    assert conversion(unit, to) == factor


def test_a_measure_knows_its_dimension():
    assert measure("L").dimension == measure("m3").dimension == (("length", 3),)
    assert measure("m/s2").dimension == (("length", 1), ("time", -2))


QUANTITIES: list[tuple[str, str, AnswerKind, bool]] = [
    ("500 cm", "5 m", "quantity", True),
    ("500 cm", "5 m", "math", True),
    ("60 min", "1 h", "quantity", True),
    ("72 km/h", "20 m/s", "quantity", True),
    ("5 miles", "5 meters", "math", False),
    ("5 miles", "5 meters", "quantity", False),
    ("8.04672 km", "5 miles", "quantity", True),
    ("5 \\text{ s}", "5 \\text{ m}", "quantity", False),
    ("100 cents", "\\$1", "math", True),
    ("33.3333333 cm", "\\frac{1}{3} m", "quantity", True),
    ("5", "5 meters", "quantity", True),
    ("5 meters", "5", "integer", True),
    ("28%", "28 cm", "math", False),
]


@pytest.mark.parametrize(("answer", "target", "kind", "equal"), QUANTITIES)
def test_quantities_are_converted_or_refused(answer, target, kind, equal):
    found = compare_simply(answer, target, kind)
    assert isinstance(found, Outcome)
    assert found.equal == equal, found.rule


def test_expressions_are_converted_by_a_factor():
    found = compare_simply("9\\pi\\text{ cm}", "0.09\\pi\\text{ m}", "quantity")
    assert found == Comparison(answer="\\frac{1}{100}(9\\pi)", target="0.09\\pi")
