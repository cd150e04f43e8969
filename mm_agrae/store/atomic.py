"""Files that appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that a reader, or a kill at any instant, sees the old file or the new one.

    Raises:
        OSError: If the disk does not take it; the old file is then untouched and the temporary one removed.
    """
    write_stream(path, (text,))


def write_stream(path: Path, parts: Iterable[str]) -> None:
    """The same for a text that comes in parts, of which one at a time is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # newline="" keeps the text as given: a recipe is stored byte for byte.
        with temporary.open("w", encoding="utf-8", newline="") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON (no NaN, no infinity), indented, atomically.

    Raises:
        TypeError: If a value has no JSON form.
        ValueError: If a number is not finite.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite_or_none(value: float) -> float | None:
    """The number, or None where JSON has no word for it (NaN and the infinities)."""
    return value if math.isfinite(value) else None


def fsync_directory(path: Path) -> None:
    """Make renames inside the folder durable; a rename that is only in memory is lost with the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Make every file and folder below `root` durable, whoever wrote them."""
    for folder, _, names in os.walk(root):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        fsync_directory(Path(folder))
