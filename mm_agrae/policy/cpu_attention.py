"""Attention of stretches on the CPU: torch's flash attention, a call per stretch, on views of the row.

In fp64, fp32, bf16 and fp16; sums are kept in fp32 or wider. Shapes: see Call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from mm_agrae.policy.call import Saved, take


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
    def of(cls, sizes: Sequence[tuple[int, int]], *, queries: slice, keys: slice, causal: bool) -> Blocks:
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
        query = take(query, self.queries)
        heads = (key.shape[1], query.shape[1] // key.shape[1])
        out = torch.empty(query.shape, dtype=query.dtype)
        lse = torch.empty(query.shape[:2], dtype=torch.promote_types(query.dtype, torch.float32))
        rows = [_by_head(query, heads), *_keys_by_head(take(key, self.keys), take(value, self.keys), heads)]
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
        query, key, value = take(saved.query, self.queries), take(saved.key, self.keys), take(saved.value, self.keys)
        heads = (key.shape[1], query.shape[1] // key.shape[1])
        gradients = [torch.empty(x.shape, dtype=x.dtype) for x in (query, key, value)]
        grad_out, out, lse = (_by_head(take(x, self.queries), heads) for x in (saved.grad_out, saved.out, saved.lse))
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
                grad.copy_(part.sum(0, keepdim=True) if heads[1] > 1 else part)
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
