"""Runs whose processes hold pieces: the run of one process, saved by two and resumed by one, and the reverse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import commands
import pytest
import run_files
import same_run
import torch
from colours import ignore
from launches import two_processes
from safetensors.torch import load_file

from mm_agrae.cli.jobs import run_sft, run_train
from mm_agrae.store.run_dir import RunDir

# 3 prompts on 2 processes, two in three with a picture; a reference model; two updates a step; a checkpoint per step.
SETTINGS = [
    *("train.num_steps=3", "train.checkpoint_every=1", "train.keep_checkpoints=9", "evaluate.num_samples=2"),
    *("algorithm.beta=0.02", "train.updates_per_rollout=3", "train.sharding=fsdp2"),
]
WARM_UP = ["sft.num_steps=3", "sft.batch_size=3", "train.sharding=fsdp2", "train.reshard_after_forward=false"]


def cut_after_first(run: RunDir, out: Path) -> Path:
    """A copy of a run that was killed after its first checkpoint."""
    shutil.copytree(run.path, out)
    for step in (2, 3):
        shutil.rmtree(out / "checkpoints" / f"step_{step:06d}")
    return out


@pytest.fixture(scope="module")
def runs(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """One run by one process, by two with pieces, and by both: a first step of the one, then two of the other."""
    folder = tmp_path_factory.mktemp("sharded")
    said: list[str] = []
    alone = run_train(recipe, SETTINGS, folder / "one", False, said.append)
    assert any("one process holds all pieces" in line for line in said)
    by_one_then_two = cut_after_first(alone, folder / "one_then_two")
    run_sft(recipe, WARM_UP, folder / "warm_one", False, ignore)
    ended = two_processes(
        commands.__file__,
        json.dumps(
            [
                ["train", str(recipe), *SETTINGS, "--out", str(folder / "two")],
                ["train", str(recipe), *SETTINGS, "--out", str(by_one_then_two), "--resume"],
                ["sft", str(recipe), *WARM_UP, "--out", str(folder / "warm_two")],
            ]
        ),
    )
    assert ended.returncode == 0, ended.stderr[-6000:]
    by_two_then_one = cut_after_first(RunDir.open(folder / "two"), folder / "two_then_one")
    run_train(recipe, SETTINGS, by_two_then_one, True, ignore)
    return {path.name: RunDir.open(path) for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["two", "one_then_two", "two_then_one"])
def test_a_run_does_not_depend_on_who_holds_its_weights(runs: dict[str, RunDir], name: str) -> None:
    """Completions, figures and moments, with rollouts of unequal lengths and a process without a prompt."""
    assert same_run.differences(runs[name], runs["one"]) == []
    check_same_checkpoint(runs[name], runs["one"])


def test_a_warm_start_in_pieces_is_that_of_one_process(runs: dict[str, RunDir]) -> None:
    assert run_files.metrics(runs["warm_two"]) == [
        pytest.approx(line, rel=1e-4) for line in run_files.metrics(runs["warm_one"])
    ]
    check_same_checkpoint(runs["warm_two"], runs["warm_one"])


def check_same_checkpoint(run: RunDir, other: RunDir) -> None:
    ours, theirs = (max(of.checkpoints.glob("step_*")) for of in (run, other))
    assert ours.name == theirs.name
    for file in ("model/model.safetensors", "optimizer.safetensors"):
        found, expected = load_file(ours / file), load_file(theirs / file)
        assert found.keys() == expected.keys()
        assert all(found[name].shape == expected[name].shape for name in found)
        whole, same = (torch.cat([of[name].double().flatten() for name in sorted(of)]) for of in (found, expected))
        assert float((whole - same).norm()) <= 1e-4 * float(same.norm())
