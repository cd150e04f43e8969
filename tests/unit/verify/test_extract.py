import time

import pytest

from mm_agrae.verify.extract import extract, find_boxes


def found(text, kind="math", num_options=0):
    extraction = extract(text, kind, num_options=num_options)
    if extraction is None:
        return None
    start, end = extraction.span
    assert text[start:end] == extraction.answer
    return extraction.answer, extraction.rule


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{4}.", "4"),
        ("first \\boxed{3}, no: \\boxed{4}", "4"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\fbox{ 7 }", "7"),
        ("\\boxed {7}", "7"),
        ("cut short \\boxed{3 and \\boxed{4}", "4"),
        ("\\boxed{3} and then \\boxed{4", "3"),
        ("a stray } and { before \\boxed{5}", "5"),
        ("\\boxed{\\boxed{5}}", "\\boxed{5}"),
        ("the answer is 3, so \\boxed{4}", "4"),
    ],
)
def test_the_last_closed_box_wins(text, answer):
    assert found(text) == (answer, "box")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\\boxed{3}</think> I don't know.", None),
        ("<think>\\boxed{3} hmm wait", None),
        ("<think>The answer is 3", None),
        ("<think>a</think><think>The answer is 3", None),
        ("</think> The answer is 3", ("3", "phrase")),
        ("<think>\\boxed{3}</think> \\boxed{4}", ("4", "box")),
        ("<think>It is 3</think> 4", ("4", "whole_text")),
    ],
)
def test_thinking_holds_no_answer(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize("text", ['The answer is "12".', "The answer is “12”", "The answer is '12'"])
def test_quotes_around_a_phrase_are_none_of_it(text):
    assert found(text) == ("12", "phrase")
    assert found("The answer is 12'") == ("12'", "phrase")


def test_an_empty_last_box_gives_no_answer():
    assert found("\\boxed{3} or \\boxed{ }") is None
    assert found("I conclude \\boxed{}.") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\\boxed{7}</think><answer>8</answer>", ("8", "answer_tag")),
        ("<answer>8</answer> hence \\boxed{7}", ("7", "box")),
        ("<answer>it is \\boxed{8}</answer>", ("8", "box")),
        ("<answer>1</answer><answer> 2 </answer>", ("2", "answer_tag")),
        ("<answer>1</answer><answer>2", ("1", "answer_tag")),
    ],
)
def test_box_or_tag_whichever_closes_last(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 12.", "12"),
        ("The answer is 3.5. That was easy.", "3.5"),
        ("Final answer: $x^2$\nBye 3", "$x^2$"),
        ("The answer is 5, because 2+3 is.", "5"),
        ("the answer is\n(C) Cecile", "(C) Cecile"),
        ("经过计算，答案是B", "B"),
        ("答案：65°", "65°"),
        ("the answer is 1? No, the answer is **2**.", "2"),
    ],
)
def test_the_last_phrase_without_box_or_tag(text, answer):
    assert found(text) == (answer, "phrase")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D. it can't be A or B", ("D", "leading_letter")),
        ("(B)", ("B", "leading_letter")),
        ("B", ("B", "leading_letter")),
        ("I would take option C here.", ("C", "sole_letter")),
        ("Surely (B) fits.", ("B", "sole_letter")),
        ("It could be A or B or C or D.", None),
        ("Both A and C look right to me.", None),
        ("(A) or (B)", None),
        ("A) or B)", None),
        ("(A) (B) (C) (D)", None),
        ("**A** or **B**", None),
        ("A. 3/11\nB. 8/11\nC. 6/11\nD. 3/5\n\nI cannot see the image.", None),
        ("A. F = P(A)", ("A", "leading_letter")),
        ("A. A square has four sides", ("A", "leading_letter")),
        ("[B]", ("B", "leading_letter")),
        ('"B"', ("B", "leading_letter")),
        ("（B）", ("B", "leading_letter")),
        ("B is the answer.", ("B", "sole_letter")),
        ("I think it is B.", ("B", "sole_letter")),
        ("Hence B", ("B", "sole_letter")),
        ("C is larger, hence B", None),
        ("Hence A or B", None),
        ("It is A circle", None),
        ("Maybe (A), maybe (B)", None),
        ("Sorry, I can't help with that.", None),
        ("E", None),
    ],
)
def test_letters_of_a_choice(text, expected):
    assert found(text, "choice", 4) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("780", ("780", "whole_text")),
        ("$5 \\geq x$", ("$5 \\geq x$", "whole_text")),
        ("Therefore $x < 5$ is the solution.", ("x < 5", "sole_math")),
        ("Adding 2 and 3.\nWe get 5 of them.", ("5", "sole_number")),
        ("It is 4 or 5.", None),
        ("It is $4$ or $5$.", None),
        ("No figure here.", None),
        ("", None),
    ],
)
def test_what_nothing_announces_counts_only_when_it_stands_alone(text, expected):
    assert found(text) == expected


def test_find_boxes_counts_commands_that_never_close():
    boxes, num_commands = find_boxes("\\boxed{1} \\boxed{2 \\boxed 3")
    assert [(box.start, box.end, box.inner) for box in boxes] == [(0, 9, (7, 8))]
    assert num_commands == 3


@pytest.mark.parametrize("unit", ["\\boxed{", "{", "}", "<answer>", "</answer>", "answer is ", "$", " ", "(A) ", "9"])
def test_hostile_repetition_takes_linear_time(unit):
    begun = time.process_time()  # other programs do not count
    extract(unit * 100_000)
    extract(unit * 100_000 + "}" * 100_000)
    extract(unit * 100_000, "choice", num_options=4)
    assert time.process_time() - begun < 3.0  # quadratic scanning would take minutes
