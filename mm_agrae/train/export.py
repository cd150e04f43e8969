"""A checkpoint's model as a folder of its own, for other programs."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.policy.load import load_policy
from mm_agrae.policy.snapshot import save_weights
from mm_agrae.store.atomic import fsync_directory, fsync_tree
from mm_agrae.store.checkpoint import check_files, complete_checkpoints, file_sha256
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.best import best_step
from mm_agrae.train.saving import MODEL_FOLDER


def choose_checkpoint(run_dir: RunDir, step: int | None, *, best: bool) -> Path:
    """The newest checkpoint, that of a step, or the one that measured best.

    Raises:
        ConfigError: A step and the best are both asked for.
        CheckpointError: There is no such checkpoint.
    """
    if best and step is not None:
        raise ConfigError(f"--best and --step {step} name two checkpoints. Give one of them.")
    found = complete_checkpoints(run_dir.checkpoints)
    if not found:
        raise CheckpointError(f"{run_dir.path} has no checkpoint. Name a run that has saved one.")
    if best:
        step = best_step(run_dir)
        if step is None:
            raise CheckpointError(
                f"{run_dir.path} has no best checkpoint, because train.keep_best is not set. Resume it with "
                "train.keep_best=METRIC, or choose a checkpoint by --step."
            )
    if step is None:
        step = max(found)
    if step not in found:
        raise CheckpointError(
            f"{run_dir.path} has no checkpoint after step {step}; it has those after {', '.join(map(str, found))}. "
            "Name one of them."
        )
    return found[step]


def export(checkpoint: Path, out: Path, *, merge: bool) -> str:
    """Write the model folder of a checkpoint; it is there as a whole or not at all.

    Args:
        checkpoint: A complete checkpoint.
        out: Folder to make; what is there is never overwritten.
        merge: Fold the adapters of a LoRA run into the model that they adapt.

    Returns:
        SHA-256 over the names and the SHA-256 of its files.

    Raises:
        CheckpointError: The checkpoint is damaged, or there is something at `out`.
        ConfigError: There is nothing to merge, or the model below the adapters cannot be loaded.
    """
    source = checkpoint / MODEL_FOLDER
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists, and an export overwrites nothing. Name a folder that does not exist.")
    if merge and not (source / "adapter_config.json").is_file():
        raise ConfigError(f"{source} is a whole model without adapters, so there is nothing to --merge. Leave it out.")
    check_files(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        if merge:
            save_weights(load_policy(ModelConfig(path=str(source), device="cpu"), trained=False), temporary)
        else:
            shutil.copytree(source, temporary)
        fsync_tree(temporary)
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_directory(out.parent)
    return _digest(out)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\x1f{file_sha256(path)}\x1e".encode())
    return digest.hexdigest()
