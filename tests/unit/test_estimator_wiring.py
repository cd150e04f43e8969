"""Every name and number of a recipe reaches the function that it is meant for."""

import math

import pytest
import torch

from mm_agrae.algorithms import AGGREGATIONS, LOSSES, TRUST_REGIONS, WEIGHTINGS, Tokens
from mm_agrae.algorithms.groups import scored_flags
from mm_agrae.algorithms.importance import importance_weights
from mm_agrae.algorithms.overlong import overlong_penalty
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.presets import PRESETS
from mm_agrae.estimator import START, Outcomes, assemble, estimate

LIMIT = 20


def outcomes_of(rewards, lengths=None):
    rewards = torch.tensor(rewards)
    correct = rewards.nan_to_num() > 0.5
    lengths = torch.full(rewards.shape, 5) if lengths is None else torch.tensor(lengths)
    return Outcomes(rewards=rewards, correct=correct, lengths=lengths, truncated=torch.zeros_like(correct))


DRAWN = outcomes_of([[1.0, 0.0, 0.9, 0.1], [0.0, 0.1, 0.0, 0.9], [0.9, 1.0, 0.9, 0.0]])


def point(**recipe):
    return assemble(AlgorithmConfig.model_validate(recipe), max_completion_tokens=LIMIT)


def run(recipe, outcomes):
    return estimate(point(**recipe), START, outcomes, batch_accuracy=0.3)[0]


@pytest.mark.parametrize(
    ("name", "section", "numbers"),
    [
        ("agrae", "agrae", {"alpha": 0.9, "variant": "code"}),
        ("agrae_sample_level", "agrae", {"variant": "code"}),
        ("agrae_group_level", "agrae", {"alpha": 0.9}),
        ("hadw", "hadw", {"scale": 2.0}),
        ("grpo_lead", None, {}),
        ("positive_dominant", "ablation", {"dominance": 3.0}),
        ("negative_dominant", "ablation", {"dominance": 3.0}),
        ("hard_focused", "ablation", {"focus": 2.0}),
        ("easy_focused", "ablation", {"focus": 2.0}),
    ],
)
def test_a_weighting_gets_its_settings(name, section, numbers):
    outcomes = DRAWN
    found = run({"weighting": [name], **({section: numbers} if section else {})}, outcomes)
    batch = {"hadw": {"anchor": 0.3}}.get(name, {"batch_accuracy": 0.3} if name.startswith("agrae") else {})
    flags = scored_flags(outcomes.correct, outcomes.rewards)
    assert torch.equal(found.advantages, WEIGHTINGS[name](found.base, flags, **batch, **numbers))
    assert not torch.equal(found.advantages, found.base)
    if numbers:
        assert not torch.equal(found.advantages, WEIGHTINGS[name](found.base, flags, **batch))


@pytest.mark.parametrize(
    ("recipe", "row"),
    [
        # Rewards 1, 0, 0, 0: deviations 3/4 and -1/4; biased std sqrt(3)/4, unbiased 1/2.
        ({}, [math.sqrt(3), -1 / math.sqrt(3)]),
        ({"std": "unbiased"}, [1.5, -0.5]),
        ({"std": "unbiased", "std_eps": 0.5}, [0.75, -0.25]),
        ({"std": "none"}, [0.75, -0.25]),
        ({"baseline": "leave_one_out", "std": "none"}, [1.0, -1 / 3]),
        ({"baseline": "none"}, [1.0, -1.0]),
        ({"baseline": "none", "positive_weight": 0.5, "negative_weight": 0.25}, [0.5, -0.25]),
        # A second group without any deviation halves the variance of the batch: 3/32.
        ({"std": "batch"}, [0.75 / math.sqrt(3 / 32), -0.25 / math.sqrt(3 / 32)]),
    ],
)
def test_the_base_gets_its_settings(recipe, row):
    base = run(recipe, outcomes_of([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])).base
    torch.testing.assert_close(base[0], torch.tensor([row[0], row[1], row[1], row[1]]))


def test_long_answers_cost_where_they_are_to():
    outcomes = outcomes_of([[1.0, 0.0, 1.0, math.nan]], lengths=[[14, 18, 20, 20]])
    # Of 20 tokens the last 0.25 · 20 = 5 cost: 0 up to 15, (18 - 15) / 5 = 0.6, 1.
    found = run({"overlong": "shape", "overlong_buffer_frac": 0.25}, outcomes)
    assert found.rewards[0, :3].tolist() == pytest.approx([1.0, -0.6, 0.0])
    assert bool(found.rewards[0, 3].isnan())
    # Advantages follow the price; flags do not. Deviations from 0.4 / 3 of (1, -0.6, 0).
    base = run({"overlong": "shape", "overlong_buffer_frac": 0.25, "std": "none"}, outcomes).base
    assert base.tolist()[0] == pytest.approx([1 - 0.4 / 3, -0.6 - 0.4 / 3, -0.4 / 3, 0.0], abs=1e-6)
    # Without a setting it is the last fifth, 4 tokens: 18 costs 2 / 4.
    assert float(run({"preset": "dapo"}, outcomes).rewards[0, 1]) == pytest.approx(-0.5)
    assert run({}, outcomes).rewards[0, :3].tolist() == [1.0, 0.0, 1.0]
    expected = outcomes.rewards + overlong_penalty(outcomes.lengths, max_length=20, buffer=1)
    # A buffer has one token at least.
    shortest = run({"overlong": "shape", "overlong_buffer_frac": 0.001}, outcomes).rewards
    torch.testing.assert_close(shortest, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("recipe", "region", "numbers", "of"),
    [
        ({}, "fixed", {"clip_low": 0.2, "clip_high": 0.2}, "base"),
        ({"clip_low": 0.1, "clip_high": 0.3}, "fixed", {"clip_low": 0.1, "clip_high": 0.3}, "base"),
        ({"preset": "sapo"}, "fixed", {"clip_low": None, "clip_high": None}, "base"),
        ({"preset": "cispo"}, "fixed", {"clip_low": None, "clip_high": 4.0}, "base"),
        ({"trust_region": "elastic"}, "elastic", {"micro": 0.5, "macro": 0.25}, "base"),
        (
            {"trust_region": "elastic", "elastic": {"micro": 0.1, "macro": 0.9, "of": "reweighted"}, "clip_low": 0.1},
            "elastic",
            {"micro": 0.1, "macro": 0.9, "clip_low": 0.1},
            "advantages",
        ),
    ],
)
def test_the_trust_region_gets_its_settings(recipe, region, numbers, of):
    outcomes = DRAWN
    found = run({**recipe, "weighting": ["hadw"]}, outcomes)
    flags = scored_flags(outcomes.correct, outcomes.rewards)
    expected = TRUST_REGIONS[region](getattr(found, of), flags, **numbers)
    assert torch.equal(found.bounds.low, expected.low)
    assert torch.equal(found.bounds.high, expected.high)


def tokens():
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(12, generator=generator)
    ones = torch.ones(12)
    return Tokens(
        logprobs=old + 0.8 * torch.randn(12, generator=generator),
        old_logprobs=old,
        advantages=torch.randn(12, generator=generator),
        low=0.8 * ones,
        high=1.2 * ones,
        sequences=torch.tensor([0] * 5 + [1] * 7),
    )


@pytest.mark.parametrize(
    ("recipe", "loss", "numbers"),
    [
        ({}, "clip", {}),
        ({"preset": "gspo"}, "clip", {"ratio": "sequence"}),
        ({"preset": "gmpo"}, "clip", {"ratio": "geometric_mean"}),
        ({"dual_clip": 1.25}, "clip", {"dual_clip": 1.25}),
        ({"preset": "cispo"}, "cispo", {}),
        ({"preset": "cispo", "ratio": "sequence"}, "cispo", {"ratio": "sequence"}),
        ({"preset": "sapo"}, "sapo", {}),
        (
            {"preset": "sapo", "ratio": "sequence", "sapo": {"tau_positive": 2.0, "tau_negative": 3.0}},
            "sapo",
            {"ratio": "sequence", "tau_positive": 2.0, "tau_negative": 3.0},
        ),
        ({"loss": "reinforce"}, "reinforce", {}),
    ],
)
def test_the_loss_gets_its_settings(recipe, loss, numbers):
    algorithm = point(**recipe)
    expected = LOSSES[loss](tokens(), **numbers)
    assert torch.equal(algorithm.loss(tokens()).loss, expected.loss)
    if numbers:
        assert not torch.equal(expected.loss, LOSSES[loss](tokens()).loss)


@pytest.mark.parametrize(
    "numbers",
    [
        {"correction": "truncate"},
        {"correction": "mask"},
        {"correction": "truncate", "level": "sequence"},
        {"correction": "truncate", "cap": 1.1},
    ],
)
def test_the_correction_gets_its_settings(numbers):
    recipe = {name if name == "correction" else f"correction_{name}": value for name, value in numbers.items()}
    algorithm = point(**recipe)
    given_ = tokens()
    columns = (given_.old_logprobs, given_.logprobs, given_.sequences)
    assert algorithm.correction is not None
    assert torch.equal(algorithm.correction(*columns), importance_weights(*columns, **numbers))
    if numbers != {"correction": "truncate"}:
        assert not torch.equal(algorithm.correction(*columns), importance_weights(*columns))


def test_the_rest_gets_its_settings():
    assert point().correction is None
    assert {preset: point(preset=preset).aggregation for preset in PRESETS} == {
        preset: AGGREGATIONS[values["aggregation"]] for preset, values in PRESETS.items()
    }
    assert (point().beta, point(beta=0.01).beta) == (0.0, 0.01)
    assert (point().entropy_weight, point(entropy_weight=0.02).entropy_weight) == (0.0, 0.02)
    assert [point(**recipe).needs_every_group for recipe in ({}, {"beta": 0.01}, {"entropy_weight": 0.02})] == [
        False,
        True,
        True,
    ]
    # Without dynamic sampling there is one round.
    assert (point().max_sampling_rounds, point(preset="dapo").max_sampling_rounds) == (1, 10)
    assert point(preset="dapo", max_sampling_rounds=4).max_sampling_rounds == 4
    assert point(preset="dapo", dynamic_sampling=False).max_sampling_rounds == 1
