import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.aggregation import AGGREGATIONS, sequence_mean, token_mean, token_sum

EVERY = pytest.mark.parametrize("name", sorted(AGGREGATIONS))


def test_worked_example():
    lengths = torch.tensor([2, 0, 4])
    counts = {"num_sequences": 4, "num_tokens": 10, "max_length": 5}
    # 1/(2·4), nothing, 1/(4·4); 1/10; 1/(4·5). The fourth sequence, of 4 tokens, is on another rank.
    for name, expected in (
        ("sequence_mean", [0.125, 0.0, 0.0625]),
        ("token_mean", [0.1, 0.0, 0.1]),
        ("token_sum", [0.05, 0.0, 0.05]),
    ):
        weights = AGGREGATIONS[name](lengths, **counts)
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, torch.tensor(expected))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_what_a_loss_of_one_everywhere_adds_up_to(lengths):
    """Means make it 1; the sum over a constant makes it the filled fraction of the batch."""
    lengths = torch.tensor(lengths)
    num_tokens = int(lengths.sum())
    expected = {"sequence_mean": 1.0, "token_mean": 1.0, "token_sum": num_tokens / (len(lengths) * 50)}
    for name, total in expected.items():
        weights = AGGREGATIONS[name](lengths, num_sequences=len(lengths), num_tokens=num_tokens, max_length=50)
        assert float((weights * lengths).sum()) == pytest.approx(total, rel=1e-5)


def test_which_token_weighs_less_in_a_long_sequence():
    lengths = torch.tensor([10, 40])
    counts = {"num_sequences": 2, "num_tokens": 50, "max_length": 64}
    short, long = sequence_mean(lengths, **counts).tolist()
    assert short == pytest.approx(4 * long)
    for free_of_length in (token_mean, token_sum):
        short, long = free_of_length(lengths, **counts).tolist()
        assert short == long


@EVERY
def test_weights_of_a_part_are_the_part_of_the_weights(name):
    lengths = torch.tensor([3, 0, 5, 1, 5])
    counts = {"num_sequences": 5, "num_tokens": 14, "max_length": 5}
    whole = AGGREGATIONS[name](lengths, **counts)
    parts = [AGGREGATIONS[name](part, **counts) for part in lengths.split([2, 0, 3])]
    assert torch.equal(torch.cat(parts), whole)


@EVERY
def test_weights_of_nothing(name):
    empty = torch.zeros(0, dtype=torch.long)
    assert AGGREGATIONS[name](empty, num_sequences=4, num_tokens=10, max_length=5).shape == (0,)
    silent = AGGREGATIONS[name](torch.zeros(2, dtype=torch.long), num_sequences=2, num_tokens=0, max_length=5)
    assert silent.tolist() == [0.0, 0.0]


@EVERY
@pytest.mark.parametrize(
    ("count", "message"),
    [
        ({"num_sequences": 1}, "num_sequences is 1, but 2 sequences were passed"),
        ({"num_tokens": 5}, "num_tokens is 5, but the sequences passed have 6"),
        ({"max_length": 3}, "max_length is 3, but a sequence has 4 tokens"),
    ],
)
def test_counts_of_less_than_what_is_passed_are_refused(name, count, message):
    with pytest.raises(ValueError, match=message):
        AGGREGATIONS[name](torch.tensor([2, 4]), **{"num_sequences": 2, "num_tokens": 6, "max_length": 4, **count})


def test_names():
    assert {"sequence_mean": sequence_mean, "token_mean": token_mean, "token_sum": token_sum} == AGGREGATIONS
