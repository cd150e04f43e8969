"""Attention of [prompt | completion 1 | ... | completion G] rows without a mask and without copies of the prompt.

A micro-batch is one row of T tokens: group after group, each the prompt and then its completions. Every completion
attends to its prompt and, causally, to itself. That is two attentions over disjoint keys, and softmax over the union
of two key sets is the mixture of the two with weights exp(L1 - L) and exp(L2 - L), L = log(exp L1 + exp L2), where L1
and L2 are the log-sum-exps of the scores. The prompt attends causally to itself.

The gradient of the mixture needs no chain rule through L1 and L2: with the merged output O and the merged L, the
backward pass of each part alone gives its share, because P = exp(S - L) and δ = Σ dO · O belong to the union (the
identity that ring attention uses). The attention kernels of torch drop the gradient of the log-sum-exp that they
return, so merging their outputs under autograd would be silently wrong.

Shapes: T tokens, H query heads, K key and value heads (K divides H), D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mm_agrae.policy.call import Call, Places, Saved, put, take
from mm_agrae.policy.kernels import Stretches, joined


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """The kernel calls that every layer makes for one row of groups; made once, for all layers.

    Attributes:
        own: Every token to its own prompt or completion, causally.
        shared: Per group, its completion tokens to its prompt.
        calls: The same on the device of the row: `own` first.
    """

    own: Stretches
    shared: tuple[Stretches, ...]
    calls: tuple[Call, ...]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Attention; B is 1."""
        query, key, value = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
        return attend(query, key, value, self.calls, scale).unsqueeze(0)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> AttentionPlan:
        """The same on a device."""
        return replace(self, calls=_calls(self.own, self.shared, device, non_blocking))


def plan_attention(prompts: Sequence[int], completions: Sequence[Sequence[int]]) -> AttentionPlan:
    """The plan of groups laid end to end, nothing between them.

    Args:
        prompts: Prompt tokens of every group; at least 1.
        completions: Completion tokens of every group, one entry per completion; 0 is allowed.
    """
    own: list[range] = []
    shared: list[Stretches] = []
    start = 0
    for length, lengths in zip(prompts, completions, strict=True):
        prompt = range(start, start + length)
        own.append(prompt)
        start = prompt.stop
        for piece in lengths:
            if piece:
                own.append(range(start, start + piece))
                start += piece
        if start > prompt.stop:
            shared.append(Stretches(queries=(range(prompt.stop, start),), keys=(prompt,), causal=False))
    return _plan(Stretches(queries=tuple(own), keys=tuple(own), causal=True), tuple(shared))


def _plan(own: Stretches, shared: tuple[Stretches, ...]) -> AttentionPlan:
    return AttentionPlan(own=own, shared=shared, calls=_calls(own, shared, torch.device("cpu"), False))


def _calls(own: Stretches, shared: Sequence[Stretches], device: torch.device, non_blocking: bool) -> tuple[Call, ...]:
    """On a CPU a call per group works on views; elsewhere one call for all of them costs less than many."""
    if shared and device.type != "cpu":
        shared = [joined(shared)]
    return tuple(part.on(device, non_blocking=non_blocking) for part in (own, *shared))


def attend(query: Tensor, key: Tensor, value: Tensor, calls: Sequence[Call], scale: float) -> Tensor:
    """Attention over the union of the keys that the calls give to a query.

    Args:
        query: [T, H, D].
        key, value: [S, K, D]; S is T where every token has a query.
        calls: The first has every query and, in order, the last keys, as many as there are; the others have any.
        scale: Multiplies the scores.

    Returns:
        [T, H, D].
    """
    return _Attention.apply(query, key, value, calls, scale)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: Sequence[Call], scale: float) -> Tensor:
        out, lse = calls[0].forward(query, key, value, scale)
        for call in calls[1:]:
            _merge(out, lse, call.queries, *call.forward(query, key, value, scale))
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.calls, ctx.scale = calls, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        saved = Saved(grad_out=grad_out, query=query, key=key, value=value, out=out, lse=lse)
        own = ctx.calls[0]
        grad_query, *grads = own.backward(saved, ctx.scale)
        gradients = [grad_query, *(_spread(grad, own.keys, len(key)) for grad in grads)]
        for call in ctx.calls[1:]:
            places = (call.queries, call.keys, call.keys)
            for gradient, place, share in zip(gradients, places, call.backward(saved, ctx.scale), strict=True):
                _add(gradient, place, share)
        return *gradients, None, None


def _merge(out: Tensor, lse: Tensor, places: Places, part_out: Tensor, part_lse: Tensor) -> None:
    """Mix what a call found into what its queries have so far."""
    old_lse = take(lse, places)
    keep = torch.sigmoid(old_lse - part_lse).unsqueeze(-1)  # exp(L1 - log(exp L1 + exp L2))
    put(out, places, part_out.to(keep.dtype).lerp_(take(out, places).to(keep.dtype), keep))
    put(lse, places, torch.logaddexp(old_lse, part_lse))


def _spread(gradient: Tensor, places: Places, size: int) -> Tensor:
    """The gradient of all keys; those that a call does not read have none from it."""
    if len(gradient) == size:
        return gradient
    whole = gradient.new_zeros(size, *gradient.shape[1:])
    put(whole, places, gradient)
    return whole


def _add(gradient: Tensor, places: Places, part: Tensor) -> None:
    """A token stands once among the places, so the sum is the same in every run."""
    if isinstance(places, slice):
        take(gradient, places).add_(part)
    else:
        gradient.index_add_(0, places, part)
