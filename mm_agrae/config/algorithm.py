"""The algorithm section: one point of baseline x scale x weighting x ratio x trust region x loss x aggregation.

A preset fills what a recipe leaves out. Combinations without a meaning are refused with the reason; settings that
change nothing in their combination are named by `AlgorithmConfig.idle_settings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mm_agrae.config.presets import PRESETS
from mm_agrae.config.section import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Section

Preset = Literal[
    "grpo",
    "dr_grpo",
    "dapo",
    "gspo",
    "gmpo",
    "cispo",
    "sapo",
    "rloo",
    "reinforce_pp",
    "psr",
    "nsr",
    "w_reinforce",
    "grpo_lead",
]
Weighting = Literal[
    "agrae",
    "agrae_sample_level",
    "agrae_group_level",
    "hadw",
    "grpo_lead",
    "positive_dominant",
    "negative_dominant",
    "hard_focused",
    "easy_focused",
]
# The bounds that each loss takes: (clip_low, clip_high) where a recipe names the loss and no bounds.
LOSS_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "clip": (0.2, 0.2),
    "cispo": (None, 4.0),
    "sapo": (None, None),
    "reinforce": (None, None),
}
CODE_STD_EPS = 1e-6
# How far an elastic region may stretch a half-width.
MAX_STRETCH = 4.0


class AgraeConfig(Section):
    """A-GRAE (arXiv 2602.05548, Eq. 12 and 13)."""

    alpha: PositiveFloat = Field(
        default=0.5,
        description="Batch accuracy at which positive advantages get their full weight; in the paper 1 for text "
        "mathematics and 0.5 for multimodal sets.",
    )
    variant: Literal["paper", "code"] = Field(
        default="paper",
        description="The paper's formula, or the authors' code; the latter fills std with unbiased and std_eps 1e-6.",
    )


class HadwConfig(Section):
    """HA-DW (arXiv 2601.08521)."""

    variant: Literal["paper", "code"] = Field(
        default="paper",
        description="The paper's formula, or the authors' code: the window counts the current batch, scale is 1.5, and "
        "std is filled with unbiased and std_eps 1e-6.",
    )
    scale: PositiveFloat = Field(default=1.3, description="λ. Variant code: 1.5.")
    anchor: Literal["window", "soft", "fixed", "batch"] = Field(
        default="window",
        description="What to expect of a batch: mean of earlier batches, a belief that follows them, a constant, or "
        "the accuracy of the batch itself.",
    )
    window: PositiveInt = Field(default=10, description="Anchor window: batches remembered.")
    eta: NonNegativeFloat = Field(default=20.0, description="Anchor soft: speed per standard deviation of beliefs.")
    eta_min: Fraction = Field(default=0.1, description="Anchor soft: least speed; 0 lets equal beliefs freeze it.")
    memory: Annotated[int, Field(ge=2)] = Field(default=10, description="Anchor soft: beliefs remembered.")
    value: Fraction = Field(default=0.5, description="Anchor fixed: the constant.")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_variant(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("variant") == "code":
            return {"scale": 1.5, **values}
        return values

    @model_validator(mode="after")
    def _code_counts_batches(self) -> HadwConfig:
        if self.variant == "code" and self.anchor != "window":
            raise ValueError(
                f"anchor is {self.anchor!r}, but variant code is the authors' window. Leave out one of them."
            )
        return self


class ElasticConfig(Section):
    """Elastic trust region: a reconstruction of ETR (arXiv 2601.03723), whose equations were not available."""

    micro: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="How much a large advantage widens the bounds."
    )
    macro: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.25, description="How much a group of middling success widens the bounds."
    )
    of: Literal["base", "reweighted"] = Field(
        default="base", description="Whose size widens the bounds: the advantage before or after the weightings."
    )


class SapoConfig(Section):
    """SAPO's gate (arXiv 2511.20347)."""

    tau_positive: PositiveFloat = Field(default=1.0, description="How fast positive tokens fade.")
    tau_negative: PositiveFloat = Field(default=1.05, description="How fast negative tokens fade.")


class AblationConfig(Section):
    """The controlled estimators of A-GRAE's paper."""

    dominance: PositiveFloat = Field(
        default=10.0, description="positive_dominant multiplies positives by it, negative_dominant divides."
    )
    focus: PositiveFloat = Field(default=0.5, description="hard_focused and easy_focused: factor before the root.")


class AlgorithmConfig(Section):
    """How outcomes become a loss."""

    preset: Preset = Field(default="grpo", description="Fills what is left out, from a published method.")
    baseline: Literal["group", "leave_one_out", "none"] = Field(
        description="What a reward is compared with: mean of the group, mean of the others, nothing. Preset."
    )
    std: Literal["biased", "unbiased", "batch", "none"] = Field(
        description="What the difference is divided by: standard deviation of the group, of the batch, nothing. Preset."
    )
    std_eps: NonNegativeFloat = Field(default=0.0, description="Added to the standard deviation.")
    positive_weight: NonNegativeFloat | None = Field(
        default=None, description="Baseline none: advantage of a correct rollout. Preset."
    )
    negative_weight: NonNegativeFloat | None = Field(
        default=None, description="Baseline none: minus the advantage of a wrong rollout. Preset."
    )
    weighting: tuple[Weighting, ...] = Field(description="Reweightings of the advantage, applied in order. Preset.")
    agrae: AgraeConfig = Field(default=AgraeConfig(), description="Settings of the agrae weightings.")
    hadw: HadwConfig = Field(default=HadwConfig(), description="Settings of the hadw weighting.")
    ablation: AblationConfig = Field(default=AblationConfig(), description="Settings of the controlled estimators.")
    ratio: Literal["token", "sequence", "geometric_mean"] = Field(
        description="Whose policy ratio is judged: each token's, or one of the sequence. Preset."
    )
    loss: Literal["clip", "cispo", "sapo", "reinforce"] = Field(
        description="What the ratio does: clipped surrogate, capped weight, soft gate, nothing. Preset."
    )
    trust_region: Literal["fixed", "elastic"] = Field(
        default="fixed", description="The same bounds for all rollouts, or bounds that stretch (ETR, reconstructed)."
    )
    clip_low: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        description="Ratio may fall to 1 - clip_low; null where the loss takes no such bound. Preset."
    )
    clip_high: NonNegativeFloat | None = Field(
        description="Ratio may rise to 1 + clip_high; null where the loss takes no such bound. Preset."
    )
    dual_clip: PositiveFloat | None = Field(
        default=None, description="Largest ratio where the advantage is negative (dual clip, two-sided clip); e.g. 3."
    )
    elastic: ElasticConfig = Field(default=ElasticConfig(), description="Settings of the elastic trust region.")
    sapo: SapoConfig = Field(default=SapoConfig(), description="Settings of the sapo loss.")
    aggregation: Literal["sequence_mean", "token_mean", "token_sum"] = Field(
        description="How token losses add up. Preset."
    )
    beta: NonNegativeFloat = Field(default=0.0, description="Weight of the k3 divergence from the initial policy.")
    entropy_weight: NonNegativeFloat = Field(default=0.0, description="Weight of the entropy bonus.")
    overlong: Literal["off", "shape", "mask"] = Field(
        description="Long answers: nothing, a penalty down to -1 towards the limit, or left out when cut off. Preset."
    )
    overlong_buffer_frac: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2, description="Overlong shape: last fraction of the completion budget, where the penalty grows."
    )
    dynamic_sampling: bool = Field(
        description="Sample again until every group has both correct and wrong rollouts. Preset."
    )
    max_sampling_rounds: PositiveInt = Field(
        default=10, description="Dynamic sampling: rounds per step; then the step goes on with what it has."
    )
    correction: Literal["off", "truncate", "mask"] = Field(
        default="off", description="Importance weights for rollouts whose engine computes other probabilities."
    )
    correction_level: Literal["token", "sequence"] = Field(
        default="token", description="Correction: weigh each token, or each sequence."
    )
    correction_cap: PositiveFloat = Field(default=2.0, description="Correction: weights above it are cut or dropped.")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("preset", "grpo")
        # An unknown name is refused by its field; the keys it would have filled need no second complaint.
        filled = dict(PRESETS[name] if isinstance(name, str) and name in PRESETS else PRESETS["grpo"])
        loss, baseline = values.get("loss"), values.get("baseline")
        if isinstance(loss, str) and loss in LOSS_BOUNDS and loss != filled["loss"]:
            filled["clip_low"], filled["clip_high"] = LOSS_BOUNDS[loss]
        if baseline == "none" and filled["baseline"] != "none":
            filled |= {"std": "none", "positive_weight": 1.0, "negative_weight": 1.0}
        if filled["std"] == "biased" and _asks_for_code(values):
            filled |= {"std": "unbiased", "std_eps": CODE_STD_EPS}
        return {**filled, **values}

    @model_validator(mode="after")
    def _means_something(self) -> AlgorithmConfig:
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self

    def idle_settings(self) -> list[str]:
        """Settings that were given and change nothing in this combination, each with the reason."""
        used = {
            "agrae": any(name.startswith("agrae") for name in self.weighting),
            "hadw": "hadw" in self.weighting,
            "ablation": any(name.endswith(("_dominant", "_focused")) for name in self.weighting),
            "elastic": self.trust_region == "elastic",
            "sapo": self.loss == "sapo",
            "overlong_buffer_frac": self.overlong == "shape",
            "max_sampling_rounds": self.dynamic_sampling,
            "correction_level": self.correction != "off",
            "correction_cap": self.correction != "off",
        }
        needs = {
            "elastic": "trust_region elastic",
            "sapo": "loss sapo",
            "overlong_buffer_frac": "overlong shape",
            "max_sampling_rounds": "dynamic_sampling",
            "correction_level": "correction truncate or mask",
            "correction_cap": "correction truncate or mask",
        }
        idle = [
            f"algorithm.{name} is set but changes nothing without {needs.get(name, f'weighting [{name}]')}."
            for name, is_used in used.items()
            if name in self.model_fields_set and not is_used
        ]
        return idle + (list(_idle_anchor_settings(self.hadw)) if used["hadw"] else [])


def _asks_for_code(values: dict) -> bool:
    """Whether a weighting in force is to follow the authors' code, which divides by another standard deviation."""
    weighting = values.get("weighting") or ()

    def variant(section: str) -> Any:
        found = values.get(section)
        return found.get("variant") if isinstance(found, dict) else getattr(found, "variant", None)

    return any(
        (name in ("agrae", "agrae_sample_level") and variant("agrae") == "code")
        or (name == "hadw" and variant("hadw") == "code")
        for name in weighting
    )


def _contradictions(a: AlgorithmConfig) -> Iterator[str]:
    """What makes this combination meaningless, in words, the first being told."""
    parts = {"agrae_sample_level", "agrae_group_level"}
    if len(set(a.weighting)) < len(a.weighting):
        yield f"weighting is {list(a.weighting)}, but a weighting acts once. Remove the repetition."
    if "agrae" in a.weighting and parts & set(a.weighting):
        yield f"weighting is {list(a.weighting)}, but agrae already holds both of its levels. Remove the single level."
    if a.preset == "grpo_lead" and "grpo_lead" not in a.weighting:
        yield (
            f"weighting is {list(a.weighting)}, which leaves out what preset grpo_lead stands for. Write "
            f"{['grpo_lead', *a.weighting]}, or take preset grpo."
        )
    yield from _baseline_contradictions(a)
    yield from _bound_contradictions(a)


def _baseline_contradictions(a: AlgorithmConfig) -> Iterator[str]:
    weights = (a.positive_weight, a.negative_weight)
    if a.baseline == "none":
        if None in weights or not any(weights):
            yield (
                f"positive_weight is {weights[0]} and negative_weight {weights[1]}, but without a baseline both are "
                "needed and one must be above 0. Set them."
            )
        if a.std != "none":
            yield f"std is {a.std!r}, but without a baseline there is no deviation to divide. Set std: none."
        if a.dynamic_sampling:
            yield (
                "dynamic_sampling drops groups that are all correct or all wrong, but without a baseline those are "
                "learnt from. Turn it off, or take a baseline."
            )
    elif weights != (None, None):
        yield (
            f"positive_weight is {weights[0]} and negative_weight {weights[1]}, but only baseline none takes them. "
            "Leave them out."
        )
    if a.std == "none" and a.std_eps:
        yield f"std_eps is {a.std_eps}, but std none divides by nothing. Leave it out."


def _bound_contradictions(a: AlgorithmConfig) -> Iterator[str]:
    reason = {
        "sapo": "its soft gate stands in place of bounds",
        "reinforce": "it has no ratio to bound",
        "cispo": "it caps the ratio from above only",
    }
    bounds = {"clip_low": a.clip_low, "clip_high": a.clip_high}
    for name, (value, usual) in zip(bounds, zip(bounds.values(), LOSS_BOUNDS[a.loss], strict=True), strict=True):
        if value is not None and usual is None:
            yield f"{name} is {value}, but loss {a.loss} takes no {name}: {reason[a.loss]}. Leave it out."
        if value is None and usual is not None:
            yield f"{name} is null, but loss {a.loss} needs it. Set it, for example to {usual}."
    if a.trust_region == "elastic" and a.clip_high is None:
        yield f"trust_region is elastic, but loss {a.loss} has no bounds to stretch: {reason[a.loss]}. Take fixed."
    if a.ratio == "geometric_mean" and a.loss != "clip":
        yield f"ratio geometric_mean clips tokens before it averages, so it needs loss clip, not {a.loss}."
    if a.loss == "reinforce" and a.ratio != "token":
        yield f"ratio is {a.ratio!r}, but loss reinforce has no ratio. Leave it at token."
    if a.dual_clip is not None:
        if a.loss != "clip" or a.ratio == "geometric_mean":
            yield f"dual_clip goes with loss clip and a token or sequence ratio, not with {a.loss} and {a.ratio}."
        highest = 1 + (a.clip_high or 0.0) * (MAX_STRETCH if a.trust_region == "elastic" else 1.0)
        if a.dual_clip < highest:
            yield f"dual_clip is {a.dual_clip}, but must not lie below the upper bound {highest:g}. Raise it."


def _idle_anchor_settings(hadw: HadwConfig) -> Iterator[str]:
    takes = {"window": {"window"}, "soft": {"eta", "eta_min", "memory"}, "fixed": {"value"}, "batch": set()}
    for name in sorted(set().union(*takes.values()) - takes[hadw.anchor]):
        if name in hadw.model_fields_set:
            yield f"algorithm.hadw.{name} is set but changes nothing with anchor {hadw.anchor}."
