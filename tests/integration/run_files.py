"""What a run left on disk, without the times that no two runs share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from mm_agrae.store.checkpoint import latest_checkpoint, read_state
from mm_agrae.store.run_dir import RunDir
from mm_agrae.store.tracker import read_metrics

TIMED = ("time/", "throughput/", "memory/", "sft/step_s", "sft/tokens_per_s")


def metrics(run: RunDir) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if not key.startswith(TIMED)} for line in read_metrics(run.metrics)
    ]


def weights(run: RunDir) -> str:
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint
    return hashlib.sha256((checkpoint / "model" / "model.safetensors").read_bytes()).hexdigest()


def optimizer(run: RunDir) -> dict[str, Any]:
    """Every number of the optimiser's state, tensors as bytes."""
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    moments = {
        (index, name): value.numpy().tobytes() for index, of in state["state"].items() for name, value in of.items()
    }
    return moments | {"groups": state["param_groups"]}


def state(run: RunDir) -> dict[str, Any]:
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint
    return read_state(checkpoint)


def groups(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """The saved completions of training and evaluation by file, in their order."""
    return {path.relative_to(run.path).as_posix(): _lines(path) for path in sorted(run.path.glob("*/**/*.jsonl"))}


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        for rollout in line["rollouts"]:
            del rollout["verdict"]["seconds"]
    return lines
