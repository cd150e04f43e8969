"""From names in a recipe to advantages: every preset, alone and with A-GRAE, HA-DW or both."""

import dataclasses
import functools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_agrae.algorithms import WEIGHTINGS, AnchorState
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.presets import PRESETS
from mm_agrae.estimator import START, EstimatorState, Outcomes, assemble, estimate

SEEDS = range(5)
NAN = math.nan
LIMIT = 20
# Advantage of a correct and of a wrong rollout, of the presets whose groups of equal flags do contribute.
WITHOUT_BASELINE = {"psr": (1.0, 0.0), "nsr": (0.0, -1.0), "w_reinforce": (0.1, -1.0)}
EXTRAS = {"": [], "-agrae": ["agrae"], "-hadw": ["hadw"], "-agrae-hadw": ["agrae", "hadw"]}


def recipe_of(preset, extras=(), **settings_):
    """A preset with more weightings behind its own."""
    return {"preset": preset, "weighting": [*PRESETS[preset]["weighting"], *extras], **settings_}


POINTS = {f"{preset}{label}": (preset, extras) for preset in PRESETS for label, extras in EXTRAS.items()}
EVERY_POINT = pytest.mark.parametrize(("preset", "extras"), POINTS.values(), ids=POINTS)


def outcomes_of(rewards, correct=None, lengths=None, truncated=None):
    rewards = torch.as_tensor(rewards, dtype=torch.float32)
    correct = rewards.nan_to_num() > 0.5 if correct is None else torch.as_tensor(correct, dtype=torch.bool)
    lengths = torch.full(rewards.shape, 5) if lengths is None else torch.as_tensor(lengths)
    truncated = torch.zeros_like(correct) if truncated is None else torch.as_tensor(truncated, dtype=torch.bool)
    return Outcomes(rewards=rewards, correct=correct, lengths=lengths, truncated=truncated)


@functools.cache
def assembled(recipe):
    return assemble(AlgorithmConfig.model_validate_json(recipe), max_completion_tokens=LIMIT)


def run(recipe, outcomes, *, omega=0.3, state=START):
    return estimate(assembled(json.dumps(recipe)), state, outcomes, batch_accuracy=omega)


def advantages_of(recipe, outcomes, **numbers):
    return run(recipe, outcomes, **numbers)[0].advantages


def drawn(seed, num_prompts=4, size=5, unscored=0.1):
    """Composite rewards 0.9 · correct + 0.1 · formatted, some of them missing."""
    generator = torch.Generator().manual_seed(seed)
    correct, formatted, scored = (
        torch.rand(num_prompts, size, generator=generator) < chance for chance in (0.5, 0.7, 1 - unscored)
    )
    rewards = 0.9 * correct.float() + 0.1 * formatted.float()
    return outcomes_of(rewards.masked_fill(~scored, NAN), correct)


# Edges, the same for all.

OMEGA = 0.3


def uniform_advantage(preset, extras, *, is_correct):
    """Advantage of a rollout whose group has scored flags of one kind only."""
    if preset not in WITHOUT_BASELINE:
        return 0.0
    value = WITHOUT_BASELINE[preset][0 if is_correct else 1]
    if "agrae" in extras and is_correct:
        value *= OMEGA / 0.5  # Eq. 13 with α = 0.5; Eq. 12 has no weight for p = 0 or 1
    if "hadw" in extras:  # the first batch is its own anchor
        value *= 1.3 * math.exp(OMEGA - 1 if is_correct else 0 - OMEGA)
    return value


# Composite, low, equal, some missing, one scored, none scored.
EDGES = [[0.9, 1.0, 0.9, 0.9], [0.1, 0.0, 0.0, 0.1], [0.9] * 4, [NAN, 0.9, NAN, 1.0], [NAN, NAN, 0.9, NAN], [NAN] * 4]


@EVERY_POINT
@pytest.mark.parametrize("is_correct", [True, False])
def test_groups_of_equal_flags(preset, extras, is_correct):
    rewards = torch.tensor(EDGES)
    # The flags of what was not scored say the contrary.
    correct = torch.where(rewards.isnan(), not is_correct, is_correct)
    advantage = uniform_advantage(preset, extras, is_correct=is_correct)
    expected = torch.where(rewards.isnan(), 0.0, advantage)
    found = advantages_of(recipe_of(preset, extras), outcomes_of(rewards, correct), omega=OMEGA)
    torch.testing.assert_close(found, expected)
    assert advantage or not found.any()


@EVERY_POINT
def test_equal_rewards_of_unequal_flags(preset, extras):
    """A baseline has nothing to tell apart, and rounding must not invent it; without one the flags count."""
    rewards = torch.tensor([[0.9] * 7, [0.1] * 7, [0.7] * 7], dtype=torch.float64)
    outcomes = dataclasses.replace(outcomes_of(rewards, [[True] * 3 + [False] * 4] * 3), rewards=rewards)
    found = run(recipe_of(preset, extras), outcomes, omega=OMEGA)[0]
    if preset in WITHOUT_BASELINE:
        of_correct, of_wrong = WITHOUT_BASELINE[preset]
        torch.testing.assert_close(found.base, torch.tensor([[of_correct] * 3 + [of_wrong] * 4] * 3))
    else:
        assert not found.advantages.any()


@EVERY_POINT
def test_a_rollout_without_a_reward_is_as_good_as_absent(preset, extras):
    recipe, others = recipe_of(preset, extras), [0, 1, 3, 4, 5]
    for seed in SEEDS:
        whole = drawn(seed, size=6, unscored=0.0)
        whole.rewards[:, 2] = NAN
        rest = outcomes_of(whole.rewards[:, others], whole.correct[:, others])
        found = advantages_of(recipe, whole)
        assert not found[:, 2].any()
        torch.testing.assert_close(found[:, others], advantages_of(recipe, rest), atol=2e-6, rtol=0)


@EVERY_POINT
def test_success_rates_come_from_flags_not_from_rewards(preset, extras):
    """What the weightings make of the base is the same for any rewards with the same flags."""
    correct = [[True, False, False, False], [True, True, True, False]]
    of_flags = outcomes_of(torch.tensor(correct).float(), correct)
    composite = outcomes_of([[1.0, 0.1, 0.0, 0.1], [0.9, 1.0, 0.9, 0.1]], correct)
    weights = []
    for outcomes in (of_flags, composite):
        found = run(recipe_of(preset, extras), outcomes)[0]
        silent = found.base == 0  # psr and nsr leave out one kind
        assert torch.equal(silent, found.advantages == 0)
        weights.append(torch.where(silent, 0.0, found.advantages / found.base))
    torch.testing.assert_close(*weights)


@EVERY_POINT
def test_empty_completions_are_outcomes_like_others(preset, extras):
    rewards = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]
    short = outcomes_of(rewards, lengths=torch.tensor([[0, 0, 5, 5], [0, 0, 0, 0]]))
    found = run(recipe_of(preset, extras), short)[0]
    assert torch.equal(found.advantages, advantages_of(recipe_of(preset, extras), outcomes_of(rewards)))
    assert torch.equal(found.rewards, torch.tensor(rewards).to(found.rewards.dtype))
    assert bool(found.kept.all())


@EVERY_POINT
def test_masking_leaves_out_what_was_cut_off_and_nothing_else(preset, extras):
    rewards, cut = [[1.0, 0.0, 0.0, 1.0]] * 2, [[True] * 4, [False, True, False, False]]
    recipe = recipe_of(preset, extras, overlong="mask")
    masked = run(recipe, outcomes_of(rewards, truncated=cut))[0]
    assert masked.kept.tolist() == [[False] * 4, [True, False, True, True]]
    # What is kept has the advantages of the whole group, whose outcomes were seen.
    whole = run(recipe, outcomes_of(rewards))[0]
    assert torch.equal(masked.advantages, whole.advantages * masked.kept)
    assert torch.equal(masked.base, whole.base)
    all_cut = run(recipe, outcomes_of(rewards, truncated=[[True] * 4] * 2))[0]
    assert not all_cut.kept.any()
    assert not all_cut.advantages.any()
    unmasked = run(recipe_of(preset, extras, overlong="off"), outcomes_of(rewards, truncated=cut))[0]
    assert bool(unmasked.kept.all())
    assert torch.equal(unmasked.advantages, whole.advantages)


@EVERY_POINT
def test_a_group_of_one_is_refused(preset, extras):
    message = (
        r"group size is 1, but a group-relative advantage needs at least 2 completions per prompt\. "
        r"Set rollout\.group_size to 2 or more\."
    )
    with pytest.raises(ValueError, match=message):
        run(recipe_of(preset, extras), outcomes_of([[1.0], [0.0]]))


# Properties of every point.


@EVERY_POINT
@pytest.mark.parametrize("omega", [0.0, 0.3, 1.0])
def test_order_and_neighbours_do_not_matter(preset, extras, omega):
    find = functools.partial(advantages_of, recipe_of(preset, extras), omega=omega)
    for seed in SEEDS:
        outcomes = drawn(seed)
        result = find(outcomes)
        assert result.dtype == torch.float32
        assert bool(result.isfinite().all())
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        permuted = outcomes_of(outcomes.rewards[:, order], outcomes.correct[:, order])
        torch.testing.assert_close(find(permuted), result[:, order], atol=4e-6, rtol=0)
        turned = outcomes_of(outcomes.rewards.flip(0), outcomes.correct.flip(0))
        torch.testing.assert_close(find(turned), result.flip(0), atol=4e-6, rtol=0)
        if preset != "reinforce_pp":  # groups meet in ω, in the anchor and in the standard deviation of the batch
            shards = [find(outcomes_of(outcomes.rewards[i : i + 1], outcomes.correct[i : i + 1])) for i in range(4)]
            assert torch.equal(torch.cat(shards), result)
        if preset not in WITHOUT_BASELINE:
            raised = dataclasses.replace(outcomes, rewards=outcomes.rewards.double() + 2)
            torch.testing.assert_close(find(raised), result, atol=4e-6, rtol=0)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weightings_never_flip_a_sign(preset, weighting):
    extras = [weighting] if weighting not in PRESETS[preset]["weighting"] else []
    for seed in SEEDS:
        found = run(recipe_of(preset, extras), drawn(seed), omega=0.01 + 0.2 * seed)[0]
        assert torch.equal(found.advantages.sign(), found.base.sign())


@EVERY_POINT
def test_an_estimate_changes_nothing_that_it_was_given(preset, extras):
    outcomes, state = drawn(0), EstimatorState(anchor=AnchorState(history=(0.25, 0.5)))
    copies = [getattr(outcomes, field.name).clone() for field in dataclasses.fields(outcomes)]
    found, later = run(recipe_of(preset, extras), outcomes, state=state)
    for field, copy in zip(dataclasses.fields(outcomes), copies, strict=True):
        torch.testing.assert_close(getattr(outcomes, field.name), copy, rtol=0, atol=0, equal_nan=True)
    assert state == EstimatorState(anchor=AnchorState(history=(0.25, 0.5)))
    if "hadw" in extras:
        assert later.anchor.history == (0.25, 0.5, 0.3)
        assert found.anchor == 0.375
    else:
        assert later == state
        assert found.anchor is None


@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_is_a_multiple_of_dr_grpo(seed):
    outcomes = drawn(seed, size=4, unscored=0.0)
    expected = advantages_of({"preset": "dr_grpo"}, outcomes) * 4 / 3
    torch.testing.assert_close(advantages_of({"preset": "rloo"}, outcomes), expected)


def test_middle_prompts_weigh_one_over_root_two_once_the_model_is_good_enough():
    outcomes = outcomes_of([[1.0, 1.0, 0.0, 0.0]])
    for omega, alpha in ((0.5, 0.5), (0.9, 0.5), (1.0, 1.0)):
        recipe = {"weighting": ["agrae"], "agrae": {"alpha": alpha}}
        found = advantages_of(recipe, outcomes, omega=omega)
        torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, -1.0, -1.0]]) / math.sqrt(2))


def test_two_weightings_multiply():
    outcomes = drawn(3, unscored=0.0)
    base = advantages_of({}, outcomes)
    parts = [advantages_of({"weighting": [name]}, outcomes) / base for name in ("agrae", "hadw")]
    both = advantages_of({"weighting": ["agrae", "hadw"]}, outcomes)
    torch.testing.assert_close(both, torch.where(base == 0, 0.0, base * parts[0] * parts[1]))
    assert not torch.equal(both, base)


# Memory.


def test_the_accuracy_before_filtering_moves_the_anchor_and_omega():
    """Dynamic sampling keeps mixed groups only; theirs is another accuracy than that of what was sampled."""
    recipe = recipe_of("dapo", ["agrae", "hadw"])
    kept = outcomes_of([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])  # accuracy 1/2, out of a batch with 1/10
    first, state = run(recipe, kept, omega=0.1)
    assert (first.anchor, state.anchor.history) == (0.1, (0.1,))
    second, state = run(recipe, kept, omega=0.2, state=state)
    assert (second.anchor, state.anchor.history) == (0.1, (0.1, 0.2))
    # p = 1/2, A = ±1: Eq. 12 gives 1/sqrt(2), Eq. 13 0.2 / 0.5 for positives, HA-DW 1.3 exp(±(0.1 - 0.5)).
    negative = 1.3 * math.exp(0.4) / math.sqrt(2)
    positive = 0.4 * 1.3 * math.exp(-0.4) / math.sqrt(2)
    expected = [[positive, -negative, -negative, positive], [positive, positive, -negative, -negative]]
    torch.testing.assert_close(second.advantages, torch.tensor(expected))


@pytest.mark.parametrize(
    ("hadw", "anchors"),
    [
        ({"window": 2}, [0.5, 0.5, 0.75, 0.5, 0.125]),
        ({"window": 2, "variant": "code"}, [0.5, 0.75, 0.5, 0.125, 0.125]),
        ({"anchor": "batch"}, [0.5, 1.0, 0.0, 0.25, 0.0]),
        ({"anchor": "fixed", "value": 0.125}, [0.125] * 5),
        # η 0.5: (0.5 + 1) / 2. σ of (0.5, 0.75) = 1/8, η 0.5: (0.75 + 0) / 2. σ of (0.75, 0.375) = 3/16, η 3/4:
        # 0.375 / 4 + 0.25 · 3/4 = 0.28125.
        ({"anchor": "soft", "eta": 4.0, "eta_min": 0.5, "memory": 2}, [0.5, 0.5, 0.75, 0.375, 0.28125]),
        ({"anchor": "soft", "eta": 0.0, "eta_min": 0.0}, [0.5] * 5),
        ({"anchor": "soft", "eta": 0.0, "eta_min": 1.0}, [0.5, 0.5, 1.0, 0.0, 0.25]),
    ],
)
def test_anchors_follow_the_run(hadw, anchors):
    state, found = START, []
    for omega in (0.5, 1.0, 0.0, 0.25, 0.0):
        step, state = run({"weighting": ["hadw"], "hadw": hadw}, outcomes_of([[1.0, 0.0]]), omega=omega, state=state)
        found.append(step.anchor)
    assert found == pytest.approx(anchors)


def test_memory_is_bounded():
    state = START
    for _ in range(40):
        _, state = run({"weighting": ["hadw"]}, outcomes_of([[1.0, 0.0]]), state=state)
    assert len(state.anchor.history) == 10


@given(st.lists(st.floats(0, 1), max_size=12))
def test_a_state_survives_a_file_exactly(history):
    state = EstimatorState(anchor=AnchorState(history=tuple(history)))
    assert EstimatorState.from_json(json.loads(json.dumps(state.to_json()))) == state
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.anchor = AnchorState()


def test_a_resumed_run_goes_on_exactly():
    recipe = {"weighting": ["hadw"], "hadw": {"anchor": "soft"}}
    states = [START, START]
    for step, omega in enumerate((0.1, 0.7, 1 / 3, 0.9)):
        results = [run(recipe, drawn(step), omega=omega, state=state) for state in states]
        assert torch.equal(results[0][0].advantages, results[1][0].advantages)
        states = [results[0][1], EstimatorState.from_json(json.loads(json.dumps(results[1][1].to_json())))]
        assert states[0] == states[1]
