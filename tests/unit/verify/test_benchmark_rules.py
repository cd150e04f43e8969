"""The published rule of each benchmark, as tables of (text, target, right or wrong). None of them needs algebra."""

import pytest

from mm_agrae.records import Tolerance
from mm_agrae.verify import Question
from mm_agrae.verify.comparators import compare_answer
from mm_agrae.verify.relaxed import anls
from mm_agrae.verify.verifier import begin

CM = ("6cm", "7cm", "4cm", "5cm")
COLOURS = ("red", "blue", "green")
NUMBERS = ("10", "12", "14", "16", "18")


def judged(profile, text, target, kind="math", **how):
    verdict = begin(text, Question(target=target, answer_kind=kind, profile=profile, **how))
    return verdict.correct


def short(answer):
    return f'{{"solution": "because", "short answer": "{answer}"}}'


CHARTQA = [
    ("0.0", "0", 0), ("0", "0", 1), ("3,000", "3000", 0), ("3,000", "3,000", 1), ("2009", "2010", 1),
    ("50", "50%", 0), ("50%", "50%", 1), ("50%", "0.5", 1), ("yes.", "Yes", 0), ("blue", "Blue", 1),
    ("52.5", "50", 1), ("47.5", "50", 1), ("52.51", "50", 0), ("nan", "5", 0), ("inf", "5", 0), ("", "5", 0),
    ("-5", "-5.2", 1), ("5", "-5", 0), ("1e3", "1000", 1), ("1_000", "1000", 0), ("\\boxed{47.6}", "47.6", 1),
    ("<answer>47.6</answer>", "47.6", 1), ("The answer is 47.6", "47.6", 0), ("[Blue, Red]", "[Blue, Red]", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "target", "right"), CHARTQA)
def test_chartqa(text, target, right):
    assert judged("chartqa", text, target) == bool(right)


def test_chartqa_takes_the_share_of_a_relative_tolerance():
    assert not judged("chartqa", "52", "50", tolerance=Tolerance(kind="relative", value=0.01))


@pytest.mark.parametrize(
    ("text", "target", "kind", "right"),
    [
        ("2009", "2010", "year", 0), ("2010", "2010", "year", 1), ("2009", "2010", "math", 1),
        ("50", "50%", "math", 1), ("0", "0", "math", 1), ("0.0", "0", "math", 1), ("0.01", "0", "math", 0),
        ("Unites States", "United States", "text", 1), ("France", "Germany", "text", 0), ("", "x", "text", 0),
        ("True", "true", "yes_no", 1), ("A", "A", "choice", 1), ("B", "A", "choice", 0),
        ("[3, 4]", "[3.1, 4]", "list", 1), ("[4, 3]", "[3, 4]", "list", 0), ("[3]", "[3, 4]", "list", 0),
        ("[Blue, Red]", "['blue', 'red']", "list", 1),
    ],
)  # fmt: skip
def test_chartqapro(text, target, kind, right):
    assert judged("chartqapro", text, target, kind) == bool(right)


def test_anls_counts_from_one_half():
    assert anls("abcd", "ABCD ") == 1.0
    assert anls("abcd", "abxx") == 0.5  # 1 - 2 / 4
    assert anls("abcd", "axxx") == 0.0


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("40,000", "40000", 1), ("10^-1", "0.1", 1), ("1e+06", "1000000", 1), ("85.5%", "85.5%", 1),
        ("0.855", "85.5%", 0), ("30, 40", "30, 40", 1), ("Not applicable", "Not Applicable", 1), ("5.1", "5", 0),
        ("The answer is blue.", "Blue", 1), ("x" * 500, "x", 0),
    ],
)  # fmt: skip
def test_charxiv(text, target, right):
    assert judged("charxiv", text, target, "text") == bool(right)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("(A)", 1), ("A", 1), ("a", 1), ("A. 6cm", 1), ("The answer is (A).", 1), ("6 cm", 1), ("6cm", 1), ("B", 0),
        ("7 cm", 0), ("E", 0), ("(E)", 0), ("", 0), ("It cannot be known from the picture, I fear, at all", 0),
        ("I cannot answer.", 0), ("?", 0), ("." * 64_000, 0), ('The answer is "A".', 1),
    ],
)  # fmt: skip
def test_mathvista_choices(text, right):
    assert judged("mathvista", text, "6cm", "choice", options=CM) == bool(right)
    assert judged("mathvista", text, "A", "choice", options=CM) == bool(right)


def test_mathvista_options_that_are_letters_or_empty():
    assert judged("mathvista", "B", "B", "choice", options=("A", "B", "C"))
    assert not judged("mathvista", "", "", "choice", options=("Yes", ""))


@pytest.mark.parametrize(
    ("text", "target", "kind", "places", "right"),
    [
        ("7.9", "7", "integer", None, 1), ("-1.5", "-1", "integer", None, 1), ("8", "7", "integer", None, 0),
        ("7 cubes", "7", "integer", None, 1), ("seven", "7", "integer", None, 0), ("1e400", "7", "integer", None, 0),
        ("1.24", "1.2", "decimal", 1, 1), ("1.26", "1.2", "decimal", 1, 0), ("0.214", "0.21", "decimal", 2, 1),
        ("51.0", "51.04", "decimal", 2, 0), ("about one", "1.2", "decimal", 1, 0),
        ("[2014, 2016]", "[2014, 2016]", "list", None, 1), ("[2014,2016]", "[2014, 2016]", "list", None, 0),
    ],
)  # fmt: skip
def test_mathvista_numbers_and_lists(text, target, kind, places, right):
    tolerance = None if places is None else Tolerance(kind="round", value=places)
    assert judged("mathvista", text, target, kind, tolerance=tolerance) == bool(right)


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("0.33", "\\frac{1}{3}", 1), ("0.3", "\\frac{1}{3}", 0), ("\\boxed{\\frac{36}{13}}", "\x0crac{36}{13}", 1),
        ("\\boxed{11}", "11 ", 1), ("\\boxed{5\\sqrt{3}}", "$\\boxed{5\\sqrt{3}}$", 1), ("\\boxed{8}", "8.0", 1),
        ("\\boxed{2.33}", "7/3", 1), ("\\boxed{x=5}", "5", 1), ("\\boxed{90^\\circ}", "90", 1),
        ("\\boxed{5 km}", "5", 1), ("\\boxed{5 m^3}", "5", 1), ("\\boxed{(1.234,2)}", "(1.23,2)", 1),
        ("\\boxed{(2,1.23)}", "(1.23,2)", 0), ("\\boxed{C}", "C", 1), ("\\boxed{12", "12", 1),
        ("\\boxed{a \\approx 12}", "12", 1), ("\\boxed{__import__('os').system('ls')}", "5", 0),
    ],
)  # fmt: skip
def test_mathvision_values(text, target, right):
    assert judged("mathvision", text, target) == bool(right)


@pytest.mark.parametrize(
    ("text", "right"),
    [("\\boxed{B}", 1), ("\\boxed{12}", 1), ("\\boxed{12.0}", 1), ("(B)", 1), ("The answer is (B).", 1),
     ("\\boxed{b}", 1), ("\\boxed{14}", 0), ("\\boxed{C}", 0)],
)  # fmt: skip
def test_mathvision_takes_letter_or_value(text, right):
    assert judged("mathvision", text, "B", "choice", options=NUMBERS) == bool(right)


def test_mathvision_takes_either_of_two_options_with_one_value():
    assert judged("mathvision", "\\boxed{C}", "A", "choice", options=("2", "3", "2"))


@pytest.mark.parametrize(
    ("text", "target", "kind", "right"),
    [
        ("\\boxed{118}", "118掳T", "math", 1), ("\\boxed{118°T}", "118掳T", "math", 1),
        ("\\boxed{113.097}", "Area $=113.097$ units $^{2}$", "math", 1), ("\\boxed{119}", "118掳T", "math", 0),
        ("C, D", "C\nD", "choice", 1), ("\\boxed{CD}", "C\nD", "choice", 1), ("\\boxed{C}", "C\nD", "choice", 0),
        ("\\boxed{C}", "(C)", "choice", 1), ("\\boxed{53^\\circ T}", "053 ^\\circ T", "choice", 1),
        ("\\boxed{False}", "False", "choice", 1), ("F", "F", "choice", 1), ("A or B or C", "A", "choice", 0),
    ],
)  # fmt: skip
def test_mathverse(text, target, kind, right):
    assert judged("mathverse", text, target, kind) == bool(right)


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("The result is 242,110.62", "242110.62", 1), ("The result is $242,110.62", "242110.62", 0),
        ("Therefore the resistance is 8.4 ohm.", "8.4", 1), ("8.401", "8.4", 1), ("8.41", "8.4", 0), ("", "8.4", 0),
        ("The answer is Tampa", "['Tampa','Florida']", 1), ("so x = 3.429", "['24/7','3.429']", 1),
        ("The answer is B", "B", 1), ("nothing here", "5", 0), ("It is 3.\nSo it is 1e2", "100", 1),
        ("\\boxed{MgS}", "['$MgS$','MgS']", 1), ("The answer is big", "b", 0),
    ],
)  # fmt: skip
def test_mmmu_open(text, target, right):
    assert judged("mmmu", text, target, "text") == bool(right)


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("(B)", "B", 1), ("B", "B", 1), ("B.", "B", 1), ("The answer is B", "B", 1), ("Answer: C", "C", 1),
        ("(A) or (B)", "B", 1), ("(A) or (B)", "A", 0), ("b", "B", 0), ("\\boxed{B}", "B", 1), ("", "A", 0),
        ("it is clear that it must be the green one", "C", 1), ("I have no idea at all about this", "A", 0),
    ],
)  # fmt: skip
def test_mmmu_choices_are_never_drawn(text, target, right):
    assert {judged("mmmu", text, target, "choice", options=COLOURS) for _ in range(5)} == {bool(right)}


@pytest.mark.parametrize(
    ("text", "target", "kind", "right"),
    [
        (short("2.094"), "2.0944", "decimal", 1), (short("2.0954"), "2.0944", "decimal", 1),
        (short("2.0955"), "2.0944", "decimal", 0), (short(""), "May", "text", 0), (short(""), "2", "decimal", 0),
        (short("may"), "May", "text", 1), (short("y = -3"), "y = -3", "text", 1), (short("June"), "May", "text", 0),
        (short("b"), "B", "choice", 1), (short("(B) no"), "B", "choice", 1), (short("C"), "B", "choice", 0),
        (short("B or C"), "B", "choice", 0), (short("(B)(C)"), "B", "choice", 0), (short("Bus"), "B", "choice", 0),
        (short("5"), "5.000000000000001", "integer", 1), ('{"short answer": 2.094}', "2.0944", "decimal", 1),
        ("\\boxed{2.094}", "2.0944", "decimal", 1), (short("word"), "2", "decimal", 0),
    ],
)  # fmt: skip
def test_dynamath(text, target, kind, right):
    assert judged("dynamath", text, target, kind) == bool(right)


@pytest.mark.parametrize(
    ("text", "right"),
    [("Answer: <B>", 1), ("Answer:B. 3000", 1), ("Answer: A\nAnswer: (B)", 1), ("\\boxed{B}", 1), ("B", 1),
     ("I think B", 0), ("Answer: ", 0), ("", 0), ("Answer: C", 0)],
)  # fmt: skip
def test_wemath(text, right):
    assert judged("wemath", text, "B", "choice") == bool(right)


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [("A, C", "A, C", 1), ("C, A", "A, C", 1), ("AC", "A, C", 1), ("(A) and (C)", "A, C", 1), ("A", "A, C", 0),
     ("A,B,C", "A, C", 0), ("\\boxed{A,C}", "A, C", 1), ("B. because it turns", "B", 1), ("3", "3", 1), ("", "A", 0),
     ("ZZZZZ", "A", 0), ("Maybe B", "B", 0),
     ("b", "B", 0), ("a, c", "A, C", 0)],
)  # fmt: skip
def test_logicvista(text, target, right):
    assert judged("logicvista", text, target, "choices") == bool(right)


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [("Yes, they are.", "1", 1), ("No.", "0", 1), ("No", "1", 0), ("yes", "Yes", 1), ("Yes and no", "1", 0),
     ("I cannot tell", "0", 0), ("Nothing is known", "0", 0), ("\\boxed{Yes}", "1", 1), ("", "0", 0)],
)  # fmt: skip
def test_hallusionbench(text, target, right):
    assert judged("hallusionbench", text, target, "yes_no") == bool(right)


@pytest.mark.parametrize(
    ("profile", "text", "target", "right"),
    [
        ("gsm8k", "2 + 16 = 18\n#### 18\nnot 20", "18", 1), ("gsm8k", "#### 1,080", "1080", 1),
        ("gsm8k", "She makes $18 every day.", "18", 1), ("gsm8k", "18 at first, later 20", "18", 0),
        ("gsm8k", "#### -5", "-5", 1), ("gsm8k", "#### $18.", "18", 1), ("gsm8k", "it is 18...", "18", 1),
        ("gsm8k", "it is 2,125.", " 2,125", 1), ("gsm8k", "#### 18.0", "18", 0), ("gsm8k", "none", "5", 0),
        ("gsm8k_strict", "She makes $18 every day.", "18", 0), ("gsm8k_strict", "#### 18 or 20", "18", 1),
        ("gsm8k_strict", "#### $18", "18", 0), ("gsm8k_strict", "####18", "18", 0),
        ("gsm8k_strict", "#### 1,080.", "1080", 1),
        ("gsm8k_flexible", "#### 18\nnot 20", "18", 0), ("gsm8k_flexible", "\\boxed{18}", "18", 1),
        ("dapo", "Answer: 540", "540", 1), ("dapo", "answer: $\\boxed{540}$", "540", 1),
        ("dapo", "\\boxed{540}", "540", 0), ("dapo", "Answer: 5\nAnswer: x = 540", "540", 1),
        ("dapo", "Answer: 1,080 units", "1080", 1), ("dapo", "Answer: 54.0", "54", 0),
        ("dapo", "Answer: 540\n" + "x" * 400, "540", 0), ("dapo", "Answer: \\frac12", "\\frac{1}{2}", 1),
        ("dapo", "Answer: 541", "540", 0), ("dapo", "答案：540", "540", 0),
    ],
)  # fmt: skip
def test_number_text(profile, text, target, right):
    assert judged(profile, text, target, "integer") == bool(right)


@pytest.mark.parametrize(
    ("profile", "answer", "target", "right"),
    [
        ("mathruler", "25", "25\\%", 1), ("mathruler", "0.25", "25\\%", 0), ("mathruler", "2/4", "1/2", 0),
        ("mathruler", "0.5", "1/2", 1), ("mathruler", "1/2", "\\frac12", 1), ("mathruler", "5 meters", "5 miles", 1),
        ("mathruler", "27.0", "27", 1), ("mathruler", "1,000", "1000", 1), ("mathruler", "(1, 2)", "(1,2)", 1),
        ("mathruler", "(1,2)", "[1,2]", 0), ("mathruler", "(1,2)", "(2,1)", 0),
        ("mathruler", "10^{10}", "10^{10}", 1), ("mathruler", "10^{10}", "10000000000", 0),
        ("mathruler", "90^\\circ", "90", 1), ("mathruler", "(\\frac{1}{2},3)", "(0.5,3)", 1),
        ("mathruler", "None", "5", 0), ("mathruler", "\\text{east}", "east", 1),
        ("math", "25", "25\\%", 1), ("math", "0.25", "25\\%", 0), ("math", "\\frac{1}{2}", "0.5", 1),
        ("math", "1/2", "\\dfrac12", 1), ("math", "x=5", "5", 1), ("math", "5", "5 \\text{ cm}", 1),
        ("math", "52_8", "52_8", 1), ("math", "\\text{(C)}", "C", 1), ("math", "6", "5", 0),
        ("math", "11,\\! 111,\\! 111,\\! 100", "11111111100", 1),
        ("olympiadbench", "50", "0.5", 1), ("olympiadbench", "0.5", "50", 1), ("olympiadbench", "51", "0.5", 0),
        ("olympiadbench", "2,1", "1,2", 1), ("olympiadbench", "\\pm 3", "3,-3", 1),
        ("olympiadbench", "1,2,3", "1,2", 0),
        ("olympiadbench", "(1,2),(3,4)", "(3,4),(1,2)", 1), ("olympiadbench", "1.000000001", "1", 1),
        ("olympiadbench", "1.001", "1", 0), ("olympiadbench", "x=2", "2", 1),
        ("math_verify", "1 000", "1000", 1), ("math_verify", "1000,99", "1000.99", 1),
        ("math_verify", "28\\%", "0.28", 0),
        ("qwen_math", "0.25", "25\\%", 1), ("qwen_math", "3.1416", "3.14159", 1), ("qwen_math", "5 mi", "5 m", 1),
    ],
)  # fmt: skip
def test_text_mathematics(profile, answer, target, right):
    assert judged(profile, f"\\boxed{{{answer}}}", target) == bool(right)


def test_olympiadbench_takes_the_stated_error_with_a_hundredth_of_slack():
    stated = Tolerance(kind="absolute", value=0.1)
    assert judged("olympiadbench", "\\boxed{3.2009}", "3.1", tolerance=stated)
    assert not judged("olympiadbench", "\\boxed{3.2011}", "3.1", tolerance=stated)


@pytest.mark.parametrize(
    ("profile", "text"),
    [("mathruler", "no box, not even for None"), ("mathruler", "the answer is None"), ("mathruler", "\\boxed{}"),
     ("math", "the answer is None"), ("gsm8k_strict", "None"), ("dapo", "None"), ("generic", "\\boxed{None")],
)  # fmt: skip
def test_a_missing_answer_never_meets_a_target_that_says_none(profile, text):
    assert not judged(profile, text, "None")


def test_an_empty_answer_is_part_of_no_target():
    may = Question(target="May", answer_kind="text", profile="dynamath")
    assert not compare_answer("", may).equal
    assert compare_answer("ma", may).equal
