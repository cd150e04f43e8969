"""Names in the algorithm section -> bound functions -> advantages and bounds of a batch.

The only place where a method is chosen by its name. Training and replay both come through here, so a recorded batch
meets the same estimator as a fresh one.

Shapes: P prompts over all ranks, G completions per prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mm_agrae.algorithms import (
    ADVANTAGES,
    AGGREGATIONS,
    ANCHORS,
    LOSSES,
    TRUST_REGIONS,
    WEIGHTINGS,
    AnchorState,
    ClipBounds,
    TokenLoss,
    Tokens,
)
from mm_agrae.algorithms.groups import scored_flags
from mm_agrae.algorithms.importance import importance_weights
from mm_agrae.algorithms.overlong import overlong_penalty
from mm_agrae.config.algorithm import AlgorithmConfig, HadwConfig


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """How a batch went.

    Attributes:
        rewards: [P, G] of the verifier; NaN for a rollout without one.
        correct: [P, G] True where the answer is correct.
        lengths: [P, G] completion tokens.
        truncated: [P, G] True where the completion was cut off at the length limit.
    """

    rewards: Float[Tensor, "P G"]
    correct: Bool[Tensor, "P G"]
    lengths: Int[Tensor, "P G"]
    truncated: Bool[Tensor, "P G"]


@dataclass(frozen=True, kw_only=True)
class EstimatorState:
    """All that an estimator remembers from batch to batch. Saved in checkpoints; a run goes on exactly with it."""

    anchor: AnchorState

    def to_json(self) -> dict[str, Any]:
        """JSON values; floats survive the way through a file exactly."""
        return {"anchor": list(self.anchor.history)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EstimatorState:
        return cls(anchor=AnchorState(history=tuple(values["anchor"])))


START = EstimatorState(anchor=AnchorState())


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the algorithm makes of a batch.

    Attributes:
        rewards: [P, G] with the price of long answers.
        base: [P, G] base advantages.
        advantages: [P, G] after all weightings; 0 where a rollout is left out of the loss.
        bounds: [P, G] each, of the policy ratio.
        kept: [P, G] False where a rollout is left out of the loss.
        anchor: C that HA-DW used; None without it.
    """

    rewards: Float[Tensor, "P G"]
    base: Float[Tensor, "P G"]
    advantages: Float[Tensor, "P G"]
    bounds: ClipBounds
    kept: Bool[Tensor, "P G"]
    anchor: float | None


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """What weightings may know of the whole batch: its accuracy before any filtering, and the anchor."""

    accuracy: float
    anchor: float | None


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One point in the product of choices, every number bound.

    Attributes:
        shape: (rewards, lengths) -> rewards.
        advantage: (rewards, correct) -> base advantages.
        anchor: (state, batch accuracy) -> anchor of this batch and next state; None without HA-DW.
        weightings: (advantages, flags, batch) -> advantages, applied in order.
        trust_region: (advantages, flags) -> bounds of the ratio.
        stretched_by_reweighted: Bounds come from the advantages after the weightings, not before.
        drops_truncated: Completions cut off at the limit are left out of the loss.
        loss: Tokens -> token losses.
        correction: (old, rollout log-probabilities, sequences) -> weight of each token; None for no correction.
        aggregation: lengths and global counts -> weight of a token of each sequence.
        beta: Weight of the k3 divergence from the reference; 0 needs no reference.
        entropy_weight: Weight of the entropy bonus.
        max_sampling_rounds: Rounds of sampling per step; 1 takes what comes.
    """

    shape: Callable[[Tensor, Tensor], Tensor]
    advantage: Callable[[Tensor, Tensor], Tensor]
    anchor: Callable[[AnchorState, float], tuple[float, AnchorState]] | None
    weightings: tuple[Callable[[Tensor, Tensor, BatchState], Tensor], ...]
    trust_region: Callable[[Tensor, Tensor], ClipBounds]
    stretched_by_reweighted: bool
    drops_truncated: bool
    loss: Callable[[Tokens], TokenLoss]
    correction: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    aggregation: Callable[..., Tensor]
    beta: float
    entropy_weight: float
    max_sampling_rounds: int

    @property
    def needs_every_group(self) -> bool:
        """Whether a group without any advantage still has a gradient."""
        return self.beta > 0 or self.entropy_weight > 0


def assemble(config: AlgorithmConfig, *, max_completion_tokens: int) -> Algorithm:
    """Bind every name and number of the algorithm section."""
    return Algorithm(
        shape=_shape(config, max_completion_tokens),
        advantage=_advantage(config),
        anchor=_anchor(config.hadw) if "hadw" in config.weighting else None,
        weightings=tuple(_weighting(name, config) for name in config.weighting),
        trust_region=_trust_region(config),
        stretched_by_reweighted=config.elastic.of == "reweighted",
        drops_truncated=config.overlong == "mask",
        loss=_loss(config),
        correction=None
        if config.correction == "off"
        else partial(
            importance_weights,
            correction=config.correction,
            level=config.correction_level,
            cap=config.correction_cap,
        ),
        aggregation=AGGREGATIONS[config.aggregation],
        beta=config.beta,
        entropy_weight=config.entropy_weight,
        max_sampling_rounds=config.max_sampling_rounds if config.dynamic_sampling else 1,
    )


def estimate(
    algorithm: Algorithm, state: EstimatorState, outcomes: Outcomes, *, batch_accuracy: float
) -> tuple[Estimate, EstimatorState]:
    """Advantages and bounds of a batch, and what to remember of it.

    Args:
        algorithm: Every name bound.
        state: Of the batches before.
        outcomes: The groups that are learnt from.
        batch_accuracy: Fraction of correct rollouts of everything that was sampled, before any group was dropped.
    """
    rewards = algorithm.shape(outcomes.rewards, outcomes.lengths)
    flags = scored_flags(outcomes.correct, rewards)
    anchor, next_anchor = algorithm.anchor(state.anchor, batch_accuracy) if algorithm.anchor else (None, state.anchor)
    batch = BatchState(accuracy=batch_accuracy, anchor=anchor)
    base = advantages = algorithm.advantage(rewards, outcomes.correct)
    for weigh in algorithm.weightings:
        advantages = weigh(advantages, flags, batch)
    kept = ~outcomes.truncated if algorithm.drops_truncated else torch.ones_like(outcomes.truncated)
    found = Estimate(
        rewards=rewards,
        base=base,
        advantages=torch.where(kept, advantages, 0.0),
        # From the base advantage unless asked otherwise, so that the choices stay independent of each other.
        bounds=algorithm.trust_region(advantages if algorithm.stretched_by_reweighted else base, flags),
        kept=kept,
        anchor=anchor,
    )
    return found, EstimatorState(anchor=next_anchor)


def _shape(config: AlgorithmConfig, max_length: int) -> Callable[[Tensor, Tensor], Tensor]:
    if config.overlong != "shape":
        return lambda rewards, lengths: rewards
    buffer = max(1, round(config.overlong_buffer_frac * max_length))
    return lambda rewards, lengths: rewards + overlong_penalty(lengths, max_length=max_length, buffer=buffer)


def _advantage(config: AlgorithmConfig) -> Callable[[Tensor, Tensor], Tensor]:
    function = ADVANTAGES[config.baseline]
    if config.baseline == "none":
        return partial(function, positive_weight=config.positive_weight, negative_weight=config.negative_weight)
    return partial(function, std=config.std, std_eps=config.std_eps)


def _anchor(hadw: HadwConfig) -> Callable[[AnchorState, float], tuple[float, AnchorState]]:
    numbers: dict[str, dict[str, Any]] = {
        "window": {"window": hadw.window, "include_current": hadw.variant == "code"},
        "soft": {"eta": hadw.eta, "eta_min": hadw.eta_min, "memory": hadw.memory},
        "fixed": {"value": hadw.value},
        "batch": {},
    }
    return partial(ANCHORS[hadw.anchor], **numbers[hadw.anchor])


def _weighting(name: str, config: AlgorithmConfig) -> Callable[[Tensor, Tensor, BatchState], Tensor]:
    numbers: dict[str, dict[str, Any]] = {
        "agrae": {"alpha": config.agrae.alpha, "variant": config.agrae.variant},
        "agrae_sample_level": {"variant": config.agrae.variant},
        "agrae_group_level": {"alpha": config.agrae.alpha},
        "hadw": {"scale": config.hadw.scale},
        "grpo_lead": {},
        "positive_dominant": {"dominance": config.ablation.dominance},
        "negative_dominant": {"dominance": config.ablation.dominance},
        "hard_focused": {"focus": config.ablation.focus},
        "easy_focused": {"focus": config.ablation.focus},
    }
    weigh = partial(WEIGHTINGS[name], **numbers[name])
    if name.startswith("agrae"):
        return lambda advantages, flags, batch: weigh(advantages, flags, batch_accuracy=batch.accuracy)
    if name == "hadw":
        return lambda advantages, flags, batch: weigh(advantages, flags, anchor=batch.anchor)
    return lambda advantages, flags, batch: weigh(advantages, flags)


def _trust_region(config: AlgorithmConfig) -> Callable[[Tensor, Tensor], ClipBounds]:
    region = partial(TRUST_REGIONS[config.trust_region], clip_low=config.clip_low, clip_high=config.clip_high)
    if config.trust_region == "fixed":
        return region
    return partial(region, micro=config.elastic.micro, macro=config.elastic.macro)


def _loss(config: AlgorithmConfig) -> Callable[[Tokens], TokenLoss]:
    numbers: dict[str, dict[str, Any]] = {
        "clip": {"ratio": config.ratio, "dual_clip": config.dual_clip},
        "cispo": {"ratio": config.ratio},
        "sapo": {
            "ratio": config.ratio,
            "tau_positive": config.sapo.tau_positive,
            "tau_negative": config.sapo.tau_negative,
        },
        "reinforce": {},
    }
    return partial(LOSSES[config.loss], **numbers[config.loss])
