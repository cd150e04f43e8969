from fractions import Fraction

import pytest

from mm_agrae.verify.normalise import normal_form, read_number, split_list, unwrapped, words


@pytest.mark.parametrize(
    ("raw", "body", "unit"),
    [
        ("\\dfrac{1}{2}", "\\frac{1}{2}", None),
        ("\\frac13", "\\frac{1}{3}", None),
        ("\\frac { 1 } { 2 }", "\\frac{1}{2}", None),
        ("\\frac{270}7\\text{ degrees}", "\\frac{270}{7}", "°"),
        ("2 \\sqrt { 221 }", "2\\sqrt{221}", None),
        ("8√3", "8\\sqrt{3}", None),
        ("2sqrt(3)", "2\\sqrt{3}", None),
        ("9πcm^{2}", "9\\pi", "cm2"),
        ("25 pi", "25\\pi", None),
        ("\\left( 3, 4 \\right]", "(3,4]", None),
        ("145°.", "145", "°"),
        ("90^{\\circ}", "90", "°"),
        ("12 meters.", "12", "m"),
        ("15\\mbox{ cm}^2", "15", "cm2"),
        ("5 square units", "5", None),
        ("5 \\text{ apples}", "5", "apple"),
        ("28\\%", "28", "%"),
        ("\\$32,\\!348", "32348", "$"),
        ("1,234,567.5", "1234567.5", None),
        ("14{,}916", "14916", None),
        ("11,\\! 111,\\! 111", "11111111", None),
        ("(1,200)", "(1,200)", None),
        ("1 2 3", "1 2 3", None),
        ("19, 46, and 82", "19,46,82", None),
        ("100 and 200", "100,200", None),
        ("x \\cdot y", "x\\cdot y", None),
        ("−5", "-5", None),
        ("≈ 5", "5", None),
        ("5m", "5m", None),
    ],
)
def test_normal_form(raw, body, unit):
    form = normal_form(raw)
    assert (form.body, form.unit) == (body, unit)


def test_a_single_letter_is_a_unit_only_beside_a_numeric_target():
    form = normal_form("5m", numeric=True)
    assert (form.body, form.unit) == ("5", "m")
    assert normal_form("5x", numeric=True).body == "5x"


@pytest.mark.parametrize(
    ("raw", "bare"),
    [
        ("$$6$$", "6"),
        ("\\boxed{A}", "A"),
        ("<answer> 140° </answer>", "140°"),
        ("**B**.", "B"),
        ("\\(x\\)", "x"),
        ("\\text{(C)}", "(C)"),
        ("$5$ and $6$", "$5$ and $6$"),
    ],
)
def test_unwrapped(raw, bare):
    assert unwrapped(raw) == bare


def test_words_ignore_case_spaces_and_end_punctuation():
    assert words("\\text{Dark  Red}.") == words("dark red") == "dark red"
    assert words("red") != words("blue")


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("12", Fraction(12)),
        ("-0.5", Fraction(-1, 2)),
        (".4", Fraction(2, 5)),
        ("3.", Fraction(3)),
        ("10/9", Fraction(10, 9)),
        ("-0.1\\overline{6}", Fraction(-1, 6)),
        (".\\overline{142857}", Fraction(1, 7)),
        ("-\\frac{10}{9}", Fraction(-10, 9)),
        ("\\frac{1}{-2}", Fraction(-1, 2)),
        ("-3\\frac{1}{2}", Fraction(-7, 2)),
        ("7.8\\times10^{2}", Fraction(780)),
        ("10^6", Fraction(10**6)),
        ("4.5e33", Fraction(45 * 10**32)),
        ("1e-2", Fraction(1, 100)),
    ],
)
def test_numbers_are_read_exactly(body, value):
    number = read_number(body)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "body", ["", "x", "1/0", "\\frac{1}{0}", "1\\frac{1}{0}", "1e999999999", "1,2", "--1", "1 2", "0x1"]
)
def test_what_is_no_number_is_not_read(body):
    assert read_number(body) is None


def test_split_list_leaves_brackets_alone():
    assert split_list("(1,2),[3,4),\\frac{1,2}{3}") == ["(1,2)", "[3,4)", "\\frac{1,2}{3}"]
