import pytest

from mm_agrae.report.gallery import held_out_pairs, question_text, segments, training_groups
from mm_agrae.report.read import Group, Rollout


def rollout(correct):
    return Rollout(
        text="t", span=None, status="correct" if correct else "wrong", answer="1", rule="integer", stop_reason="eos",
        num_tokens=1, reward=1.0, advantage=0.0,
    )  # fmt: skip


def group(name, *correct, question="q"):
    return Group(
        step=0, sample_id=name, family="f", difficulty=1, question=question, target="1", options=(), images=(),
        rollouts=tuple(rollout(each) for each in correct),
    )  # fmt: skip


def names(groups):
    return [each.sample_id for each in groups]


@pytest.mark.parametrize("text", ["It is \\boxed{4 < 5 & π}.", "<b>é😀 4</b>", "4"])
def test_segments_join_to_the_text_and_mark_exactly_the_span(text):
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            pieces = segments(text, (start, end))
            assert "".join(piece.text for piece in pieces) == text
            assert [piece.text for piece in pieces if piece.kind == "answer"] == [text[start:end]]


@pytest.mark.parametrize("span", [None, (2, 2), (3, 1), (-2, 1), (0, 99)])
def test_a_span_that_does_not_fit_marks_nothing(span):
    assert [(piece.kind, piece.text) for piece in segments("abc", span)] == [("text", "abc")]


def test_empty_text_has_no_segments():
    assert segments("", None) == ()


def test_long_text_keeps_both_ends_and_the_answer_and_says_what_is_missing():
    text = "a" * 50 + "ANSWER" + "b" * 50
    pieces = segments(text, (50, 56), limit=10)
    assert [piece.text for piece in pieces] == [
        "a" * 5, " … 40 characters left out … ", "a" * 5, "ANSWER", "b" * 5, " … 40 characters left out … ", "b" * 5,
    ]  # fmt: skip


def test_mixed_groups_come_first_then_one_of_each_extreme():
    groups = [
        group("wrong-1", False, False), group("right-1", True, True), group("mixed-1", True, False),
        group("wrong-2", False, False), group("mixed-2", True, False), group("right-2", True), group("empty"),
    ]  # fmt: skip
    assert names(training_groups(groups, num_mixed=1)) == ["mixed-1", "wrong-1", "right-1"]
    assert names(training_groups(groups, num_mixed=9)) == ["mixed-1", "mixed-2", "wrong-1", "right-1"]
    assert training_groups([], num_mixed=2) == ()


def test_pairs_show_the_largest_gains_and_the_largest_loss():
    before = [
        group("a", True, True),
        group("b", False, False),
        group("c", True, False),
        group("only before", True),
        group("empty"),
    ]
    after = [
        group("a", False, False),
        group("b", True, True),
        group("c", True, True),
        group("only after", True),
        group("empty"),
    ]
    pairs = held_out_pairs(before, after, num_pairs=2)
    assert [(pair.before.sample_id, pair.gain) for pair in pairs] == [("b", 1.0), ("a", -1.0)]
    assert names(pair.after for pair in held_out_pairs(before, after, num_pairs=3)) == ["b", "c", "a"]


def test_question_shows_marks_only_where_there_are_several():
    assert question_text(group("a", question="<image>\nHow many?")) == "How many?"
    several = question_text(group("a", question="Compare <image> with <image>."))
    assert several == "Compare [picture 1] with [picture 2]."
