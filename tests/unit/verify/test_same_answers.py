import pytest

from mm_agrae.errors import EngineError
from mm_agrae.verify import Question, VerifierPool

MATH = Question(target="this plays no part")
CHOICE = Question(target="C", answer_kind="choice", options=("red", "blue", "green"))


def test_answers_are_grouped_by_the_verifier_and_not_by_their_text():
    pairs = [("0.5", "\\frac{1}{2}"), ("0.5", "0.6"), ("\\sqrt{12}", "2\\sqrt{3}"), ("B", "blue"), ("blue", "A")]
    with VerifierPool(num_workers=1) as pool:
        assert pool.same_answers(pairs, [MATH, MATH, MATH, CHOICE, CHOICE]) == [True, False, True, True, False]
        assert pool.same_answers([], []) == []


def test_every_pair_needs_its_question_and_an_open_pool():
    pool = VerifierPool(num_workers=1)
    with pytest.raises(ValueError, match="1 pairs of answers and 2 questions"):
        pool.same_answers([("1", "2")], [MATH, MATH])
    pool.close()
    with pytest.raises(EngineError, match="the verifier pool is closed"):
        pool.same_answers([("1", "2")], [MATH])
