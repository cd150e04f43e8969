"""A prompt computed once and read by its completions in later forward passes, with the gradient that flows back.

Two things leave a prompt: the keys and values of every layer, and the last hidden state, which predicts the first token
of every completion. Taken as leaves of the graph, they cut the backward pass in two: the completions' passes add up
what each sends into them, and one more pass over the prompt carries the sum on. That is the chain rule, so the cut
changes no gradient; it costs one forward pass of the prompt.

Shapes: P prompt tokens, T tokens of the completions of one pass, K key and value heads, D head width, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mm_agrae.policy.attention import Attention, Recorder
from mm_agrae.policy.forward import TokenScores, hidden_states, score_states
from mm_agrae.policy.grouped import AttentionPlan
from mm_agrae.policy.kernels import Stretches
from mm_agrae.policy.layout import Layout, Row, make_layout
from mm_agrae.policy.load import Policy


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What completions read of a prompt, as leaves in fp32 or wider, whose `grad` is what they have sent back.

    Attributes:
        keys, values: [1, K, P, D] by layer; the keys are rotated.
        end: [1, H] last hidden state.
    """

    keys: dict[int, Float[Tensor, "1 K P D"]]
    values: dict[int, Float[Tensor, "1 K P D"]]
    end: Float[Tensor, "1 H"]


@torch.no_grad()
def read_prompt(policy: Policy, row: Row) -> Prefix:
    """The prompt of a row, without keeping its activations."""
    layout = _prompt_layout(policy, row)
    keys: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}

    def keep(layer: int, key: Tensor, value: Tensor) -> None:
        keys[layer], values[layer] = _leaf(key), _leaf(value)

    with policy.arithmetic():
        hidden = hidden_states(policy, layout, Recorder(layout.attention, keep))  # type: ignore[arg-type]
    return Prefix(keys=keys, values=values, end=_leaf(hidden[0, -1:]))


def score_after(
    policy: Policy,
    prefix: Prefix,
    row: Row,
    *,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    recompute_above: int = 0,
) -> TokenScores:
    """The scores of a row's completions, of which only the completions are computed; at least one has a token.

    A backward pass through them adds to the gradients of the weights and of the prefix.
    """
    layout = _completions_layout(policy, row)
    plan = _completions_plan(len(row.prompt.token_ids), [len(completion) for completion in row.completions])
    attention = _Continuing(prefix, plan.to(policy.device))
    with policy.arithmetic():
        hidden = hidden_states(policy, layout, attention, recompute_above=recompute_above)
        # The end is picked once per completion: in its format, so that the gradients of its copies are summed in fp32.
        wide = torch.cat([prefix.end, hidden[0].to(prefix.end.dtype)])
        picked = wide[layout.sources].to(hidden.dtype)
        return score_states(policy, picked, layout.targets, temperature, entropy_gradient=entropy_gradient)


def return_gradient(policy: Policy, prefix: Prefix, row: Row, *, recompute_above: int = 0) -> None:
    """Carry what the completions sent into the prefix on to the weights, through a second pass over the prompt."""
    if prefix.end.grad is None:
        return
    layout = _prompt_layout(policy, row)
    attention = _Returning(prefix, layout.attention)  # type: ignore[arg-type]
    with policy.arithmetic():
        hidden = hidden_states(policy, layout, attention, recompute_above=recompute_above)
    end = hidden[0, -1:]
    if end.requires_grad:  # not where everything that a prompt passes through is frozen
        end.backward(prefix.end.grad.to(end.dtype))


@dataclass(frozen=True)
class _Continuing:
    """The completions' attention: their keys stand behind those of the prompt."""

    prefix: Prefix
    plan: Attention

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        key = torch.cat([self.prefix.keys[layer].to(key.dtype), key], dim=2)
        value = torch.cat([self.prefix.values[layer].to(value.dtype), value], dim=2)
        return self.plan.attend(layer, query, key, value, scale)


@dataclass(frozen=True)
class _Returning:
    """The prompt's attention, where the gradients of keys and values begin with what the completions sent back."""

    prefix: Prefix
    plan: Attention

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        key = _AddGradient.apply(key, self.prefix.keys[layer].grad)
        value = _AddGradient.apply(value, self.prefix.values[layer].grad)
        return self.plan.attend(layer, query, key, value, scale)


class _AddGradient(torch.autograd.Function):
    """The identity; on the way back it adds a gradient that is known already.

    Part of the layer's own graph, so a layer that is recomputed in the backward pass has it too.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (grad + ctx.gradient).to(grad.dtype), None


def _completions_plan(prompt: int, completions: Sequence[int]) -> AttentionPlan:
    """Queries are the completions only, keys [prompt | completions]."""
    pieces = [range(end - length, end) for end, length in zip(accumulate(completions), completions, strict=True)]
    pieces = [piece for piece in pieces if piece]
    places = tuple(range(piece.start + prompt, piece.stop + prompt) for piece in pieces)
    own = Stretches(queries=tuple(pieces), keys=places, causal=True)
    shared = Stretches(queries=(range(sum(completions)),), keys=(range(prompt),), causal=False)
    return AttentionPlan(own=own, shared=(shared,), calls=())


def _leaf(value: Tensor) -> Tensor:
    """Passes may compute in bf16, but many of them are summed here."""
    return value.detach().to(torch.promote_types(value.dtype, torch.float32)).requires_grad_()


def _prompt_layout(policy: Policy, row: Row) -> Layout:
    return make_layout([replace(row, completions=())]).to(policy.device)


def _completions_layout(policy: Policy, row: Row) -> Layout:
    """The row's layout without its prompt; sources count from the prompt's last token."""
    layout = make_layout([row])
    length = len(row.prompt.token_ids)
    types = layout.mm_token_type_ids
    return replace(
        layout,
        input_ids=layout.input_ids[..., length:],
        position_ids=layout.position_ids[..., length:],
        mm_token_type_ids=None if types is None else types[..., length:],
        pictured=(),
        sources=layout.sources - (length - 1),
    ).to(policy.device)
