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
        targets: Tokens of completions alone; None has no such bound.
        recompute_above: A pass of more tokens than this recomputes its activations, where recomputing is switched on.
        apart: Whether the prompt of a row over the budget may have passes of its own. Without them the row is torn into
            rows that each have the prompt, so that every micro-batch is one forward and one backward pass.
    """

    tokens: int
    targets: int | None = None
    recompute_above: int = 0
    apart: bool = True

    def holds(self, row: Row) -> bool:
        return self.allows(row.num_tokens, row.num_targets)

    def allows(self, tokens: int, targets: int) -> bool:
        return tokens <= self.tokens and (self.targets is None or targets <= self.targets)


def budget_of(config: TrainConfig) -> Budget:
    """The budget that the settings name."""
    return Budget(
        tokens=config.micro_batch_tokens,
        targets=config.micro_batch_targets,
        recompute_above=config.recompute_above_tokens,
    )


@dataclass(kw_only=True)
class _Batch:
    rows: list[Row]
    tokens: int
    targets: int


def pack(rows: Sequence[Row], budget: Budget, *, padded: bool = False) -> list[list[Row]]:
    """Longest first, each into the first micro-batch that has room; a row over the budget stands alone.

    Args:
        rows: One row per group, or per completion.
        budget: What a micro-batch may hold.
        padded: Rows are padded to the longest of their micro-batch, and the padding counts.
    """
    batches: list[_Batch] = []
    rows = rows if budget.apart else [piece for row in rows for piece in _torn(row, budget)]
    for row in sorted(rows, key=lambda row: -row.num_tokens):
        for batch in batches:
            tokens = batch.rows[0].num_tokens if padded else row.num_tokens
            if budget.allows(batch.tokens + tokens, batch.targets + row.num_targets):
                break
        else:
            batch = _Batch(rows=[], tokens=0, targets=0)
            tokens = row.num_tokens
            batches.append(batch)
        batch.rows.append(row)
        batch.tokens += tokens
        batch.targets += row.num_targets
    return [batch.rows for batch in batches]


def _torn(row: Row, budget: Budget) -> list[Row]:
    """Rows within the budget, as far as single completions are, each with the prompt."""
    if budget.holds(row):
        return [row]
    return cut(row, replace(budget, tokens=budget.tokens - len(row.prompt.token_ids)))


def cut(row: Row, budget: Budget) -> list[Row]:
    """A row cut between completions, so that the completions of each piece alone keep to the budget.

    A single completion over the budget is a piece of its own, because cutting it is not possible. No piece is without a
    token, unless the row is.
    """
    pieces: list[list[tuple[int, ...]]] = [[]]
    length = 0
    for completion in row.completions:
        if completion and length and not budget.allows(length + len(completion), length + len(completion)):
            pieces.append([])
            length = 0
        pieces[-1].append(completion)
        length += len(completion)
    starts = accumulate((len(piece) for piece in pieces), initial=row.first)
    return [replace(row, completions=tuple(piece), first=start) for piece, start in zip(pieces, starts, strict=False)]
