import pytest

from mm_agrae.errors import ConfigError, DataError
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.metrics.group_scores import AGGREGATES, Scored, check_complete, figures, tally


def figures_of(name, scored):
    return figures(name, tally(name, scored))


def scored(sample_id, correct, group="", **keys):
    """correct: a string of 1 and 0, one per sample."""
    return Scored(sample_id=sample_id, group=group, keys=keys, correct=tuple(c == "1" for c in correct))


def dynamath(group, *correct):
    return [scored(f"{group}/{i}", c, group, variant=str(i)) for i, c in enumerate(correct, start=1)]


def we_math(group, *correct):
    """Steps first, the whole problem last."""
    num_steps = len(correct) - 1
    places = [*range(1, num_steps + 1), "multi"]
    return [
        scored(f"{group}/{place}", c, group, key=f"{num_steps}steps_{place}")
        for place, c in zip(places, correct, strict=True)
    ]


def hallusion(category, number, figure, question, correct, visual_input="1"):
    group = f"{category}/chart/{number}"
    keys = {"category": category, "figure": f"{group}/{figure}", "question": f"{group}/{question}"}
    return scored(f"{group}/{figure}/{question}", correct, group, visual_input=visual_input, **keys)


def test_worst_case_of_dynamath():
    questions = [*dynamath("a", *["1"] * 10), *dynamath("b", *["1"] * 9, "0"), *dynamath("c", *["0"] * 10)]
    # 19 of 30 right; one group of three right throughout; (1/3) / (19/30).
    assert figures_of("dynamath", questions) == pytest.approx(
        {"average": 19 / 30, "worst_case": 1 / 3, "robustness": 10 / 19}
    )


def test_each_sample_index_is_judged_by_itself():
    # Every variant is right in one of two samples: all in the first (a), or half of them in each (b).
    a, b = dynamath("a", *["10"] * 10), dynamath("b", *["10"] * 5, *["01"] * 5)
    assert figures_of("dynamath", a) == {"average": 0.5, "worst_case": 0.5, "robustness": 1.0}
    assert figures_of("dynamath", b) == {"average": 0.5, "worst_case": 0.0, "robustness": 0.0}


def test_robustness_of_nothing_right_is_undefined():
    assert figures_of("dynamath", dynamath("a", *["0"] * 10)) == {
        "average": 0.0,
        "worst_case": 0.0,
        "robustness": None,
    }


def test_the_four_cases_of_we_math():
    questions = [
        *we_math("ik", "1", "0", "0"),
        *we_math("ig", "1", "1", "0"),
        *we_math("cm", "1", "1", "1", "1"),
        *we_math("some", "1", "0", "1", "1"),  # rote in the strict reading, mastered in the loose one
        *we_math("rm", "0", "0", "1"),
    ]
    found = figures_of("we_math", questions)
    expected = {
        "ik": 1 / 5,
        "ig": 1 / 5,
        "cm_strict": 1 / 5,
        "cm_loose": 2 / 5,
        "rm_strict": 2 / 5,
        "rm_loose": 1 / 5,
        "score_strict": 1 - 0.5 / 5 - 2 / 5 - 1 / 5,
        "score_loose": 1 - 0.5 / 5 - 1 / 5 - 1 / 5,
        "rm_rate_strict": 2 / 3,
        "rm_rate_loose": 1 / 3,
    }
    assert found == pytest.approx(expected)
    for reading in ("strict", "loose"):
        assert found["ik"] + found["ig"] + found[f"cm_{reading}"] + found[f"rm_{reading}"] == pytest.approx(1)


def test_samples_of_we_math():
    # First samples: mastered; second: insufficient knowledge. Joined over samples it would be rote memorisation.
    found = figures_of("we_math", we_math("a", "10", "10", "10"))
    assert (found["cm_strict"], found["ik"], found["rm_strict"], found["rm_rate_strict"]) == (0.5, 0.5, 0.0, 0.0)
    nothing = figures_of("we_math", we_math("a", "0", "0", "0"))
    assert (nothing["rm_rate_strict"], nothing["rm_rate_loose"], nothing["score_loose"]) == (None, None, 0.0)


def test_hallusionbench():
    questions = [
        hallusion("VD", 0, 0, 0, "1"),
        hallusion("VD", 0, 0, 1, "1"),
        hallusion("VD", 0, 1, 0, "1"),
        hallusion("VD", 0, 1, 1, "0"),
        hallusion("VS", 0, 0, 0, "1", visual_input="0"),
        hallusion("VS", 0, 1, 0, "1"),
    ]
    # 5 of 6 questions; figures VD 0 (right), VD 1 (wrong), VS 1 (right), for a text is no figure; questions VD 0, VS 0
    # right and VD 1 wrong. Set 0 of VD and set 0 of VS are two sets.
    assert figures_of("hallusionbench", questions) == pytest.approx({"a_acc": 5 / 6, "f_acc": 2 / 3, "q_acc": 2 / 3})
    images = [question for question in questions if question.keys["visual_input"] != "0"]
    assert figures_of("hallusionbench", images) == pytest.approx({"a_acc": 4 / 5, "f_acc": 2 / 3, "q_acc": 2 / 3})


def test_text_alone_has_no_figures():
    found = figures_of("hallusionbench", [hallusion("VS", 0, 0, 0, "10", visual_input="0")])
    assert found == {"a_acc": 0.5, "f_acc": None, "q_acc": 0.5}


def test_chartqa():
    questions = [scored("a", "11", family="human"), scored("b", "10", family="human")]
    questions += [scored("c", "01", family="augmented")]
    expected = {"accuracy": 4 / 6, "human": 3 / 4, "augmented": 1 / 2, "macro": 5 / 8}
    assert figures_of("chartqa", questions) == pytest.approx(expected)
    assert figures_of("chartqa", questions[:2]) == {
        "accuracy": 0.75,
        "human": 0.75,
        "augmented": None,
        "macro": None,
    }


def test_mmmu_is_a_mean_over_questions():
    questions = [scored("a", "1", discipline="Science"), scored("b", "0", discipline="Science")]
    questions += [scored("c", "1", discipline="Business")]
    found = figures_of("mmmu", questions)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert (found["science"], found["business"], found["art_and_design"]) == (0.5, 1.0, None)


def test_order_does_not_matter():
    questions = [*we_math("a", "1", "0", "1"), *we_math("b", "1", "1", "0"), *we_math("c", "1", "1", "1", "1")]
    assert tally("we_math", questions[::-1]) == tally("we_math", questions)
    assert list(tally("we_math", questions[::-1])) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "questions", "message"),
    [
        ("dynamath", dynamath("a", *["1"] * 10)[:8], "group a lacks 9, 10,"),
        ("dynamath", [*dynamath("a", *["1"] * 10), scored("x", "1", "a", variant="3")], "group a has variant 3 twice"),
        ("dynamath", [scored("x", "1", "a", variant="11")], "variant of x is '11', but must be one of 1, 10, 2"),
        ("dynamath", [scored("x", "1", variant="1")], "x has no group"),
        ("we_math", we_math("p", "1", "1", "1")[:2], "group p lacks 2steps_multi"),
        ("we_math", we_math("p", "1", "1", "1", "1")[1:], "group p lacks 3steps_1"),
        (
            "we_math",
            [scored("x", "1", "p", key="2steps_1"), scored("y", "1", "p", key="3steps_1")],
            "group p has keys 2steps_1, 3steps_1, but a problem has either 2 or 3 steps",
        ),
        ("hallusionbench", [hallusion("VD", 4, 1, 2, "1")], "group VD/chart/4/2 lacks VD/chart/4/0"),
        (
            "hallusionbench",
            [hallusion("VS", 4, 1, 2, "1"), hallusion("VS", 5, 0, 0, "1", visual_input="0")],
            "group VS/chart/4/2 lacks VS/chart/4/0",
        ),
        (
            "chartqa",
            [scored("x", "1", family="machine")],
            "family of x is 'machine', but must be one of augmented, human",
        ),
        ("mmmu", [scored("x", "1", discipline="")], "discipline of x is ''"),
        ("mmmu", [scored("x", "1")], "x lacks discipline, which mmmu is scored by"),
        ("chartqa", [], "there are 0 questions to score as chartqa"),
        ("chartqa", [scored("x", "", family="human")], "x has 0 samples"),
        ("chartqa", [scored("x", "1", family="human"), scored("y", "10", family="human")], "y has 2 samples and x 1"),
        ("chartqa", [scored("x", "1", family="human")] * 2, "x occurs twice"),
    ],
)
def test_what_cannot_be_scored_is_refused(name, questions, message):
    with pytest.raises(DataError, match=message):
        tally(name, questions)


def test_a_question_asked_twice_of_one_figure():
    twice = [hallusion("VD", 0, 0, 0, "1"), scored("other", "1", "VD/chart/0", **hallusion("VD", 0, 0, 0, "1").keys)]
    with pytest.raises(DataError, match="question VD/chart/0/0 occurs twice with figure VD/chart/0/0"):
        tally("hallusionbench", twice)


def test_an_unknown_aggregate():
    with pytest.raises(ConfigError, match=r"aggregate is 'we-math', .* The nearest is 'we_math'"):
        tally("we-math", [scored("x", "1")])


def test_a_refused_question_makes_its_group_incomplete():
    groups = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "single": ""}
    check_complete([scored(name, "1") for name in ("a1", "a2", "single")], groups)  # b was not begun
    check_complete([scored("a1", "1"), scored("a2", "1")], groups)
    with pytest.raises(DataError, match="group b lacks b1, but its questions are scored together"):
        check_complete([scored("a1", "1"), scored("a2", "1"), scored("b2", "1")], groups)


def test_every_figure_is_in_the_catalogue():
    check_keys(f"eval/{figure}" for aggregate in AGGREGATES.values() for figure in aggregate.figures)
