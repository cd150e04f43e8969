"""The worker processes of a pool: hired in milliseconds from one parent that holds the algebra in memory."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mm_agrae
from mm_agrae.verify.equivalence import Comparison

REQUEST = struct.Struct("!q")  # what the parent of the workers is told: 0 with a new socket, else who was killed
_START_S = 120.0  # importing sympy takes seconds; a loaded machine gets time
_GRACE_S = 0.5  # between the alarm inside a worker and its kill
_END_S = 10.0  # for the parent to bury its workers


@dataclass(eq=False)
class Worker:
    """One worker: the socket to it, the comparison that it holds, and since when. Without a pid it is starting.

    `parent` is the number of the process that forks it, from 1.
    """

    connection: Connection
    timeout_s: float
    sent_at: float
    parent: int
    pid: int | None = None
    comparison: Comparison | None = None

    @property
    def deadline(self) -> float:
        """When the worker must have spoken; an idle one never has to."""
        if self.pid is None:
            return self.sent_at + _START_S
        return self.sent_at + self.timeout_s + _GRACE_S if self.comparison else float("inf")

    @property
    def is_busy(self) -> bool:
        """Whether the worker has something to say: that it is ready, or an outcome."""
        return self.pid is None or self.comparison is not None

    def send(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.sent_at = time.monotonic()
        self.connection.send_bytes(json.dumps(asdict(comparison)).encode())

    def receive(self) -> dict[str, Any]:
        return json.loads(self.connection.recv_bytes())


class _Parent:
    """The process that imports the algebra and forks the workers; see mm_agrae.verify.worker."""

    def __init__(self, *, timeout_s: float, memory_bytes: int) -> None:
        self.control, theirs = socket.socketpair()
        # The package's own root comes first on the path, so that a worker runs the code of its parent from anywhere.
        root = str(Path(mm_agrae.__file__).resolve().parent.parent)
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        command = [sys.executable, "-m", "mm_agrae.verify.worker"]
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(timeout_s), str(memory_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
            )

    def fork(self) -> Connection:
        """Ask for a worker and return our end of its socket; the worker says on it when it is ready.

        Raises:
            OSError: If the parent is gone.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self.control, [REQUEST.pack(0)], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return Connection(ours.detach())

    def bury(self, pid: int) -> None:
        with suppress(OSError):  # the parent is gone, and its workers are the system's to bury
            self.control.sendall(REQUEST.pack(pid))

    def close(self) -> int:
        """End the parent, which first ends its workers; returns its exit code."""
        self.control.close()
        try:
            return self.process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Staff:
    """The workers that are alive and the process that forks them. Nothing runs before the first is hired."""

    def __init__(self, *, timeout_s: float, memory_bytes: int) -> None:
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self.workers: list[Worker] = []
        self._parent: _Parent | None = None
        self._num_parents = 0
        self._is_proven = False

    def hire(self) -> None:
        """Add a worker. It may be given work once it has told its pid."""
        if self._parent is not None:
            with suppress(OSError):  # somebody killed it: start another one
                self._add(self._parent.fork())
                return
            self._parent.close()
        self._parent = _Parent(timeout_s=self.timeout_s, memory_bytes=self.memory_bytes)
        self._num_parents += 1
        self._is_proven = False
        self._add(self._parent.fork())

    def dismiss(self, worker: Worker) -> None:
        """End a worker, whatever it is doing."""
        self.workers.remove(worker)
        worker.connection.close()
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)  # its parent keeps the id from being used again until it is buried
            if self._parent is not None and worker.parent == self._num_parents:  # no other one can bury it
                self._parent.bury(worker.pid)

    def welcome(self, worker: Worker, pid: int) -> None:
        """A worker is ready, so its parent can start workers."""
        worker.pid = pid
        self._is_proven |= worker.parent == self._num_parents

    def excuse(self, worker: Worker) -> bool:
        """Dismiss a worker that did not get ready, if that is no wonder; the next hire starts another parent.

        Returns:
            False where the present parent never started one: another parent would not do better.
        """
        if worker.parent == self._num_parents and not self._is_proven:
            return False
        self.dismiss(worker)
        if worker.parent == self._num_parents and self._parent is not None:
            self._parent.process.kill()  # before its control closes, at which it would end the workers that go on
            self._parent.close()
            self._parent = None
        return True

    def close(self) -> int | None:
        """End all processes; returns the exit code of the workers' parent, None when there was none."""
        for worker in list(self.workers):
            self.dismiss(worker)
        parent, self._parent = self._parent, None
        return None if parent is None else parent.close()

    def _add(self, connection: Connection) -> None:
        worker = Worker(
            connection=connection, timeout_s=self.timeout_s, sent_at=time.monotonic(), parent=self._num_parents
        )
        self.workers.append(worker)
