"""The algorithm section: what presets mean, and what fills what is left out."""

import json
from typing import get_args

import pytest
from pydantic import ValidationError

from mm_agrae import algorithms
from mm_agrae.algorithms.agrae import CODE_EPS
from mm_agrae.config import algorithm
from mm_agrae.config.algorithm import (
    AgraeConfig,
    AlgorithmConfig,
    HadwConfig,
    Preset,
    Weighting,
)
from mm_agrae.config.presets import PRESETS

KEYS = ("baseline", "std", "ratio", "loss", "clip_low", "clip_high", "aggregation", "overlong", "dynamic_sampling")
TABLE = {
    "grpo": ("group", "biased", "token", "clip", 0.2, 0.2, "sequence_mean", "off", False),
    "dr_grpo": ("group", "none", "token", "clip", 0.2, 0.2, "token_sum", "off", False),
    "dapo": ("group", "biased", "token", "clip", 0.2, 0.28, "token_mean", "shape", True),
    "gspo": ("group", "biased", "sequence", "clip", 3e-4, 4e-4, "sequence_mean", "off", False),
    # log ratios bounded to ±0.4: ratios between exp(-0.4) = 0.670320 and exp(0.4) = 1.491825.
    "gmpo": ("group", "biased", "geometric_mean", "clip", 0.329680, 0.491825, "sequence_mean", "off", False),
    # A cap of 5 is 1 + 4.
    "cispo": ("group", "biased", "token", "cispo", None, 4.0, "token_mean", "off", False),
    "sapo": ("group", "biased", "token", "sapo", None, None, "sequence_mean", "off", False),
    "rloo": ("leave_one_out", "none", "token", "clip", 0.2, 0.2, "sequence_mean", "off", False),
    "reinforce_pp": ("group", "batch", "token", "clip", 0.2, 0.2, "token_mean", "off", False),
    "psr": ("none", "none", "token", "clip", 0.2, 0.2, "sequence_mean", "off", False),
    "nsr": ("none", "none", "token", "clip", 0.2, 0.2, "sequence_mean", "off", False),
    "w_reinforce": ("none", "none", "token", "clip", 0.2, 0.2, "sequence_mean", "off", False),
    "grpo_lead": ("group", "biased", "token", "clip", 0.2, 0.2, "sequence_mean", "off", False),
}
WEIGHTS = {"psr": (1.0, 0.0), "nsr": (0.0, 1.0), "w_reinforce": (0.1, 1.0)}


def config_of(**values):
    return AlgorithmConfig.model_validate(values)


@pytest.mark.parametrize("preset", TABLE)
def test_what_a_preset_means(preset):
    config = config_of(preset=preset)
    found = tuple(getattr(config, key) for key in KEYS)
    for value, expected in zip(found, TABLE[preset], strict=True):
        assert value == (pytest.approx(expected, abs=1e-6) if isinstance(expected, float) else expected)
    assert (config.positive_weight, config.negative_weight) == WEIGHTS.get(preset, (None, None))
    assert config.weighting == (("grpo_lead",) if preset == "grpo_lead" else ())
    # None of them starts from a divergence, an entropy bonus, a stretched region, a dual clip or a correction.
    rest = (config.std_eps, config.beta, config.entropy_weight, config.trust_region, config.dual_clip)
    assert rest == (0.0, 0.0, 0.0, "fixed", None)
    assert config.correction == "off"
    assert config.idle_settings() == []


def test_names_are_those_of_the_functions():
    assert set(get_args(Preset)) == set(PRESETS) == set(TABLE)
    assert set(get_args(Weighting)) == set(algorithms.WEIGHTINGS)
    for key, functions in (
        ("baseline", algorithms.ADVANTAGES),
        ("loss", algorithms.LOSSES),
        ("trust_region", algorithms.TRUST_REGIONS),
        ("aggregation", algorithms.AGGREGATIONS),
    ):
        assert set(get_args(AlgorithmConfig.model_fields[key].annotation)) == set(functions)
    assert set(get_args(HadwConfig.model_fields["anchor"].annotation)) == set(algorithms.ANCHORS)


def test_numbers_that_stand_twice_agree():
    assert algorithm.CODE_EPS == CODE_EPS


def test_what_is_given_stands():
    config = config_of(preset="dapo", clip_high=0.5, dynamic_sampling=False, overlong="mask", weighting=["hadw"])
    assert (config.clip_low, config.clip_high, config.dynamic_sampling) == (0.2, 0.5, False)
    assert (config.overlong, config.weighting) == ("mask", ("hadw",))
    assert config_of(preset="dapo").clip_high == 0.28


def test_a_loss_without_bounds_brings_its_own():
    def bounds(**values):
        config = config_of(**values)
        return config.clip_low, config.clip_high

    assert bounds(loss="cispo") == (None, 4.0)
    assert bounds(loss="sapo") == bounds(loss="reinforce") == (None, None)
    assert bounds(preset="cispo", loss="clip") == bounds(preset="sapo", loss="clip") == (0.2, 0.2)
    assert bounds(loss="cispo", clip_high=2.0) == (None, 2.0)
    # The loss of the preset keeps the bounds of the preset.
    assert bounds(preset="gspo", loss="clip") == (3e-4, 4e-4)


def test_no_baseline_brings_weights_and_no_deviation():
    config = config_of(baseline="none")
    assert (config.std, config.positive_weight, config.negative_weight) == ("none", 1.0, 1.0)
    weighted = config_of(baseline="none", positive_weight=0.3)
    assert (weighted.positive_weight, weighted.negative_weight) == (0.3, 1.0)
    # A preset without a baseline keeps its own weights.
    kept = config_of(preset="w_reinforce", baseline="none")
    assert (kept.positive_weight, kept.negative_weight) == (0.1, 1.0)


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
def test_a_baseline_takes_the_weights_of_a_preset_without_one_away(baseline):
    config = config_of(preset="w_reinforce", baseline=baseline)
    assert (config.std, config.positive_weight, config.negative_weight) == ("biased", None, None)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ({"weighting": ["agrae"], "agrae": {"variant": "code"}}, ("unbiased", 1e-6)),
        ({"weighting": ["agrae_sample_level"], "agrae": {"variant": "code"}}, ("unbiased", 1e-6)),
        ({"weighting": ["hadw"], "hadw": {"variant": "code"}}, ("unbiased", 1e-6)),
        ({"weighting": ["agrae", "hadw"], "hadw": {"variant": "code"}}, ("unbiased", 1e-6)),
        ({"weighting": ["agrae"], "agrae": AgraeConfig(variant="code")}, ("unbiased", 1e-6)),
        ({"preset": "dapo", "weighting": ["hadw"], "hadw": {"variant": "code"}}, ("unbiased", 1e-6)),
        # The paper's form, a weighting that is not in force, and a level that has no second form.
        ({"weighting": ["agrae", "hadw"]}, ("biased", 0.0)),
        ({"weighting": ["hadw"], "agrae": {"variant": "code"}}, ("biased", 0.0)),
        ({"weighting": ["agrae_group_level"], "agrae": {"variant": "code"}}, ("biased", 0.0)),
        # A preset that divides by something else goes on doing so.
        ({"preset": "dr_grpo", "weighting": ["agrae"], "agrae": {"variant": "code"}}, ("none", 0.0)),
        ({"preset": "reinforce_pp", "weighting": ["hadw"], "hadw": {"variant": "code"}}, ("batch", 0.0)),
        ({"preset": "psr", "weighting": ["hadw"], "hadw": {"variant": "code"}}, ("none", 0.0)),
        # What is given stands.
        ({"weighting": ["hadw"], "hadw": {"variant": "code"}, "std": "biased"}, ("biased", 0.0)),
        ({"weighting": ["hadw"], "hadw": {"variant": "code"}, "std": "batch"}, ("batch", 0.0)),
        ({"weighting": ["hadw"], "hadw": {"variant": "code"}, "std_eps": 1e-4}, ("unbiased", 1e-4)),
    ],
)
def test_variant_code_divides_as_the_authors_do(values, scale):
    config = config_of(**values)
    assert (config.std, config.std_eps) == scale


def test_hadw_of_the_code():
    assert (HadwConfig(variant="code").scale, HadwConfig().scale) == (1.5, 1.3)
    assert HadwConfig(variant="code", scale=2.0).scale == 2.0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("weighting", [(), *((name,) for name in algorithms.WEIGHTINGS), ("agrae", "hadw")])
def test_a_section_survives_a_file(preset, weighting):
    own = tuple(name for name in PRESETS[preset]["weighting"] if name not in weighting)
    sections = {"agrae": {"variant": "code"}, "hadw": {"anchor": "soft", "eta": 1 / 3}, "beta": 0.1}
    config = config_of(preset=preset, weighting=(*own, *weighting), **sections)
    again = AlgorithmConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert again.model_dump() == config.model_dump()
    assert AlgorithmConfig.model_validate(config.model_dump()) == config


def test_presets_are_left_as_they_are():
    before = json.dumps(PRESETS)
    config_of(preset="grpo", loss="sapo", weighting=["agrae"], agrae={"variant": "code"})
    config_of(baseline="none")
    assert json.dumps(PRESETS) == before
    with pytest.raises(ValidationError, match="frozen"):
        config_of().beta = 0.1
