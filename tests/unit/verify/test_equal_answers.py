"""Pairs of an answer and a target that the general rule must and must not call equal, each as a boxed completion."""

import pytest

from mm_agrae.records import Tolerance
from mm_agrae.verify import Question, verify
from mm_agrae.verify.normalise import unwrapped
from mm_agrae.verify.verifier import begin

# One row: answer, target, equal.
TEXTS_BESIDE_A_VALUE = [
    ("5\\text{ apples}", "5", True),
    ("5\\text{, 6, 7, 8 or 9}", "5", False),
    ("3\\text{ or 4}", "3", False),
    ("3 \\text{ (or 4)}", "3", False),
    ("3 \\text{ is wrong; it is 4}", "3", False),
    ("3 \\text{ million}", "3", False),
    ("12 students", "12", True),
    ("12 students", "13", False),
    ("12 million", "12", False),
    ("3 quarters", "3", False),
    ("12", "12 apples", True),
    ("12 oranges", "12 apples", False),
    ("approximately 5", "5", True),
    ("about 6", "5", False),
    ("\\text{The distance is } 5", "5", True),
    ("\\text{The distance is } 6", "5", False),
    ("\\text{The distance is not } 5", "5", False),
    ("5", "\\text{The distance is } 5", True),
    ("6", "\\text{The distance is } 5", False),
    ("The largest $n$ is 34", "34", True),
    ("5\\\\", "5", True),
    ("5;", "5", True),
    ("6;", "5", False),
]
UNITS = [
    ("5\\text{ nm}", "5\\text{ m}", False),
    ("5000\\text{ nm}", "5\\text{ um}", True),
    ("5\\text{ MHz}", "5\\text{ Hz}", False),
    ("5\\text{ MHz}", "5000\\text{ kHz}", True),
    ("5\\text{ eV}", "5\\text{ J}", False),
    ("5\\text{ mA}", "5\\text{ A}", False),
    ("5\\text{ apples}", "5\\text{ oranges}", False),
    ("5\\text{ apple}", "5\\text{ apples}", True),
    ("5\\text{ light years}", "5\\text{ m}", False),
    ("5\\text{ cm long}", "5\\text{ cm}", True),
    ("5\\text{ cm long}", "5\\text{ m}", False),
    ("9m", "9米", True),
    ("9米", "9m", True),
    ("5", "5m", True),
    ("2", "2h", True),
    ("3", "2h", False),
    ("2", "2x", False),
]
NUMBERS = [
    ("0,111", "111", False),
    ("0,500", "500", False),
    ("1,500", "1500", True),
    ("204_6", "204_5", False),
    ("52", "52_8", False),
    ("52_8", "52_{8}", True),
    ("3–5", "-2", False),
    ("3–5", "3-5", True),
    ("–5", "-5", True),
    ("\\binom52", "10", True),
    ("2\\binom{5}{2}", "20", True),
    ("\\dbinom{5}{2}", "11", False),
    ("3=4", "4", False),
    ("1=2=3", "3", False),
    ("5 \\approx 6", "5", False),
    ("\\frac{6}{2}=3", "3", True),
    ("\\frac{1}{3}\\approx0.333", "\\frac{1}{3}", True),
    ("\\log_2 3", "\\log_2(3)", True),
    ("\\log_2 3", "\\log_{2}{3}", True),
    ("\\frac{\\ln 3}{\\ln 2}", "\\log_2 3", True),
    ("\\log_2 8", "3", True),
    ("\\log_2 9", "3", False),
    ("\\sin 30^\\circ", "\\frac12", True),
    ("\\tan(45°)", "1", True),
    ("\\sin 30^\\circ", "\\sin 30", False),
    ("30^\\circ", "30", True),
]
NAMES = [
    ("\\text{No}", "\\text{on}", False),
    ("\\text{no}", "\\text{No}", True),
    ("AB", "BA", False),
    ("AB", "\\text{AB}", True),
    ("II", "-1", False),
    ("ab", "ba", True),
    ("\\sqrt{LC}", "\\sqrt{CL}", True),
    ("\\angle ABC", "\\angle ACB", False),
    ("\\angle ABC", "\\angle{ABC}", True),
    ("\\angle ABC = 40^\\circ", "40^\\circ", True),
    ("\\frac{q_0}{\\sqrt{2CL}}", "I_{\\max}=\\frac{q_{0}}{\\sqrt{2LC}}", True),
    ("\\frac{q_0}{\\sqrt{3CL}}", "I_{\\max}=\\frac{q_{0}}{\\sqrt{2LC}}", False),
    ("\\frac{n!}{k!(n-k)!}", "\\frac{n!}{(n-k)!k!}", True),
    ("\\frac{n!}{k!(n-k)!}", "\\frac{n!}{k!(n+k)!}", False),
]
LISTS = [
    ("2,\\sqrt9,\\sqrt9", "\\sqrt4,2,3", False),
    ("3,2,\\sqrt4", "\\sqrt4,2,3", True),
    ("\\{1,2,2\\}", "\\{1,2\\}", True),
    ("1,2,2", "1,2", False),
    ("\\{1,2,3\\}", "\\{1,2\\}", False),
    ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", False),
    ("2\\sqrt3", "3 (or \\sqrt{12})", True),
    ("\\sqrt{12}", "\\sqrt{11} (or 2\\sqrt{3})", True),
    ("\\sqrt{13}", "\\sqrt{11} (or 2\\sqrt{3})", False),
]
RELATIONS = [
    ("x>-2", ">-2", True),
    ("x<-2", ">-2", False),
    ("3>x>1", "1<x<3", True),
    ("3>x\\ge1", "1<x<3", False),
    ("a<b", "b>a", True),
    ("x<-2 \\text{ or } x>7", "(-\\infty,-2)\\cup(7,\\infty)", True),
    ("(-\\infty,-2)\\cup(7,\\infty)", "x<-2 \\text{ or } x>7", True),
    ("(-\\infty,-2]\\cup(7,\\infty)", "x<-2 \\text{ or } x>7", False),
    ("x<2, x>1", "(1,2)", True),
    ("x<2, x>1", "[1,2)", False),
    ("\\mathbb{R}", "(-\\infty,\\infty)", True),
    ("\\mathbb{R}", "(0,\\infty)", False),
    ("x\\ne 3", "(-\\infty,3)\\cup(3,\\infty)", True),
    ("x\\ne 3", "x\\ne 3", True),
    ("x\\ne 4", "x\\ne 3", False),
    ("\\{x:x>2\\}", "(2,\\infty)", True),
    ("\\{x \\mid x\\ge2\\}", "(2,\\infty)", False),
    ("\\emptyset", "\\varnothing", True),
    ("]1,2[", "(1,2)", True),
    ("]1,2]", "(1,2)", False),
    ("y>3", "x>3", False),
    ("0<x<1 \\text{ or } x>3", "(0,1)\\cup(3,\\infty)", True),
    ("0<x<1 \\text{ or } x>4", "(0,1)\\cup(3,\\infty)", False),
    ("0<x<1 \\text{ or } y>3", "(0,1)\\cup(3,\\infty)", False),
    ("x>2,y>3", "x>2", False),
]
ROWS = [*TEXTS_BESIDE_A_VALUE, *UNITS, *NUMBERS, *NAMES, *LISTS, *RELATIONS]


@pytest.mark.parametrize(("answer", "target", "equal"), ROWS)
def test_general_rule(answer, target, equal):
    verdict = verify(f"\\boxed{{{answer}}}", Question(target=target))
    assert verdict.correct == equal, f"{verdict.rule}: {verdict.answer_form} against {verdict.target_form}"


@pytest.mark.parametrize(
    ("answer", "target", "tolerance", "equal"),
    [
        ("0.6054", "\\cos^{10}(\\frac{\\pi}{10})", Tolerance(kind="absolute", value=1e-4), True),
        ("0.6057", "\\cos^{10}(\\frac{\\pi}{10})", Tolerance(kind="absolute", value=1e-4), False),
        ("1.41", "\\sqrt2", Tolerance(kind="round", value=2), True),
        ("1.42", "\\sqrt2", Tolerance(kind="round", value=2), False),
        ("1.42", "\\sqrt2", Tolerance(kind="relative", value=0.01), True),
        ("\\frac{\\sqrt{x^2}}{2}", "\\sqrt2", Tolerance(kind="relative", value=0.01), False),
    ],
)
def test_a_tolerance_holds_for_targets_that_are_no_plain_numbers(answer, target, tolerance, equal):
    assert verify(f"\\boxed{{{answer}}}", Question(target=target, tolerance=tolerance)).correct == equal


@pytest.mark.parametrize(
    ("answer", "target", "profile", "equal"),
    [
        ("0.111", "0,111", "math_verify", True),
        ("111", "0,111", "math_verify", False),
        ("1,000.99$", "1000.99", "math_verify", True),
        ("3 \\text{ or 4}", "3", "math", False),
        ("3 \\text{ cm}^2", "3", "math", True),
        ("3 \\text{ or 4}", "3", "qwen_math", False),
        ("0.64 N", "0.64", "olympiadbench", False),
        ("0.64 N", "0.64 N", "olympiadbench", True),
    ],
)
def test_other_profiles(answer, target, profile, equal):
    assert verify(f"\\boxed{{{answer}}}", Question(target=target, profile=profile)).correct == equal


def test_packing_is_taken_off_a_few_times_only():
    assert unwrapped("$\\boxed{\\text{5}.}$.") == "5"
    assert unwrapped("5" + "." * 64_000) == "5"
    assert unwrapped("\\boxed{" * 9 + "5" + "}" * 9) == "\\boxed{5}"
    assert not begin("\\boxed{" * 9000 + "5" + "}" * 9000, Question(target="6")).correct
