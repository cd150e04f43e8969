import pytest

from mm_agrae.verify.outcome import Comparison
from mm_agrae.verify.symbolic import compare


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("\\sqrt{12}", "2\\sqrt{3}"),
        ("x^{2}+2x+1", "(x+1)^2"),
        ("y=1+2x", "y=2x+1"),
        ("\\frac{\\pi}{2}", "\\pi/2"),
        ("5\\gex", "x\\le5"),
        ("-5i+6", "6-5i"),
    ],
)
def test_equal_by_algebra(answer, target):
    assert compare(Comparison(answer=answer, target=target)).equal


@pytest.mark.parametrize(
    ("answer", "target"), [("\\sqrt{12}", "3\\sqrt{2}"), ("x+1", "x+2"), ("x^2-y^2=1", "x^2+y^2=1"), ("f(y)", "f(x)")]
)
def test_different_by_algebra(answer, target):
    assert not compare(Comparison(answer=answer, target=target)).equal


def test_constants_of_different_value_are_not_simplified():
    stubborn = Comparison(answer="\\sqrt{3.5\\sqrt{\\sqrt{2}}}", target="\\ln(7)")  # simplify was not done in 30 s
    assert compare(stubborn).rule == "value"
    assert compare(Comparison(answer="1.41421356", target="\\sqrt{2}")).equal
    assert not compare(Comparison(answer="1.414", target="\\sqrt{2}")).equal


def test_a_tolerance_compares_values():
    assert compare(Comparison(answer="5\\sqrt{2}", target="7.1", tolerance=0.05)).equal
    assert not compare(Comparison(answer="5\\sqrt{3}", target="7.1", tolerance=0.05)).equal


def test_failures_are_outcomes_with_a_rule():
    assert compare(Comparison(answer="\\frac{", target="5")).rule == "unreadable_answer"
    assert compare(Comparison(answer="5", target="\\frac{")).rule == "unreadable_target"
    assert compare(Comparison(answer="x", target="5", tolerance=0.5)).rule == "algebra_failed_TypeError"


def test_text_is_never_evaluated_as_code(tmp_path):
    mark = tmp_path / "mark"
    for code in (
        f'__import__("pathlib").Path("{mark}").touch()',
        f'open("{mark}","w")',
        f'exec(\'open("{mark}","w")\')',
    ):
        assert not compare(Comparison(answer=code, target="5")).equal
        assert not compare(Comparison(answer=f"\\text{{{code}}}", target="5")).equal
    assert not mark.exists()
