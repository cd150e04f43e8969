"""The algorithm section: one point of baseline x scale x weighting x ratio x trust region x loss x aggregation.

A preset fills what a recipe leaves out. Combinations without a meaning are refused with the reason; settings that
change nothing in their combination are named by `AlgorithmConfig.idle_settings`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mm_agrae.config.consistency import contradictions, idle_settings
from mm_agrae.config.presets import PRESETS, usual_bounds
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
CODE_EPS = 1e-6


class AgraeConfig(Section):
    """A-GRAE (arXiv 2602.05548, Eq. 12 and 13)."""

    alpha: PositiveFloat = Field(
        default=0.5,
        description="Batch accuracy at which positive advantages get their full weight; in the paper 1 for text "
        "mathematics and 0.5 for multimodal sets.",
    )
    variant: Literal["paper", "code"] = Field(
        default="paper",
        description="The paper's formula, or the authors' code. The latter fills alpha with 1, and where std would be "
        "biased, std with unbiased and std_eps with 1e-6.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_variant(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("variant") == "code":
            return {"alpha": 1.0, **values}
        return values


class HadwConfig(Section):
    """HA-DW (arXiv 2601.08521)."""

    variant: Literal["paper", "code"] = Field(
        default="paper",
        description="The paper's formula, or the authors' code: the window counts the current batch. The latter fills "
        "scale with 1.5, and where std would be biased, std with unbiased and std_eps with 1e-6.",
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
        baseline = values.get("baseline")
        # Bounds belong to a loss and a ratio: those of the preset mean nothing to another one.
        if any(key in values and values[key] != filled[key] for key in ("loss", "ratio")):
            filled |= usual_bounds(values.get("loss", filled["loss"]), values.get("ratio", filled["ratio"]))
        if baseline == "none" and filled["baseline"] != "none":
            filled |= {"std": "none", "positive_weight": 1.0, "negative_weight": 1.0}
        if baseline in ("group", "leave_one_out") and filled["baseline"] == "none":
            filled |= {"std": "biased", "positive_weight": None, "negative_weight": None}
        if "std" not in values and filled["std"] == "biased" and _asks_for_code(values):
            filled |= {"std": "unbiased", "std_eps": CODE_EPS}
        return {**filled, **values}

    @model_validator(mode="after")
    def _means_something(self) -> AlgorithmConfig:
        problem = next(contradictions(self), None)
        if problem:
            raise ValueError(problem)
        return self

    def idle_settings(self) -> list[str]:
        """Settings that were given and change nothing in this combination, each with the reason."""
        return list(idle_settings(self))


def _asks_for_code(values: dict) -> bool:
    """Whether a weighting in force is to follow the authors' code, which divides by another standard deviation."""
    weighting = values.get("weighting")
    if not isinstance(weighting, (list, tuple)):
        return False  # left out, or refused by its field

    def variant(section: str) -> Any:
        found = values.get(section)
        return found.get("variant") if isinstance(found, dict) else getattr(found, "variant", None)

    return any(
        (name in ("agrae", "agrae_sample_level") and variant("agrae") == "code")
        or (name == "hadw" and variant("hadw") == "code")
        for name in weighting
    )
