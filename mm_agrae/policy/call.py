"""One call of an attention kernel: stretches of queries, each with the stretch of keys that it attends to.

Shapes: T tokens of the row, N tokens in the stretches, H query heads, K key and value heads, R = H / K query heads that
share one of them, D head width. Head h of the queries reads head h // R of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

# Tokens of a row: a view where they adjoin, else picked one by one.
Places = slice | Tensor


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


def take(x: Tensor, places: Places) -> Tensor:
    """Rows of x: a view of neighbours, else a copy."""
    if isinstance(places, slice):
        return x.narrow(0, places.start, places.stop - places.start)
    return x.index_select(0, places)


def put(x: Tensor, places: Places, values: Tensor) -> None:
    """Write rows of x, in its number format."""
    if isinstance(places, slice):
        x.narrow(0, places.start, places.stop - places.start).copy_(values)
    else:
        x.index_copy_(0, places, values.to(x.dtype))
