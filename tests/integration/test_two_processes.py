"""Two processes of one run are one run: same completions, same curve, same gradients, files written once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ranks
import run_files
import torch
from colours import cut_short_after, environment

from mm_agrae.cli.jobs import run_train
from mm_agrae.config.schema import ModelConfig
from mm_agrae.policy.load import load_policy
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.distributed import World

# 3 prompts on 2 processes: an uneven tail, and with every third problem in words, ranks with pictures and without.
SETTINGS = ["train.num_steps=3", "evaluate.num_samples=2", "algorithm.beta=0.02", "train.updates_per_rollout=3"]


def torchrun(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Two processes of the command line on a free port."""
    return two_processes("-m", "mm_agrae.cli.main", *words)


def two_processes(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [*command, *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def check_same_run(two: RunDir, one: RunDir) -> None:
    """Everything counted is equal; everything computed differs by rounding in another order of sums."""
    for ours, theirs in zip(run_files.metrics(two), run_files.metrics(one), strict=True):
        # The gap is rounding itself, of one token: only its size can be compared.
        largest = "rollout/logprob_gap_max_nats"
        assert max(ours.pop(largest, None) or 0.0, theirs.pop(largest, None) or 0.0) < 1e-3
        assert ours == pytest.approx(theirs, rel=1e-4, abs=2e-5), f"step {ours['step']}"
        for key in theirs:
            if key.startswith(("reward/", "group/", "verify/", "eval/")) or key.endswith("_tokens"):
                assert ours[key] == theirs[key], key
    together, alone = run_files.groups(two), run_files.groups(one)
    assert list(together) == list(alone)
    for name, groups in together.items():
        assert [group["sample_id"] for group in groups] == [group["sample_id"] for group in alone[name]]
        for group, same in zip(groups, alone[name], strict=True):
            assert [rollout["token_ids"] for rollout in group["rollouts"]] == [
                rollout["token_ids"] for rollout in same["rollouts"]
            ]
            assert group["prompt_hash"] == same["prompt_hash"]


def test_two_processes_train_as_one(recipe: Path, tmp_path: Path) -> None:
    alone = run_train(recipe, SETTINGS, tmp_path / "one", False, lambda line: None)
    ended = torchrun("train", recipe, *SETTINGS, "--out", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr[-3000:]
    check_same_run(RunDir.open(tmp_path / "two"), alone)
    # One of the processes speaks.
    assert ended.stdout.count("report: ") == 1
    assert sum(line.strip().startswith("1/3") for line in ended.stdout.splitlines()) == 1
    pictures = [[bool(group["images"]) for group in groups] for groups in run_files.groups(alone).values()]
    assert any(len(set(step)) == 2 for step in pictures), "no step mixes pictures and words"


def test_two_processes_sample_again_as_one(recipe: Path, tmp_path: Path) -> None:
    """Which groups are kept is decided from those of all processes; a process may keep none or all of its own."""
    settings = [
        *("train.num_steps=4", "rollout.num_prompts=4", "train.updates_per_rollout=2", "evaluate.num_samples=2"),
        *("algorithm.preset=dapo", "algorithm.weighting=[agrae,hadw]", "algorithm.trust_region=elastic"),
    ]
    alone = run_train(recipe, settings, tmp_path / "one", False, lambda line: None)
    ended = torchrun("train", recipe, *settings, "--out", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr[-3000:]
    check_same_run(RunDir.open(tmp_path / "two"), alone)
    assert any(line["rollout/sampling_rounds"] > 1 for line in run_files.metrics(alone)[1:])


def test_a_problem_of_one_process_stops_both(recipe: Path, mixed_data: Path, tmp_path: Path) -> None:
    """A picture cut short is found by the one process that decodes it."""
    data = cut_short_after(2, tmp_path / "data")
    out = tmp_path / "run"
    ended = torchrun("train", recipe, f"data.train.path={data}", "--out", out)
    assert ended.returncode != 0
    assert "cannot be decoded" in ended.stderr
    assert "The run is saved up to step" in ended.stderr
    assert list(out.glob("checkpoints/step_*/COMPLETE"))


def test_a_launcher_that_starts_one_of_two(recipe: Path, tmp_path: Path) -> None:
    """accelerate's own command, asked for two processes without a GPU."""
    launcher = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no"
    words = ["-m", "mm_agrae.cli.main", "train", recipe, "--out", tmp_path / "run"]
    command = [sys.executable, *launcher.split(), *map(str, words)]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert "error: MASTER_ADDR is set and WORLD_SIZE is not" in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def alone(warm_model: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    """What one process finds with large micro-batches and whole weights, by architecture and the way of its peer."""
    world = World(device="cpu")
    found = {}
    for way in ("qwen2_5_vl", "qwen2_5_vl+sharded", "qwen3+sharded"):
        architecture, _, sharded = way.partition("+")
        policy = load_policy(ModelConfig(path=str(warm_model(architecture)), device="cpu"))
        found[way] = ranks.learn(policy, world, adamw=not sharded, micro_batch_tokens=1000)
    return found


@pytest.fixture(scope="module")
def together(warm_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What two processes find with small ones, by architecture and the way that weights are held."""
    out = tmp_path_factory.mktemp("ranks") / "found.pt"
    jobs = [
        f"{architecture}{flags}={warm_model(architecture)}{flags}"
        for architecture, flags in (
            ("qwen2_5_vl", ""),
            ("qwen2_5_vl", "+sharded+recomputing"),
            ("qwen3", "+sharded"),
        )
    ]
    ended = two_processes(ranks.__file__, out, *jobs)
    assert ended.returncode == 0, ended.stderr[:6000]
    return torch.load(out, weights_only=False)


def check_same_updates(two: dict[str, Any], one: dict[str, Any]) -> None:
    """Log-probabilities, every gradient of both updates, where they moved the weights, every figure."""
    torch.testing.assert_close(two["logprobs"], one["logprobs"], rtol=0, atol=5e-6)
    assert len(two["gradients"]) == len(one["gradients"]) == 2
    for found, expected in zip(two["gradients"], one["gradients"], strict=True):
        assert list(found) == list(expected)
        floor = 1e-7 * float(torch.stack([gradient.norm() for gradient in expected.values()]).norm())
        assert floor > 0
        for name, gradient in expected.items():
            assert float((found[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()) + floor, name
    moves, expected_moves = (torch.cat([move.reshape(-1) for move in of["moves"].values()]) for of in (two, one))
    assert float(expected_moves.norm()) > 0
    assert float((moves - expected_moves).norm()) <= 1e-3 * float(expected_moves.norm())
    for key, value in one["metrics"].items():
        assert key.startswith("time/") or two["metrics"][key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


def test_trap_14_two_processes_have_the_gradient_of_one(together: dict[str, Any], alone: dict[str, Any]) -> None:
    """A gradient averaged over ranks or micro-batches is that of another loss wherever these are unequal.

    A group of rank 1 is learnt from by rank 0, and ranks run different numbers of micro-batches. Clipping, which takes
    the norm of the summed gradient, and AdamW are those of training.
    """
    two = together["qwen2_5_vl"]
    check_same_updates(two, alone["qwen2_5_vl"])
    for gradients in two["gradients"]:
        norm = float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())
        assert norm > ranks.MAX_GRAD_NORM, "nothing was clipped"
    (first, learnt_by_first), (second, learnt_by_second) = two["rows"]
    assert (first, second) == ([0, 2, 4, 6], [1, 3, 5, 7])
    assert set(learnt_by_first) - set(first), "no group changed hands"
    assert sorted(learnt_by_first + learnt_by_second) == list(range(8))
    assert len(set(two["num_passes"])) == 2


@pytest.mark.parametrize("way", ["qwen2_5_vl+sharded+recomputing", "qwen3+sharded"])
def test_trap_15_sharded_ranks_keep_step(together: dict[str, Any], alone: dict[str, Any], way: str) -> None:
    """Every pass through sharded weights is a meeting of all ranks: one that has fewer micro-batches waits for ever.

    It repeats one without weight, and the numbers stay those of one process.
    """
    check_same_updates(together[way], alone[way.removesuffix("+recomputing")])
    first, second = together[way]["num_passes"]
    assert first == second == max(together["qwen2_5_vl"]["num_passes"])


def test_trap_16_the_head_is_outside_of_what_is_sharded(together: dict[str, Any], alone: dict[str, Any]) -> None:
    """A head that is called by itself, beside a sharded root, would multiply with the piece that its rank holds.

    It stays whole, as does the tied embedding, and its gradient is summed like that of an unsharded model.
    """
    for architecture, name in (
        ("qwen2_5_vl", "model.language_model.embed_tokens.weight"),
        ("qwen3", "model.embed_tokens.weight"),
    ):
        way = next(way for way in together if way.startswith(f"{architecture}+sharded"))
        two, one = together[way], alone[f"{architecture}+sharded"]
        assert two["in_parts"]
        assert name not in two["in_parts"]
        assert name in two["summed"]
        assert not two["summed"] & two["in_parts"]
        for found, expected in zip(two["gradients"], one["gradients"], strict=True):
            assert found[name].shape == expected[name].shape
            torch.testing.assert_close(
                found[name], expected[name], rtol=1e-4, atol=1e-6 * float(expected[name].abs().max())
            )
