import pytest

from mm_agrae.verify.choices import compare_choice, compare_choices, letters_of
from mm_agrae.verify.kinds import compare_times, compare_years, compare_yes_no, yes_or_no
from mm_agrae.verify.profiles import PROFILES

GENERIC, ENGLISH = PROFILES["generic"], PROFILES["math"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Yes", True), ("no.", False), ("Yes, it is.", True), ("TRUE", True), ("1", True), ("0", False), ("是", True),
        ("不是", False), ("Yes and no", None), ("perhaps", None), ("", None), ("It is not", None),
        ("True, False", None), ("true/false", None), ("yes false", None), ("1 or 0", None), ("0 1", None),
        ("no yes", None), ("true or false", None), ("No problem! Yes", None),
        ("No idea, I cannot see the image.", None),
        ("No, they are not.", False), ("No it is not true", False), ("Yes, there is no doubt", True), ("1 apple", None),
    ],
)  # fmt: skip
def test_yes_or_no(text, says):
    assert yes_or_no(text, GENERIC) is says


def test_chinese_yes_is_a_policy_and_nothing_said_is_wrong():
    assert compare_yes_no("是", "yes", GENERIC).equal
    assert not compare_yes_no("是", "yes", ENGLISH).equal
    assert not compare_yes_no("perhaps", "no", GENERIC).equal
    assert compare_yes_no("unclear", "Unclear.", GENERIC).equal


@pytest.mark.parametrize(
    ("answer", "target", "equal"),
    [("2010", "2010", 1), ("in 2010", "2010", 1), ("2010年", "2010", 1), ("2010.0", "2010", 1), ("2009", "2010", 0),
     ("20", "2010", 0), ("the 1990s", "1990", 0), ("never", "Never", 1)],
)  # fmt: skip
def test_years_are_exact(answer, target, equal):
    assert compare_years(answer, target).equal == bool(equal)


@pytest.mark.parametrize(
    ("answer", "target", "equal"),
    [
        ("5:30 pm", "17:30", 1), ("5:30 PM", "5:30", 1), ("05:30", "5:30", 1), ("5:30", "17:30", 0),
        ("5:30 am", "5:30 pm", 0), ("1:00", "12:00", 0), ("5:0", "5:00", 1), ("12:15 am", "0:15", 1),
        ("6 o'clock", "6:00", 1), ("下午5点30分", "17:30", 1), ("13:18:05", "13:18", 0), ("25:00", "1:00", 0),
        ("noon", "12:00", 0), ("late", "Late", 1), ("530", "5:30", 0),
    ],
)  # fmt: skip
def test_times_of_day(answer, target, equal):
    assert compare_times(answer, target).equal == bool(equal)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("A, C", "AC"), ("CA", "AC"), ("(A) and (C)", "AC"), ("C\nD", "CD"), ("\\text{B}", "B"), ("a, c", "AC"),
        ("[A, B]", "AB"), ("A or maybe C", None), ("Apple", None), ("", None), ("3", None),
    ],
)  # fmt: skip
def test_letters(text, letters):
    assert letters_of(text) == (None if letters is None else frozenset(letters))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", 1), ("(B)", 1), ("[B]", 1), ("（B）", 1), ('"B"', 1), ("'B'", 1), ("B, not A", 1),
        ("B because A is small", 1), ("B since it fits", 1), ("B as the area is 3", 1), ("B (8/11)", 1),
        ("(B) 8/11", 1), ("The answer is B", 1),
        ("B. it can't be A or C", 1), ("8/11", 1), ("B (6/11)", 0), ("(B) or (C)", 0), ("(B)(C)", 0), ("B. C. D.", 0),
        ("B: or C:", 0), ("B, C", 0), ("B/C", 0), ("B or maybe C", 0), ("B. 8/11 or C. 6/11", 0),
        ("(B) 8/11 (C) 6/11", 0), ("\\text{(B), (C)}", 0), ("(B), not (A)", 1), ("A", 0),
        ("By the way", 0), ("A, not B", 0),
    ],
)  # fmt: skip
def test_a_choice_names_one_option(answer, right):
    assert compare_choice(answer, "B", ("3/11", "8/11", "6/11", "3/5"), GENERIC).equal == bool(right)


def test_an_article_is_no_letter():
    assert compare_choice("A circle", "B", ("A square", "A circle"), GENERIC).equal
    assert not compare_choice("A circle", "A", ("A square", "A circle"), GENERIC).equal


def test_several_letters_must_all_be_there():
    assert compare_choices("C, A", "A,C").equal
    assert not compare_choices("A", "A,C").equal
    assert not compare_choices("A,B,C", "A,C").equal
    assert not compare_choices("all of them", "A,C").equal
    assert compare_choices("True", "true").equal


def test_circled_options_are_read_where_chinese_is():
    options = ("50°", "60°", "65°")
    assert compare_choice("③", "C", options, GENERIC).equal
    assert compare_choice("选C", "C", options, GENERIC).equal
    assert compare_choice("C、65°", "C", options, GENERIC).equal
    assert not compare_choice("③", "C", options, ENGLISH).equal
    assert compare_choice("50 degrees", "A", options, GENERIC).equal
    assert not compare_choice("60 degrees", "A", options, GENERIC).equal
