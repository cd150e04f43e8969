"""Judge many completions with computer algebra in killable worker processes.

What needs no algebra is decided in the calling process. The rest goes to workers that are started when first needed,
each holding one comparison at a time under a deadline and a memory limit. A worker that hangs or dies costs its own
item and is replaced; the others never notice.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import TracebackType
from typing import TypeVar

from mm_agrae.errors import EngineError
from mm_agrae.records import Verdict
from mm_agrae.verify.comparators import compare_answers
from mm_agrae.verify.outcome import Comparison, Outcome
from mm_agrae.verify.question import Question
from mm_agrae.verify.staff import Staff, Worker
from mm_agrae.verify.verifier import Pending, begin, settle

T = TypeVar("T")


@dataclass(frozen=True)
class _Result:
    """What became of a comparison: an outcome, or the rule under which there is none; and the seconds spent."""

    outcome: Outcome | None
    rule: str
    seconds: float


class _Desk:
    """Comparisons of one job: those that wait for a worker, and results that somebody still has to take.

    Completions of one group often agree: equal comparisons that are on the desk together are made once.
    """

    def __init__(self) -> None:
        self.waiting: deque[Comparison] = deque()
        self.results: dict[Comparison, _Result] = {}
        self._takers: Counter[Comparison] = Counter()

    def add(self, comparison: Comparison) -> None:
        if comparison not in self._takers:
            self.waiting.append(comparison)
        self._takers[comparison] += 1

    def take(self, comparison: Comparison) -> _Result:
        result = self.results[comparison]
        self._takers[comparison] -= 1
        if not self._takers[comparison]:
            del self._takers[comparison], self.results[comparison]
        return result


def _close_in(pid: int, staff: Staff) -> None:
    """Close where the pool was made: a fork of that process holds a copy of it, but the workers are not its own."""
    if os.getpid() == pid:
        staff.close()


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
        self._staff = Staff(timeout_s=timeout_s, memory_bytes=memory_bytes)
        self._is_working = False
        self._is_closed = False
        # Also at the end of an interpreter that never called close: no process outlives its pool.
        weakref.finalize(self, _close_in, os.getpid(), self._staff)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. May be called again."""
        self._is_closed = True
        self._staff.close()

    def verify_all(self, texts: Sequence[str], questions: Sequence[Question]) -> list[Verdict]:
        """Judge completions, each against its own question; verdicts come in the order of the texts.

        Raises:
            ValueError: If there are not as many questions as texts.
            EngineError: If the pool is closed or in use, or a worker cannot start.
        """
        if len(texts) != len(questions):
            raise ValueError(
                f"there are {len(texts)} texts and {len(questions)} questions, but each text needs its question. "
                "Repeat the question once per completion."
            )
        return list(self.verify_stream(zip(texts, questions, strict=True), num_in_flight=max(1, len(texts))))

    def verify_stream(self, items: Iterable[tuple[str, Question]], *, num_in_flight: int = 1024) -> Iterator[Verdict]:
        """Judge completions as they come; verdicts come in the order of the items, each as soon as it can.

        Between calls of this pool the stream must be read to its end or closed.

        Args:
            items: Texts and their questions; may be endless.
            num_in_flight: Items that are read ahead of the first one that waits for its verdict, at least 1.

        Raises:
            ValueError: If num_in_flight is below 1.
            EngineError: While reading, if the pool is closed or in use, or a worker cannot start.
        """
        if num_in_flight < 1:
            raise ValueError(f"num_in_flight is {num_in_flight}, but must be at least 1.")
        firsts = (begin(text, question) for text, question in items)
        entries = ((first, first.comparison if isinstance(first, Pending) else None) for first in firsts)
        for first, result in self._in_order(entries, num_in_flight=num_in_flight):
            if isinstance(first, Verdict):
                yield first
            else:
                assert result is not None  # what is pending was compared
                yield settle(first, result.outcome, seconds=result.seconds, rule=result.rule)

    def same_answers(self, pairs: Sequence[tuple[str, str]], questions: Sequence[Question]) -> list[bool]:
        """Whether two extracted answers to a question are equal: each is right where the other is the target.

        A pair that cannot be decided in time counts as different.

        Args:
            pairs: Answers as verdicts hold them.
            questions: The question of each pair; its target plays no part.

        Raises:
            ValueError: If there are not as many questions as pairs.
            EngineError: If the pool is closed or in use, or a worker cannot start.
        """
        if len(pairs) != len(questions):
            raise ValueError(
                f"there are {len(pairs)} pairs of answers and {len(questions)} questions, but each pair needs its "
                "question. Repeat the question once per pair."
            )
        firsts = (
            compare_answers(one, other, question) for (one, other), question in zip(pairs, questions, strict=True)
        )
        entries = ((first, first if isinstance(first, Comparison) else None) for first in firsts)
        settled = self._in_order(entries, num_in_flight=max(1, len(pairs)))
        outcomes = [first if result is None else result.outcome for first, result in settled]
        return [isinstance(outcome, Outcome) and outcome.equal for outcome in outcomes]

    def _in_order(
        self, entries: Iterable[tuple[T, Comparison | None]], *, num_in_flight: int
    ) -> Iterator[tuple[T, _Result | None]]:
        """Entries with the results of their comparisons (None where there is nothing to compare), in order."""
        if self._is_working:
            raise EngineError("the verifier pool is judging a stream, but does one job at a time. End or close it.")
        self._is_working = True
        desk = _Desk()
        window: deque[tuple[T, Comparison | None]] = deque()
        try:
            for entry in entries:
                window.append(entry)
                if entry[1] is not None:
                    desk.add(entry[1])
                self._turn(desk, waits=False)
                while window and (len(window) >= num_in_flight or window[0][1] is None or window[0][1] in desk.results):
                    yield self._first(window, desk)
            while window:
                yield self._first(window, desk)
        finally:
            # Stopped with comparisons under way: their late replies would answer the next job's questions.
            for worker in [worker for worker in self._staff.workers if worker.comparison is not None]:
                self._staff.dismiss(worker)
            self._is_working = False

    def _first(self, window: deque[tuple[T, Comparison | None]], desk: _Desk) -> tuple[T, _Result | None]:
        """The first entry in the window, once its result is there."""
        payload, comparison = window.popleft()
        if comparison is None:
            return payload, None
        while comparison not in desk.results:
            self._turn(desk, waits=True)
        return payload, desk.take(comparison)

    def _turn(self, desk: _Desk, *, waits: bool) -> None:
        """Give out work and hear what workers have to say; with `waits`, until one of them has something to say."""
        if self._is_closed:
            raise EngineError("the verifier pool is closed, but judging needs an open one. Make a new VerifierPool.")
        self._employ(desk.waiting)
        busy = [worker for worker in self._staff.workers if worker.is_busy]
        if not busy:
            return
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic()) if waits else 0.0
        speaking = wait([worker.connection for worker in busy], timeout=patience)
        for worker in busy:
            if worker.connection in speaking:
                self._hear(worker, desk)
            elif time.monotonic() >= worker.deadline:
                self._give_up(worker, "timeout", desk)
        self._employ(desk.waiting)  # at once, because the caller may take its time before the next turn

    def _employ(self, waiting: deque[Comparison]) -> None:
        """Give idle workers something to do, and hire while there is more to do than workers."""
        for worker in list(self._staff.workers):
            if waiting and not worker.is_busy:
                comparison = waiting.popleft()
                try:
                    worker.send(comparison)
                except OSError:  # it died while idle, of which the item is innocent
                    waiting.appendleft(comparison)
                    self._staff.dismiss(worker)
        num_starting = sum(worker.pid is None for worker in self._staff.workers)
        while len(self._staff.workers) < self.num_workers and num_starting < len(waiting):
            self._staff.hire()
            num_starting += 1

    def _hear(self, worker: Worker, desk: _Desk) -> None:
        try:
            reply = worker.receive()
        except (EOFError, OSError):
            self._give_up(worker, "worker_died", desk)
            return
        if worker.comparison is None:
            self._staff.welcome(worker, reply["pid"])
            return
        outcome = None if reply["outcome"] is None else Outcome(**reply["outcome"])
        desk.results[worker.comparison] = _Result(outcome, reply["rule"], reply["seconds"])
        worker.comparison = None
        if reply["retires"]:
            self._staff.dismiss(worker)

    def _give_up(self, worker: Worker, rule: str, desk: _Desk) -> None:
        """Dismiss a worker that hangs or died; the item that it held is lost, the next turn hires a replacement."""
        if worker.comparison is None and self._staff.excuse(worker):  # somebody killed or froze its parent
            return
        if worker.comparison is None:
            code = self._staff.close()
            raise EngineError(
                f"a verifier worker ended before it was ready (its parent process with code {code}), but judging needs "
                f"{self.num_workers} of them. Its own message stands above; when there is none, memory_bytes "
                f"({self._staff.memory_bytes}) may be too low to import sympy."
            )
        self._staff.dismiss(worker)
        desk.results[worker.comparison] = _Result(None, rule, time.monotonic() - worker.sent_at)
