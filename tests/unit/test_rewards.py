import pytest

from mm_agrae.records import Verdict
from mm_agrae.rewards import reward


def verdict(status, *, formatted):
    return Verdict(
        status=status, answer="5", span=(0, 1), answer_form="5", target_form="5", kind="integer", rule="box/same_form",
        formatted=formatted, seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "formatted", "expected"),
    [
        ("correct", True, 1.0),
        ("correct", False, 0.9),
        ("wrong", True, 0.1),
        ("wrong", False, 0.0),
        ("unparsed", False, 0.0),
        ("timeout", True, 0.1),
        ("timeout", False, 0.0),
    ],
)
def test_reward_at_the_default_weights(status, formatted, expected):
    assert reward(verdict(status, formatted=formatted)) == pytest.approx(expected)


def test_each_weight_pays_for_its_own_part():
    assert reward(verdict("correct", formatted=False), correct_weight=3.0, format_weight=7.0) == 3.0
    assert reward(verdict("wrong", formatted=True), correct_weight=3.0, format_weight=7.0) == 7.0
    assert reward(verdict("correct", formatted=True), correct_weight=0.0, format_weight=0.0) == 0.0


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_weights_that_are_no_weights_are_refused(weight):
    with pytest.raises(ValueError, match=r"correct_weight is .* must be finite and at least 0"):
        reward(verdict("correct", formatted=True), correct_weight=weight)
    with pytest.raises(ValueError, match="format_weight"):
        reward(verdict("correct", formatted=True), format_weight=weight)
