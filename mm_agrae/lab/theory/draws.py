"""Groups of rollouts: drawn, and enumerated by their number of correct ones.

Shapes: D groups drawn, G rollouts per group. p is the success probability of one rollout, k the number of correct ones
of a group. A group is mixed if 0 < k < G; only mixed groups have a group-relative advantage.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mm_agrae.algorithms import ADVANTAGES
from mm_agrae.algorithms.groups import is_mixed

NUM_GROUPS = 40_000


def binomial(k: int, size: int, p: float) -> float:
    """Probability of k correct ones among `size` rollouts."""
    return math.comb(size, k) * p**k * (1 - p) ** (size - k)


def expectation(
    value: Callable[[int], float], size: int, p: float, *, given: Callable[[int], bool] = lambda k: True
) -> float:
    """E[value(k) | given(k)] over the outcomes k = 0..size."""
    outcomes = [k for k in range(size + 1) if given(k)]
    weight = math.fsum(binomial(k, size, p) for k in outcomes)
    return math.fsum(value(k) * binomial(k, size, p) for k in outcomes) / weight


def mixed_probability(size: int, p: float) -> float:
    """Z = 1 - (1-p)^G - p^G: probability that a group is mixed."""
    return 1 - (1 - p) ** size - p**size


def draw_groups(generator: torch.Generator, size: int, p: float, *, num_groups: int = NUM_GROUPS) -> Tensor:
    """[D, G] flags, True where correct."""
    return torch.rand(num_groups, size, generator=generator, dtype=torch.float64) < p


def draw_mixed(generator: torch.Generator, size: int, p: float, *, num_groups: int = NUM_GROUPS) -> Tensor:
    """The mixed ones among the groups that are drawn: fewer than `num_groups`."""
    flags = draw_groups(generator, size, p, num_groups=num_groups)
    return flags[is_mixed(flags)]


def draw_mixed_at(generator: torch.Generator, size: int, rates: Tensor) -> Tensor:
    """[D, G] flags of one mixed group for each success probability of `rates` [D].

    Draws k from its distribution among mixed groups, then which rollouts they are: rejection would not end for small p.
    """
    counts = torch.arange(1, size)
    choose = torch.tensor([float(math.comb(size, k)) for k in range(1, size)], dtype=torch.float64)
    weights = choose * rates[:, None] ** counts * (1 - rates[:, None]) ** (size - counts)
    drawn = 1 + torch.multinomial(weights / weights.sum(dim=1, keepdim=True), 1, generator=generator)
    places = torch.rand(len(rates), size, generator=generator).argsort(dim=1)
    return places < drawn


def group_with(num_correct: int, size: int) -> Tensor:
    """[1, G] flags of the group whose first `num_correct` rollouts are correct."""
    return (torch.arange(size) < num_correct)[None]


def base(flags: Tensor, *, std: str = "biased") -> Tensor:
    """Base advantages [D, G] of 0/1 rewards: GRPO's with std "biased", Dr.GRPO's with "none"."""
    return partial(ADVANTAGES["group"], std=std)(flags.to(torch.float64), flags)


def total(advantages: Tensor) -> Tensor:
    """Σ A of every group [D]."""
    return advantages.to(torch.float64).sum(dim=1)


def magnitude(advantages: Tensor) -> Tensor:
    """Σ |A| of every group [D]."""
    return total(advantages.abs())


def spread(k: int, size: int) -> float:
    """G · sqrt(p̂ (1 - p̂)) of a group with k correct ones."""
    return math.sqrt(k * (size - k))
