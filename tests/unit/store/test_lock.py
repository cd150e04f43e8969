"""The lock of a run: one process, until it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mm_agrae.errors import CheckpointError
from mm_agrae.store import lock
from mm_agrae.store.lock import hold

# Holds the lock in a process that has forked another, says so, and waits to be killed.
HOLDER = """
import os, pathlib, sys, time
from mm_agrae.store.lock import hold
held = hold(pathlib.Path(sys.argv[1]), print)
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


def ignore(line: str) -> None:
    """Nobody reads these lines."""


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(CheckpointError, match=rf"is in use by process {holder.pid} on .*Wait until it has"):
                hold(path, ignore)
            holder.kill()
            holder.wait()
            # The process that it forked lives on and holds nothing.
            held = hold(path, ignore)
            assert held
            assert path.read_text().startswith(f"process {os.getpid()} on ")
            held.close()
        finally:
            os.kill(child, signal.SIGKILL)
            holder.kill()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "lockf", refused)
    said: list[str] = []
    assert hold(tmp_path / "lock", said.append) is None
    assert "cannot be locked (No locks available)" in said[0]
