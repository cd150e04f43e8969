"""The rollout benchmark compares before it times, sees a difference, and prints what it promises."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_equality as equality
import bench_inputs
import bench_rollout as rollout
import pytest
import torch

POINT = bench_inputs.Point(visual=16, text=24, completion=6, group=2, prompts=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_inputs.build(tmp_path_factory.mktemp("bench") / "model", architecture="qwen2_5_vl", size="tiny")


def test_the_engine_and_generate_say_the_same(folder: Path) -> None:
    entries = rollout.check_equality(folder, POINT)
    assert equality.equal(entries), equality.lines_of(entries)


@pytest.mark.parametrize("fault", ["token", "logprob"])
def test_a_difference_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    ours = rollout.ours

    def wrong(*arguments: Any) -> Any:
        groups = ours(*arguments)
        one = groups[0][0]
        ids, logprobs = one.token_ids, one.logprobs
        if fault == "token":
            ids = (ids[0] - 1, *ids[1:])
        else:
            logprobs = (logprobs[0] + 1e-3, *logprobs[1:])
        groups[0][0] = replace(one, token_ids=ids, logprobs=logprobs)
        return groups

    monkeypatch.setattr(rollout, "ours", wrong)
    entries = rollout.check_equality(folder, POINT)
    assert {name for name, entry in entries.items() if entry["value"] > entry["limit"]} >= {
        "token": {"greedy tokens unlike generate's"},
        "logprob": {"logprobs, generate", "logprobs, training"},
    }[fault]


def test_tokens_count_up_to_the_end() -> None:
    ids = torch.tensor([[1, 7, 0, 0], [1, 2, 3, 4], [7, 0, 0, 0], [1, 2, 3, 7]])
    assert rollout.num_tokens(ids, [7]) == 2 + 4 + 1 + 4
    assert rollout.num_tokens(ids, []) == 16


def test_json_has_every_figure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rollout, "QUICK", (rollout.Case(point=POINT, ends=4),))
    monkeypatch.setattr(rollout, "SMALL", POINT)
    monkeypatch.setattr(sys, "argv", ["bench_rollout.py", "--quick", "--json", "--size", "tiny", "--threads", "1"])
    assert rollout.main() == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["equal"] is True
    (row,) = printed["points"]
    assert (row["P"], row["C"], row["G"], row["visual"], row["ends"]) == (40, 6, 2, 16, 4)
    assert 1 < row["theory_to_peer"] < row["theory"] < POINT.group
    assert row["ratio_to_repeated"] == row["tokens_per_s"]["ours"] / row["tokens_per_s"]["repeated"]
    assert row["ratio_to_peer"] == row["tokens_per_s"]["ours"] / row["tokens_per_s"]["generate"]
