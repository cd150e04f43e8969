"""Whole groups into micro-batches under a token budget. Packing changes memory and speed, never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mm_agrae.policy.layout import Row


def pack(rows: Sequence[Row], *, max_tokens: int) -> list[list[Row]]:
    """Rows of similar length together, longest first; padding counts as tokens.

    A row over the budget is cut between completions, each piece with the prompt before it; a single completion over the
    budget stands alone, because cutting it is not possible.

    Args:
        rows: One row per group.
        max_tokens: Rows times longest row of a micro-batch stays at or below this.
    """
    pieces = sorted((piece for row in rows for piece in _cut(row, max_tokens)), key=lambda row: -row.num_tokens)
    batches: list[list[Row]] = []
    for piece in pieces:
        if batches and batches[-1][0].num_tokens * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(piece)
        else:
            batches.append([piece])
    return batches


def _cut(row: Row, max_tokens: int) -> list[Row]:
    if row.num_tokens <= max_tokens:
        return [row]
    pieces: list[list[tuple[int, ...]]] = [[]]
    length = start = len(row.prompt.token_ids)
    for completion in row.completions:
        if pieces[-1] and length + len(completion) > max_tokens:
            pieces.append([])
            length = start
        pieces[-1].append(completion)
        length += len(completion)
    firsts = [sum(map(len, pieces[:number])) for number in range(len(pieces))]
    return [
        replace(row, completions=tuple(piece), first=row.first + first)
        for piece, first in zip(pieces, firsts, strict=True)
    ]
