"""Prompts -> judged groups: every completion meets the target of its own prompt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mm_agrae.engines.scripted_engine import ScriptedEngine
from mm_agrae.records import Sample, Sampling
from mm_agrae.rollout import Judge, rollout
from mm_agrae.verify import VerifierPool


def prompt(target: str) -> SimpleNamespace:
    return SimpleNamespace(sample=Sample(id=target, question="?", target=target, answer_kind="integer"))


@pytest.fixture(scope="module")
def judge():
    with VerifierPool(num_workers=1, timeout_s=5.0) as verifier:
        yield Judge(verifier=verifier, correct_weight=0.7, format_weight=0.2)


def test_each_completion_is_judged_by_its_own_target(judge):
    # The seed is the answer: prompt "1" gets 1, 2, 3 and prompt "3" gets 3, 3, 1.
    engine = ScriptedEngine(lambda prompt, seed: f"\\boxed{{{seed}}}", lambda text: [len(text)])
    engine.weights_version = 5
    sampling = Sampling(num_completions=3, max_new_tokens=4)
    harvest = rollout(engine, judge, [prompt("1"), prompt("3")], sampling, [[1, 2, 3], [3, 3, 1]])  # type: ignore[list-item]
    rewards = [[one.reward for one in group.rollouts] for group in harvest.groups]
    assert rewards == [pytest.approx([0.9, 0.2, 0.2]), pytest.approx([0.9, 0.9, 0.2])]
    assert [group.prompt.sample.target for group in harvest.groups] == ["1", "3"]
    assert {group.weights_version for group in harvest.groups} == {5}
    assert harvest.rollout_s > 0
    assert harvest.verify_s > 0


def test_an_answer_that_cannot_be_read_is_a_verdict(judge):
    engine = ScriptedEngine(lambda prompt, seed: "\\boxed{", lambda text: [1, 2])
    (group,) = rollout(engine, judge, [prompt("1")], Sampling(num_completions=2, max_new_tokens=4), [[1, 2]]).groups  # type: ignore[list-item]
    assert [one.reward for one in group.rollouts] == [0.0, 0.0]
    assert {one.verdict.correct for one in group.rollouts} == {False}


def test_no_prompts_are_no_groups(judge):
    engine = ScriptedEngine(lambda prompt, seed: "", lambda text: [])
    assert rollout(engine, judge, [], Sampling(num_completions=2, max_new_tokens=4), []).groups == []
