import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.records import Sample, Tolerance, Verdict
from mm_agrae.verify import Question, verify
from mm_agrae.verify.verifier import Pending, begin, is_formatted

HUNDREDTHS = Tolerance(kind="round", value=2)

KINDS = ("math", "integer", "decimal", "fraction", "expression", "choice", "text")


def test_question_of_a_sample_takes_what_judging_needs():
    sample = Sample(
        id="1",
        question="?",
        target="B",
        answer_kind="choice",
        options=("1", "2"),
        tolerance=HUNDREDTHS,
    )
    assert Question.of(sample) == Question(target="B", answer_kind="choice", options=("1", "2"), tolerance=HUNDREDTHS)


def test_a_verdict_shows_how_it_came_about():
    text = "We get $\\boxed{12\\text{ cm}}$."
    verdict = verify(text, Question(target="12", answer_kind="integer"))
    assert verdict.correct
    assert verdict.span is not None
    assert text[slice(*verdict.span)] == verdict.answer == "12\\text{ cm}"
    assert (verdict.answer_form, verdict.target_form) == ("12 [cm]", "12")
    assert (verdict.kind, verdict.rule, verdict.formatted) == ("integer", "box/same_form", True)
    assert 0 <= verdict.seconds < 1


def test_no_answer_is_unparsed_and_a_wrong_one_is_wrong():
    question = Question(target="12", answer_kind="integer")
    nothing = verify("no idea", question)
    assert (nothing.status, nothing.rule, nothing.answer, nothing.span) == ("unparsed", "no_answer", None, None)
    assert verify("\\boxed{13}", question).status == "wrong"


def test_algebra_is_reached_and_not_needed_for_the_rest():
    question = Question(target="2\\sqrt{3}", answer_kind="expression")
    assert isinstance(begin("\\boxed{\\sqrt{12}}", question), Pending)
    assert verify("\\boxed{\\sqrt{12}}", question).rule == "box/value"
    quick = begin("\\boxed{2\\sqrt3}", question)
    assert isinstance(quick, Verdict)
    assert replace(quick, seconds=0.0) == replace(verify("\\boxed{2\\sqrt3}", question), seconds=0.0)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{5}", "so $\\boxed{5}$.", "\\[\\boxed{5}\\]\n", "\\boxed{5}<|im_end|>", "<answer>\\boxed{5}</answer>",
        "**\\boxed{5}**", "wrong but \\boxed{x}!",
        "<think>\\boxed{4}?</think> \\boxed{5}",
    ],
)  # fmt: skip
def test_formatted(text):
    assert is_formatted(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "\\boxed{}", "\\boxed{ }", "\\boxed{5", "\\boxed{5} cm", "\\boxed{4}\\boxed{5}",
        "\\boxed{4 \\boxed{5}", "\\boxed{\\boxed{5}}", "\\boxed 5", "\\boxed{5} is what I think", "<answer>5</answer>",
        "<think>\\boxed{5}", "<think>\\boxed{5}</think>",
    ],
)  # fmt: skip
def test_not_formatted(text):
    assert not is_formatted(text)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_answers_are_judged_without_an_error(kind):
    question = Question(target="5", answer_kind=kind)
    for hostile in (
        "9" * 5000,
        "1e999999999",
        "\x00",
        "{" * 300,
        "\\" * 301,
        "((9!)!)!",
        "\ud800",
        "1/0",
        "٣",
        "²" * 50,
    ):
        assert verify(f"\\boxed{{{hostile}}}", question).status in ("wrong", "unparsed")


fragments = st.sampled_from(
    ["\\boxed{", "\\fbox{", "}", "{", "\\frac", "\\sqrt", "$", "<answer>", "</answer>", "answer is ", "(B)", "^", "_",
     "!", "1", "2.5", "x", ",", "\\text{", "\\pi", "=", "-", "%", " ", "\n", "\\", "°", "√", "[", ")", "e9", "/"]
)  # fmt: skip


@settings(max_examples=150)
@given(text=st.one_of(st.text(max_size=60), st.lists(fragments, max_size=14).map("".join)), kind=st.sampled_from(KINDS))
def test_no_text_raises(text, kind):
    question = Question(target="\\frac{5}{2}", answer_kind=kind, options=("1", "2") if kind == "choice" else ())
    for candidate in (text, f"\\boxed{{{text}}}"):
        verdict = verify(candidate, question)
        assert verdict.span is None or candidate[slice(*verdict.span)] == verdict.answer


integers = st.integers(-(10**12), 10**12)
targets = st.one_of(
    st.tuples(st.just("integer"), integers.map(str)),
    st.tuples(st.just("decimal"), st.decimals(-1000, 1000, places=2).map(str)),
    st.tuples(st.just("fraction"), st.builds("\\frac{{{}}}{{{}}}".format, integers, st.integers(1, 10**6))),
    st.tuples(st.just("expression"), st.builds("{}\\sqrt{{{}}}".format, st.integers(2, 99), st.integers(2, 99))),
    st.tuples(st.just("expression"), st.builds("{}\\pi".format, st.integers(2, 99))),
    st.tuples(st.just("choice"), st.sampled_from("ABCD")),
    st.tuples(st.just("text"), st.text(alphabet="abcdefg ", min_size=1).filter(str.strip)),
    st.tuples(st.just("math"), st.builds("({},{})".format, integers, integers)),
)


@given(kind_and_target=targets)
def test_the_boxed_target_is_correct(kind_and_target):
    kind, target = kind_and_target
    options = ("one", "two", "three", "four") if kind == "choice" else ()
    verdict = verify(f"Thus $\\boxed{{{target}}}$.", Question(target=target, answer_kind=kind, options=options))
    assert verdict.correct
    assert verdict.formatted


@given(target=integers, off_by=st.integers(1, 10**6))
def test_another_integer_is_wrong(target, off_by):
    question = Question(target=str(target), answer_kind="integer")
    assert verify(f"\\boxed{{{target + off_by}}}", question).status == "wrong"


def test_the_room_opens_without_algebra_or_torch():
    code = "import sys, mm_agrae.verify; print(*({'sympy', 'torch', 'math_verify'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == ""
