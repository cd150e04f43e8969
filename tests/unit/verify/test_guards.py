import pytest

from mm_agrae.verify.guards import is_wordy, refusal


@pytest.mark.parametrize(
    ("form", "rule"),
    [
        ("x" * 251, "refused_length"),
        ("(" * 11 + "1" + ")" * 11, "refused_nesting"),
        ("(1", "refused_brackets"),
        ("{1)}", "refused_brackets"),
        ("1)(", "refused_brackets"),
        ("\\frac{1}{}", "refused_empty_group"),
        ("9" * 61, "refused_digits"),
        ("x+" * 61 + "1", "refused_terms"),
        ("\\binom{9}{2}", "refused_operator"),
        ("\\int x", "refused_operator"),
        ("101!", "refused_factorial"),
        ("((9!)!)!", "refused_factorial"),
        ("9^{9^{9^9}}", "refused_tower"),
        ("9^9^9", "refused_tower"),
        ("{9^9}^9^9", "refused_tower"),
        ("2^{1001}", "refused_exponent"),
        ("2^1001", "refused_exponent"),
        ("2^{99\\cdot99\\cdot99}", "refused_exponent"),
        ("(x+y)^{13}", "refused_exponent"),
        ("(x+y)^7(a+b)^7", "refused_exponent"),
        ("1 2 3", "refused_loose_numbers"),
        ("5$and$6", "refused_dollar"),
    ],
)
def test_what_could_hang_is_refused_by_name(form, rule):
    assert refusal(form) == rule


@pytest.mark.parametrize(
    "form",
    [
        "\\frac{-b+\\sqrt{b^{2}-4ac}}{2a}", "2^{10}", "2^{1000}", "x^{100}", "(x+1)^{2}", "[0,1)", "5!", "a!=b",
        "e^{2x}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "(-\\infty,1]\\cup[10,+\\infty)", "\\infty",
    ],
)  # fmt: skip
def test_ordinary_answers_pass(form):
    assert refusal(form) is None


def test_words_are_told_from_products():
    assert is_wordy("even")
    assert is_wordy("x=none")
    assert not is_wordy("abc")
    assert not is_wordy("\\sqrt{2}\\cdot\\sin x")
