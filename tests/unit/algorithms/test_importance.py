import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.importance import importance_weights

KINDS = [(correction, level) for correction in ("truncate", "mask") for level in ("token", "sequence")]
EVERY_KIND = pytest.mark.parametrize(("correction", "level"), KINDS)
SEQUENCES = torch.tensor([5, 5, 1])


@pytest.mark.parametrize(
    ("correction", "level", "expected"),
    [
        # The trainer finds the tokens 3, 1/2 and 4 times as likely as the engine did; the cap is 2.
        ("truncate", "token", [2.0, 0.5, 2.0]),
        ("mask", "token", [0.0, 0.5, 0.0]),
        # 3 · 1/2 = 1.5 for the first sequence, 4 for the second.
        ("truncate", "sequence", [1.5, 1.5, 2.0]),
        ("mask", "sequence", [1.5, 1.5, 0.0]),
    ],
)
def test_worked_example(correction, level, expected):
    rollout = torch.tensor([-2.0, -1.0, -3.0])
    old = rollout + torch.tensor([3.0, 0.5, 4.0]).log()
    weights = importance_weights(old, rollout, SEQUENCES, correction=correction, level=level, cap=2.0)
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_defaults_truncate_tokens_at_two():
    old, rollout = torch.tensor([0.0, -1.0, -1.0]), torch.tensor([-3.0, -1.0, -0.5])
    expected = importance_weights(old, rollout, SEQUENCES, correction="truncate", level="token", cap=2.0)
    assert torch.equal(importance_weights(old, rollout, SEQUENCES), expected)
    assert expected.tolist() == pytest.approx([2.0, 1.0, math.exp(-0.5)])


@EVERY_KIND
def test_an_engine_that_agrees_changes_nothing(correction, level):
    logprobs = torch.tensor([-0.1, -7.3, -2.2])
    weights = importance_weights(logprobs, logprobs, SEQUENCES, correction=correction, level=level, cap=1.0)
    assert weights.tolist() == [1.0, 1.0, 1.0]  # a weight at the cap itself is kept


@EVERY_KIND
@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-60, 0), st.floats(-60, 0), st.integers(0, 2)), min_size=1, max_size=8),
    st.floats(0.1, 9),
)
def test_weights_are_bounded_and_alike_within_a_sequence(correction, level, rows, cap):
    rows = sorted(rows, key=lambda row: row[2])
    old, rollout = (torch.tensor([row[i] for row in rows]) for i in (0, 1))
    sequences = torch.tensor([row[2] for row in rows])
    weights = importance_weights(old, rollout, sequences, correction=correction, level=level, cap=cap)
    assert bool((weights >= 0).all())
    assert bool((weights <= cap * (1 + 1e-6)).all())
    if level == "sequence":
        assert all(len(weights[sequences == number].unique()) == 1 for number in sequences.unique())


@EVERY_KIND
def test_weights_carry_no_gradient_and_stay_finite(correction, level):
    old = torch.tensor([-1.0, -90.0, -1.0], requires_grad=True)
    rollout = torch.tensor([-200.0, -1.0, -1.0])
    weights = importance_weights(old, rollout, SEQUENCES, correction=correction, level=level)
    assert not weights.requires_grad
    assert bool(weights.isfinite().all())


@EVERY_KIND
def test_each_sequence_is_weighed_alone(correction, level):
    old, rollout = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.2, -1.7, -3.4])
    settings_of = {"correction": correction, "level": level, "cap": 1.3}
    whole = importance_weights(old, rollout, SEQUENCES, **settings_of)
    parts = [importance_weights(old[s], rollout[s], SEQUENCES[s], **settings_of) for s in (slice(2), slice(2, 3))]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"correction": "off"}, r'correction is "off" and level "token", but must be "truncate" or "mask"'),
        (
            {"level": "group"},
            r'level "group", but must be .* Set algorithm\.correction and algorithm\.correction_level',
        ),
        ({"cap": 0.0}, r"cap is 0\.0, but must be finite and above 0\. Set algorithm\.correction_cap"),
        ({"cap": math.inf}, "cap is inf"),
        ({"cap": math.nan}, "cap is nan"),
    ],
)
def test_errors(setting, message):
    with pytest.raises(ValueError, match=message):
        importance_weights(torch.zeros(3), torch.zeros(3), SEQUENCES, **setting)
