import pytest

from mm_agrae.report.curves import primary_figure
from mm_agrae.report.read import Evaluation, Interval, Scores
from mm_agrae.report.tables import comparison, durations, flattened, separation


def at(value, spread=0.05):
    return Interval(value=value, low=value - spread, high=value + spread)


def evaluation(step, figures, families=None):
    return Evaluation(
        name="held_out", step=step, num_samples=4, overall=Scores(num_problems=256, figures=figures),
        by_family=families or {}, by_difficulty={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (at(0.2), at(0.9), "higher"),
        (at(0.9), at(0.2), "lower"),
        (at(0.5), at(0.55), "not separated"),
        # Touching ends are no gap: 0.25 is inside both.
        (Interval(value=0.2, low=0.15, high=0.25), Interval(value=0.3, low=0.25, high=0.35), "not separated"),
        (at(0.5), None, ""),
        (None, at(0.5), ""),
    ],
)
def test_separation_needs_a_gap_between_the_intervals(before, after, expected):
    assert separation(before, after) == expected


def test_headline_takes_first_and_last_and_orders_the_figures():
    names = ["truncated", "avg@4", "pass@4", "greedy", "pass@16", "pass@1"]
    steps = [evaluation(step, {name: at(value) for name in names}) for step, value in ((0, 0.2), (5, 0.4), (9, 0.8))]
    found = comparison(steps)
    assert (found.before_step, found.after_step) == (0, 9)
    # avg@4 equals pass@1 and is left out next to it.
    assert [row.label for row in found.headline] == ["pass@1", "greedy", "pass@4", "pass@16"]
    assert found.headline[0].change == pytest.approx(0.6)
    assert [row.label for row in found.details] == ["truncated"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pass@16", "avg@16"], "avg@16"),
        (["pass@16", "avg@16", "pass@1"], "pass@1"),
        (["avg@4", "avg@16"], "avg@4"),
        (["pass@16", "greedy"], None),
    ],
)
def test_sampled_accuracy_is_pass_at_1_or_its_equal(names, expected):
    assert primary_figure(evaluation(0, {name: at(0.5) for name in names})) == expected


def test_good_follows_the_direction_of_the_figure():
    before, after = {"greedy": at(0.2), "truncated": at(0.2)}, {"greedy": at(0.8), "truncated": at(0.8)}
    found = comparison([evaluation(0, before), evaluation(9, after)])
    assert [(row.separation, row.good) for row in (*found.headline, *found.details)] == [
        ("higher", True),
        ("higher", False),
    ]


def test_one_evaluation_has_nothing_to_compare():
    found = comparison([evaluation(0, {"avg@4": at(0.2)})])
    assert found.after_step is None
    assert [(row.label, row.after, row.separation, row.change) for row in found.headline] == [("avg@4", None, "", None)]


def test_families_of_either_evaluation_are_rows():
    scores = {name: Scores(num_problems=8, figures={"pass@1": at(0.5)}) for name in ("bars", "counting")}
    first = evaluation(0, {"pass@1": at(0.5)}, {"bars": scores["bars"]})
    last = evaluation(9, {"pass@1": at(0.5)}, scores)
    rows = comparison([first, last]).by_family
    assert [(row.label, row.before is None, row.num_problems) for row in rows] == [
        ("bars", False, 8),
        ("counting", True, 8),
    ]


def test_levels_sort_as_numbers():
    levels = {name: Scores(num_problems=1, figures={}) for name in ("10", "9", "hard")}
    one = Evaluation(
        name="s", step=0, num_samples=1, overall=Scores(num_problems=3, figures={}), by_family={}, by_difficulty=levels
    )
    assert [row.label for row in comparison([one]).by_difficulty] == ["9", "10", "hard"]


def test_durations_add_up_over_steps():
    rows = durations({0: {"time/step_s": 3.0, "time/rollout_s": 1.0}, 1: {"time/step_s": 5.0}, 2: {"reward/mean": 1.0}})
    assert [(row.label, row.total_s, row.mean_s) for row in rows] == [("step", 8.0, 4.0), ("rollout", 1.0, 1.0)]
    assert durations({}) == ()


def test_settings_are_flattened_in_their_order():
    tree = {"b": {"x": 1, "y": {"z": None}}, "a": [1, 2], "empty": {}}
    assert flattened(tree) == [("b.x", "1"), ("b.y.z", ""), ("a", "[1, 2]"), ("empty", "{}")]
