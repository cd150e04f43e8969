import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_agrae.data.sampler import PromptSampler
from mm_agrae.errors import DataError


@given(st.integers(1, 30), st.integers(0, 2**62), st.integers(0, 100), st.integers(0, 40), st.integers(0, 40))
def test_a_cursor_resumes_anywhere(num: int, seed: int, cursor: int, first: int, second: int) -> None:
    sampler = PromptSampler(num, seed)
    whole = sampler.indices(cursor, first + second)
    assert whole == sampler.indices(cursor, first) + PromptSampler(num, seed).indices(cursor + first, second)


@given(st.integers(1, 30), st.integers(0, 5))
def test_every_epoch_holds_each_sample_once(num: int, epoch: int) -> None:
    assert sorted(PromptSampler(num, 3).indices(epoch * num, num)) == list(range(num))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [PromptSampler(50, seed).indices(start, 50) for seed in (0, 1) for start in (0, 50)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_the_same_on_every_machine() -> None:
    # Written down once: a changed order would make old cursors point elsewhere.
    assert PromptSampler(8, 0).indices(0, 12) == [6, 4, 3, 1, 0, 5, 2, 7, 2, 0, 1, 4]


def test_an_empty_data_set_and_a_negative_cursor_are_refused() -> None:
    with pytest.raises(DataError, match="0 samples"):
        PromptSampler(0, 1)
    with pytest.raises(ValueError, match="cursor is -1"):
        PromptSampler(3, 1).indices(-1, 2)
