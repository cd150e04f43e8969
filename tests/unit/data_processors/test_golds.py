import pytest

from data_processors.conversion.description import Drop
from data_processors.conversion.golds import Gold, gold_of, unwrapped

ASKED = "Which one?\nA. 2\nB. 3\nC. 4"


@pytest.mark.parametrize(
    ("answer", "bare"),
    [
        ("$$18.$$", "18"),
        ("$\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("\\(x+1\\)", "x+1"),
        ("25°.", "25°"),
        ("$4$,$6$", "$4$,$6$"),
        ("\\left\\{x=1\\right.", "\\left\\{x=1\\right."),
        ("1, 2, ...", "1, 2, ..."),
        (" . ", ""),
    ],
)
def test_unwrapped(answer: str, bare: str) -> None:
    assert unwrapped(answer) == bare


@pytest.mark.parametrize("answer", ["B", "(B)", "B.", "\\text{(B)}", "$B$", "B. 3", "(B) 3", "3"])
def test_a_choice_is_its_letter(answer: str) -> None:
    assert gold_of(ASKED, answer) == Gold(target="B", kind="choice", options=("2", "3", "4"))


def test_several_letters() -> None:
    assert gold_of(ASKED, "C, A") == Gold(target="A,C", kind="choices", options=("2", "3", "4"))
    assert gold_of(ASKED, "AC").target == "A,C"
    # Without options two letters are a line.
    assert gold_of("Name the diameter.", "AB") == Gold(target="AB")


def test_letters_and_numbers_that_no_option_has() -> None:
    assert gold_of(ASKED, "D") == Drop("answer letter is not among the options")
    assert gold_of(ASKED, "A,D") == Drop("answer letter is not among the options")
    assert gold_of(ASKED, "17") == Gold(target="17", options=())
    # The options may stand in the picture.
    assert gold_of("Which figure is symmetric?", "D") == Gold(target="D", kind="choice")


def test_the_letter_must_belong_to_the_text() -> None:
    assert gold_of(ASKED, "A. 3") == Gold(target="A. 3")


def test_words() -> None:
    assert gold_of("Is it even?", "Yes.") == Gold(target="yes", kind="yes_no")
    assert gold_of("What is it?", "a prism") == Gold(target="a prism")
    assert gold_of("What is it?", "") == gold_of("What is it?", "None") == Drop("no answer")
