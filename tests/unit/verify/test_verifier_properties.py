"""What must hold for any text: no exception, honest offsets, a target equal to itself, and no favoured direction."""

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_processors import PROCESSORS
from data_processors.conversion.samples import read_samples
from data_processors.conversion.sources import open_source
from mm_agrae.preflight.answers import stated
from mm_agrae.records import AnswerKind, Tolerance, Verdict
from mm_agrae.verify import Question, VerifierPool
from mm_agrae.verify.agreement import read_cases
from mm_agrae.verify.outcome import Outcome
from mm_agrae.verify.profiles import PROFILES
from mm_agrae.verify.verifier import Pending, begin, compare_answer, settle
from tests.fixtures import FIXTURES

with (Path(__file__).parents[2] / "data" / "verifier_cases.jsonl").open("rb") as lines:
    CASES = list(read_cases(lines, source="verifier_cases.jsonl"))

KINDS = get_args(AnswerKind)
PIECES = (
    *"0123456789+-*/=^_(){}[]<>,.;:!%$°√π−①掳 \n", "\ud800", "x", "A", "B", "e5", "10^", "1,000", "1 000", "3.14",
    "12:30", "2010", "\\boxed{", "\\boxed ", "\\fbox{", "\\frac{", "\\frac", "\\sqrt{", "\\pi", "^\\circ", "\\%",
    "\\text{", " cm", "\\left(", "\\right)", "\\{", "\\}", "\\(", "\\)", "\\pm", "\\cup", "\\in", "\\le", "\\infty",
    "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "<answer>", "</answer>", "#### ", "Answer: ", "The answer is ",
    "答案是", "(A)", "A, C", "yes", "No", "None", "nan", "inf", "million", '{"short answer": "', '"}', "x=", "or",
    "and", "not", "\x0c",
)  # fmt: skip
formulas = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
texts = formulas | st.text(max_size=40)
tolerances = st.sampled_from(
    [
        None,
        Tolerance(kind="round", value=2),
        Tolerance(kind="absolute", value=0.001),
        Tolerance(kind="relative", value=0.05),
    ]
)
questions = st.builds(
    Question,
    target=texts,
    answer_kind=st.sampled_from(KINDS),
    options=st.sampled_from([(), ("3", "5"), ("A", "B", "C"), ("50°", "", "50°", "x")]),
    tolerance=tolerances,
    profile=st.sampled_from(sorted(PROFILES)),
)
numbers = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.decimals(-(10**6), 10**6, places=3, allow_nan=False).map(str),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)
parts = st.lists(numbers, min_size=2, max_size=4)
values = numbers | parts.map(",".join) | parts.map(lambda found: f"({','.join(found)})")
# Kinds under which neither side is the reference by nature. A choice is not one: its target is a letter or an option.
SYMMETRIC = ("math", "integer", "decimal", "fraction", "expression", "set", "list", "tuple", "text", "yes_no")


@settings(max_examples=400)
@given(text=texts, question=questions)
@example(text="\\boxed{" * 200, question=Question(target="5"))
@example(text="<answer>" * 200 + "</answer>", question=Question(target="5"))
@example(text="\\boxed{9^{9^{9^9}}}", question=Question(target="1000000!"))
def test_no_text_and_no_target_raises_and_the_answer_stands_at_its_span(text, question):
    first = begin(text, question)
    verdict = first if isinstance(first, Verdict) else settle(first, None, seconds=0.0)
    assert (verdict.answer is None) == (verdict.span is None) == (verdict.status == "unparsed")
    if verdict.span is not None:
        assert text[slice(*verdict.span)] == verdict.answer
    assert verdict.rule


@settings(max_examples=300)
@given(target=texts.filter(str.strip), kind=st.sampled_from(KINDS), tolerance=tolerances)
def test_every_target_is_equal_to_itself(target, kind, tolerance):
    outcome = compare_answer(target, Question(target=target, answer_kind=kind, tolerance=tolerance))
    assert outcome == Outcome(equal=True, rule="same_text")


@settings(max_examples=300)
@given(one=values | formulas, other=values | formulas, kind=st.sampled_from(SYMMETRIC))
@example(one="2/4", other="\\frac{1}{2}", kind="math")
@example(one="5", other="5 cm", kind="math")
@example(one="5 cm", other="5 miles", kind="math")
@example(one="x=5", other="5", kind="math")
def test_neither_side_is_favoured(one, other, kind):
    there = compare_answer(one, Question(target=other, answer_kind=kind))
    back = compare_answer(other, Question(target=one, answer_kind=kind))
    if isinstance(there, Outcome) and isinstance(back, Outcome):
        assert there.equal == back.equal, (there, back)
    else:
        assert type(there) is type(back)


@settings(max_examples=200)
@given(number=st.integers(-(10**9), 10**9), words=st.sampled_from(["So it is ", "", "First 3, then 4.\n"]))
def test_a_boxed_number_is_found_and_only_its_own_value_is_correct(number, words):
    question = Question(target=str(number), answer_kind="integer")
    right, wrong = (begin(f"{words}$\\boxed{{{value}}}$", question) for value in (number, number + 1))
    assert isinstance(right, Verdict)
    assert right.correct
    assert isinstance(wrong, Verdict)
    assert wrong.status == "wrong"


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(num_workers=1) as shared:
        yield shared


def test_every_labelled_target_is_correct_when_it_is_the_answer(pool):
    cases = [case for case in CASES if case.question.profile == "generic"]
    verdicts = pool.verify_all(
        [f"\\boxed{{{case.question.target}}}" for case in cases], [case.question for case in cases]
    )
    wrong = [(case.id, v.rule) for case, v in zip(cases, verdicts, strict=True) if not v.correct]
    assert not wrong


@pytest.mark.parametrize("name", FIXTURES)
def test_every_target_of_every_data_set_is_correct_under_its_own_rule(pool, name, tmp_path):
    FIXTURES[name].draw(tmp_path)
    description, splits = PROCESSORS[name].description, FIXTURES[name].expected.samples
    source = open_source(description, str(tmp_path), list(splits))
    samples = [sample for split in splits for sample in read_samples(PROCESSORS[name], source, split, Counter())]
    for profile in {"generic", description.profile}:
        stated_targets = [stated(sample.target, profile) for sample in samples]
        verdicts = pool.verify_all(stated_targets, [Question.of(sample, profile=profile) for sample in samples])
        wrong = [(one.id, one.target, v.rule) for one, v in zip(samples, verdicts, strict=True) if not v.correct]
        assert not wrong, profile


@pytest.fixture(scope="module")
def strict_pool():
    with VerifierPool(num_workers=1, timeout_s=0.3) as shared:
        yield shared


@settings(max_examples=20)
@given(items=st.lists(st.tuples(texts, questions), max_size=6))
def test_the_pool_judges_anything_in_order(strict_pool, items):
    verdicts = strict_pool.verify_all([text for text, _ in items], [question for _, question in items])
    firsts = [begin(text, question) for text, question in items]
    answers = [first.extraction.answer if isinstance(first, Pending) else first.answer for first in firsts]
    assert [verdict.answer for verdict in verdicts] == answers
