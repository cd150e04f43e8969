"""Log-probabilities of completions under the policy, without ever holding logits of a whole batch.

Shapes: B lines, T tokens of a line, K (position, target) pairs, H hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.policy.attention import Attention
from mm_agrae.policy.head import Drawing
from mm_agrae.policy.layout import Layout, Row, make_layout, make_padded_layout
from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision import image_inputs


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Of every target: its log-probability (nats) and the entropy (nats) of the distribution it was drawn from."""

    logprobs: Float[Tensor, " K"]
    entropy: Float[Tensor, " K"]


def lay_out(policy: Policy, rows: Sequence[Row]) -> Layout:
    """The tensors of one forward pass over these rows, in the layout that the model can serve.

    Raises:
        ValueError: If there are no rows.
    """
    return make_layout(rows) if policy.shares_prompts else make_padded_layout(rows)


def score(
    policy: Policy,
    layout: Layout,
    *,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    recompute_above: int = 0,
) -> TokenScores:
    """Log-probability of every target of a layout, with gradient.

    Args:
        policy: The model; call under torch.no_grad() where no gradient is wanted.
        layout: Rows of prompts with their completions.
        temperature: Divides the logits, as it did when sampling.
        entropy_gradient: Let the entropy carry a gradient too; costs memory, so only for an entropy bonus.
        recompute_above: A layout of at most so many tokens keeps its activations, whether recomputing is on or not.

    Returns:
        Scores in the order of layout.targets.
    """
    layout = layout.to(policy.device)
    with policy.arithmetic():
        hidden = hidden_states(policy, layout, recompute_above=recompute_above)
        wide = hidden.flatten(0, 1).to(torch.promote_types(hidden.dtype, torch.float32))
        # A prompt's last state is picked once per completion, and the gradients of its copies are summed in fp32.
        picked = wide[layout.sources].to(hidden.dtype)
        return score_states(policy, picked, layout.targets, temperature, entropy_gradient=entropy_gradient)


def score_states(
    policy: Policy,
    states: Float[Tensor, "K H"],
    targets: Int[Tensor, " K"],
    temperature: float,
    *,
    entropy_gradient: bool,
) -> TokenScores:
    """The scores of targets by the hidden states that predict them."""
    drawing = Drawing(temperature=temperature, banned=policy.banned_token_ids)
    logprobs, entropy = policy.head.score(states, targets, drawing, entropy_gradient=entropy_gradient)
    return TokenScores(logprobs=logprobs, entropy=entropy)


def hidden_states(
    policy: Policy, layout: Layout, attention: Attention | None = None, *, recompute_above: int = 0
) -> Float[Tensor, "B T H"]:
    """Last hidden states of the lines; an `attention` takes the place of the layout's."""
    with policy.recomputing() if layout.input_ids.numel() > recompute_above else nullcontext():
        inputs = layout.inputs() | image_inputs(policy, layout.pictured)
        if attention is not None:
            inputs["attention"] = attention
        return policy.backbone(**inputs, use_cache=False).last_hidden_state


def logits_of(policy: Policy, states: Float[Tensor, "K H"], temperature: float) -> Float[Tensor, "K V"]:
    """Logits in fp32 at a temperature, placeholders at minus infinity: what `score` has at its targets."""
    logits = policy.head(states)
    if policy.banned_token_ids:
        banned = torch.tensor(policy.banned_token_ids, device=logits.device)
        logits = logits.index_fill(-1, banned, float("-inf"))
    return logits if temperature == 1.0 else logits / temperature
