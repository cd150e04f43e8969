"""The problems that an evaluation has finished, on disk as it goes, so that an interrupted one can go on.

The first line says what is measured; every other line is one problem, in the order of the set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_agrae.errors import CheckpointError
from mm_agrae.store.rollout_log import json_line


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finished problem: its sampled completions, and its most probable one where that was drawn."""

    sampled: Mapping[str, Any]
    greedy: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Journal:
    """The journal of one set.

    Attributes:
        path: Its file.
        fingerprint: What is measured: problems, settings, seed, model.
    """

    path: Path
    fingerprint: str

    def begin(self) -> None:
        """Start an empty journal in place of any that is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json_line({"fingerprint": self.fingerprint}), encoding="utf-8")

    def resume(self) -> int:
        """Go on with the journal that is there, and begin one where there is none.

        A last line that was cut off, by a kill or a full disk, is removed.

        Returns:
            The number of finished problems.

        Raises:
            CheckpointError: The journal belongs to other problems, settings or weights, or a whole line is damaged.
        """
        if not self.path.exists():
            self.begin()
            return 0
        num_lines, end = 0, 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._check(line, num_lines)
                num_lines, end = num_lines + 1, end + len(line)
        if num_lines == 0:
            self.begin()
            return 0
        os.truncate(self.path, end)
        return num_lines - 1

    def append(self, entries: Sequence[Entry]) -> None:
        """Add finished problems; they are on disk when this returns."""
        text = "".join(json_line({"sampled": entry.sampled, "greedy": entry.greedy}) for entry in entries)
        with self.path.open("a", encoding="ascii", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> Iterator[Entry]:
        """The finished problems, one at a time."""
        with self.path.open(encoding="ascii") as file:
            next(file)
            for line in file:
                yield Entry(**json.loads(line))

    def _check(self, line: bytes, number: int) -> None:
        try:
            found = json.loads(line)
            if number:
                Entry(**found)
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"line {number + 1} of {self.path} is damaged ({error}), so its evaluation cannot go on. Remove the "
                "file to measure this set again."
            ) from error
        if not number and found != {"fingerprint": self.fingerprint}:
            raise CheckpointError(
                f"{self.path} was begun with other problems, other settings or another model, so its evaluation cannot "
                "go on. Restore the data, the protocol card and the model, or start a new run."
            )
