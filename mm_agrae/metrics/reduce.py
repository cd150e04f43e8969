"""Means that can be added up over micro-batches and ranks without averaging averages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """A mean that remembers its weight: `sum(parts, Mean())` is the mean of everything.

    Attributes:
        total: Sum of the values.
        count: Number of values.
    """

    total: float = 0.0
    count: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """The mean of some values."""
        values = tuple(values)
        return cls(math.fsum(values), len(values))

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        """The mean; NaN when nothing was counted, since 0 would be a measurement."""
        return self.total / self.count if self.count else math.nan
