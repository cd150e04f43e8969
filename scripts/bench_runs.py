"""Measurements in processes of their own, kept in a journal, so that a benchmark that was stopped goes on.

A fresh process per measurement makes peak memory comparable (nothing is left of the one before) and keeps one way's
warm caches from another. What other code or other libraries have measured is not taken from a journal.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
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
        text = self.journal.read_text(encoding="utf-8") if self.journal.exists() else ""
        made_by = provenance()
        for entry in _readable(text):
            if (entry["arguments"], entry["made_by"]) == (key, made_by):
                return entry["found"]
        found = self._run(key)
        # A line that was cut off is left alone, and the new one starts behind it.
        fresh = "" if not text or text.endswith("\n") else "\n"
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(fresh + json.dumps({"arguments": key, "made_by": made_by, "found": found}) + "\n")
        return found

    def _run(self, key: str) -> dict[str, Any]:
        ended = subprocess.run(
            [sys.executable, str(self.script), "--one", key],
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            raise SystemExit(f"a measurement failed: {key}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
        return json.loads(ended.stdout.splitlines()[-1])


def _readable(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # written while the benchmark was stopped
            continue
    return found


def provenance() -> dict[str, str | None]:
    """What a measurement depends on besides its arguments: our revision, changes not in it, and libraries.

    None stands for what is not there: no repository, no changes, no such library.
    """

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        return ended.stdout.strip() or None if ended.returncode == 0 else None

    changes = git("diff", "HEAD")
    return {
        "revision": git("rev-parse", "HEAD"),
        "dirty": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else None,
        **{name: _version(name) for name in ("torch", "transformers", "trl")},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def arguments(text: str | None, *, quick: str) -> argparse.ArgumentParser:
    """What every speed benchmark takes."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def add_arguments_of_runs(parser: argparse.ArgumentParser) -> None:
    """What those take that measure in processes of their own, beside TRL."""
    parser.add_argument("--without-peer", action="store_true", help="leave TRL out")
    parser.add_argument("--profile", action="store_true", help="only say where our time goes")
    parser.add_argument("--journal", type=Path, help="keep finished measurements here, and take them from here")
    parser.add_argument("--one", help=argparse.SUPPRESS)


def check_arguments(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """Stop at once where they do not go together, or TRL is not there."""
    if chosen.profile and chosen.json:
        parser.error("--profile prints text for people, so it cannot go with --json")
    if not (chosen.without_peer or chosen.profile) and importlib.util.find_spec("trl") is None:
        raise SystemExit("TRL is not installed: pip install -e '.[bench]', or leave it out with --without-peer.")


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
