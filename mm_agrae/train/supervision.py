"""Phases of a step under deadlines. A run that stalls leaves a table of its ranks and their stacks, and ends.

Two threads of every rank look at what its main thread does. One keeps logs/rank_<n>.json up to date, and when a phase
is over its deadline, it writes logs/stall_rank<n>.txt and names the stall in a file of this launch, which the other
ranks see. A folder or a terminal may hold that thread for ever, so the other one touches neither: it reads the clock,
waits a bounded time for the files, and ends the process without its main thread, which may wait in a collective for
ever. A checkpoint is safe from that by construction. A call that holds the interpreter's lock for ever is seen by the
other ranks only.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
# What writing may take: of a stall beyond waiting for the other ranks, and of the last word of a run.
_FILES_S = 10.0


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


@dataclass(frozen=True, kw_only=True)
class _Signals:
    """How the two threads of a watch call each other.

    Attributes:
        wake_clock: The thread of the clock is to look now.
        wake_files: The thread of the files is.
        stalled_elsewhere: Another rank found a stall.
        told: Everything about it is in the files, or nothing more comes.
    """

    wake_clock: threading.Event = field(default_factory=threading.Event)
    wake_files: threading.Event = field(default_factory=threading.Event)
    stalled_elsewhere: threading.Event = field(default_factory=threading.Event)
    told: threading.Event = field(default_factory=threading.Event)


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
        self._patience_s = 2 * self._interval_s + 1  # for other ranks, which look now and then
        self._present: _Present | None = None
        self._over: _Present | None = None
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
        self._over, signals = None, _Signals()
        looks = threading.Thread(target=self._run_clock, args=(signals,), name="supervision", daemon=True)
        keeps = threading.Thread(target=self._run_files, args=(signals,), name="supervision files", daemon=True)
        looks.start()
        keeps.start()
        try:
            yield
        finally:
            self._present = None
            signals.wake_clock.set()
            signals.wake_files.set()
            looks.join()
            keeps.join(_FILES_S)

    def _run_clock(self, signals: _Signals) -> None:
        """The thread of the clock: until the watch stops or the run has stalled. Nothing here can hold it."""
        while (present := self._present) is not None:
            if present.seconds > self._config.supervision.limit_s(present.phase):
                self._over = present
            if self._over or signals.stalled_elsewhere.is_set():
                self._finish(signals)
                return
            signals.wake_clock.wait(self._interval_s)

    def _finish(self, signals: _Signals) -> None:
        """Give the other thread its time to tell of the stall, and end."""
        try:
            signals.wake_files.set()
            if not signals.told.wait(self._patience_s + _FILES_S):
                _within(1.0, self._say_without_files)
        finally:
            self._end(STALLED)

    def _run_files(self, signals: _Signals) -> None:
        """The thread of the files: keeps the entry of this rank, looks for stalls of others, tells of its own."""
        try:
            while self._over is None and (present := self._present) is not None:
                self._write(present.name, present.seconds)
                if os.path.exists(self._marker):
                    signals.stalled_elsewhere.set()
                    signals.wake_clock.set()
                    self._follow()
                    return
                signals.wake_files.wait(self._interval_s)
            if self._over:
                self._lead(self._over)
            else:
                self._write("ended", 0.0)
        finally:
            signals.told.set()

    def _lead(self, present: _Present) -> None:
        """The first rank that finds a stall: tell the others, wait for their stacks, print the table."""
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:
            self._follow()
            return
        except OSError as error:
            self._say(f"supervision cannot tell the other ranks of a stall: {error}")
        self._dump(present)
        self._wait(lambda: all(entry is not None and entry["stalled"] for entry, _ in self._entries()))
        text = (
            f"{self._error(present)}\n{table(self._entries())}\nStacks of all threads: {self._folder}/stall_rank*.txt. "
            "Mend the cause or raise the deadline, and go on with --resume."
        )
        self._say(text)
        self._store(self._marker, text + "\n")

    def _follow(self) -> None:
        """Another rank found a stall: add this rank's stacks, and wait for the table."""
        self._dump(self._present or _now(None))
        self._wait(lambda: self._marker.stat().st_size > 0)
        self._say(f"rank {self._place.rank} ends because the run has stalled; see {self._marker}")

    def _error(self, present: _Present) -> str:
        limit_s = self._config.supervision.limit_s(present.phase)
        what = f"phase {present.name}" if present.phase else "what comes between phases"
        whose = "" if present.phase else ", the sum over all phases"
        return (
            f"error: rank {self._place.rank} of {self._place.size} has been in {what} of step {self.step} for "
            f"{present.seconds:.1f} s, over its deadline of {limit_s:g} s{whose} (supervision.deadline_s, "
            "deadlines_s), so the run counts as stalled and ends."
        )

    def _dump(self, present: _Present) -> None:
        path = self._folder / f"stall_rank{self._place.rank}.txt"
        try:
            with path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            self._say(f"supervision cannot write {path}: {error}")
        self._write(present.name, present.seconds, stalled=True)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """For the other ranks; not for long, because one may be gone."""
        until = time.monotonic() + self._patience_s
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
            told, self._cannot_write = self._cannot_write, True
            if not told:
                self._say(f"supervision cannot write {path} ({error}); a stall is still found, its table may be old")

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

    def _say_without_files(self) -> None:
        """Where the folder of the run does not answer, the stacks go where the error goes."""
        stalled = self._error(self._over) if self._over else f"error: rank {self._place.rank} ends because of a stall."
        self._say(f"{stalled}\n{self._folder} does not answer either, so stacks follow here. Resume with --resume.")
        with contextlib.suppress(OSError):
            faulthandler.dump_traceback(2, all_threads=True)

    @staticmethod
    def _say(line: str) -> None:
        # Not through sys.stderr: the main thread may hold its lock. That nobody hears it keeps no run from ending.
        with contextlib.suppress(OSError):
            os.write(2, (line + "\n").encode())


def _within(seconds: float, work: Callable[[], object]) -> None:
    """Do something, and leave it undone when it takes longer."""
    thread = threading.Thread(target=work, name="supervision words", daemon=True)
    thread.start()
    thread.join(seconds)


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
