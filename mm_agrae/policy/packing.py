"""Whole groups into micro-batches under a token budget. Packing changes memory and speed, never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from mm_agrae.config.schema import TrainConfig
from mm_agrae.policy.layout import Row


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one forward pass may hold. Every bound changes memory and speed only.

    Attributes:
        tokens: Tokens of prompts and completions, each prompt counted once.
    """

    tokens: int

    def holds(self, row: Row) -> bool:
        return row.num_tokens <= self.tokens


def budget_of(config: TrainConfig) -> Budget:
    """The budget that the settings name."""
    return Budget(tokens=config.micro_batch_tokens)


def pack(rows: Sequence[Row], budget: Budget) -> list[list[Row]]:
    """Longest first, each into the first micro-batch that has room; a row over the budget stands alone.

    Args:
        rows: One row per group, or per completion.
        budget: What a micro-batch may hold.
    """
    batches: list[list[Row]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: -row.num_tokens):
        place = next((number for number, left in enumerate(room) if left >= row.num_tokens), len(batches))
        if place == len(batches):
            batches.append([])
            room.append(budget.tokens)
        batches[place].append(row)
        room[place] -= row.num_tokens
    return batches


def cut(row: Row, budget: Budget) -> list[Row]:
    """A row cut between completions, so that the completions of each piece alone keep to the budget.

    A single completion over the budget is a piece of its own, because cutting it is not possible. No piece is without a
    token, unless the row is.
    """
    pieces: list[list[tuple[int, ...]]] = [[]]
    length = 0
    for completion in row.completions:
        if completion and length and length + len(completion) > budget.tokens:
            pieces.append([])
            length = 0
        pieces[-1].append(completion)
        length += len(completion)
    starts = accumulate((len(piece) for piece in pieces), initial=row.first)
    return [replace(row, completions=tuple(piece), first=start) for piece, start in zip(pieces, starts, strict=False)]
