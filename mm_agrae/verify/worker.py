"""Processes that compare forms by computer algebra, one at a time, and may be killed at any moment.

Started by the pool as `python -m mm_agrae.verify.worker FD TIMEOUT_S MEMORY_BYTES`, so that nothing of the parent's
main module is imported again. That process imports the algebra once, which takes seconds, and never computes: it forks
a worker for every socket that it receives over the socket FD, which takes milliseconds. It has one thread, so forking
is safe. A message on FD is a process id: 0 comes with the socket of a new worker, another one names a worker that the
pool has killed. When FD closes, it kills the workers that are left and ends.

A worker speaks JSON over its own socket: it says {"pid": ...}, then answers every comparison with
{"outcome": ... or null, "rule": why there is none, "seconds": ..., "retires": ...}. It ends when the socket closes.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NoReturn

from mm_agrae.verify.staff import REQUEST

_FIRST_PAIRS = (("\\sqrt{12}", "2\\sqrt{3}"), ("x^2+2x", "x(x+2)"), ("x=2", "2x=4"), ("(1,\\sqrt{2})", "(1,\\pi)"))


class _DeadlineError(BaseException):
    """The soft deadline. No `Exception`, because sympy and math-verify swallow those."""


def serve(connection: Connection, *, timeout_s: float, memory_bytes: int) -> None:
    """Answer comparisons until the other side closes, or until a comparison has left half of the memory in use.

    A worker that goes on with little memory would fail items that are innocent of it.
    """
    signal.signal(signal.SIGALRM, _raise_deadline)
    connection.send_bytes(json.dumps({"pid": os.getpid()}).encode())
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        reply = _answer(request, timeout_s=timeout_s)
        retires = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > memory_bytes / 2
        connection.send_bytes(json.dumps({**reply, "retires": retires}).encode())
        if retires:
            return


def _answer(request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Compare under the alarm. It ends what Python code can be interrupted in; the pool kills what it cannot."""
    from mm_agrae.verify.outcome import Comparison
    from mm_agrae.verify.symbolic import compare

    begun = time.perf_counter()
    outcome, rule = None, ""
    try:
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        outcome = asdict(compare(Comparison.of(request)))
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _DeadlineError:
        rule = "timeout"
    except MemoryError:
        signal.setitimer(signal.ITIMER_REAL, 0)
        rule = "memory"
    return {"outcome": outcome, "rule": rule, "seconds": time.perf_counter() - begun}


def fork_on_request(control: socket.socket, *, timeout_s: float, memory_bytes: int) -> None:
    """Fork a worker for every socket that comes in; bury those that the pool has killed."""
    workers: set[int] = set()
    try:
        while True:
            request, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 1)
            if len(request) < REQUEST.size:
                return
            if descriptors:
                workers.add(_fork(control, descriptors[0], timeout_s=timeout_s, memory_bytes=memory_bytes))
                os.close(descriptors[0])
            else:
                (pid,) = REQUEST.unpack(request)
                os.waitpid(pid, 0)
                workers.discard(pid)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)  # not waited for yet, so the id is still theirs
            os.waitpid(pid, 0)


def _fork(control: socket.socket, descriptor: int, *, timeout_s: float, memory_bytes: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        control.close()
        with suppress(OSError):  # the pool is gone
            serve(Connection(descriptor), timeout_s=timeout_s, memory_bytes=memory_bytes)
    finally:
        os._exit(0)  # whatever happened: a worker must never run on into the code of its parent


def _raise_deadline(signum: int, frame: FrameType | None) -> NoReturn:
    raise _DeadlineError


def _warm_up() -> None:
    from mm_agrae.verify.outcome import Comparison
    from mm_agrae.verify.symbolic import compare

    # The first parse builds the grammar's tables, the first simplification imports and fills caches.
    for answer, target in _FIRST_PAIRS:
        compare(Comparison(answer=answer, target=target))
    gc.collect()
    gc.freeze()  # the collector of a worker leaves what it shares with its parent alone


def _silence() -> None:
    """Start-up errors were for the user; what a grammar has to say about model text is not."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes the socket
    descriptor, timeout_s, memory_bytes = int(arguments[0]), float(arguments[1]), int(arguments[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))  # workers inherit the limits
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=descriptor) as control:
        _warm_up()
        _silence()
        fork_on_request(control, timeout_s=timeout_s, memory_bytes=memory_bytes)


if __name__ == "__main__":
    main(sys.argv[1:])
