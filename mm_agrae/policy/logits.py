"""Whether a model's logits are those of its head alone.

Log-probabilities are computed from hidden states and the head's weight. Some families do more: they scale their
states, or multiply or cap the logits. Names of such settings differ by family, so what the model returns is compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mm_agrae.errors import ConfigError
from mm_agrae.policy.layout import Layout

if TYPE_CHECKING:
    from mm_agrae.policy.load import Policy

SAME_STATES = 1e-5


@torch.no_grad()
def check_logits(policy: Policy, layout: Layout) -> None:
    """Compare the model's logits with those of its head, on the hidden states of its backbone.

    Args:
        policy: Its model.
        layout: A few tokens.

    Raises:
        ConfigError: The head is given other states than the last ones, or its logits are changed.
    """
    layout = layout.to(policy.device)
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_head: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        calls.append((inputs[0], logits.clone()))  # what follows may overwrite them

    hook = policy.head.register_forward_hook(keep)
    try:
        with policy.arithmetic():
            states = policy.backbone(**layout.inputs(), use_cache=False).last_hidden_state
            found = policy.inner(**layout.inputs(), use_cache=False).logits
    finally:
        hook.remove()
    if len(calls) != 1:
        raise ConfigError(_message(policy, f"calls its head {len(calls)} times"))
    ((given, logits),) = calls
    if not (given - states).norm() <= SAME_STATES * states.norm():
        raise ConfigError(_message(policy, "changes the hidden states before its head"))
    # Bit by bit: a cap far above small logits changes little more than rounding does.
    if not torch.equal(found, logits):
        raise ConfigError(_message(policy, "changes its logits after its head"))


def _message(policy: Policy, what: str) -> str:
    return (
        f"model type {policy.inner.config.model_type!r} {what}, which the log-probabilities here would miss. "
        "Choose a model without it."
    )
