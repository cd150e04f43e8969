import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.overlong import overlong_penalty


def test_worked_example():
    # DAPO's own numbers: a limit of 20480 of which the last 4096 cost. 17408 is a quarter into them, 18432 half.
    lengths = torch.tensor([[0, 16384, 17408], [18432, 20480, 30000]])
    penalties = overlong_penalty(lengths, max_length=20480, buffer=4096)
    assert penalties.dtype == torch.float64
    assert penalties.tolist() == [[0.0, 0.0, -0.25], [-0.5, -1.0, -1.0]]
    # One token into a buffer of 4: -1/4.
    assert overlong_penalty(torch.tensor([[7]]), max_length=10, buffer=4).item() == -0.25


def test_a_buffer_of_everything_costs_from_the_first_token():
    penalties = overlong_penalty(torch.tensor([[0, 1, 2, 4]]), max_length=4, buffer=4)
    assert penalties.tolist() == [[0.0, -0.25, -0.5, -1.0]]


@settings(max_examples=40)
@given(st.integers(1, 300).flatmap(lambda longest: st.tuples(st.just(longest), st.integers(1, longest))))
def test_it_falls_in_equal_steps_over_the_buffer_and_nowhere_else(limits):
    max_length, buffer = limits
    penalties = overlong_penalty(torch.arange(max_length + 3)[None], max_length=max_length, buffer=buffer)[0]
    steps = penalties.diff()
    first = max_length - buffer
    assert steps[:first].eq(0).all()
    assert steps[max_length:].eq(0).all()
    torch.testing.assert_close(steps[first:max_length], torch.full((buffer,), -1 / buffer, dtype=torch.float64))
    assert penalties[max_length] == -1


@pytest.mark.parametrize("buffer", [0, -1, 11])
def test_a_buffer_out_of_range_is_refused(buffer):
    message = rf"buffer is {buffer} tokens, but must be in \[1, 10\].* Set algorithm\.overlong_buffer_frac"
    with pytest.raises(ValueError, match=message):
        overlong_penalty(torch.zeros(1, 2, dtype=torch.long), max_length=10, buffer=buffer)
