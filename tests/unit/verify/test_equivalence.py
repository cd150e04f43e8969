import pytest

from mm_agrae.records import Tolerance
from mm_agrae.verify.equivalence import compare_simply, shown_form
from mm_agrae.verify.outcome import Comparison, Outcome

TENTHS = Tolerance(kind="round", value=1)

OPTIONS = ("3/11", "8/11", "6/11", "3/5")


def outcome(answer, target, kind="math", **how):
    result = compare_simply(answer, target, kind, **how)
    assert isinstance(result, Outcome), f"{answer} against {target} was left to algebra"
    return result.equal, result.rule


@pytest.mark.parametrize(
    ("answer", "target", "kind"),
    [
        ("27", "27.0", "integer"),
        ("027", "27", "integer"),
        ("x = 5", "5", "integer"),
        ("5m", "5", "integer"),
        ("0.5", "\\frac{1}{2}", "fraction"),
        ("2/4", "1/2", "fraction"),
        ("3.50", "3.5", "decimal"),
        ("0.0833333333", "1/12", "math"),
        ("3\\times10^8", "300000000", "math"),
        ("(3, 2)", "(p,q)=(3,2)", "math"),
        ("[-2,7]", "x \\in [-2,7]", "math"),
        ("1, 2, 3", "3,2,1", "math"),
        ("6,8", "6 \\text{ and } 8", "math"),
        ("(3,1),(2,1)", "(2,1),(3,1)", "math"),
        ("(1,4.5)", "(1,\\frac{9}{2})", "math"),
        ("C", "\\text{(C)}", "math"),
        ("28%", "28", "math"),
        ("Dark red", "\\text{dark red}", "text"),
    ],
)
def test_equal_without_algebra(answer, target, kind):
    equal, rule = outcome(answer, target, kind)
    assert equal, rule


@pytest.mark.parametrize(
    ("answer", "target", "kind", "rule"),
    [
        ("1000000", "1000001", "integer", "same_number"),
        ("5.0000001", "5", "integer", "same_number"),
        ("1000000/3", "1000001/3", "math", "same_number"),
        ("0.33", "1/3", "decimal", "close_number"),
        ("5,6", "5", "integer", "list_length"),
        ("5 or 6", "5", "math", "list_length"),
        ("(1,3)", "\\{1,3\\}", "math", "brackets"),
        ("[1,2]", "(1,2)", "math", "brackets"),
        ("(2,1)", "(1,2)", "math", "same_parts"),
        ("5 \\text{ m}", "5 \\text{ cm}", "math", "same_number"),
        ("5 \\text{ m}", "5 \\text{ s}", "math", "unit"),
        ("0.28", "28\\%", "math", "close_number"),
        ("even", "\\text{odd}", "math", "words"),
        ("five", "5", "integer", "words"),
        ("\\text{}", "5", "math", "empty_form"),
        ("blue", "red", "text", "words"),
        ("9^{9^{9}}", "5", "integer", "refused_tower"),
        ("5" * 401, "5", "integer", "refused_length"),
    ],
)
def test_different_without_algebra(answer, target, kind, rule):
    assert outcome(answer, target, kind) == (False, rule)


@pytest.mark.parametrize(("answer", "equal"), [("7.1", 1), ("7.07", 1), ("7.15", 1), ("7.05", 1), ("7.2", 0), ("7", 0)])
def test_decimals_accept_what_rounds_to_the_target(answer, equal):
    assert outcome(answer, "7.1", "decimal", tolerance=TENTHS)[0] == bool(equal)


def test_without_decimals_rounding_is_not_forgiven():
    assert outcome("7.07", "7.1", "decimal") == (False, "close_number")


@pytest.mark.parametrize(
    "answer",
    [
        "B", "b", "(B)", "B.", "option B", "\\text{B}", "\\text{B. } \\frac{8}{11}", "{B}", "B: 8/11", "(B) 8/11",
        "8/11", "\\frac{8}{11}", "B. Because it is.",
    ],
)  # fmt: skip
def test_a_choice_is_named_by_letter_or_text(answer):
    assert outcome(answer, "B", "choice", options=OPTIONS)[0]
    assert not outcome(answer, "C", "choice", options=OPTIONS)[0]


@pytest.mark.parametrize("answer", ["A", "E", "A, B", "AB", "B or C", "3/11", "0.5", ""])
def test_a_choice_is_not_given_to_anything_else(answer):
    assert not outcome(answer, "B", "choice", options=OPTIONS)[0]


def test_choices_with_awkward_options():
    assert outcome("A triangle", "B", "choice", options=("A square", "A triangle"))[0]
    assert outcome("5 cm", "A", "choice", options=("5cm", "7cm"))[0]
    assert not outcome("5 m", "A", "choice", options=("5cm", "7cm"))[0]
    assert outcome("A", "6cm", "choice", options=("6cm", "7cm"))[0]
    twins = ("yes", "no", "yes")
    assert outcome("yes", "C", "choice", options=twins)[0]
    assert not outcome("A", "C", "choice", options=twins)[0]


def test_the_rest_is_left_to_algebra():
    left = compare_simply("\\sqrt{12}\\text{ cm}", "2√3", "expression")
    assert left == Comparison(answer="\\sqrt{12}", target="2\\sqrt{3}")
    rounded = compare_simply("5\\sqrt{2}", "7.1", "decimal", tolerance=TENTHS)
    assert rounded == Comparison(answer="5\\sqrt{2}", target="7.1", tolerance=TENTHS)


def test_shown_form_names_the_unit():
    assert shown_form("\\dfrac12 \\text{ cm}", "math") == "\\frac{1}{2} [cm]"
    assert shown_form("\\text{B}", "choice") == "b"
    assert shown_form("1" * 401, "math") is None
