"""Names in the config -> bound functions. The only place where a method is chosen by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from mm_agrae.algorithms import ADVANTAGES, AGGREGATIONS, BASE_STD, TRUST_REGIONS, WEIGHTINGS, ClipBounds
from mm_agrae.config.schema import AlgorithmConfig


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One point of advantage x weighting x trust region x aggregation, every number bound.

    Attributes:
        advantage: (rewards, correct) -> base advantages, all [P, G].
        weightings: (advantages, flags, batch_accuracy) -> advantages, applied in order.
        trust_region: (advantages, flags) -> bounds of the ratio.
        aggregation: lengths and global counts -> weight of a token of each sequence.
        beta: Weight of the k3 divergence from the reference; 0 needs no reference.
    """

    advantage: Callable[[Tensor, Tensor], Tensor]
    weightings: tuple[Callable[[Tensor, Tensor, float], Tensor], ...]
    trust_region: Callable[[Tensor, Tensor], ClipBounds]
    aggregation: Callable[..., Tensor]
    beta: float


def assemble(config: AlgorithmConfig) -> Algorithm:
    """Bind every name and number of the algorithm section."""
    advantage = ADVANTAGES[config.advantage]
    if config.advantage == "grpo":
        # The authors' code form of A-GRAE comes with its own base: unbiased std plus an epsilon.
        std, eps = BASE_STD[config.agrae.variant if "agrae" in config.weighting else "paper"]
        advantage = partial(advantage, std=std, eps=eps)
    return Algorithm(
        advantage=advantage,
        weightings=tuple(_weighting(name, config) for name in config.weighting),
        trust_region=partial(TRUST_REGIONS["fixed"], clip_low=config.clip_low, clip_high=config.clip_high),
        aggregation=AGGREGATIONS[config.aggregation],
        beta=config.beta,
    )


def _weighting(name: str, config: AlgorithmConfig) -> Callable[[Tensor, Tensor, float], Tensor]:
    function = WEIGHTINGS[name]

    def weigh(advantages: Tensor, flags: Tensor, batch_accuracy: float) -> Tensor:
        return function(
            advantages,
            flags,
            batch_accuracy=batch_accuracy,
            alpha=config.agrae.alpha,
            variant=config.agrae.variant,
        )

    return weigh
