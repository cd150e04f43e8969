from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.policy.layout import Row
from mm_agrae.policy.packing import Budget, pack
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


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(0, 30), max_size=6)), min_size=1, max_size=8),
    st.integers(1, 120),
)
def test_the_budget_holds_and_nothing_is_lost(groups: list[tuple[int, list[int]]], budget: int) -> None:
    rows = [make_row(number, tokens, lengths) for number, (tokens, lengths) in enumerate(groups)]
    batches = pack(rows, Budget(tokens=budget))
    found: Counter[tuple[int, int, tuple[int, ...]]] = Counter()
    for batch in batches:
        used = sum(piece.num_tokens for piece in batch)
        lone = len(batch) == 1 and len(batch[0].completions) <= 1 + sum(not c for c in batch[0].completions)
        assert used <= budget or lone
        for piece in batch:
            for place, completion in enumerate(piece.completions, start=piece.first):
                found[piece.group, place, completion] += 1
    expected = Counter((row.group, place, c) for row in rows for place, c in enumerate(row.completions))
    assert found == expected


def test_a_row_is_cut_between_completions() -> None:
    (row,) = [make_row(3, 4, [3, 3, 2, 5, 9], first=10)]
    batches = pack([row], Budget(tokens=10))
    pieces = sorted((piece for batch in batches for piece in batch), key=lambda piece: piece.first)
    # Prompt 4 + 3 + 3 = 10 fits; 4 + 2 = 6, and 5 more would be 11; 4 + 5 = 9; the last, 4 + 9 = 13, stands alone.
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
