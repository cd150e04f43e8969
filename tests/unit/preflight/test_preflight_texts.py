"""Normal forms of questions: wordings of one problem meet, other problems do not."""

from __future__ import annotations

import pytest
from check_sets import sample

from mm_agrae.preflight.texts import normal_form, split_options, text_key
from mm_agrae.prompts.texts import INSTRUCTIONS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is $\\dfrac{1}{2} + x$?", "what is \\(\\frac{1}{2}+x\\)"),
        ("Find the  length\r\nof AB.", "Find the length of AB"),
        ("Is $3 − 2 = 1$?", "Is 3 - 2 = 1 ?"),
        ("Find \\left( x \\right)", "find (x)"),
        ("角度是多少?", "角度是多少?"),
        ("Find $\\tfrac12$ of $x^{2}$ in \\text{cm}.", "Find $\\frac{1}{2}$ of $x²$ in cm."),
        ("Add .5 to $x_{1}$", "Add 0.5 to x₁"),
        ("f'(2) of John's ____", "f′(2) of John’s ___"),
        ("Then x is ( )", "Then x is"),
        ("Find x. Please reason step by step, and put your final answer within \\boxed{}", "Find x."),
        (f"{INSTRUCTIONS['boxed']}\nFind x.", "Find x."),
    ],
)
def test_wordings_of_one_question_have_one_form(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2 + 3", "2 - 3"),
        ("x < 1", "x > 1"),
        ("1.5 m", "15 m"),
        ("12", "1 2"),
        ("x^2", "x 2"),
        ("50%", "50"),
        ("2*(3+4)", "2*3+4"),
        ("2³", "23"),
        ("2½", "21/2"),
        (".5", "5"),
        ("\\frac{1}{2+3}", "\\frac{1}{2}+3"),
        ("f'(2)", "f(2)"),
        ("∑x", "x"),
        ("A∧B", "A∨B"),
        ("p→q", "p q"),
        ("x_1", "x1"),
        ("x₁", "x1"),
        ("(0,1]", "[0,1]"),
    ],
)
def test_signs_and_digits_tell_questions_apart(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


@pytest.mark.parametrize(
    "question",
    [
        "How long is AB?\nChoices:\nA: 3\nB: 4\nC: 5",
        "How long is AB? (A) 3 (B) 4 (C) 5",
        "How long is AB?\nA. 3\nB. 4\nC. 5",
    ],
)
def test_options_in_the_question_are_found(question: str) -> None:
    assert split_options(question) == ("How long is AB?", ("3", "4", "5"))


@pytest.mark.parametrize("question", ["Let (A) be a point.", "A. Smith has 3 apples.", "Points B. and C. are given."])
def test_a_letter_alone_is_no_list_of_options(question: str) -> None:
    assert split_options(question) == (question, ())


def test_options_count_the_same_in_their_column_and_in_the_question() -> None:
    inline = text_key(sample("a", "How long is AB?\nA. 3\nB. 4"))
    column = text_key(sample("b", "How long is AB?", options=("4", "3")))
    assert inline == column
    assert text_key(sample("c", "How long is AB?", options=("4", "5"))).options != column.options


def test_without_pictures_a_short_question_needs_equal_options() -> None:
    bare, long = "Which is true?", "Which of the following statements about triangles is always true?"
    assert not text_key(sample("a", bare)).same_problem(text_key(sample("b", bare, options=("x", "y"))))
    assert text_key(sample("a", long)).same_problem(text_key(sample("b", long, options=("x", "y"))))
    one, other = (text_key(sample("a", long, options=("x", last))) for last in ("y", "z"))
    assert not one.same_problem(other)


def test_image_marks_of_every_style_are_left_out() -> None:
    forms = {text_key(sample("a", f"{mark} Find x.")).stem for mark in ("", "<image 1>", "<image_2>", "<image3>")}
    assert len(forms) == 1
