import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.trust_region import TRUST_REGIONS, fixed

ADVANTAGES = torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.5, -1.0]])
CORRECT = ADVANTAGES > 0


def test_defaults_and_name():
    bounds = fixed(ADVANTAGES, CORRECT)
    torch.testing.assert_close(bounds.low, torch.full((2, 3), 0.8))
    torch.testing.assert_close(bounds.high, torch.full((2, 3), 1.2))
    assert {"fixed": fixed} == TRUST_REGIONS


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.floats(0, 10))
def test_bounds_enclose_one_and_take_each_setting(clip_low, clip_high):
    bounds = fixed(ADVANTAGES, CORRECT, clip_low=clip_low, clip_high=clip_high)
    assert bool((bounds.low <= 1).all())
    assert bool((bounds.high >= 1).all())
    assert float(bounds.low[0, 0]) == pytest.approx(1 - clip_low, abs=1e-6)
    assert float(bounds.high[1, 2]) == pytest.approx(1 + clip_high, rel=1e-6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"clip_low": 1.0}, r"clip_low is 1\.0, but must be in \[0, 1\).* Set algorithm\.clip_low"),
        ({"clip_low": -0.1}, r"clip_low is -0\.1"),
        ({"clip_high": -0.1}, r"clip_high is -0\.1, but must be finite and 0 or more"),
        ({"clip_high": math.inf}, r"clip_high is inf"),
        ({"clip_high": math.nan}, r"clip_high is nan"),
    ],
)
def test_errors(setting, message):
    with pytest.raises(ValueError, match=message):
        fixed(ADVANTAGES, CORRECT, **setting)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"shapes are \[2, 3\] and \[2, 2\]"):
        fixed(ADVANTAGES, CORRECT[:, :2])
