"""What makes a combination of algorithm settings meaningless, and what changes nothing in it, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mm_agrae.config.presets import LOSS_BOUNDS

if TYPE_CHECKING:
    from mm_agrae.config.algorithm import AlgorithmConfig


def contradictions(a: AlgorithmConfig) -> Iterator[str]:
    """What makes this combination meaningless, in words, the first being told."""
    parts = {"agrae_sample_level", "agrae_group_level"}
    if len(set(a.weighting)) < len(a.weighting):
        yield f"weighting is {list(a.weighting)}, but a weighting acts once. Remove the repetition."
    if "agrae" in a.weighting and parts & set(a.weighting):
        yield f"weighting is {list(a.weighting)}, but agrae already holds both of its levels. Remove the single level."
    if {"positive_dominant", "negative_dominant"} <= set(a.weighting):
        yield f"weighting is {list(a.weighting)}, but the two dominances undo each other. Drop both."
    if a.dynamic_sampling and a.max_sampling_rounds == 1:
        yield "max_sampling_rounds is 1, but dynamic_sampling needs 2 or more to sample again. Raise it."
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
        if a.overlong == "shape":
            yield (
                "overlong shape prices the reward, but without a baseline only right and wrong count. Set overlong: "
                "off or mask, or take a baseline."
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
    for name, usual in LOSS_BOUNDS[a.loss].items():
        value = {"clip_low": a.clip_low, "clip_high": a.clip_high}[name]
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
        stretch = (1 + a.elastic.micro) * (1 + a.elastic.macro) if a.trust_region == "elastic" else 1.0
        highest = 1 + (a.clip_high or 0.0) * stretch
        if a.dual_clip < highest:
            yield f"dual_clip is {a.dual_clip}, but must not lie below the upper bound {highest:g}. Raise it."


def idle_settings(a: AlgorithmConfig) -> Iterator[str]:
    """Settings that were given and change nothing in this combination, each with the reason."""
    has = set(a.weighting)
    dominant, focused = ({name for name in has if name.endswith(end)} for end in ("_dominant", "_focused"))
    # Setting: (whether it is used, what would use it). What a variant fills in was not asked for by anyone.
    uses = {
        "agrae.alpha": (
            has & {"agrae", "agrae_group_level"} or a.agrae.variant == "code",
            "weighting [agrae] or [agrae_group_level]",
        ),
        "agrae.variant": (has & {"agrae", "agrae_sample_level"}, "weighting [agrae] or [agrae_sample_level]"),
        "ablation.dominance": (dominant, "weighting [positive_dominant] or [negative_dominant]"),
        "ablation.focus": (focused, "weighting [hard_focused] or [easy_focused]"),
        "hadw.variant": ("hadw" in has, "weighting [hadw]"),
        "hadw.scale": ("hadw" in has or a.hadw.variant == "code", "weighting [hadw]"),
        "hadw.anchor": ("hadw" in has, "weighting [hadw]"),
        **{
            f"hadw.{name}": ("hadw" in has and a.hadw.anchor == anchor, f"weighting [hadw] with anchor {anchor}")
            for name, anchor in (
                ("window", "window"),
                ("eta", "soft"),
                ("eta_min", "soft"),
                ("memory", "soft"),
                ("value", "fixed"),
            )
        },
        "elastic.micro": (a.trust_region == "elastic", "trust_region elastic"),
        "elastic.macro": (a.trust_region == "elastic", "trust_region elastic"),
        "elastic.of": (a.trust_region == "elastic" and a.weighting, "trust_region elastic and a weighting"),
        "sapo.tau_positive": (a.loss == "sapo", "loss sapo"),
        "sapo.tau_negative": (a.loss == "sapo", "loss sapo"),
        "overlong_buffer_frac": (a.overlong == "shape", "overlong shape"),
        "max_sampling_rounds": (a.dynamic_sampling, "dynamic_sampling"),
        "correction_level": (a.correction != "off", "correction truncate or mask"),
        "correction_cap": (a.correction != "off", "correction truncate or mask"),
    }
    if a.positive_weight == 0:
        for weighting in a.weighting:
            if weighting in ("agrae_group_level", *dominant):
                yield f"algorithm.weighting holds {weighting}, which changes nothing without positive advantages."
    sections = {"agrae": a.agrae, "hadw": a.hadw, "ablation": a.ablation, "elastic": a.elastic, "sapo": a.sapo}
    for dotted, (is_used, user) in uses.items():
        section, _, name = dotted.rpartition(".")
        given = (sections[section] if section else a).model_fields_set
        if name in given and not is_used:
            yield f"algorithm.{dotted} is set but changes nothing without {user}."
