"""Forward and backward of a micro-batch: the scores of its completions, and the gradient of a loss of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mm_agrae.policy.forward import TokenScores, lay_out, score
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy
from mm_agrae.policy.packing import Budget

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
        loss_of: Called with rows and the scores of their completions, in the order of the rows.
        budget: What one forward pass may hold.
        temperature: Divides the logits, as it did when sampling.
        entropy_gradient: Let the entropy carry a gradient too.

    Returns:
        The loss, a number without gradient, in fp32.
    """
    scores = score(policy, lay_out(policy, rows), temperature=temperature, entropy_gradient=entropy_gradient)
    loss = loss_of(rows, scores)
    loss.backward()
    return loss.detach()


@torch.no_grad()
def score_rows(policy: Policy, rows: Sequence[Row], *, budget: Budget, temperature: float = 1.0) -> TokenScores:
    """The scores of a micro-batch's completions without a gradient, in the order of the rows."""
    return score(policy, lay_out(policy, rows), temperature=temperature)
