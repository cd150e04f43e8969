"""Measurements in processes of their own, kept in a journal, so that a benchmark that was stopped goes on.

A fresh process per measurement makes peak memory comparable (nothing is left of the one before) and keeps one way's
warm caches from another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Arguments = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Measures by running a script with `--one`.

    Attributes:
        script: Prints one JSON object as the last line of its output.
        journal: One line per finished measurement; None keeps nothing.
        threads: Of every process.
    """

    script: Path
    journal: Path | None
    threads: int

    def measure(self, arguments: Arguments) -> dict[str, Any]:
        """What the script finds for these arguments, from the journal where it stands there already."""
        key = json.dumps({**arguments, "threads": self.threads}, sort_keys=True)
        if self.journal is None:
            return self._run(key)
        if self.journal.exists():
            for line in self.journal.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                if entry["arguments"] == key:
                    return entry["found"]
        found = self._run(key)
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"arguments": key, "found": found}) + "\n")
        return found

    def _run(self, key: str) -> dict[str, Any]:
        ended = subprocess.run(
            [sys.executable, str(self.script), "--one", key],
            # Waiting threads that spin would take the cores from the other process of a verifier.
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "passive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            raise SystemExit(f"a measurement failed: {key}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
        return json.loads(ended.stdout.splitlines()[-1])


def with_peak(run: Callable[[], Any]) -> int:
    """Run, and return by how many bytes the process grew beyond what it held before, at most (Linux, resident set)."""
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = _status_bytes(status, "VmRSS")
    run()
    return _status_bytes(status, "VmHWM") - before


def _status_bytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
