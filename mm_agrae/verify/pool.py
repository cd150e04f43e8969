"""Judge many completions with computer algebra in killable worker processes.

What needs no algebra is decided in the calling process. The rest goes to workers that are started when first needed,
each holding one comparison at a time under a deadline and a memory limit. A worker that hangs or dies costs its own
item and is replaced; the others never notice.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

import mm_agrae
from mm_agrae.errors import EngineError
from mm_agrae.records import Verdict
from mm_agrae.verify.equivalence import Comparison, Outcome
from mm_agrae.verify.question import Question
from mm_agrae.verify.verifier import Pending, begin, compare_answer, settle

_START_S = 120.0  # importing sympy takes a second; a loaded machine gets time
_GRACE_S = 0.5  # between the alarm inside a worker and its kill


class _Worker:
    """One worker process, the socket to it, and the comparison that it holds."""

    def __init__(self, *, timeout_s: float, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        # The package's own root comes first on the path, so that a worker runs the code of its parent from anywhere.
        root = str(Path(mm_agrae.__file__).resolve().parent.parent)
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        command = [
            sys.executable,
            "-m",
            "mm_agrae.verify.worker",
            str(theirs.fileno()),
            str(timeout_s),
            str(memory_bytes),
        ]
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
            )
        self.connection = Connection(ours.detach())
        self.timeout_s = timeout_s
        self.is_ready = False
        self.comparison: Comparison | None = None
        self.sent_at = time.monotonic()

    @property
    def deadline(self) -> float:
        """When the worker must have spoken; an idle one never has to."""
        if not self.is_ready:
            return self.sent_at + _START_S
        return self.sent_at + self.timeout_s + _GRACE_S if self.comparison else float("inf")

    def send(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.sent_at = time.monotonic()
        self.connection.send_bytes(json.dumps(asdict(comparison)).encode())

    def close(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


class VerifierPool:
    """Workers that judge completions. A context manager; not for use by several threads at once.

    Args:
        num_workers: Worker processes, at least 1. They start on the first comparison that needs algebra.
        timeout_s: Deadline of one comparison in seconds. An item that hangs is a timeout within timeout_s + 1.
        memory_bytes: Address space of one worker.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, num_workers: int = 2, timeout_s: float = 5.0, memory_bytes: int = 2**30) -> None:
        if num_workers < 1 or timeout_s <= 0 or memory_bytes < 1:
            raise ValueError(
                f"num_workers is {num_workers}, timeout_s {timeout_s}, memory_bytes {memory_bytes}, but a pool needs "
                "at least 1 worker, and more than 0 seconds and bytes. Raise what is too low."
            )
        self.num_workers = num_workers
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self._workers: list[_Worker] = []
        self._is_closed = False
        # Also at the end of an interpreter that never called close: no process outlives its pool.
        weakref.finalize(self, _close_all, self._workers)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. May be called again."""
        self._is_closed = True
        _close_all(self._workers)

    def verify_all(self, texts: Sequence[str], questions: Sequence[Question]) -> list[Verdict]:
        """Judge completions, each against its own question; verdicts come in the order of the texts.

        Raises:
            ValueError: If there are not as many questions as texts.
            EngineError: If the pool is closed or a worker cannot start.
        """
        if len(texts) != len(questions):
            raise ValueError(
                f"there are {len(texts)} texts and {len(questions)} questions, but each text needs its question. "
                "Repeat the question once per completion."
            )
        if self._is_closed:
            raise EngineError("the verifier pool is closed, but judging needs an open one. Make a new VerifierPool.")
        firsts = [begin(text, question) for text, question in zip(texts, questions, strict=True)]
        # Completions of one group often agree: equal comparisons are made once.
        comparisons = dict.fromkeys(first.comparison for first in firsts if isinstance(first, Pending))
        results = self._compare_all(deque(comparisons))
        return [
            first if isinstance(first, Verdict) else _settled(first, *results[first.comparison]) for first in firsts
        ]

    def same_answers(self, pairs: Sequence[tuple[str, str]], questions: Sequence[Question]) -> list[bool]:
        """Whether two extracted answers to a question are equal: the first is compared with the second as its target.

        A pair that cannot be decided in time counts as different.

        Args:
            pairs: Answers as verdicts hold them.
            questions: The question of each pair; its target plays no part.

        Raises:
            ValueError: If there are not as many questions as pairs.
            EngineError: If the pool is closed or a worker cannot start.
        """
        if len(pairs) != len(questions):
            raise ValueError(
                f"there are {len(pairs)} pairs of answers and {len(questions)} questions, but each pair needs its "
                "question. Repeat the question once per pair."
            )
        if self._is_closed:
            raise EngineError("the verifier pool is closed, but judging needs an open one. Make a new VerifierPool.")
        firsts = [
            compare_answer(answer, replace(question, target=other))
            for (answer, other), question in zip(pairs, questions, strict=True)
        ]
        comparisons = dict.fromkeys(first for first in firsts if isinstance(first, Comparison))
        results = self._compare_all(deque(comparisons))
        outcomes = [results[first][0] if isinstance(first, Comparison) else first for first in firsts]
        return [isinstance(outcome, Outcome) and outcome.equal for outcome in outcomes]

    def _compare_all(self, waiting: deque[Comparison]) -> dict[Comparison, tuple[Outcome | str, float]]:
        """An outcome, or the rule under which there is none, and the seconds spent, for every comparison."""
        results: dict[Comparison, tuple[Outcome | str, float]] = {}
        num_expected = len(waiting)
        try:
            while len(results) < num_expected:
                self._employ(waiting)
                self._listen(results)
        except BaseException:
            # Interrupted with comparisons under way: their late replies would answer the next call's questions.
            _close_all(self._workers)
            raise
        return results

    def _employ(self, waiting: deque[Comparison]) -> None:
        """Give idle workers something to do, and start workers while there is more to do than workers."""
        for worker in list(self._workers):
            if waiting and worker.is_ready and worker.comparison is None:
                comparison = waiting.popleft()
                try:
                    worker.send(comparison)
                except OSError:  # it died while idle, of which the item is innocent
                    waiting.appendleft(comparison)
                    self._dismiss(worker)
        num_starting = sum(not worker.is_ready for worker in self._workers)
        while len(self._workers) < self.num_workers and num_starting < len(waiting):
            self._workers.append(_Worker(timeout_s=self.timeout_s, memory_bytes=self.memory_bytes))
            num_starting += 1

    def _listen(self, results: dict[Comparison, tuple[Outcome | str, float]]) -> None:
        """Wait for the next reply, death or deadline, and act on it."""
        busy = [worker for worker in self._workers if not worker.is_ready or worker.comparison]
        if not busy:
            return
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        speaking = wait([worker.connection for worker in busy], timeout=patience)
        for worker in busy:
            if worker.connection in speaking:
                self._hear(worker, results)
            elif time.monotonic() >= worker.deadline:
                self._give_up(worker, "timeout", results)

    def _hear(self, worker: _Worker, results: dict[Comparison, tuple[Outcome | str, float]]) -> None:
        try:
            reply = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            self._give_up(worker, "worker_died", results)
            return
        if worker.comparison is None:
            worker.is_ready = True
            return
        seconds = time.monotonic() - worker.sent_at
        results[worker.comparison] = ("timeout" if "timeout" in reply else Outcome(**reply), seconds)
        worker.comparison = None

    def _give_up(self, worker: _Worker, rule: str, results: dict[Comparison, tuple[Outcome | str, float]]) -> None:
        """Dismiss a worker that hangs or died; the item that it held is lost, the next turn starts a replacement."""
        self._dismiss(worker)
        if worker.comparison is None:
            raise EngineError(
                f"a verifier worker ended with code {worker.process.returncode} before it was ready, but judging needs "
                f"{self.num_workers} of them. Its own message stands above; when there is none, memory_bytes "
                f"({self.memory_bytes}) may be too low to import sympy."
            )
        results[worker.comparison] = (rule, time.monotonic() - worker.sent_at)

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.close()


def _close_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().close()


def _settled(pending: Pending, result: Outcome | str, seconds: float) -> Verdict:
    if isinstance(result, str):
        return settle(pending, None, seconds=seconds, rule=result)
    return settle(pending, result, seconds=seconds)
