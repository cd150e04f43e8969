"""Attention over stretches of a row: torch's kernels, forward and backward, behind one pair of calls.

The public functions of torch keep the log-sum-exp to themselves or ignore its gradient, so the operators below them
are called here. Which one is a matter of device and number format:

    CPU                 flash attention for CPU, a call per stretch, on views of the row; fp64, fp32, bf16, fp16
    CUDA, bf16 / fp16   flash attention for stretches of any length, one call, heads shared as they are
    CUDA, fp32          memory-efficient attention for stretches of any length, one call

Shapes: T tokens of the row, N tokens in the stretches, B stretches, H query heads, K key and value heads, R = H / K
query heads that share one of them, D head width. Head h of the queries reads head h // R of the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Tokens of a row: a view where they adjoin, else picked one by one.
Places = slice | Tensor
# The memory-efficient kernel keeps the log-sum-exp of a stretch in rows of a multiple of this many queries.
LSE_ALIGNMENT = 32


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a backward pass needs, over the whole row; `out` and `lse` may belong to more keys than those of a call."""

    grad_out: Float[Tensor, "T H D"]
    query: Float[Tensor, "T H D"]
    key: Float[Tensor, "T K D"]
    value: Float[Tensor, "T K D"]
    out: Float[Tensor, "T H D"]
    lse: Float[Tensor, "T H"]


class Call(Protocol):
    """Attention of stretches of queries, each to its stretch of keys."""

    @property
    def queries(self) -> Places:
        """The N query tokens, stretch by stretch."""

    @property
    def keys(self) -> Places:
        """The key tokens, stretch by stretch."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Output [N, H, D] and log-sum-exp of the scaled scores [N, H] of row tensors [T, H | K, D]."""

    def backward(self, saved: Saved, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the N queries, of the keys and of the values."""


@dataclass(frozen=True, kw_only=True)
class Stretches:
    """Ranges of query tokens and the ranges of key tokens that they attend to, in ascending order.

    Attributes:
        queries, keys: One range each per stretch, none empty.
        causal: A query sees the keys up to its own place in the stretch; all of them where False.

    Raises:
        ValueError: If a stretch is empty, has no partner, or is causal with more keys than queries or fewer.
    """

    queries: tuple[range, ...]
    keys: tuple[range, ...]
    causal: bool

    def __post_init__(self) -> None:
        sizes = [(len(query), len(key)) for query, key in zip(self.queries, self.keys, strict=True)]
        if not sizes or not all(query and key for query, key in sizes):
            raise ValueError(f"stretches have {sizes} queries and keys, but there must be at least one of each.")
        # The kernels disagree about which corner of an oblong score matrix the diagonal starts in.
        if self.causal and any(query != key for query, key in sizes):
            raise ValueError(f"causal stretches have {sizes} queries and keys, but must have as many of both.")

    def on(self, device: torch.device, *, non_blocking: bool = False) -> Call:
        """The call that computes them on a device."""
        if device.type == "cpu":
            return Blocks.of(self)
        return Packed(
            queries=_places(self.queries, device, non_blocking),
            keys=_places(self.keys, device, non_blocking),
            query_ends=_ends(self.queries).to(device, non_blocking=non_blocking),
            key_ends=_ends(self.keys).to(device, non_blocking=non_blocking),
            longest_query=max(map(len, self.queries)),
            longest_key=max(map(len, self.keys)),
            causal=self.causal,
        )


def joined(parts: Sequence[Stretches]) -> Stretches:
    """Stretches of several parts as one; the parts must agree on causality."""
    return Stretches(
        queries=tuple(stretch for part in parts for stretch in part.queries),
        keys=tuple(stretch for part in parts for stretch in part.keys),
        causal=parts[0].causal,
    )


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A call per stretch, on views: nothing is padded, gathered or repeated. For the CPU.

    Query heads that share a key head stand in the batch dimension, where the keys can be expanded without a copy.

    Attributes:
        queries, keys: See Call; they adjoin.
        runs: (queries, keys, stretches) of neighbours of equal size, counted from the start of `queries` and `keys`.
        causal: See Stretches.
    """

    queries: slice
    keys: slice
    runs: tuple[tuple[slice, slice, int], ...]
    causal: bool

    @classmethod
    def of(cls, stretches: Stretches) -> Blocks:
        queries, keys = _adjoining(stretches.queries), _adjoining(stretches.keys)
        if queries is None or keys is None:
            raise ValueError("the stretches of one call must adjoin on a CPU. Make a call of each.")
        return cls.of_sizes(
            [(len(query), len(key)) for query, key in zip(stretches.queries, stretches.keys, strict=True)],
            queries=queries, keys=keys, causal=stretches.causal,
        )  # fmt: skip

    @classmethod
    def of_sizes(cls, sizes: Sequence[tuple[int, int]], *, queries: slice, keys: slice, causal: bool) -> Blocks:
        runs = []
        query = key = 0
        for (num_queries, num_keys), equal in groupby(sizes):
            count = len(list(equal))
            ends = query + count * num_queries, key + count * num_keys
            runs.append((slice(query, ends[0]), slice(key, ends[1]), count))
            query, key = ends
        return cls(queries=queries, keys=keys, runs=tuple(runs), causal=causal)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See Call."""
        query = query[self.queries]
        heads = (key.shape[1], query.shape[1] // key.shape[1])
        out = torch.empty(query.shape, dtype=query.dtype)
        lse = torch.empty(query.shape[:2], dtype=torch.promote_types(query.dtype, torch.float32))
        rows = [_by_head(query, heads), *_keys_by_head(key[self.keys], value[self.keys], heads)]
        to = _by_head(out, heads), _by_head(lse, heads)
        for queries, keys, count in self._calls(heads):
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *_folded(rows, (queries, keys, keys), count), 0.0, self.causal, scale=scale
            )
            for whole, part in zip(_folded(to, (queries, queries), count), found, strict=True):
                whole.copy_(part)
        return out, lse

    def backward(self, saved: Saved, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """See Call."""
        query, key, value = saved.query[self.queries], saved.key[self.keys], saved.value[self.keys]
        heads = (key.shape[1], query.shape[1] // key.shape[1])
        gradients = [torch.empty(x.shape, dtype=x.dtype) for x in (query, key, value)]
        grad_out, out, lse = (_by_head(x[self.queries], heads) for x in (saved.grad_out, saved.out, saved.lse))
        rows = [grad_out, _by_head(query, heads), *_keys_by_head(key, value, heads), out, lse]
        alone = (heads[0], 1)
        to = _by_head(gradients[0], heads), _by_head(gradients[1], alone), _by_head(gradients[2], alone)
        for queries, keys, count in self._calls(heads):
            places = (queries, queries, keys, keys, queries, queries)
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *_folded(rows, places, count), 0.0, self.causal, scale=scale
            )
            whole = _folded(to, (queries, keys, keys), count)
            whole[0].copy_(found[0])
            for grad, part in zip(whole[1:], found[1:], strict=True):
                grad.copy_(part[:1] if heads[1] > 1 else part)
                for share in part[1:] if heads[1] > 1 else ():
                    grad.add_(share)
        return gradients[0], gradients[1], gradients[2]

    def _calls(self, heads: tuple[int, int]) -> list[tuple[slice, slice, int]]:
        """A run is one call where no heads are shared; where they are, these have the batch dimension."""
        if heads[1] == 1:
            return list(self.runs)
        return [
            (_nth(queries, number, count), _nth(keys, number, count), 1)
            for queries, keys, count in self.runs
            for number in range(count)
        ]


def _nth(places: slice, number: int, count: int) -> slice:
    size = (places.stop - places.start) // count
    return slice(places.start + number * size, places.start + (number + 1) * size)


def _by_head(x: Tensor, heads: tuple[int, int]) -> Tensor:
    """[N, H, ...] -> [R, K, N, ...], a view."""
    x = x.unflatten(1, heads)
    return x.permute(2, 1, 0, 3) if x.dim() == 4 else x.permute(2, 1, 0)


def _keys_by_head(key: Tensor, value: Tensor, heads: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[N, K, D] -> [R, K, N, D], the same memory R times."""
    num, repeats = heads
    return (
        _by_head(key, (num, 1)).expand(repeats, -1, -1, -1),
        _by_head(value, (num, 1)).expand(repeats, -1, -1, -1),
    )  # fmt: skip


def _folded(rows: Sequence[Tensor], places: Sequence[slice], count: int) -> list[Tensor]:
    """The places of each [R, K, N, ...]; more than one stretch, then R is 1 and they become the batch dimension."""
    picked = [x.narrow(2, at.start, at.stop - at.start) for x, at in zip(rows, places, strict=True)]
    return picked if count == 1 else [x[0].unflatten(1, (count, -1)).transpose(0, 1) for x in picked]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """All stretches in one call of a kernel for stretches of any length. For CUDA.

    Attributes:
        queries, keys: See Call.
        query_ends, key_ends: int32 running totals of the lengths, from 0.
        longest_query, longest_key: Tokens of the longest stretch, or more.
        causal: See Stretches.
    """

    queries: Places
    keys: Places
    query_ends: Int[Tensor, " B+1"]
    key_ends: Int[Tensor, " B+1"]
    longest_query: int
    longest_key: int
    causal: bool

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See Call."""
        taken = query[self.queries], key[self.keys], value[self.keys]
        if query.dtype in (torch.bfloat16, torch.float16):
            return _flash(self, *taken, scale)
        return _efficient(self, *taken, scale)

    def backward(self, saved: Saved, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """See Call."""
        taken = Saved(
            grad_out=saved.grad_out[self.queries].contiguous(),
            query=saved.query[self.queries],
            key=saved.key[self.keys],
            value=saved.value[self.keys],
            out=saved.out[self.queries].contiguous(),
            lse=saved.lse[self.queries],
        )
        if saved.query.dtype in (torch.bfloat16, torch.float16):
            return _flash_backward(self, taken, scale)
        return _efficient_backward(self, taken, scale)


def _flash(call: Packed, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, call.query_ends, call.key_ends, call.longest_query, call.longest_key,
        0.0, call.causal, False, scale=scale,
    )  # fmt: skip
    return out, lse.transpose(0, 1)


def _flash_backward(call: Packed, saved: Saved, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    unused = saved.query.new_empty(0)  # the state of a random generator, which only dropout reads
    return torch.ops.aten._flash_attention_backward(
        saved.grad_out, saved.query, saved.key, saved.value, saved.out, saved.lse.transpose(0, 1).contiguous(),
        call.query_ends, call.key_ends, call.longest_query, call.longest_key, 0.0, call.causal, unused, unused,
        scale=scale,
    )  # fmt: skip


def _efficient(call: Packed, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    repeats = query.shape[1] // key.shape[1]
    out, lse, *_ = torch.ops.aten._efficient_attention_forward(
        query[None], _repeated(key, repeats)[None], _repeated(value, repeats)[None], None,
        call.query_ends, call.key_ends, call.longest_query, call.longest_key, 0.0, int(call.causal), True, scale=scale,
    )  # fmt: skip
    return out[0], lse[_stretch_and_place(call, len(query))]


def _efficient_backward(call: Packed, saved: Saved, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    num, repeats = saved.key.shape[1], saved.query.shape[1] // saved.key.shape[1]
    width = -(-call.longest_query // LSE_ALIGNMENT) * LSE_ALIGNMENT
    # Behind the end of a stretch stands infinity, as the forward kernel leaves it: exp(score - inf) is 0.
    lse = saved.lse.new_full((len(call.query_ends) - 1, saved.query.shape[1], width), float("inf"))
    lse[_stretch_and_place(call, len(saved.query))] = saved.lse
    unused = saved.query.new_empty(0, dtype=torch.long)
    query, key, value, _ = torch.ops.aten._efficient_attention_backward(
        saved.grad_out[None], saved.query[None], _repeated(saved.key, repeats)[None],
        _repeated(saved.value, repeats)[None], None, saved.out[None], call.query_ends, call.key_ends,
        call.longest_query, call.longest_key, lse, 0.0, unused, unused, int(call.causal), False, scale=scale,
    )  # fmt: skip
    return query[0], key[0].unflatten(1, (num, repeats)).sum(2), value[0].unflatten(1, (num, repeats)).sum(2)


def _stretch_and_place(call: Packed, num_queries: int) -> tuple[Tensor, slice, Tensor]:
    """Index of every query in [stretch, head, place in the stretch]; gives [N, H]."""
    tokens = torch.arange(num_queries, device=call.query_ends.device, dtype=call.query_ends.dtype)
    stretch = torch.searchsorted(call.query_ends, tokens, right=True) - 1
    return stretch, slice(None), tokens - call.query_ends[stretch]


def _repeated(x: Tensor, repeats: int) -> Tensor:
    return x.repeat_interleave(repeats, dim=1) if repeats > 1 else x


def _adjoining(ranges: Sequence[range]) -> slice | None:
    if any(left.stop != right.start for left, right in pairwise(ranges)):
        return None
    return slice(ranges[0].start, ranges[-1].stop)


def _places(ranges: Sequence[range], device: torch.device, non_blocking: bool) -> Places:
    adjoining = _adjoining(ranges)
    if adjoining is not None:
        return adjoining
    places = torch.cat([torch.arange(stretch.start, stretch.stop) for stretch in ranges])
    return places.to(device, non_blocking=non_blocking)


def _ends(ranges: Sequence[range]) -> Tensor:
    return torch.tensor([0, *accumulate(map(len, ranges))], dtype=torch.int32)
