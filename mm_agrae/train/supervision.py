"""Phases of a step under deadlines. A run that stalls leaves a table of its ranks and their stacks, and ends.

A thread of every rank looks at what its main thread does. It keeps logs/rank_<n>.json up to date, and when a phase is
over its deadline, it writes logs/stall_rank<n>.txt and names the stall in a file of this launch, which the other ranks
see. The process ends without its main thread, which may wait in a collective for ever; a checkpoint is safe from that
by construction. A call that holds the interpreter's lock for ever is seen by the other ranks only.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_agrae.config import RunConfig
from mm_agrae.config.supervision import Phase
from mm_agrae.train.memory import shortage_told

# What a rank wrote of itself (None where it wrote nothing), and when.
Seen = tuple[Mapping[str, Any] | None, float]

STALLED = 75  # exit status; in sysexits.h a failure that another try may not meet
_MAX_INTERVAL_S = 5.0
_LOOKS = 8  # at least so many within the shortest deadline


@dataclass(frozen=True, kw_only=True)
class Place:
    """One process of a launch; `launch` is a name that all of its processes share and no other launch has."""

    rank: int
    size: int
    launch: str


@dataclass(frozen=True, kw_only=True)
class _Present:
    """The phase that goes on, None between phases, and since when."""

    phase: Phase | None
    since: float

    @property
    def name(self) -> str:
        return self.phase or "between phases"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


def _now(phase: Phase | None) -> _Present:
    return _Present(phase=phase, since=time.monotonic())


class Watch:
    """Supervises one rank.

    Attributes:
        step: The step that is being made, for the table.
    """

    def __init__(
        self, folder: Path, place: Place, config: RunConfig, *, end: Callable[[int], object] = os._exit
    ) -> None:
        """Nothing runs before the first phase.

        Args:
            folder: Where ranks see each other: the logs of the run.
            place: Which process this is.
            config: Deadlines, and the settings that are named when memory runs out.
            end: Ends the process with a status, from any thread.
        """
        self.step = 0
        self._folder = folder
        self._place = place
        self._config = config
        self._end = end
        self._interval_s = min(_MAX_INTERVAL_S, config.supervision.shortest_s / _LOOKS)
        self._marker = folder / f"stall_{place.launch}.txt"
        self._present: _Present | None = None
        self._cannot_write = False

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Watch everything inside. What no phase names has the longest deadline: ranks wait there for one another."""
        with self._inside(None):
            yield

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Watch what is inside under the deadline of this phase; its end is progress of the phase around it.

        Raises:
            ShortOfMemoryError: Memory ran out inside.
        """
        with self._inside(name), shortage_told(name, self._config, lambda: f"in phase {name} of step {self.step}"):
            yield

    def get_on(self) -> None:
        """Start the deadline of the present phase anew, because a part of it is done."""
        if self._present is not None:
            self._present = _now(self._present.phase)

    @contextmanager
    def _inside(self, phase: Phase | None) -> Iterator[None]:
        outer = self._present
        self._present = _now(phase)
        if outer is not None:
            try:
                yield
            finally:
                self._present = _now(outer.phase)
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,), name="supervision", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._present = None
            stop.set()
            thread.join()
            self._write("ended", 0.0)

    def _look(self, stop: threading.Event) -> None:
        """The thread: until the watch stops or the run has stalled."""
        while (present := self._present) is not None:
            is_over = present.seconds > self._config.supervision.limit_s(present.phase)
            if is_over and self._present is present:  # it may have ended since, while a slow disk held this thread
                return self._lead(present)
            self._write(present.name, present.seconds)
            if self._marker.exists():
                return self._follow(present)
            if stop.wait(self._interval_s):
                return None
        return None

    def _lead(self, present: _Present) -> None:
        """The first rank that finds a stall: tell the others, wait for their stacks, print the table, end."""
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:
            return self._follow(present)
        except OSError as error:
            self._say(f"supervision cannot tell the other ranks of a stall: {error}")
        self._dump(present)
        self._wait(lambda: all(entry is not None and entry["stalled"] for entry, _ in self._entries()))
        limit_s = self._config.supervision.limit_s(present.phase)
        what = f"phase {present.name}" if present.phase else "what comes between phases"
        text = (
            f"error: rank {self._place.rank} of {self._place.size} has been in {what} of step {self.step} for "
            f"{present.seconds:.1f} s, over its deadline of {limit_s:g} s (supervision.deadline_s, deadlines_s), so "
            f"the run counts as stalled and ends.\n{table(self._entries())}\nStacks of all threads: "
            f"{self._folder}/stall_rank*.txt. Mend the cause or raise the deadline, and go on with --resume."
        )
        self._say(text)
        self._store(self._marker, text + "\n")
        self._end(STALLED)
        return None

    def _follow(self, present: _Present) -> None:
        """Another rank found a stall: add this rank's stacks, and end once the table is there."""
        self._dump(present)
        self._wait(lambda: self._marker.stat().st_size > 0)
        self._say(f"rank {self._place.rank} ends because the run has stalled; see {self._marker}")
        self._end(STALLED)

    def _dump(self, present: _Present) -> None:
        path = self._folder / f"stall_rank{self._place.rank}.txt"
        try:
            with path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            self._say(f"supervision cannot write {path}: {error}")
        self._write(present.name, present.seconds, stalled=True)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """For the other ranks, which look now and then; not for long, because one may be gone."""
        until = time.monotonic() + 2 * self._interval_s + 1
        while time.monotonic() < until and not ready():
            time.sleep(0.02)

    def _write(self, name: str, seconds: float, *, stalled: bool = False) -> None:
        """Where this rank stands, for the table."""
        entry = {
            "launch": self._place.launch,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "step": self.step,
            "phase": name,
            "seconds": round(seconds, 3),
            "stalled": stalled,
        }
        self._store(self._folder / f"rank_{self._place.rank}.json", json.dumps(entry) + "\n")

    def _store(self, path: Path, text: str) -> None:
        """Replace a file; not made durable, because it says what is and not what was."""
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            if not self._cannot_write:
                self._say(f"supervision cannot write {path} ({error}); a stall is still found, its table may be old")
            self._cannot_write = True

    def _entries(self) -> list[Seen]:
        """What each rank of this launch wrote last, and how long before the last of all that was.

        Times are those of the file system, which all hosts share; clocks of hosts differ.
        """
        found = [self._entry(rank) for rank in range(self._place.size)]
        latest = max(written for _, written in found)
        return [(entry, latest - written) for entry, written in found]

    def _entry(self, rank: int) -> Seen:
        path = self._folder / f"rank_{rank}.json"
        try:
            entry, written = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
        except (OSError, ValueError):  # not there yet, or its disk is full
            return None, 0.0
        return (entry if entry["launch"] == self._place.launch else None), written

    @staticmethod
    def _say(line: str) -> None:
        # Not through sys.stderr: the main thread may hold its lock.
        os.write(2, (line + "\n").encode())


def table(entries: Sequence[Seen]) -> str:
    """One line per rank: where it stood when it was last seen."""
    lines = [f"{'rank':>4} {'step':>6}  {'phase':<14} {'seconds':>9}  last seen"]
    for rank, (entry, age) in enumerate(entries):
        if entry is None:
            lines.append(f"{rank:>4} {'-':>6}  {'-':<14} {'-':>9}  never")
            continue
        where = f"{entry['host']}, process {entry['pid']}"
        lines.append(
            f"{rank:>4} {entry['step']:>6}  {entry['phase']:<14} {entry['seconds']:>9.1f}  {age:.1f} s ago ({where})"
        )
    return "\n".join(lines)
