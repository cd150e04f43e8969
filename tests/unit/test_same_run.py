"""The rule by which two runs are one: counts are equal, figures equal up to rounding, completions equal."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import same_run

from mm_agrae.store.run_dir import RunDir


def sampled(*token_ids: int) -> dict[str, Any]:
    return {"token_ids": token_ids, "verdict": {"seconds": random.random()}}


LINES = [
    {"step": 0, "eval/held_out/pass@1": 0.25, "time/evaluate_s": 1.0},
    {
        "step": 1,
        "policy/loss": 0.5,
        "reward/mean": 0.5,
        "time/step_s": 2.0,
        "rollout/logprob_gap_max_nats": 1e-7,
        "sft/step_s": 2.0,
        "sft/tokens_per_s": 3.0,
        "sft/loss_nats": 0.5,
    },
]
GROUP = {"sample_id": "a", "prompt_hash": "h", "rollouts": [sampled(1, 2), sampled(3)]}


def run(folder: Path, lines: list[dict[str, Any]], group: dict[str, Any]) -> RunDir:
    made = RunDir.create_at(folder)
    made.write_config({})
    made.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    made.rollouts_at(1).write_text(json.dumps(group) + "\n", encoding="utf-8")
    return made


def changed(lines: list[dict[str, Any]], **values: Any) -> list[dict[str, Any]]:
    return [lines[0], lines[1] | values]


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., list[str]]:
    """compare(lines, group): how a run with these differs from the one above."""
    one = run(tmp_path / "one", LINES, GROUP)

    def differences(lines: list[dict[str, Any]] = LINES, group: dict[str, Any] = GROUP) -> list[str]:
        return same_run.differences(run(tmp_path / "two", lines, group), one)

    return differences


@pytest.mark.parametrize(
    "values",
    [
        {"time/step_s": 9.0},
        {"sft/step_s": 9.0, "sft/tokens_per_s": 1.0},
        {"policy/loss": 0.5 + 4e-5},
        {"rollout/logprob_gap_max_nats": 9e-4},
    ],
)
def test_times_and_rounding_are_no_difference(compare: Callable[..., list[str]], values: dict[str, float]) -> None:
    assert compare(changed(LINES, **values)) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"policy/loss": 0.5 + 1e-4}, "step 1: policy/loss is 0.5001, in the other 0.5"),
        ({"reward/mean": 0.5 + 1e-9}, "step 1: reward/mean is"),
        ({"sft/loss_nats": 0.6}, "step 1: sft/loss_nats is 0.6, in the other 0.5"),
        ({"policy/loss": None}, "step 1: policy/loss is None"),
        ({"policy/kl_nats": 0.0}, "step 1: policy/kl_nats stands in one of the two only"),
        ({"rollout/logprob_gap_max_nats": 2e-3}, "step 1: rollout/logprob_gap_max_nats is"),
    ],
)
def test_a_figure_that_differs_is_named(compare: Callable[..., list[str]], values: dict[str, Any], told: str) -> None:
    (found,) = compare(changed(LINES, **values))
    assert found.startswith(told)


def test_a_step_that_is_missing_is_told(compare: Callable[..., list[str]]) -> None:
    (found,) = compare(LINES[:1])
    assert "has 1 lines" in found


@pytest.mark.parametrize("other", [{"rollouts": [sampled(1, 2), sampled(4)]}, {"sample_id": "b"}, {"prompt_hash": "g"}])
def test_another_completion_or_problem_is_told(compare: Callable[..., list[str]], other: dict[str, Any]) -> None:
    assert compare(group=GROUP | other) == ["rollouts/step_000001.jsonl holds other problems or other completions"]


def test_the_largest_difference_is_relative(tmp_path: Path) -> None:
    one = run(tmp_path / "one", LINES, GROUP)
    two = run(tmp_path / "two", changed(LINES, **{"policy/loss": 0.5 + 2e-5, "time/step_s": 9.0}), GROUP)
    assert same_run.largest_difference(two, one) == pytest.approx(4e-5)
