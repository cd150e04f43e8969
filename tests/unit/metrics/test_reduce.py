import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_agrae.metrics.reduce import Mean


def test_parts_weigh_by_their_count():
    # (1 + 2 + 3 + 10) / 4, where the mean of the means would be 6.
    assert (Mean.of([1.0, 2.0, 3.0]) + Mean.of([10.0])).value == 4.0


@given(st.lists(st.integers(-1000, 1000), min_size=1), st.integers(0, 50))
def test_any_split_adds_up(values, cut):
    whole = Mean.of(values)
    assert Mean.of(values[:cut]) + Mean.of(values[cut:]) == whole
    assert sum([Mean.of([v]) for v in values], Mean()) == whole
    assert whole.value == pytest.approx(sum(values) / len(values))


def test_a_mean_of_nothing_is_nan_and_adds_nothing():
    assert math.isnan(Mean().value)
    assert Mean() + Mean(3.0, 2) == Mean(3.0, 2)
