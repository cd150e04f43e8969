"""Whole groups into micro-batches under a token budget. Packing changes memory and speed, never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mm_agrae.config.schema import TrainConfig
from mm_agrae.policy.layout import Row


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one forward pass may hold. Every bound changes memory and speed only.

    Attributes:
        tokens: Tokens of prompts and completions, each prompt counted once.
    """

    tokens: int


def budget_of(config: TrainConfig) -> Budget:
    """The budget that the settings name."""
    return Budget(tokens=config.micro_batch_tokens)


def pack(rows: Sequence[Row], budget: Budget) -> list[list[Row]]:
    """Longest first, each into the first micro-batch that has room.

    A row over the budget is cut between completions, each piece with the prompt before it; a single completion over the
    budget stands alone, because cutting it is not possible.

    Args:
        rows: One row per group.
        budget: What a micro-batch may hold.
    """
    max_tokens = budget.tokens
    pieces = sorted((piece for row in rows for piece in _cut(row, max_tokens)), key=lambda row: -row.num_tokens)
    batches: list[list[Row]] = []
    room: list[int] = []
    for piece in pieces:
        place = next((number for number, left in enumerate(room) if left >= piece.num_tokens), len(batches))
        if place == len(batches):
            batches.append([])
            room.append(max_tokens)
        batches[place].append(piece)
        room[place] -= piece.num_tokens
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
