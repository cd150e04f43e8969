"""Attention of [prompt | completion 1 | ... | completion G] rows without a mask and without copies of the prompt.

A micro-batch is one row of T tokens: group after group, each the prompt and then its completions. Every completion
attends to its prompt and, causally, to itself. That is two attentions over disjoint keys, and softmax over the union
of two key sets is the mixture of the two with weights exp(L1 - L) and exp(L2 - L), L = log(exp L1 + exp L2), where L1
and L2 are the log-sum-exps of the scores. The prompt attends causally to itself.

The gradient of the mixture needs no chain rule through L1 and L2: with the merged output O and the merged L, the
backward pass of each part alone gives its share, because P = exp(S - L) and δ = Σ dO · O belong to the union (the
identity that ring attention uses). The attention kernels of torch drop the gradient of the log-sum-exp that they
return, so merging their outputs under autograd would be silently wrong.

Shapes: T tokens, H query heads, K key and value heads (K divides H), D head width, B blocks, L tokens of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Part:
    """One call of a kernel: B blocks of queries, each with its block of keys.

    Padding stands at the end of a block and points at token 0. Causal blocks are square, so a padded key is in the
    future of every real query; blocks that are not causal have no padded keys at all.
    """

    queries: Int[Tensor, "B L"]
    real_queries: Bool[Tensor, "B L"]
    keys: Int[Tensor, "B M"]
    real_keys: Bool[Tensor, "B M"]
    causal: bool


@dataclass(frozen=True)
class AttentionPlan:
    """The kernel calls that every layer makes for one row of groups.

    The first two cover every token once (prompts to themselves, completions to themselves), the others every
    completion token again (to its prompt). Prompts of one length share such a call, because keys must not be padded
    there.
    """

    parts: tuple[Part, ...]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Attention; B is 1."""
        out = _GroupedAttention.apply(query[0], key[0], value[0], self.parts, scale)
        return out.transpose(0, 1)[None].contiguous()

    def to(self, device: torch.device, *, non_blocking: bool = False) -> AttentionPlan:
        return AttentionPlan(
            tuple(
                Part(
                    queries=part.queries.to(device, non_blocking=non_blocking),
                    real_queries=part.real_queries.to(device, non_blocking=non_blocking),
                    keys=part.keys.to(device, non_blocking=non_blocking),
                    real_keys=part.real_keys.to(device, non_blocking=non_blocking),
                    causal=part.causal,
                )
                for part in self.parts
            )
        )


def plan_attention(prompts: Sequence[int], completions: Sequence[Sequence[int]]) -> AttentionPlan:
    """The plan of groups laid end to end, nothing between them.

    Args:
        prompts: Prompt tokens of every group; at least 1.
        completions: Completion tokens of every group, one entry per completion; 0 is allowed.
    """
    places: list[range] = []
    answers: list[range] = []
    pieces: list[range] = []
    start = 0
    for length, lengths in zip(prompts, completions, strict=True):
        places.append(range(start, start + length))
        start += length
        answers.append(range(start, start + sum(lengths)))
        for piece in lengths:
            if piece:
                pieces.append(range(start, start + piece))
            start += piece
    parts = [_part(places, places, causal=True)]
    if pieces:
        parts.append(_part(pieces, pieces, causal=True))
    for length in sorted(set(prompts)):
        chosen = [number for number, place in enumerate(places) if len(place) == length and answers[number]]
        if chosen:
            parts.append(_part([answers[n] for n in chosen], [places[n] for n in chosen], causal=False))
    return AttentionPlan(tuple(parts))


def _part(queries: Sequence[range], keys: Sequence[range], *, causal: bool) -> Part:
    query_index, real_queries = _padded(queries)
    key_index, real_keys = _padded(keys)
    return Part(
        queries=query_index, real_queries=real_queries, keys=key_index, real_keys=real_keys, causal=causal
    )  # fmt: skip


def _padded(ranges: Sequence[range]) -> tuple[Tensor, Tensor]:
    width = max(map(len, ranges))
    steps = torch.arange(width)
    starts = torch.tensor([block.start for block in ranges])[:, None]
    lengths = torch.tensor([len(block) for block in ranges])[:, None]
    real = steps < lengths
    return torch.where(real, starts + steps, 0), real


class _GroupedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Part], scale: float) -> Tensor:
        """query [H, T, D], key and value [K, T, D] -> [H, T, D]."""
        out = torch.zeros_like(query, memory_format=torch.contiguous_format)
        lse = query.new_full(query.shape[:2], float("-inf"), dtype=torch.promote_types(query.dtype, torch.float32))
        for part in parts:
            _merge(out, lse, part, *_attend(query, key, value, part, scale))
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.scale = parts, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        gradients = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        for part in ctx.parts:
            _attend_backward(gradients, (grad_out, query, key, value, out, lse), part, ctx.scale)
        return *gradients, None, None  # type: ignore[return-value]


def _attend(query: Tensor, key: Tensor, value: Tensor, part: Part, scale: float) -> tuple[Tensor, Tensor]:
    repeat = query.shape[0] // key.shape[0]
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        _blocks(query, part.queries),
        _heads(_blocks(key, part.keys), repeat),
        _heads(_blocks(value, part.keys), repeat),
        0.0, part.causal, scale=scale,
    )  # fmt: skip


def _attend_backward(
    gradients: Sequence[Tensor], saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], part: Part, scale: float
) -> None:
    grad_out, query, key, value, out, lse = saved
    repeat = query.shape[0] // key.shape[0]
    # A padded query reads token 0; with an output gradient of 0 it sends nothing anywhere.
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        _blocks(grad_out, part.queries) * part.real_queries[:, None, :, None],
        _blocks(query, part.queries),
        _heads(_blocks(key, part.keys), repeat),
        _heads(_blocks(value, part.keys), repeat),
        _blocks(out, part.queries), lse[:, part.queries].transpose(0, 1).contiguous(), 0.0, part.causal, scale=scale,
    )  # fmt: skip
    _add(gradients[0], grads[0], part.queries, part.real_queries)
    for gradient, grad in zip(gradients[1:], grads[1:], strict=True):
        _add(gradient, grad.unflatten(1, (-1, repeat)).sum(2) if repeat > 1 else grad, part.keys, part.real_keys)


def _blocks(x: Tensor, index: Tensor) -> Tensor:
    """[H, T, D] -> [B, H, L, D]."""
    return x[:, index].transpose(0, 1)


def _heads(x: Tensor, repeat: int) -> Tensor:
    return x.repeat_interleave(repeat, dim=1) if repeat > 1 else x


def _merge(out: Tensor, lse: Tensor, part: Part, part_out: Tensor, part_lse: Tensor) -> None:
    """Mix what a part found into what its queries have so far; a query without anything so far takes it as it is."""
    places = part.queries[part.real_queries]
    new_out = part_out.transpose(0, 1)[:, part.real_queries]  # [H, n, D]
    new_lse = part_lse.transpose(0, 1)[:, part.real_queries]  # [H, n]
    old_lse = lse[:, places]
    merged = torch.logaddexp(old_lse, new_lse)
    old_share, new_share = (old_lse - merged).exp(), (new_lse - merged).exp()
    out[:, places] = (out[:, places] * old_share[..., None] + new_out * new_share[..., None]).to(out.dtype)
    lse[:, places] = merged


def _add(gradient: Tensor, blocks: Tensor, index: Tensor, real: Tensor) -> None:
    """Every token stands once in an index, so this is a plain sum and the same in every run."""
    gradient[:, index[real]] += blocks.transpose(0, 1)[:, real]
