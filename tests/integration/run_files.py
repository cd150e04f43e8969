"""What a run left on disk, without the times that no two runs share."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from same_run import groups, metrics

from mm_agrae.store.checkpoint import latest_checkpoint, read_state
from mm_agrae.store.run_dir import RunDir


def check_same(run: RunDir, straight: RunDir) -> None:
    """To the last bit, in everything that decides how they would go on."""
    for left in (metrics, weights, optimizer, state, groups):
        assert left(run) == left(straight), left.__name__


def weights(run: RunDir) -> str:
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint
    return hashlib.sha256((checkpoint / "model" / "model.safetensors").read_bytes()).hexdigest()


def optimizer(run: RunDir) -> dict[str, bytes]:
    """Every number of the optimiser's state."""
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint
    tensors = load_file(checkpoint / "optimizer.safetensors")
    assert {name.partition("/")[0] for name in tensors} == {"exp_avg", "exp_avg_sq", "step"}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def state(run: RunDir) -> dict[str, Any]:
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint
    return read_state(checkpoint)


def copied(run: RunDir, folder: Path) -> RunDir:
    """The same run once more, to be damaged."""
    shutil.copytree(run.path, folder)
    return RunDir.open(folder)


def write_state(run: RunDir, **changes: Any) -> None:
    """Change the state of the latest checkpoint, and its marker with it, as if it had been saved so."""
    path = latest_checkpoint(run.checkpoints)
    assert path
    text = json.dumps({**read_state(path), **changes}).encode()
    rewrite(path, "state.json", text)


def rewrite(checkpoint: Path, name: str, content: bytes) -> None:
    """Change a file of a checkpoint, and its marker with it."""
    (checkpoint / name).write_bytes(content)
    marker = json.loads((checkpoint / "COMPLETE").read_text(encoding="utf-8"))
    marker["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / "COMPLETE").write_text(json.dumps(marker), encoding="utf-8")
