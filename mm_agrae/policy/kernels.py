"""Attention over stretches of a row: torch's kernels, forward and backward, behind one pair of calls.

The public functions of torch keep the log-sum-exp to themselves or ignore its gradient, so the operators below them
are called, on the CPU by `Blocks`, on CUDA by `Packed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from mm_agrae.policy.call import Call, Places
from mm_agrae.policy.cpu_attention import Blocks
from mm_agrae.policy.cuda_attention import Packed


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
        return self.blocks() if device.type == "cpu" else self.packed(device, non_blocking=non_blocking)

    def blocks(self) -> Blocks:
        """The call for the CPU.

        Raises:
            ValueError: If there is a gap between stretches.
        """
        queries, keys = _adjoining(self.queries), _adjoining(self.keys)
        if queries is None or keys is None:
            raise ValueError("stretches of one call on a CPU have gaps between them, but must adjoin. Make several.")
        sizes = [(len(query), len(key)) for query, key in zip(self.queries, self.keys, strict=True)]
        return Blocks.of(sizes, queries=queries, keys=keys, causal=self.causal)

    def packed(self, device: torch.device, *, non_blocking: bool = False) -> Packed:
        """The call for CUDA."""
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
