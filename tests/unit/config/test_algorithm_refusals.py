"""The algorithm section: what is refused, and what is said to change nothing."""

import json
import math
import re

import pytest
from pydantic import ValidationError

from mm_agrae.config import parse_config
from mm_agrae.config.algorithm import AlgorithmConfig

RUN = "{name: small, model: {path: somewhere}, data: {train: {path: problems}}}"


def config_of(**values):
    return AlgorithmConfig.model_validate(values)


REFUSED = [
    (
        {"preset": "psr", "overlong": "shape"},
        "overlong shape prices the reward, but without a baseline only right and wrong count. Set overlong: off or "
        "mask, or take a baseline.",
    ),
    (
        {"weighting": ["positive_dominant", "negative_dominant"]},
        "weighting is ['positive_dominant', 'negative_dominant'], but the two dominances undo each other. Drop both.",
    ),
    (
        {"preset": "dapo", "max_sampling_rounds": 1},
        "max_sampling_rounds is 1, but dynamic_sampling needs 2 or more to sample again. Raise it.",
    ),
    (
        {"weighting": ["hadw", "hadw"]},
        "weighting is ['hadw', 'hadw'], but a weighting acts once. Remove the repetition.",
    ),
    (
        {"weighting": ["agrae", "agrae_group_level"]},
        "weighting is ['agrae', 'agrae_group_level'], but agrae already holds both of its levels. "
        "Remove the single level.",
    ),
    (
        {"preset": "grpo_lead", "weighting": ["agrae"]},
        "weighting is ['agrae'], which leaves out what preset grpo_lead stands for. Write ['grpo_lead', 'agrae'], or "
        "take preset grpo.",
    ),
    (
        {"preset": "psr", "positive_weight": 0.0},
        "positive_weight is 0.0 and negative_weight 0.0, but without a baseline both are needed and one must be above "
        "0. Set them.",
    ),
    (
        {"baseline": "none", "negative_weight": None},
        "positive_weight is 1.0 and negative_weight None, but without a baseline both are needed",
    ),
    (
        {"baseline": "none", "std": "biased"},
        "std is 'biased', but without a baseline there is no deviation to divide. Set std: none.",
    ),
    (
        {"preset": "nsr", "dynamic_sampling": True},
        "dynamic_sampling drops groups that are all correct or all wrong, but without a baseline those are learnt "
        "from. Turn it off, or take a baseline.",
    ),
    ({"preset": "dapo", "baseline": "none"}, "dynamic_sampling drops groups"),
    (
        {"positive_weight": 0.5},
        "positive_weight is 0.5 and negative_weight None, but only baseline none takes them. Leave them out.",
    ),
    (
        {"preset": "dr_grpo", "std_eps": 0.1},
        "std_eps is 0.1, but std none divides by nothing. Leave it out.",
    ),
    (
        {"loss": "sapo", "clip_low": 0.2},
        "clip_low is 0.2, but loss sapo takes no clip_low: its soft gate stands in place of bounds. Leave it out.",
    ),
    (
        {"loss": "reinforce", "clip_high": 0.2},
        "clip_high is 0.2, but loss reinforce takes no clip_high: it has no ratio to bound. Leave it out.",
    ),
    (
        {"preset": "cispo", "clip_low": 0.2},
        "clip_low is 0.2, but loss cispo takes no clip_low: it caps the ratio from above only. Leave it out.",
    ),
    ({"clip_low": None}, "clip_low is null, but loss clip needs it. Set it, for example to 0.2."),
    ({"preset": "cispo", "clip_high": None}, "clip_high is null, but loss cispo needs it. Set it, for example to 4.0."),
    (
        {"preset": "sapo", "trust_region": "elastic"},
        "trust_region is elastic, but loss sapo has no bounds to stretch: its soft gate stands in place of bounds. "
        "Take fixed.",
    ),
    (
        {"loss": "reinforce", "trust_region": "elastic"},
        "trust_region is elastic, but loss reinforce has no bounds to stretch: it has no ratio to bound. Take fixed.",
    ),
    (
        {"preset": "gmpo", "loss": "cispo"},
        "ratio geometric_mean clips tokens before it averages, so it needs loss clip, not cispo.",
    ),
    (
        {"preset": "gspo", "loss": "reinforce"},
        "ratio is 'sequence', but loss reinforce has no ratio. Leave it at token.",
    ),
    (
        {"preset": "cispo", "dual_clip": 9.0},
        "dual_clip goes with loss clip and a token or sequence ratio, not with cispo and token.",
    ),
    (
        {"preset": "gmpo", "dual_clip": 9.0},
        "dual_clip goes with loss clip and a token or sequence ratio, not with clip and geometric_mean.",
    ),
    ({"dual_clip": 1.1}, "dual_clip is 1.1, but must not lie below the upper bound 1.2. Raise it."),
    (
        # 1 + 0.2 · (1 + 0.5) (1 + 0.25) = 1.375, the widest that these bounds can get.
        {"dual_clip": 1.3, "trust_region": "elastic"},
        "dual_clip is 1.3, but must not lie below the upper bound 1.375. Raise it.",
    ),
    (
        {"hadw": {"variant": "code", "anchor": "soft"}},
        "anchor is 'soft', but variant code is the authors' window. Leave out one of them.",
    ),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=[reason[:40] for _, reason in REFUSED])
def test_combinations_without_a_meaning_are_refused_with_the_reason(values, reason):
    with pytest.raises(ValidationError, match=re.escape(f"Value error, {reason}")):
        config_of(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"weighting": ["agrae_sample_level", "agrae_group_level"]},
        {"preset": "grpo_lead", "weighting": ["hadw", "grpo_lead"]},
        {"preset": "dapo", "baseline": "none", "dynamic_sampling": False, "overlong": "off"},
        {"preset": "psr", "baseline": "group"},
        {"preset": "cispo", "trust_region": "elastic"},
        {"preset": "gspo", "trust_region": "elastic", "dual_clip": 3.0},
        {"dual_clip": 1.2},
        {"dual_clip": 1.375, "trust_region": "elastic"},
        {"dual_clip": 1.2, "trust_region": "elastic", "elastic": {"micro": 0.0, "macro": 0.0, "of": "base"}},
        {"preset": "nsr", "overlong": "mask"},
        {"preset": "dapo", "max_sampling_rounds": 2},
        {"max_sampling_rounds": 1},
        {"loss": "reinforce"},
        {"std": "unbiased", "std_eps": 1e-4},
        {"preset": "rloo", "std": "batch"},
        {"preset": "cispo", "ratio": "sequence"},
    ],
    ids=str,
)
def test_their_neighbours_are_taken(values):
    config = config_of(**values)
    assert {key: json.loads(config.model_dump_json())[key] for key in values} == values


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"preset": "ppo"}, "preset"),
        ({"preset": ["grpo"]}, "preset"),
        ({"weighting": ["agrea"]}, "weighting.0"),
        ({"clip_low": 1.0}, "clip_low"),
        ({"clip_low": -0.1}, "clip_low"),
        ({"clip_high": math.inf}, "clip_high"),
        ({"dual_clip": 0.0}, "dual_clip"),
        ({"std": "population"}, "std"),
        ({"std_eps": -1e-6}, "std_eps"),
        ({"baseline": "none", "positive_weight": -1.0}, "positive_weight"),
        ({"beta": -0.1}, "beta"),
        ({"entropy_weight": math.nan}, "entropy_weight"),
        ({"overlong_buffer_frac": 0.0}, "overlong_buffer_frac"),
        ({"overlong_buffer_frac": 1.1}, "overlong_buffer_frac"),
        ({"max_sampling_rounds": 0}, "max_sampling_rounds"),
        ({"correction_cap": 0.0}, "correction_cap"),
        ({"agrae": {"alpha": 0.0}}, "agrae.alpha"),
        ({"agrae": {"variant": "published"}}, "agrae.variant"),
        ({"hadw": {"scale": 0.0}}, "hadw.scale"),
        ({"hadw": {"anchor": "median"}}, "hadw.anchor"),
        ({"hadw": {"window": 0}}, "hadw.window"),
        ({"hadw": {"eta": -1.0}}, "hadw.eta"),
        ({"hadw": {"eta_min": 1.1}}, "hadw.eta_min"),
        ({"hadw": {"memory": 1}}, "hadw.memory"),
        ({"hadw": {"value": 1.1}}, "hadw.value"),
        ({"hadw": {"lambda": 1.1}}, "hadw.lambda"),
        ({"ablation": {"dominance": 0.0}}, "ablation.dominance"),
        ({"ablation": {"focus": 0.0}}, "ablation.focus"),
        ({"elastic": {"micro": 1.0}}, "elastic.micro"),
        ({"elastic": {"macro": -0.1}}, "elastic.macro"),
        ({"elastic": {"of": "final"}}, "elastic.of"),
        ({"sapo": {"tau_positive": 0.0}}, "sapo.tau_positive"),
        ({"gamma": 0.9}, "gamma"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused_at_their_place(values, where):
    with pytest.raises(ValidationError) as refused:
        config_of(**values)
    assert [".".join(str(part) for part in error["loc"]) for error in refused.value.errors()] == [where]


IDLE = [
    (
        {"trust_region": "elastic", "elastic": {"of": "reweighted"}},
        "algorithm.elastic.of is set but changes nothing without trust_region elastic and a weighting.",
    ),
    (
        {"preset": "nsr", "weighting": ["agrae_group_level"]},
        "algorithm.weighting holds agrae_group_level, which changes nothing without positive advantages.",
    ),
    (
        {"preset": "nsr", "weighting": ["positive_dominant"]},
        "algorithm.weighting holds positive_dominant, which changes nothing without positive advantages.",
    ),
    (
        {"agrae": {"alpha": 1.0}},
        "algorithm.agrae.alpha is set but changes nothing without weighting [agrae] or [agrae_group_level].",
    ),
    (
        {"agrae": {"alpha": 1.0}, "weighting": ["agrae_sample_level"]},
        "algorithm.agrae.alpha is set but changes nothing without weighting [agrae] or [agrae_group_level].",
    ),
    (
        {"agrae": {"variant": "code"}, "weighting": ["agrae_group_level"]},
        "algorithm.agrae.variant is set but changes nothing without weighting [agrae] or [agrae_sample_level].",
    ),
    ({"hadw": {"scale": 1.5}}, "algorithm.hadw.scale is set but changes nothing without weighting [hadw]."),
    (
        {"ablation": {"focus": 1.0}, "weighting": ["agrae"]},
        "algorithm.ablation.focus is set but changes nothing without weighting [hard_focused] or [easy_focused].",
    ),
    (
        {"ablation": {"dominance": 2.0}, "weighting": ["hard_focused"]},
        "algorithm.ablation.dominance is set but changes nothing without weighting [positive_dominant] or "
        "[negative_dominant].",
    ),
    (
        {"elastic": {"micro": 0.1}},
        "algorithm.elastic.micro is set but changes nothing without trust_region elastic.",
    ),
    ({"sapo": {"tau_positive": 2.0}}, "algorithm.sapo.tau_positive is set but changes nothing without loss sapo."),
    (
        {"overlong_buffer_frac": 0.5, "overlong": "mask"},
        "algorithm.overlong_buffer_frac is set but changes nothing without overlong shape.",
    ),
    (
        {"max_sampling_rounds": 3},
        "algorithm.max_sampling_rounds is set but changes nothing without dynamic_sampling.",
    ),
    (
        {"correction_level": "sequence"},
        "algorithm.correction_level is set but changes nothing without correction truncate or mask.",
    ),
    (
        {"correction_cap": 3.0},
        "algorithm.correction_cap is set but changes nothing without correction truncate or mask.",
    ),
    (
        {"weighting": ["hadw"], "hadw": {"eta": 10.0}},
        "algorithm.hadw.eta is set but changes nothing without weighting [hadw] with anchor soft.",
    ),
    (
        {"weighting": ["hadw"], "hadw": {"anchor": "soft", "window": 5}},
        "algorithm.hadw.window is set but changes nothing without weighting [hadw] with anchor window.",
    ),
    (
        {"weighting": ["hadw"], "hadw": {"anchor": "batch", "value": 0.5}},
        "algorithm.hadw.value is set but changes nothing without weighting [hadw] with anchor fixed.",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), IDLE, ids=[sentence[:50] for _, sentence in IDLE])
def test_settings_that_change_nothing_are_named(values, sentence):
    assert config_of(**values).idle_settings() == [sentence]


@pytest.mark.parametrize(
    "values",
    [
        {"weighting": ["agrae"], "agrae": {"alpha": 1.0}},
        {"weighting": ["agrae_group_level"], "agrae": {"alpha": 1.0}},
        {"weighting": ["agrae_sample_level"], "agrae": {"variant": "code"}},
        {"weighting": ["hadw"], "hadw": {"window": 5, "scale": 1.5, "variant": "paper"}},
        {"weighting": ["hadw"], "hadw": {"anchor": "soft", "eta": 9.0, "eta_min": 0.2, "memory": 5}},
        {"weighting": ["hadw"], "hadw": {"anchor": "fixed", "value": 0.4}},
        {"weighting": ["hadw"], "hadw": {"variant": "code"}},
        {"weighting": ["agrae_sample_level", "hadw"], "agrae": {"variant": "code"}},
        {"preset": "psr", "weighting": ["agrae_group_level"]},
        {"preset": "nsr", "weighting": ["hadw", "easy_focused"]},
        {"trust_region": "elastic", "elastic": {"of": "reweighted"}, "weighting": ["agrae"]},
        {"weighting": ["positive_dominant"], "ablation": {"dominance": 3.0}},
        {"weighting": ["easy_focused"], "ablation": {"focus": 3.0}},
        {"trust_region": "elastic", "elastic": {"micro": 0.1}},
        {"preset": "sapo", "sapo": {"tau_positive": 2.0}},
        {"preset": "dapo", "overlong_buffer_frac": 0.5, "max_sampling_rounds": 3},
        {"correction": "mask", "correction_cap": 3.0, "correction_level": "sequence"},
    ],
    ids=str,
)
def test_settings_that_act_are_not_named(values):
    assert config_of(**values).idle_settings() == []


def test_several_idle_settings_are_all_named():
    found = config_of(weighting=["hadw"], hadw={"eta": 1.0, "value": 0.1}, max_sampling_rounds=3).idle_settings()
    names = [sentence.split()[0] for sentence in found]
    assert names == ["algorithm.hadw.eta", "algorithm.hadw.value", "algorithm.max_sampling_rounds"]


def test_warnings_of_a_run():
    def warnings(*overrides):
        return parse_config(RUN, overrides).warnings()

    elastic = (
        "algorithm.trust_region is elastic, but with train.updates_per_rollout 1 every ratio is 1 and no bound acts: "
        "this equals fixed. Take 2 or more updates per rollout."
    )
    assert warnings() == []
    assert warnings("algorithm.trust_region=elastic") == [elastic]
    assert warnings("algorithm.trust_region=elastic", "train.updates_per_rollout=2") == []
    reinforce = (
        "algorithm.loss is reinforce, which ignores how far the policy has moved, but train.updates_per_rollout is 4: "
        "the later updates are off-policy."
    )
    assert warnings("algorithm.loss=reinforce", "train.updates_per_rollout=4") == [reinforce]
    assert warnings("algorithm.loss=reinforce") == []
    recompute = ("model.gradient_checkpointing=true", "train.micro_batch_tokens=100")
    assert warnings(*recompute, "train.recompute_above_tokens=99") == []
    assert warnings(*recompute, "train.recompute_above_tokens=100") == [
        "model.gradient_checkpointing is on, but train.recompute_above_tokens 100 is not below "
        "train.micro_batch_tokens 100: no forward pass within the budget is recomputed. Lower it."
    ]
    assert warnings("train.micro_batch_tokens=100", "train.micro_batch_targets=99") == []
    assert warnings("train.micro_batch_tokens=100", "train.micro_batch_targets=100") == [
        "train.micro_batch_targets 100 is not below train.micro_batch_tokens 100, which counts completions too: it "
        "never binds. Lower it, or leave it out."
    ]
    idle = "algorithm.sapo.tau_positive is set but changes nothing without loss sapo."
    both = warnings("algorithm.sapo.tau_positive=2", "algorithm.trust_region=elastic")
    assert both == [idle, elastic]


def test_a_scale_that_is_given_is_not_filled():
    """The authors' code brings an unbiased std and an epsilon; without a std there is nothing to add it to."""
    config = config_of(weighting=["hadw"], hadw={"variant": "code"}, std="none")
    assert (config.std, config.std_eps, config.hadw.scale) == ("none", 0.0, 1.5)


def test_every_setting_of_a_section_can_be_idle():
    """A setting that is added to a section and not to the list would be ignored in silence."""
    combination = {"preset": "grpo", "weighting": ()}
    for section in ("agrae", "hadw", "ablation", "elastic", "sapo"):
        for name, value in getattr(config_of(), section).model_dump().items():
            found = config_of(**combination, **{section: {name: value}}).idle_settings()
            assert [sentence.split()[0] for sentence in found] == [f"algorithm.{section}.{name}"]


def test_bounds_follow_the_ratio_and_the_loss():
    def bounds(**values):
        config = config_of(**values)
        return config.clip_low, config.clip_high

    assert bounds(preset="gspo", ratio="token") == (0.2, 0.2)
    assert bounds(preset="dapo", ratio="sequence") == (3e-4, 4e-4)
    assert bounds(ratio="geometric_mean") == bounds(preset="gmpo") == pytest.approx((0.32968, 0.491825), abs=1e-6)
    assert bounds(preset="sapo", loss="clip", ratio="sequence") == (3e-4, 4e-4)
    assert bounds(preset="cispo", ratio="sequence") == (None, 4.0)
    # What is written stands, and a name that is written as in the preset changes nothing.
    assert bounds(preset="gspo", ratio="token", clip_high=0.3) == (0.2, 0.3)
    assert bounds(preset="dapo", ratio="token", loss="clip") == (0.2, 0.28)


def test_the_authors_code_brings_its_alpha():
    assert config_of(weighting=["agrae"], agrae={"variant": "code"}).agrae.alpha == 1.0
    assert config_of(weighting=["agrae"], agrae={"variant": "code", "alpha": 0.7}).agrae.alpha == 0.7


@pytest.mark.parametrize("weighting", [5, True, "agrae", {"agrae": 1}])
def test_a_weighting_that_is_no_list_is_refused_at_its_place(weighting):
    with pytest.raises(ValidationError) as refused:
        config_of(weighting=weighting)
    assert refused.value.errors()[0]["loc"] == ("weighting",)
