import pytest

from mm_agrae.verify.equivalence import compare_simply
from mm_agrae.verify.lists import as_interval, with_signs_apart
from mm_agrae.verify.outcome import Comparison, Outcome
from mm_agrae.verify.profiles import PROFILES


def equal(answer, target, kind="math", profile="generic"):
    found = compare_simply(answer, target, kind, profile=PROFILES[profile])
    assert isinstance(found, Outcome), f"{answer} against {target} was left to algebra"
    return found.equal


@pytest.mark.parametrize(
    ("answer", "target", "kind"),
    [
        ("[2, 1]", "2,1", "list"),
        ("{2, 1}", "1,2", "set"),
        ("\\{1,2\\}", "[2,1]", "set"),
        ("3,4", "(3,4)", "coordinate"),
        ("P=(3,4)", "(3,4)", "coordinate"),
        ("(1, 2)", "(1,2)", "tuple"),
        ("[0, 1)", "[0,1)", "interval"),
        ("\\{1,2\\}", "2,1", "math"),
        ("2, 1", "1 \\text{ and } 2", "math"),
        ("x>3", "(3,\\infty)", "interval"),
        ("3<x", "x \\in (3,+\\infty)", "math"),
        ("-2 \\le x \\leq 7", "[-2,7]", "math"),
        ("-2 < x \\leq 7", "x\\in(-2,7]", "interval"),
        ("\\pm 3", "3,-3", "math"),
        ("3,-3", "\\pm 3", "set"),
        ("1 \\pm \\sqrt{5}", "1-\\sqrt5, 1+\\sqrt5", "math"),
        (
            "\\begin{bmatrix}1&2\\\\3&0.5\\end{bmatrix}",
            "\\begin{pmatrix}1 & 2 \\\\ 3 & \\frac12\\end{pmatrix}",
            "matrix",
        ),
        ("\\begin{array}{cc}1&2\\\\3&4\\end{array}", "[[1,2],[3,4]]", "matrix"),
    ],
)
def test_equal(answer, target, kind):
    assert equal(answer, target, kind)


@pytest.mark.parametrize(
    ("answer", "target", "kind"),
    [
        ("2,1", "1,2", "list"),
        ("(4,3)", "(3,4)", "coordinate"),
        ("(3,4,5)", "(3,4)", "coordinate"),
        ("(2,1)", "(1,2)", "tuple"),
        ("[1,2]", "(1,2)", "tuple"),
        ("[0,1]", "[0,1)", "interval"),
        ("(0,1)", "[0,1)", "math"),
        ("1,2,3", "1,2", "set"),
        ("-2 < x < 7", "[-2,7]", "math"),
        ("3", "\\pm 3", "math"),
        ("\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "matrix"),
        ("\\begin{pmatrix}1&2&3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "matrix"),
        ("10", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "math"),
    ],
)
def test_different(answer, target, kind):
    assert not equal(answer, target, kind)


def test_order_and_brackets_are_policies():
    assert not equal("2,1", "1,2", profile="mathvision")
    assert equal("(1,3)", "\\{1,3\\}", profile="math_verify")
    assert not equal("(3,1)", "\\{1,3\\}", profile="math_verify")
    assert not equal("[0,1]", "[0,1)", profile="math_verify")
    assert equal("[0,1]", "[0,1)", profile="qwen_math")


def test_what_algebra_has_to_compare_keeps_its_shape():
    roots = compare_simply("\\{\\sqrt{12},1\\}", "1,2\\sqrt3", "set")
    assert roots == Comparison(answer="\\{1,\\sqrt{12}\\}", target="\\{1,2\\sqrt{3}\\}")
    point = compare_simply("\\sqrt{12},1", "(2\\sqrt3,1)", "coordinate")
    assert point == Comparison(answer="(\\sqrt{12},1)", target="(2\\sqrt{3},1)")
    interval = compare_simply("x>4", "(3,\\infty)", "interval")
    assert interval == Comparison(answer="(4,\\infty)", target="(3,\\infty)")
    matrix = compare_simply("[[x,1]]", "\\begin{bmatrix}y&1\\end{bmatrix}", "matrix")
    assert matrix == Comparison(answer="\\begin{pmatrix}x&1\\end{pmatrix}", target="\\begin{pmatrix}y&1\\end{pmatrix}")


def test_inequalities_and_signs():
    assert as_interval("-2<x\\le7") == "(-2,7]"
    assert as_interval("5\\ge x") == "(-\\infty,5]"
    assert as_interval("x+y>3") is None
    assert as_interval("x=3") is None
    assert with_signs_apart("\\{1\\pm2,3\\}") == "\\{1+2,1-2,3\\}"
    assert with_signs_apart("(\\pm1,\\mp2)") == "(+1,-2),(-1,+2)"
    assert with_signs_apart("x+1") == "x+1"
