"""A run that is killed and resumed is the run that was never killed: weights, optimiser, metrics, completions."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import run_files
import torch
from colours import ignore
from processes import environment

import mm_agrae.train.session as session_module
from mm_agrae.cli.jobs import run_sft, run_train
from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import CheckpointError
from mm_agrae.policy.load import Policy
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.session import Session

# Enough steps that a kill falls in the middle.
LONG = ["train.num_steps=12", "sft.num_steps=6", "evaluate.every=5"]


def start(*words: str | Path, program: Sequence[str] = ("-m", "mm_agrae.cli.main")) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )


def killed_while_saving(step: int, *words: str | Path) -> None:
    """Run the command line, which gets SIGKILL between two files of the checkpoint of `step`."""
    fault = faults.Fault(kind="kill_in_checkpoint", phase="save", step=step)
    assert start(*words, program=(faults.__file__, faults.as_argument(fault))).wait() == -signal.SIGKILL


def killed_when(ready: Callable[[], bool], *words: str | Path) -> None:
    """Run the command line until `ready` says so, then kill it with SIGKILL."""
    process = start(*words)
    while not ready() and process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


def test_killed_and_resumed_training_is_exact(recipe: Path, tmp_path: Path) -> None:
    straight = run_train(recipe, LONG, tmp_path / "straight", False, ignore)
    assert any(line["group/mixed_frac"] > 0 for line in run_files.metrics(straight)[1:])

    out = tmp_path / "killed"
    lines, wanted = out / "metrics.jsonl", random.SystemRandom().randrange(4, 9)
    # At a moment chosen by chance, after the checkpoint of step 2: line 1 is the evaluation before training.
    killed_when(
        lambda: lines.exists() and lines.read_bytes().count(b"\n") >= wanted, "train", recipe, *LONG, "--out", out
    )
    assert not (out / "checkpoints" / "step_000012").exists(), "killed too late to show anything"
    # Again, in the middle of writing the last checkpoint.
    killed_while_saving(12, "train", recipe, *LONG, "--out", out, "--resume")
    half = out / "checkpoints" / ".step_000012.tmp"
    assert (half / "model" / "model.safetensors").exists()
    assert not (half / "optimizer.safetensors").exists()
    said: list[str] = []
    run = run_train(recipe, LONG, out, True, said.append)
    assert any(line.endswith("after step 10") for line in said)
    run_files.check_same(run, straight)
    assert not list(run.checkpoints.glob(".*"))


def test_what_the_estimator_remembers_survives_a_kill(recipe: Path, tmp_path: Path) -> None:
    """HA-DW's anchor is the mean of earlier batches, all of them: one forgotten batch would change every advantage."""
    settings = ["algorithm.weighting=[agrae,hadw]", "train.num_steps=6", "algorithm.dynamic_sampling=true"]
    straight = run_train(recipe, settings, tmp_path / "straight", False, ignore)
    out = tmp_path / "killed"
    killed_while_saving(4, "train", recipe, *settings, "--out", out)
    run_files.check_same(run_train(recipe, settings, out, True, ignore), straight)
    lines = run_files.metrics(straight)[1:]
    accuracies = [line["reward/batch_accuracy"] for line in lines]
    assert len(set(accuracies)) > 1, "equal batches would hide a lost anchor"
    # The first batch is its own anchor; later ones meet the mean of those before.
    expected = [accuracies[0], *(sum(accuracies[:step]) / step for step in range(1, 6))]
    assert [line["advantage/anchor"] for line in lines] == pytest.approx(expected)
    assert run_files.state(straight)["estimator"] == {"anchor": accuracies}


def test_killed_and_resumed_warm_start_is_exact(recipe: Path, tmp_path: Path) -> None:
    straight = run_sft(recipe, LONG, tmp_path / "straight", False, ignore)
    out = tmp_path / "killed"
    killed_while_saving(4, "sft", recipe, *LONG, "--out", out)
    run_files.check_same(run_sft(recipe, LONG, out, True, ignore), straight)


def test_a_run_killed_before_its_first_checkpoint_starts_again(recipe: Path, straight: RunDir, tmp_path: Path) -> None:
    """Its metrics hold lines of steps that no checkpoint knows."""
    run = run_files.copied(straight, tmp_path / "run")
    for checkpoint in run.checkpoints.iterdir():
        (checkpoint / "COMPLETE").unlink()
    run_files.check_same(run_train(recipe, [], run.path, True, ignore), straight)


def without_newer_settings(run: RunDir) -> None:
    """A run that was begun when there were fewer settings, killed after step 2."""
    config = json.loads(run.config.read_text(encoding="utf-8"))
    del config["model"]["vision_cache_gib"]
    for name in ("micro_batch_targets", "recompute_above_tokens", "sharding"):
        del config["train"][name]
    del config["supervision"]
    run.config.write_text(json.dumps(config), encoding="utf-8")
    decides = {key: value for key, value in config.items() if key not in ("output_dir", "tracker")}
    hashed = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    assert run_files.state(run)["config_hash"] != hashed
    shutil.rmtree(run.checkpoints / "step_000004")
    run_files.write_state(run, config_hash=hashed)


def test_a_config_without_newer_settings_resumes(
    recipe: Path, straight: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings have no words for what was added since; its weights stay stored as they were."""
    run = run_files.copied(straight, tmp_path / "run")
    without_newer_settings(run)
    with pytest.raises(CheckpointError, match=r'model\.stored_weights: "auto" -> "fp32"'):
        run_train(recipe, ["model.stored_weights=fp32"], run.path, True, ignore)
    asked: list[str] = []
    real = session_module.load_policy

    def spy(config: ModelConfig, *given: Any, **named: Any) -> Policy:
        asked.append(config.stored_weights)
        return real(config, *given, **named)

    monkeypatch.setattr(session_module, "load_policy", spy)
    # The memory for features of pictures decides no number, so a resumed run may have another.
    resumed = run_train(recipe, ["model.vision_cache_gib=1"], run.path, True, ignore)
    assert asked == ["fp32"]
    assert run_files.weights(resumed) == run_files.weights(straight)
    assert run_files.metrics(resumed) == run_files.metrics(straight)


def test_adapters_resume_exactly(recipe: Path, tmp_path: Path) -> None:
    """The checkpoint holds the adapters alone; the reference of the divergence is the model without them."""
    overrides = ["model.lora.rank=2", "algorithm.beta=0.1", "train.optim.lr=1e-2"]
    straight = run_train(recipe, overrides, tmp_path / "straight", False, ignore)
    run = run_files.copied(straight, tmp_path / "run")
    (run.checkpoints / "step_000004" / "COMPLETE").unlink()
    resumed = run_train(recipe, overrides, run.path, True, ignore)
    assert run_files.metrics(resumed) == run_files.metrics(straight)
    assert run_files.optimizer(resumed) == run_files.optimizer(straight)
    # Fresh adapters change nothing, so the policy is its own reference in the first step and not in the last.
    assert run_files.metrics(straight)[1]["policy/kl_nats"] == 0
    assert run_files.metrics(straight)[-1]["policy/kl_nats"] > 0


def test_global_generators_decide_nothing(
    recipe: Path, straight: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint holds no state of a random generator, because nothing draws from one that outlives a step."""
    drawn = []

    def disturb() -> None:
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))

    def disturbing(session: Session, metrics: dict[str, float]) -> None:
        disturb()
        real(session, metrics)

    real = Session.record
    monkeypatch.setattr(Session, "record", disturbing)
    disturb()
    run = run_train(recipe, [], tmp_path / "run", False, lambda line: disturb())
    assert len({draw for one in drawn for draw in one}) == 3 * len(drawn) > 12
    run_files.check_same(run, straight)
