import math

import pytest
import torch
from replay_logs import LIMIT, group, write_steps

from mm_agrae.algorithms.advantages import group as group_advantage
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.errors import ConfigError
from mm_agrae.lab.replay.algorithms import (
    DEFAULT_NAMES,
    RunSettings,
    parse_algorithm,
    read_settings,
    replay_all,
    reward_flags,
    step_accuracies,
)
from mm_agrae.lab.replay.read import read_log

NO_RUN = RunSettings(algorithm=None, max_completion_tokens=None, problem="there is no config.json")
OWN = RunSettings(
    algorithm=AlgorithmConfig.model_validate({"preset": "dapo", "weighting": ["agrae"], "agrae": {"alpha": 0.25}}),
    max_completion_tokens=LIMIT,
    problem="",
)


def replay(run, *names):
    configs = {name: parse_algorithm(name, NO_RUN) for name in names}
    return replay_all(read_log(run), configs, max_completion_tokens=LIMIT)


def test_a_name_is_a_preset_with_weightings_and_elastic():
    config = parse_algorithm("gspo+agrae+hadw+elastic", NO_RUN)
    expected = {"preset": "gspo", "weighting": ["agrae", "hadw"], "trust_region": "elastic"}
    assert config == AlgorithmConfig.model_validate(expected)
    assert parse_algorithm("dr_grpo", NO_RUN) == AlgorithmConfig.model_validate({"preset": "dr_grpo"})
    # What a preset weighs by itself stays, and comes first.
    assert parse_algorithm("grpo_lead+hadw", NO_RUN).weighting == ("grpo_lead", "hadw")


def test_run_is_the_runs_own_algorithm_and_can_be_added_to():
    assert parse_algorithm("run", OWN) == OWN.algorithm
    more = parse_algorithm("run+hadw+elastic", OWN)
    assert (more.weighting, more.trust_region, more.agrae.alpha) == (("agrae", "hadw"), "elastic", 0.25)


@pytest.mark.parametrize("name", DEFAULT_NAMES)
def test_default_names_are_known(name):
    assert parse_algorithm(name, OWN).model_dump()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("grop", r"'grop' begins with 'grop', which is no preset.*grpo, dr_grpo, .*weightings agrae, .*and elastic"),
        ("", "begins with '', which is no preset"),
        ("agrae", "begins with 'agrae', which is no preset"),
        ("grpo+agrea", r"the part 'agrea', which is unknown\. Known: presets grpo, .*weightings agrae, "),
        ("run", r"asks for the run's own settings, but there is no config\.json\. Name a preset"),
        ("grpo+agrae+agrae", "algorithm 'grpo.agrae.agrae': .*a weighting acts once"),
        ("sapo+elastic", "algorithm 'sapo.elastic': .*no bounds to stretch"),
    ],
)
def test_a_name_that_means_nothing_is_told_with_what_is_known(name, told):
    with pytest.raises(ConfigError, match=told):
        parse_algorithm(name, NO_RUN)


def test_settings_come_from_the_run(tmp_path):
    run = write_steps(tmp_path / "run", {}, algorithm={"preset": "rloo"})
    assert read_settings(run) == RunSettings(
        algorithm=AlgorithmConfig.model_validate({"preset": "rloo"}), max_completion_tokens=LIMIT, problem=""
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "there is no config.json beside the rollouts"),
        (
            '{"algorithm": {"advantage": "grpo"}, "rollout": {}}',
            "config.json is of another version (algorithm.advantage",
        ),
        ("{", "config.json cannot be read (JSONDecodeError"),
        ("[]", "config.json cannot be read (TypeError"),
        ('{"algorithm": {"preset": "grpo"}}', "config.json cannot be read (KeyError: 'rollout')"),
    ],
)
def test_settings_that_cannot_be_had_say_why(tmp_path, text, problem):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    found = read_settings(tmp_path)
    assert (found.algorithm, found.max_completion_tokens) == (None, None)
    assert found.problem.startswith(problem)


def test_a_file_of_rollouts_has_no_settings(tmp_path):
    (tmp_path / "rollouts.jsonl").write_text("")
    assert read_settings(tmp_path / "rollouts.jsonl").problem == "there is no config.json beside the rollouts"


def test_each_algorithm_carries_its_anchor_from_step_to_step(tmp_path):
    # Accuracies 1/2, 1/4, 3/4: the first step is its own anchor, then 1/2, then (1/2 + 1/4) / 2 = 3/8.
    run = write_steps(tmp_path, {1: ["CCww"], 2: ["Cwww"], 3: ["CCCw"]})
    found = replay(run, "grpo", "grpo+hadw")
    assert found["grpo"].anchors is None
    assert found["grpo+hadw"].anchors == (0.5, 0.5, 0.375)
    # Step 3: p = 3/4, σ = sqrt(3)/4, Â = 1/sqrt(3) and -sqrt(3); Φ = 1.3 e^(C - p) = 1.3 e^(-3/8), and its inverse.
    assert found["grpo+hadw"].advantages[2].tolist() == pytest.approx(
        [1.3 * math.exp(-0.375) / math.sqrt(3)] * 3 + [-1.3 * math.exp(0.375) * math.sqrt(3)]
    )
    assert found["grpo+hadw"].base.tolist() == found["grpo"].advantages.tolist()


def test_an_anchor_learns_from_unlogged_steps_where_their_accuracy_is_known(tmp_path):
    steps = {1: ["CCww"], 4: ["Cwww"]}
    # Step 4 comes after (1/2 + 1 + 1/4) / 3 = 7/12; from the log alone only step 1 is known, with 1/2.
    known = write_steps(tmp_path / "known", steps, accuracies={1: 0.5, 2: 1.0, 3: 0.25, 4: 0.25, 5: 1.0})
    assert replay(known, "grpo+hadw")["grpo+hadw"].anchors == (0.5, pytest.approx(7 / 12))
    assert list(step_accuracies(read_log(known))) == [1, 2, 3, 4]
    bare = write_steps(tmp_path / "bare", steps)
    assert replay(bare, "grpo+hadw")["grpo+hadw"].anchors == (0.5, 0.5)


def test_the_runs_own_accuracy_counts_what_it_dropped(tmp_path):
    run = write_steps(tmp_path / "a", {1: ["CCww"]}, accuracies={1: 0.25})
    assert step_accuracies(read_log(run)) == {1: 0.25}
    # A-GRAE at p = 1/2, α = 1/2: weight 1/sqrt(2) for every ω, positives times ω/α = 1/2 (from the log alone: 1).
    assert replay(run, "grpo+agrae")["grpo+agrae"].advantages.tolist() == [
        pytest.approx([0.5 / math.sqrt(2)] * 2 + [-1 / math.sqrt(2)] * 2)
    ]
    bare = write_steps(tmp_path / "b", {1: ["CCww", "C?ww"]})
    assert step_accuracies(read_log(bare)) == {1: pytest.approx(3 / 7)}


def test_without_the_guard_form_alone_makes_whole_advantages(tmp_path):
    # All wrong, 4 of 8 in form: rewards .1 and 0, mean .05, biased σ .05: ±1. One of 8: sqrt(7) and -1/sqrt(7).
    run = write_steps(tmp_path, {1: ["WWWWwwww", "Wwwwwwww", "CCCCcccc", "wwwwwwww"]})
    found = replay(run, "grpo", "dr_grpo", "w_reinforce")
    assert found["grpo"].advantages.abs().max() == 0
    assert found["grpo"].unguarded.tolist() == [
        pytest.approx([1] * 4 + [-1] * 4, rel=1e-6),
        pytest.approx([math.sqrt(7)] + [-1 / math.sqrt(7)] * 7, rel=1e-6),
        pytest.approx([1] * 4 + [-1] * 4, rel=1e-6),
        [0] * 8,
    ]
    assert found["dr_grpo"].unguarded[0].tolist() == pytest.approx([0.05] * 4 + [-0.05] * 4)
    assert found["w_reinforce"].unguarded is None


def test_with_the_unbiased_deviation_the_form_makes_093(tmp_path):
    # σ over G - 1 is sqrt(8/7) larger: 1 / sqrt(8/7) = .935.
    rewards = torch.tensor([[0.1] * 4 + [0.0] * 4])
    unguarded = group_advantage(rewards, reward_flags(rewards), std="unbiased", std_eps=1e-6)
    assert unguarded.tolist() == [pytest.approx([0.9354] * 4 + [-0.9354] * 4, abs=1e-4)]


def test_without_the_guard_a_mixed_group_is_as_with_it(tmp_path):
    run = write_steps(tmp_path, {1: ["CcWw", "C?ww"]})
    for one in replay(run, "grpo", "rloo", "reinforce_pp").values():
        assert torch.equal(one.unguarded, one.base)


def test_reward_flags_are_unequal_exactly_where_rewards_are():
    rewards = torch.tensor([[0.9, 0.9, 0.9], [0.1, 0.0, math.nan], [math.nan] * 3])
    assert reward_flags(rewards).tolist() == [[False] * 3, [True, False, False], [False] * 3]


def test_a_rollout_that_the_loss_leaves_out_has_no_advantage(tmp_path):
    run = write_steps(tmp_path, {1: [group("CCww", lengths=[3, LIMIT, 3, LIMIT])]})
    own = RunSettings(
        algorithm=AlgorithmConfig.model_validate({"overlong": "mask"}), max_completion_tokens=LIMIT, problem=""
    )
    found = replay_all(read_log(run), {"run": parse_algorithm("run", own)}, max_completion_tokens=LIMIT)["run"]
    assert found.kept.tolist() == [[True, False, True, False]]
    assert found.advantages.tolist() == [pytest.approx([1, 0, -1, 0])]
    assert found.base.tolist() == [pytest.approx([1, 0, -1, 0])]
    assert found.unguarded.tolist() == [pytest.approx([1, 0, -1, 0])]


def test_the_price_of_long_answers_follows_the_bound(tmp_path):
    # Buffer 0.2 · 8 = 2 tokens (rounded): 6 cost nothing, 7 cost 1/2. Rewards 1, .5, 0, 0, mean .375.
    run = write_steps(tmp_path, {1: [group("CCww", lengths=[6, 7, 3, 3])]})
    found = replay(run, "dapo")["dapo"]
    deviations = [0.625, 0.125, -0.375, -0.375]
    scale = math.sqrt(sum(value**2 for value in deviations) / 4)
    assert found.advantages.tolist() == [pytest.approx([value / scale for value in deviations])]
