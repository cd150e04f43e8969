"""Forward and backward of a micro-batch: the scores of its completions, and the gradient of a loss of them.

A group over the budget is not torn into pieces that compute the prompt again: its prompt is computed apart, and the
completions, piece by piece, go on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mm_agrae.policy.forward import TokenScores, lay_out, score
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy
from mm_agrae.policy.packing import Budget, cut
from mm_agrae.policy.prefix import read_prompt, return_gradient, score_after

# From rows and the scores of their completion tokens to a loss that is a sum over these tokens.
LossOf = Callable[[Sequence[Row], TokenScores], Tensor]


def differentiate(
    policy: Policy,
    rows: Sequence[Row],
    loss_of: LossOf,
    *,
    budget: Budget,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> Tensor:
    """Add the gradient of a micro-batch's loss to the weights' gradients.

    Args:
        policy: The model.
        rows: One micro-batch of `pack`.
        loss_of: Called with rows and the scores of their completions, in the order of the rows; once, or for a group
            over the budget piece by piece.
        budget: What one forward pass may hold.
        temperature: Divides the logits, as it did when sampling.
        entropy_gradient: Let the entropy carry a gradient too.

    Returns:
        The loss, a number without gradient, in fp32.
    """
    if not _must_be_cut(policy, rows, budget):
        scores = score(
            policy, lay_out(policy, rows),
            temperature=temperature, entropy_gradient=entropy_gradient, recompute_above=budget.recompute_above,
        )  # fmt: skip
        return _backward(loss_of(rows, scores))
    (row,) = rows
    prefix = read_prompt(policy, row)
    losses = []
    for piece in cut(row, budget):
        scores = score_after(
            policy, prefix, piece,
            temperature=temperature, entropy_gradient=entropy_gradient, recompute_above=budget.recompute_above,
        )  # fmt: skip
        losses.append(_backward(loss_of([piece], scores)))
    return_gradient(policy, prefix, row, recompute_above=budget.recompute_above)
    return torch.stack(losses).sum()


@torch.no_grad()
def score_rows(policy: Policy, rows: Sequence[Row], *, budget: Budget, temperature: float = 1.0) -> TokenScores:
    """The scores of a micro-batch's completions without a gradient, in the order of the rows."""
    if not _must_be_cut(policy, rows, budget):
        return score(policy, lay_out(policy, rows), temperature=temperature)
    (row,) = rows
    prefix = read_prompt(policy, row)
    pieces = [score_after(policy, prefix, piece, temperature=temperature) for piece in cut(row, budget)]
    return TokenScores(
        logprobs=torch.cat([piece.logprobs for piece in pieces]),
        entropy=torch.cat([piece.entropy for piece in pieces]),
    )


def _must_be_cut(policy: Policy, rows: Sequence[Row], budget: Budget) -> bool:
    may_be = policy.shares_prompts and budget.apart and len(rows) == 1
    return may_be and not budget.holds(rows[0]) and any(rows[0].completions)


def _backward(loss: Tensor) -> Tensor:
    if loss.requires_grad:  # not where everything that these rows pass through is frozen
        loss.backward()
    return loss.detach()
