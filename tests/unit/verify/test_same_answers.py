import pytest

from mm_agrae.errors import EngineError
from mm_agrae.records import Tolerance
from mm_agrae.verify import PROFILES, Question, VerifierPool
from mm_agrae.verify.comparators import compare_answers

MATH = Question(target="this plays no part")
CHOICE = Question(target="C", answer_kind="choice", options=("red", "blue", "green"))


def test_answers_are_grouped_by_the_verifier_and_not_by_their_text():
    pairs = [("0.5", "\\frac{1}{2}"), ("0.5", "0.6"), ("\\sqrt{12}", "2\\sqrt{3}"), ("B", "blue"), ("blue", "A")]
    with VerifierPool(num_workers=1) as pool:
        assert pool.same_answers(pairs, [MATH, MATH, MATH, CHOICE, CHOICE]) == [True, False, True, True, False]
        assert pool.same_answers([], []) == []
        alternatives = [("5", "5 (or 6)"), ("5 (or 6)", "5"), ("6", "5 (or 6)"), ("5 (or 6)", "5 (or 6)")]
        assert pool.same_answers(alternatives, [MATH] * 4) == [False, False, False, True]


def test_every_pair_needs_its_question_and_an_open_pool():
    pool = VerifierPool(num_workers=1)
    with pytest.raises(ValueError, match="1 pairs of answers and 2 questions"):
        pool.same_answers([("1", "2")], [MATH, MATH])
    pool.close()
    with pytest.raises(EngineError, match="the verifier pool is closed"):
        pool.same_answers([("1", "2")], [MATH])


FRACTIONS = ("3/11", "8/11", "6/11")
ONE_DECIMAL = Tolerance(kind="round", value=1)


@pytest.mark.parametrize(
    ("profile", "kind", "options", "one", "other", "same"),
    [
        ("hallusionbench", "yes_no", (), "Yes, the circles are equal.", "Yes.", 1),
        ("hallusionbench", "yes_no", (), "Yes, the circles are equal.", "No.", 0),
        ("mmmu", "choice", FRACTIONS, "The answer is (B).", "B", 1),
        ("mmmu", "choice", FRACTIONS, "The answer is (B).", "C", 0),
        ("mmmu", "text", (), "Therefore it is 8.4 ohm.", "The answer is 8.4", 1),
        ("mmmu", "text", (), "Therefore it is 8.4 ohm.", "The answer is 8.5", 0),
        ("wemath", "choice", FRACTIONS, "<B>", "B. 8/11", 1),
        ("wemath", "choice", FRACTIONS, "<B>", "<A>", 0),
        ("logicvista", "choice", FRACTIONS, "B. because", "B", 1),
        ("dynamath", "choice", FRACTIONS, "(B) b", "B", 1),
        ("dynamath", "choice", FRACTIONS, "(B) b", "A", 0),
        ("dynamath", "text", (), "y", "y = -3", 0),
        ("mathvista", "choice", FRACTIONS, "(B) 8/11", "8/11", 1),
        ("mathvista", "choice", FRACTIONS, "(B) 8/11", "6/11", 0),
        ("mathvista", "decimal", (), "1.24", "1.2", 1),
        ("mathvista", "decimal", (), "1.24", "1.3", 0),
    ],
)
def test_an_answer_that_is_no_bare_target_still_has_its_class(profile, kind, options, one, other, same):
    question = Question(target="", answer_kind=kind, options=options, profile=profile, tolerance=ONE_DECIMAL)
    for pair in ((one, other), (other, one)):
        found = compare_answers(*pair, question)
        assert found.equal == bool(same), found


@pytest.mark.parametrize("profile", PROFILES)
def test_every_answer_is_the_same_as_itself(profile):
    for kind in ("math", "choice", "choices", "yes_no", "decimal", "text"):
        for answer in ("Well, I think so.", "(A) or (B)", "5 (or 6)", "x" * 500, "1.25"):
            question = Question(target="", answer_kind=kind, options=FRACTIONS, profile=profile)
            assert compare_answers(answer, answer, question).equal
