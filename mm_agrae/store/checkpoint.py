"""Checkpoints that survive a kill at any instant and a full disk.

Order of a save, and what a kill leaves behind at each point:

1. `.step_000010.tmp/` is filled and made durable     -> a hidden leftover, removed by the next save
2. it is renamed to `step_000010/`                    -> a folder without COMPLETE, ignored, replaced by the next save
3. `step_000010/COMPLETE` appears (itself by rename)  -> a checkpoint

COMPLETE holds the size and the SHA-256 of every file, so that a flipped bit is found before a run goes on with it.
Older checkpoints are touched by none of this; `prune` removes them later, and only beside newer complete ones.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mm_agrae.errors import CheckpointError
from mm_agrae.store.atomic import fsync_directory, fsync_tree, write_json
from mm_agrae.store.run_dir import step_name, step_of

COMPLETE = "COMPLETE"
STATE = "state.json"

_REMEDY = "Restore the file, or move the checkpoint away, so that --resume goes on from the one before it."


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
        write_json(final / COMPLETE, {"files": _marks(final)})
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
    found = complete_checkpoints(root)
    return found[max(found)] if found else None


def complete_checkpoints(root: Path) -> dict[int, Path]:
    """The complete checkpoints by their steps, in that order."""
    root = Path(root)
    if not root.is_dir():
        return {}
    steps = [(step, path) for path in root.iterdir() if (step := step_of(path.name)) is not None]
    return {step: path for step, path in sorted(steps) if (path / COMPLETE).is_file()}


def read_state(path: Path) -> dict[str, Any]:
    """The state.json of a complete checkpoint. Sizes of files are looked at, their bytes are not: see `check_files`.

    Raises:
        CheckpointError: If the folder is missing or unfinished, a file is missing or has another size than when it
            was saved, or state.json cannot be read.
    """
    path = Path(path)
    for name, mark in file_marks(path).items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != mark["bytes"]:
            raise CheckpointError(
                f"{file} {'is missing' if found is None else f'has {found} bytes'}, but had {mark['bytes']} bytes when "
                f"the checkpoint was saved. {_REMEDY}"
            )
    return _read_object(path / STATE)


def check_files(path: Path) -> None:
    """Read every file of a complete checkpoint and compare it with what was saved.

    Raises:
        CheckpointError: As `read_state`, or if a file holds other bytes than it was saved with.
    """
    path = Path(path)
    read_state(path)
    for name, mark in file_marks(path).items():
        if file_sha256(path / name) != mark["sha256"]:
            raise CheckpointError(
                f"{path / name} is damaged: its bytes are not those that were saved (their SHA-256 differs). {_REMEDY}"
            )


def file_marks(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> {"bytes", "sha256"} of every file of a complete checkpoint, as they were when it was saved.

    Raises:
        CheckpointError: If the folder is missing or unfinished, or its marker is damaged or that of an earlier version.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist. Name a folder such as checkpoints/{step_name(10)}.")
    if not (path / COMPLETE).is_file():
        raise CheckpointError(
            f"checkpoint {path} has no {COMPLETE} marker: its save was interrupted. Use an earlier checkpoint."
        )
    marks = _read_object(path / COMPLETE).get("files")
    if isinstance(marks, dict) and marks and all(isinstance(mark, int) for mark in marks.values()):
        raise CheckpointError(
            f"checkpoint {path} was saved by an earlier version, in another format (its optimiser as a pickle, its "
            "files without digests). Resume it with the version that saved it, or start a new run from its model/ "
            "folder (model.path)."
        )
    if not isinstance(marks, dict) or STATE not in marks or not all(map(_is_mark, marks.values())):
        raise CheckpointError(
            f"{path / COMPLETE} must name {STATE} and every other file with its size and its SHA-256, but does not. "
            f"{_REMEDY}"
        )
    return marks


def _is_mark(mark: object) -> bool:
    return isinstance(mark, dict) and isinstance(mark.get("bytes"), int) and isinstance(mark.get("sha256"), str)


def prune(root: Path, keep: int, *, spare: Collection[int] = ()) -> None:
    """Remove all complete checkpoints but the newest `keep` and those of the steps in `spare`, oldest first.

    Raises:
        ValueError: If `keep` is below 1: the last checkpoint is never removed.
    """
    if keep < 1:
        raise ValueError(f"checkpoints to keep is {keep}, but must be at least 1: the last one is never removed.")
    found = complete_checkpoints(root)
    for step in [step for step in list(found)[:-keep] if step not in spare]:
        # Renamed first, so that a kill in the middle leaves no folder that says COMPLETE and is not.
        doomed = found[step].with_name(f".{found[step].name}.tmp")
        os.rename(found[step], doomed)
        shutil.rmtree(doomed)


def _remove_leftovers(root: Path) -> None:
    for path in root.glob(".step_*.tmp"):
        shutil.rmtree(path)


def _marks(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in files
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). {_REMEDY}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, but must hold an object. {_REMEDY}")
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
    number = error.errno if isinstance(error, OSError) else None
    return any(number == full or os.strerror(full) in str(error) for full in (errno.ENOSPC, errno.EDQUOT))
