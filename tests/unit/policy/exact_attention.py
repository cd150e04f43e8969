"""Attention written out, softmax over a mask, and stand-ins for the kernels that only a GPU has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def group_mask(prompts: Sequence[int], completions: Sequence[Sequence[int]]) -> Tensor:
    """[T, T] True where a query (row) sees a key."""
    num = sum(prompts) + sum(map(sum, completions))
    mask = torch.zeros(num, num, dtype=torch.bool)
    start = 0
    for prompt, lengths in zip(prompts, completions, strict=True):
        end = start + prompt
        mask[start:end, start:end] = lower(prompt)
        for length in lengths:
            mask[end : end + length, start : start + prompt] = True
            mask[end : end + length, end : end + length] = lower(length)
            end += length
        start = end
    return mask


def lower(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril()


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """query [T, H, D], key and value [S, K, D], mask [T, S] -> [T, H, D]."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = torch.einsum("thd,shd->hts", query, key) * scale
    return torch.einsum("hts,shd->thd", scores.masked_fill(~mask, -1e30).softmax(-1), value)


def stretch_mask(query_ends: Tensor, key_ends: Tensor, *, causal: bool) -> Tensor:
    """[N, M] True where a query of a stretch sees a key of the same stretch."""
    mask = torch.zeros(int(query_ends[-1]), int(key_ends[-1]), dtype=torch.bool)
    for b in range(len(query_ends) - 1):
        rows, columns = slice(query_ends[b], query_ends[b + 1]), slice(key_ends[b], key_ends[b + 1])
        mask[rows, columns] = lower(rows.stop - rows.start) if causal else True
    return mask


def forward_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output [N, H, D] in the number format of the query, log-sum-exp [H, N]."""
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = query.to(wide), *_for_all_heads(query, key, value, wide)
    scores = (torch.einsum("thd,shd->hts", q, k) * scale).masked_fill(~mask, float("-inf"))
    out = torch.einsum("hts,shd->thd", scores.softmax(-1), v)
    return out.to(query.dtype), scores.logsumexp(-1)


def backward_kernel(
    grad_out: Tensor, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor, lse: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernels compute of the output and log-sum-exp [H, N] that they are handed, whatever keys these had."""
    query, key, value = qkv
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = query.to(wide), *_for_all_heads(query, key, value, wide)
    grad, heads = grad_out.to(wide), (key.shape[1], query.shape[1] // key.shape[1])
    scores = (torch.einsum("thd,shd->hts", q, k) * scale).masked_fill(~mask, float("-inf"))
    weights = (scores - lse[..., None]).exp()
    delta = (grad * out.to(wide)).sum(-1).T
    grad_scores = weights * (torch.einsum("thd,shd->hts", grad, v) - delta[..., None]) * scale
    grad_key = torch.einsum("hts,thd->shd", grad_scores, q).unflatten(1, heads).sum(2)
    grad_value = torch.einsum("hts,thd->shd", weights, grad).unflatten(1, heads).sum(2)
    grad_query = torch.einsum("hts,shd->thd", grad_scores, k)
    return grad_query.to(query.dtype), grad_key.to(query.dtype), grad_value.to(query.dtype)


def _for_all_heads(query: Tensor, key: Tensor, value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    repeats = query.shape[1] // key.shape[1]
    return key.to(dtype).repeat_interleave(repeats, 1), value.to(dtype).repeat_interleave(repeats, 1)
