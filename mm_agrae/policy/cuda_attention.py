"""Attention of stretches on CUDA, all of them in one call of a kernel that takes stretches of any length.

bf16 and fp16 go to flash attention, which reads shared heads as they are. It knows no fp32, for which torch has the
memory-efficient kernel, with a copy of shared heads for every query head. Shapes: see Call; B stretches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from mm_agrae.policy.call import Places, Saved, take

FLASH_DTYPES = (torch.bfloat16, torch.float16)
# The memory-efficient kernel keeps the log-sum-exp of a stretch in rows of a multiple of this many queries.
LSE_ALIGNMENT = 32


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

    @property
    def lse_width(self) -> int:
        """Queries of a stretch, rounded up, in the memory-efficient kernel's log-sum-exp."""
        return -(-self.longest_query // LSE_ALIGNMENT) * LSE_ALIGNMENT

    @cached_property
    def lse_places(self) -> Int[Tensor, " N"]:
        """Where each query stands among the rows of that log-sum-exp, `lse_width` of them per stretch."""
        sizes = self.query_ends.diff()
        num_queries = self.queries.stop - self.queries.start if isinstance(self.queries, slice) else len(self.queries)
        shifts = torch.arange(len(sizes), device=sizes.device) * self.lse_width - self.query_ends.narrow(
            0, 0, len(sizes)
        )
        return shifts.repeat_interleave(sizes, output_size=num_queries) + torch.arange(num_queries, device=sizes.device)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See Call."""
        taken = take(query, self.queries), take(key, self.keys), take(value, self.keys)
        if query.dtype in FLASH_DTYPES:
            return _flash(self, *taken, scale)
        return _efficient(self, *taken, scale)

    def backward(self, saved: Saved, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """See Call."""
        taken = Saved(
            grad_out=take(saved.grad_out, self.queries).contiguous(),
            query=take(saved.query, self.queries),
            key=take(saved.key, self.keys),
            value=take(saved.value, self.keys),
            out=take(saved.out, self.queries).contiguous(),
            lse=take(saved.lse, self.queries),
        )
        if saved.query.dtype in FLASH_DTYPES:
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
        saved.grad_out, saved.query, saved.key, saved.value, saved.out, _rows_last(saved.lse),
        call.query_ends, call.key_ends, call.longest_query, call.longest_key, 0.0, call.causal, unused, unused,
        scale=scale,
    )  # fmt: skip


def _efficient(call: Packed, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    repeats = query.shape[1] // key.shape[1]
    out, lse, *_ = torch.ops.aten._efficient_attention_forward(
        query.unsqueeze(0), _repeated(key, repeats), _repeated(value, repeats), None,
        call.query_ends, call.key_ends, call.longest_query, call.longest_key, 0.0, int(call.causal), True, scale=scale,
    )  # fmt: skip
    return out.squeeze(0), lse.transpose(1, 2).flatten(0, 1).index_select(0, call.lse_places)


def _efficient_backward(call: Packed, saved: Saved, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    heads = (saved.key.shape[1], saved.query.shape[1] // saved.key.shape[1])
    num_stretches = len(call.query_ends) - 1
    # Behind the end of a stretch stands infinity, as the forward kernel leaves it: exp(score - inf) is 0.
    lse = saved.lse.new_full((num_stretches * call.lse_width, saved.lse.shape[1]), float("inf"))
    lse.index_copy_(0, call.lse_places, saved.lse)
    unused = saved.query.new_empty(0, dtype=torch.long)
    query, key, value, _ = torch.ops.aten._efficient_attention_backward(
        saved.grad_out.unsqueeze(0), saved.query.unsqueeze(0), _repeated(saved.key, heads[1]),
        _repeated(saved.value, heads[1]), None, saved.out.unsqueeze(0), call.query_ends, call.key_ends,
        call.longest_query, call.longest_key, _rows_last(lse.unflatten(0, (num_stretches, -1))),
        0.0, unused, unused, int(call.causal), False, scale=scale,
    )  # fmt: skip
    return query.squeeze(0), *(grad.squeeze(0).unflatten(1, heads).sum(2) for grad in (key, value))


def _rows_last(lse: Tensor) -> Tensor:
    """[..., N, H] -> [..., H, N], laid out like that in memory too, because the kernels read it by address."""
    return lse.transpose(-1, -2).clone(memory_format=torch.contiguous_format)


def _repeated(x: Tensor, repeats: int) -> Tensor:
    """[N, K, D] -> [1, N, H, D]."""
    return (x.repeat_interleave(repeats, dim=1) if repeats > 1 else x).unsqueeze(0)
