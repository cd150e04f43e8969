"""Checkpoints that survive a kill at any instant and a full disk.

Order of a save, and what a kill leaves behind at each point:

1. `.step_000010.tmp/` is filled and made durable     -> a hidden leftover, removed by the next save
2. it is renamed to `step_000010/`                    -> a folder without COMPLETE, ignored, replaced by the next save
3. `step_000010/COMPLETE` appears (itself by rename)  -> a checkpoint

Older checkpoints are touched by none of this; `prune` removes them later, and only beside newer complete ones.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mm_agrae.errors import CheckpointError
from mm_agrae.store.atomic import fsync_directory, fsync_tree, write_json
from mm_agrae.store.run_dir import step_name, step_of

COMPLETE = "COMPLETE"
STATE = "state.json"


def save_checkpoint(root: Path, step: int, *, write: Callable[[Path], None], state: Mapping[str, Any]) -> Path:
    """Save one checkpoint; it is there as a whole or not at all.

    Args:
        root: Folder of the run's checkpoints; made when missing. One process writes to it.
        step: Updates behind the weights; names the checkpoint.
        write: Called with an empty folder, in which it writes model, optimiser and whatever else is large.
        state: JSON values for state.json; "step" is added.

    Returns:
        The folder of the checkpoint.

    Raises:
        CheckpointError: If a complete checkpoint of this step exists, or anything went wrong while saving (the cause
            is chained). What was written of it is removed then, and older checkpoints are intact.
    """
    root = Path(root)
    final, temporary = root / step_name(step), root / f".{step_name(step)}.tmp"
    if (final / COMPLETE).exists():
        raise CheckpointError(
            f"{final} is already a complete checkpoint, and a checkpoint is never overwritten. "
            "Resume from the latest checkpoint, or name another run folder."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        temporary.mkdir()
        write(temporary)
        write_json(temporary / STATE, {**state, "step": step})
        fsync_tree(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        fsync_directory(root)
        write_json(final / COMPLETE, {"files": _sizes(final)})
    except Exception as error:
        raise CheckpointError(_failure(root, step, error)) from error
    finally:
        # Also on KeyboardInterrupt: gigabytes of half a checkpoint must not stay.
        shutil.rmtree(temporary, ignore_errors=True)
        if not (final / COMPLETE).exists():
            shutil.rmtree(final, ignore_errors=True)
    return final


def latest_checkpoint(root: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None. Unfinished ones are ignored."""
    found = _complete(Path(root))
    return found[-1] if found else None


def read_state(path: Path) -> dict[str, Any]:
    """The state.json of a complete checkpoint.

    Raises:
        CheckpointError: If the folder is missing or unfinished, a file is missing or has another size than when it
            was saved, or state.json cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist. Name a folder such as checkpoints/{step_name(10)}.")
    if not (path / COMPLETE).is_file():
        raise CheckpointError(
            f"checkpoint {path} has no {COMPLETE} marker: its save was interrupted. Use an earlier checkpoint."
        )
    for name, size in _read_object(path / COMPLETE).get("files", {}).items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise CheckpointError(
                f"{file} {'is missing' if found is None else f'has {found} bytes'}, but had {size} bytes when the "
                "checkpoint was saved. Use another checkpoint or restore the file."
            )
    return _read_object(path / STATE)


def prune(root: Path, keep: int) -> None:
    """Remove all complete checkpoints but the newest `keep`, oldest first.

    Raises:
        ValueError: If `keep` is below 1: the last checkpoint is never removed.
    """
    if keep < 1:
        raise ValueError(f"checkpoints to keep is {keep}, but must be at least 1: the last one is never removed.")
    for path in _complete(Path(root))[:-keep]:
        # Renamed first, so that a kill in the middle leaves no folder that says COMPLETE and is not.
        doomed = path.with_name(f".{path.name}.tmp")
        os.rename(path, doomed)
        shutil.rmtree(doomed)


def _complete(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    steps = [(step, path) for path in root.iterdir() if (step := step_of(path.name)) is not None]
    return [path for _, path in sorted(steps) if (path / COMPLETE).is_file()]


def _remove_leftovers(root: Path) -> None:
    for path in root.glob(".step_*.tmp"):
        shutil.rmtree(path)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Use another checkpoint.") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a {type(value).__name__}, but must hold an object. Use another checkpoint."
        )
    return value


def _failure(root: Path, step: int, error: Exception) -> str:
    newest = latest_checkpoint(root)
    kept = f"earlier checkpoints are intact, the newest is {newest.name}" if newest else "there is no earlier one"
    what = f"saving checkpoint {step_name(step)} in {root} failed ({type(error).__name__}: {error})"
    if _disk_full(error):
        return f"the disk is full: {what}. What was written of it is removed; {kept}. Free space, then use --resume."
    return f"{what}. What was written of it is removed; {kept}. Mend the cause, then use --resume."


def _disk_full(error: Exception) -> bool:
    # Serialisers in native code raise their own errors, with the system's words in the message.
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
