import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_agrae.policy.layout import Row
from mm_agrae.policy.packing import Budget, cut, pack
from mm_agrae.records import Prompt, RenderedPrompt, Sample


def make_row(group: int, prompt_tokens: int, lengths: list[int], *, first: int = 0) -> Row:
    prompt = RenderedPrompt(
        prompt=Prompt(sample=Sample(id=str(group), question="?", target="1"), messages=()),
        token_ids=(1,) * prompt_tokens,
        unexpanded_token_ids=(1,) * prompt_tokens,
        position_ids=torch.arange(prompt_tokens)[None],
        next_position=prompt_tokens,
        mm_token_type_ids=None,
        pixel_values=None,
        image_grid_thw=None,
        content_hash="",
    )
    completions = tuple((100 * group + index,) * length for index, length in enumerate(lengths))
    return Row(prompt=prompt, completions=completions, group=group, first=first)


GROUPS = st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(0, 30), max_size=6)), min_size=1, max_size=8)


@given(GROUPS, st.integers(1, 120))
def test_the_budget_holds_and_groups_stay_whole(groups: list[tuple[int, list[int]]], budget: int) -> None:
    rows = [make_row(number, tokens, lengths) for number, (tokens, lengths) in enumerate(groups)]
    batches = pack(rows, Budget(tokens=budget))
    assert all(sum(row.num_tokens for row in batch) <= budget or len(batch) == 1 for batch in batches)
    found = sorted((row for batch in batches for row in batch), key=lambda row: row.group)
    assert all(one is other for one, other in zip(found, rows, strict=True))


@given(GROUPS, st.integers(1, 40))
def test_pieces_keep_to_the_budget_and_lose_nothing(groups: list[tuple[int, list[int]]], budget: int) -> None:
    for number, (tokens, lengths) in enumerate(groups):
        row = make_row(number, tokens, lengths, first=5)
        pieces = cut(row, Budget(tokens=budget))
        expected = list(enumerate(row.completions, start=5))
        assert [pair for piece in pieces for pair in enumerate(piece.completions, start=piece.first)] == expected
        for piece in pieces:
            sizes = [len(completion) for completion in piece.completions if completion]
            assert sum(sizes) <= budget or len(sizes) == 1
            assert sizes or not any(row.completions)


def test_a_row_is_cut_between_completions() -> None:
    row = make_row(3, 4, [3, 3, 2, 5, 9], first=10)
    pieces = cut(row, Budget(tokens=6))
    # 3 + 3 = 6 fits; 2 + 5 = 7 does not; 9 stands alone.
    assert [(piece.first, list(map(len, piece.completions))) for piece in pieces] == [
        (10, [3, 3]),
        (12, [2]),
        (13, [5]),
        (14, [9]),
    ]
    assert all(piece.prompt is row.prompt and piece.group == 3 for piece in pieces)


def test_the_longest_come_first_and_short_ones_fill_what_is_left() -> None:
    rows = [make_row(0, 2, [2]), make_row(1, 2, [18]), make_row(2, 2, [3]), make_row(3, 2, [17])]
    batches = pack(rows, Budget(tokens=40))
    assert [[piece.group for piece in batch] for batch in batches] == [[1, 3], [2, 0]]


def test_no_rows_make_no_batches() -> None:
    assert pack([], Budget(tokens=10)) == []


def test_a_second_bound_counts_completion_tokens() -> None:
    rows = [make_row(0, 9, [6]), make_row(1, 8, [1, 1]), make_row(2, 1, [3, 2])]
    # 6 + 2 completion tokens fit into 8, and 5 more do not, although there is room for the tokens.
    batches = pack(rows, Budget(tokens=100, targets=8))
    assert [[row.group for row in batch] for batch in batches] == [[0, 1], [2]]
    assert [len(piece.completions) for piece in cut(make_row(0, 9, [3, 3, 3]), Budget(tokens=100, targets=6))] == [2, 1]
    assert not Budget(tokens=100, targets=8).holds(make_row(0, 1, [9]))


def test_padding_counts_where_rows_are_padded() -> None:
    rows = [make_row(0, 2, [8]), make_row(1, 2, [3]), make_row(2, 2, [1]), make_row(3, 2, [1])]
    # Lines of 10 tokens: two of them fit into 29, three do not; then lines of 3.
    batches = pack(rows, Budget(tokens=29), padded=True)
    assert [[row.group for row in batch] for batch in batches] == [[0, 1], [2, 3]]
    assert [[row.group for row in batch] for batch in pack(rows, Budget(tokens=29))] == [[0, 1, 2, 3]]


def test_where_every_micro_batch_must_be_one_pass_a_large_group_is_torn_with_its_prompt() -> None:
    rows = [make_row(0, 4, [3, 3, 2, 9]), make_row(1, 4, [2])]
    batches = pack(rows, Budget(tokens=10, apart=False))
    # 4 + 9 is over the budget, and cannot be less; 4 + 3 + 3; 4 + 2 and 4 + 2 do not fit together into 10.
    assert [[(row.group, row.first, row.num_tokens) for row in batch] for batch in batches] == [
        [(0, 3, 13)],
        [(0, 0, 10)],
        [(0, 2, 6)],
        [(1, 0, 6)],
    ]
